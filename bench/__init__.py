"""Measurements behind decisions: `python -m bench`. Compare only what one run printed."""
