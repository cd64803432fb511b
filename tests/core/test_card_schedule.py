"""When the acquirer is asked: soon after creation, at the deadline, then daily for some days."""

from typing import Any

import pytest

from indexer.core.card_schedule import (
    AT_EXPIRY_S,
    DAILY_S,
    DAYS,
    first_check_at,
    next_check_at,
)
from indexer.core.types import Status
from tests.builders import NOW
from tests.cards import make_card_payment


def asked(status: Status = Status.SETTLED, **terms: Any) -> list[int]:
    """Seconds after creation at which a payment is asked about, each answered at once."""
    offer = make_card_payment(**terms).terms
    at: int | None = first_check_at(offer)
    times: list[int] = []
    while at is not None and len(times) < 40:
        times.append(at - NOW)
        at = next_check_at(offer, status, at)
    return times


def test_a_payment_of_a_quarter_of_an_hour() -> None:
    expiry = 900 + AT_EXPIRY_S

    assert asked() == [60, 180, 600, expiry, 1_800, *(expiry + n * DAILY_S for n in (1, 2, 3))]


def test_one_that_ends_at_once_is_asked_about_then() -> None:
    assert asked(expires_in_s=1)[:2] == [1 + AT_EXPIRY_S, 60]


def test_one_of_a_week_is_asked_about_early_and_at_its_end() -> None:
    week = 7 * DAILY_S
    times = asked(expires_in_s=week)

    assert times[:5] == [60, 180, 600, 1_800, week + AT_EXPIRY_S]
    assert times[-1] == week + AT_EXPIRY_S + DAYS * DAILY_S


def test_as_long_as_late_money_counts_it_is_asked_for() -> None:
    assert len(asked(grace_s=10 * DAILY_S)) == len(asked()) + 7


@pytest.mark.parametrize("status", [Status.PENDING, Status.PROCESSING])
def test_what_stays_open_is_asked_about_for_as_long_as_it_does(status: Status) -> None:
    assert len(asked(status)) == 40


@pytest.mark.parametrize("late_s", [0, 1, 119, 5_000, 10**6, 10**9])
def test_an_answer_that_came_late_makes_the_next_one_come_later_still(late_s: int) -> None:
    offer = make_card_payment().terms
    now = NOW + 60 + late_s

    following = next_check_at(offer, Status.PENDING, now)

    assert following is not None
    assert now < following <= now + DAILY_S + AT_EXPIRY_S


def test_days_missed_are_not_made_up_for() -> None:
    offer = make_card_payment().terms

    assert next_check_at(offer, Status.SETTLED, offer.expires_at + 9 * DAILY_S) is None
