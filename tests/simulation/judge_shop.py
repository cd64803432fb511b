"""The judge of worlds of cards: which rules there are."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.simulation import (
    judge,
    judge_cards as cards,
    judge_deliveries as deliveries,
    judge_history as history,
)
from tests.simulation.judge_cards import CardCase
from tests.simulation.outcome import Outcome


ShopRule = Callable[[CardCase], Iterator[str]]


def judge_shop(outcome: Outcome) -> list[str]:
    """What is wrong with the outcome of a shop, in sentences."""
    case = CardCase(outcome)
    return [objection for rule in SHOP_RULES for objection in rule(case)]


#: Every rule, the ones that say most of what went wrong first.
SHOP_RULES: Final[Sequence[ShopRule]] = (
    judge.nothing_died,
    cards.every_payment_is_there,
    cards.charges_are_true,
    cards.charges_never_go_back,
    cards.states_are_true,
    cards.nothing_settles_unpaid,
    cards.expiry_waits_for_an_answer,
    cards.steps_are_legal,
    history.versions_are_complete,
    history.the_log_is_gapless,
    history.every_change_has_its_event,
    history.events_tell_the_state,
    *deliveries.SAFETY,
    *deliveries.IN_THE_END,
    cards.nothing_is_left_to_ask,
)
