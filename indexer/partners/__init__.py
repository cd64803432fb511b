"""Calls to partners on behalf of frontends: allow-listed, cached, merged, and bounded."""
