"""The simulator finds every planted fault, and nothing where there is none."""

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.judge import judge
from tests.simulation.loop import Stuck
from tests.simulation.planting import Edit, Fault, planted
from tests.simulation.world import World


#: Seeds in which a fault must be found.
SEEDS_MAX = 200


def objections_to(fault: Fault, seed: int) -> list[str] | None:
    """What is wrong with the world of that seed; None when it cannot show the fault."""
    profile = fault.world(World(seed).profile)
    if profile is None:
        return None
    try:
        return judge(World(seed, profile).run())
    except Stuck as error:
        return [str(error)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found(fault: Fault) -> None:
    with planted(fault):
        tries = ((seed, objections_to(fault, seed)) for seed in range(SEEDS_MAX))
        seed, objections = next(((s, o) for s, o in tries if o), (None, None))
    assert seed is not None and objections, f"{fault.name}: not found in {SEEDS_MAX} seeds"  # noqa: PT018 - one fact

    print(f"{fault.name}: seed {seed}: {objections[0]}")  # noqa: T201 - shown with -s, and when the next line fails
    assert objections_to(fault, seed) == []


def test_there_are_enough_faults() -> None:
    assert len(FAULTS) >= 14
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def greet(name: str) -> str:
    return f"hello, {name}"


def test_a_fault_is_there_until_the_end_of_the_block() -> None:
    fault = Fault(name="rude", edits=[Edit(where=greet, old="hello", new="go away")])
    with planted(fault):
        assert greet("you") == "go away, you"

    assert greet("you") == "hello, you"


def test_words_that_are_not_there_cannot_be_replaced() -> None:
    fault = Fault(name="rude", edits=[Edit(where=greet, old="good morning", new="go away")])

    with pytest.raises(AssertionError, match="rude: 'good morning' stands 0 times"), planted(fault):
        pass
