"""When the acquirer is asked about a payment by card, whether or not a callback came.

How often callbacks are sent again is told nowhere, and abandoned pages cause none: so every
payment is asked about soon after it was made, when it may expire, and then daily for some days,
because charges may be voided and refunded later on.
"""

from typing import Final

from indexer.core.payment import Offer
from indexer.core.types import Status


#: Seconds after creation.
EARLY_S: Final = (60, 180, 600, 1_800)
#: Seconds after the deadline: what was begun in time is known by then.
AT_EXPIRY_S: Final = 30
DAILY_S: Final = 86_400
#: Days after the deadline; longer where late money counts for longer.
DAYS: Final = 3

#: A payment that stays open is asked about for as long as it does: something is under way.
_OPEN: Final = frozenset({Status.PENDING, Status.PROCESSING})


def first_check_at(terms: Offer) -> int:
    """When a new payment is asked about for the first time. Unix seconds."""
    return min(terms.created_at + EARLY_S[0], terms.expires_at + AT_EXPIRY_S)


def next_check_at(terms: Offer, status: Status, now: int) -> int | None:
    """When a payment that was asked about now is asked about again; None: never.

    Args:
        terms: of the payment.
        status: as it is after the answer.
        now: unix seconds.
    """
    end = terms.expires_at + max(DAYS * DAILY_S, terms.grace_s) + AT_EXPIRY_S
    at_expiry = terms.expires_at + AT_EXPIRY_S
    days = max(0, now - at_expiry) // DAILY_S + 1
    planned = (*(terms.created_at + s for s in EARLY_S), at_expiry, at_expiry + days * DAILY_S)
    following = min(at for at in planned if at > now)
    return following if following <= end or status in _OPEN else None
