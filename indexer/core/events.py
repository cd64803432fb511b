"""The facts that are published: one for every change of a payment, never more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indexer.core.types import EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about one payment, at one version of it.

    Attributes:
        version: the payment's version that this event belongs to.
        ordinal: tells apart the events of one version, from 0.
        created_at: unix seconds, when the store learned of it.
        data: what subscribers receive, ready for JSON; carries the whole public state, so that
            one event alone is enough to draw the payment.
    """

    type: EventType
    payment_id: str
    version: int
    ordinal: int
    created_at: int
    data: Mapping[str, Any]
