"""The simulator finds every planted fault, and nothing where there is none."""

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.faults_webhooks import INBOX_FAULTS, SHOP_FAULTS
from tests.simulation.judge import judge
from tests.simulation.judge_shop import judge_shop
from tests.simulation.loop import Stuck
from tests.simulation.planting import Edit, Fault, found, planted
from tests.simulation.shop import Shop
from tests.simulation.world import World


#: Seeds in which a fault must be found.
SEEDS_MAX = 200


IN_WORLDS = (*FAULTS, *INBOX_FAULTS)


def objections_to(fault: Fault, seed: int) -> list[str] | None:
    """What is wrong with the world of that seed; None when it cannot show the fault."""
    if fault in SHOP_FAULTS:
        return objections_to_shop(fault, seed)
    profile = fault.world(World(seed).profile)
    if profile is None:
        return None
    try:
        return judge(World(seed, profile).run())
    except Stuck as error:
        return [str(error)]


def objections_to_shop(fault: Fault, seed: int) -> list[str] | None:
    """The same of a shop."""
    trade = fault.world(Shop(seed).trade)
    if trade is None:
        return None
    try:
        return judge_shop(Shop(seed, trade).run())
    except Stuck as error:
        return [str(error)]


@pytest.mark.parametrize("fault", [*IN_WORLDS, *SHOP_FAULTS], ids=lambda fault: fault.name)
def test_a_fault_is_found(fault: Fault) -> None:
    found(fault, objections_to, SEEDS_MAX)


def test_there_are_enough_faults() -> None:
    assert len(FAULTS) >= 14
    assert len(INBOX_FAULTS) + len(SHOP_FAULTS) >= 14
    faults = (*IN_WORLDS, *SHOP_FAULTS)
    assert len({fault.name for fault in faults}) == len(faults)


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
