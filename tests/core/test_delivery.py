"""When a webhook is tried again, and what stands in it."""

import json

import msgspec
import pytest

from indexer.core.delivery import (
    ATTEMPTS_MAX,
    GIVE_UP_AFTER_S,
    JITTER,
    next_try_at,
    payload,
    test_payload as payload_of_test,
)
from indexer.core.texts import (
    LABEL_CHARS_MAX,
    MEMO_BYTES_MAX,
    MESSAGE_CHARS_MAX,
    ORDER_ID_CHARS_MAX,
)
from indexer.core.types import Reason
from tests.builders import NOW, make_event, make_payment


HOUR_S = 3_600
BODY_BYTES_MAX = 20_000
SCHEDULE_S = (0, 5, 300, 1_800, *(hours * HOUR_S for hours in (2, 5, 10, 14, 20, 24)))


def pauses(draw: float = 0.0) -> list[int]:
    """Seconds from each failed attempt to the next."""
    at = [next_try_at(attempts, NOW, draw, None) for attempts in range(1, ATTEMPTS_MAX)]
    return [each - NOW for each in at if each is not None]


def test_pauses_are_those_of_the_standard() -> None:
    assert (0, *pauses()) == SCHEDULE_S


def test_after_the_last_attempt_there_is_none() -> None:
    assert len(SCHEDULE_S) == ATTEMPTS_MAX
    for attempts in (ATTEMPTS_MAX, ATTEMPTS_MAX + 1):
        assert next_try_at(attempts, NOW, 0.0, 30.0) is None


def test_chance_makes_pauses_longer_never_shorter() -> None:
    assert JITTER > 0
    for least, middle, most in zip(pauses(), pauses(0.5), pauses(1.0), strict=True):
        assert least <= middle <= most == round(least * (1 + JITTER))
    assert pauses(0.5) != pauses()


@pytest.mark.parametrize(
    ("asked_s", "pause_s"),
    [(None, 300), (0.0, 300), (299.0, 300), (301.0, 301), (86_400.0, 86_400)],
)
def test_a_receiver_may_ask_for_more_time_but_not_to_be_called_sooner(
    asked_s: float | None, pause_s: int
) -> None:
    assert next_try_at(2, NOW, 0.0, asked_s) == NOW + pause_s


def test_nothing_is_given_up_before_its_last_attempt_was_due() -> None:
    assert sum(pauses(1.0)) < GIVE_UP_AFTER_S < sum(pauses(1.0)) + 2 * HOUR_S


# ------------------------------------------------------------------------------------ payload


def test_a_payload_is_the_event_as_the_stream_has_it_and_the_order_id() -> None:
    event = make_event(make_payment(memo="a memo"))
    data = msgspec.json.encode(event.data).decode()

    told = json.loads(payload("payment.settled", NOW, data, "order 7"))

    assert told == {
        "type": "payment.settled",
        "timestamp": "2026-11-22T20:00:00Z",
        "data": {**json.loads(data), "order_id": "order 7"},
    }


def test_an_order_id_that_is_not_there_is_null() -> None:
    assert json.loads(payload("payment.created", NOW, "{}", None))["data"] == {"order_id": None}


def test_amounts_are_not_touched() -> None:
    data = '{"payment":{"amount_base_units":"18446744073709551615","version":9007199254740993}}'

    assert data[1:-1].encode() in payload("payment.created", NOW, data, None)


def test_the_largest_payment_there_can_be_stays_below_the_limit_of_the_standard() -> None:
    """Texts are bounded in characters, of which UTF-8 may make four bytes each."""
    order_id = "\U0001f600" * ORDER_ID_CHARS_MAX
    payment = make_payment(
        label="\U0001f600" * LABEL_CHARS_MAX,
        message="\U0001f600" * MESSAGE_CHARS_MAX,
        memo='"' * MEMO_BYTES_MAX,
        order_id=order_id,
        state={"review": tuple(Reason)},
        amount=2**64 - 1,
    )
    data = msgspec.json.encode(make_event(payment, signature="5" * 88).data).decode()

    assert len(payload("payment.settled", NOW, data, order_id)) < BODY_BYTES_MAX


def test_a_test_says_that_it_is_one() -> None:
    assert json.loads(payload_of_test(NOW)) == {
        "type": "webhook.test",
        "timestamp": "2026-11-22T20:00:00Z",
        "data": {},
    }
