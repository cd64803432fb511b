"""When a webhook is tried again, and what stands in it.

The schedule gives a receiver three days to come back: 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h,
14 h, 20 h and 24 h, each after the one before. Source: Standard Webhooks 1.0.0, "Retries".
"""

from typing import Any, Final

import msgspec

from indexer.core.events import format_time


#: Seconds from a failed attempt to the next one.
DELAYS_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
ATTEMPTS_MAX: Final = len(DELAYS_S) + 1
#: A pause is made longer by up to this share of it, so that what failed together does not come
#: back together.
JITTER: Final = 0.1
#: After so many seconds nothing is tried any more: the whole schedule, jitter, and an hour.
GIVE_UP_AFTER_S: Final = int(sum(DELAYS_S) * (1 + JITTER)) + 3_600

TEST_TYPE: Final = "webhook.test"


def next_try_at(attempts: int, now: int, draw: float, retry_after_s: float | None) -> int | None:
    """When to try again, unix seconds; None: never.

    Args:
        attempts: that failed, the last one included.
        now: unix seconds.
        draw: 0 … 1, at random.
        retry_after_s: what the receiver asked for; it may make a pause longer, never shorter.
    """
    if attempts >= ATTEMPTS_MAX:
        return None
    delay_s = DELAYS_S[attempts - 1] * (1 + JITTER * draw)
    return now + round(max(delay_s, retry_after_s or 0))


def payload(type_: str, created_at: int, data: str, order_id: str | None) -> bytes:
    """The body of an event's webhook.

    Args:
        type_: of the event.
        created_at: unix seconds, when it happened.
        data: JSON text, as the event log has it.
        order_id: the merchant's own number, which the event log does not have.
    """
    told: dict[str, Any] = msgspec.json.decode(data)
    told["order_id"] = order_id
    return _body(type_, created_at, told)


def test_payload(created_at: int) -> bytes:
    """The body of a webhook that is about nothing."""
    return _body(TEST_TYPE, created_at, {})


def _body(type_: str, created_at: int, data: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": type_, "timestamp": format_time(created_at), "data": data})
