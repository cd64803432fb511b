"""Whether the events of one payment tell its life, whole and in order.

Every change of a payment has a version, and what it published carries the public state of that
version. So the log can be read like a diary: between two entries, `events.of_change` says what
must have been written; after the last one, nothing may have happened that should have been.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any, Final

from indexer.core.events import of_change, public_state
from indexer.core.payment import AnyPayment, State
from indexer.core.reckoning import Difference
from indexer.core.settle import TRANSITIONS
from indexer.core.types import EventType, Paid, Status


#: A payment in one of these may change without a word: more money than was asked for, say.
_MAY_BE_SILENT: Final = frozenset({Status.SETTLED, Status.REFUNDED, Status.FAILED})

#: What of a public state may differ between an event and the payment as it is now.
_CHANGING: Final = frozenset(
    {
        "status", "paid", "late", "review", "received", "received_base_units", "settled_at",
        "version",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event as it is stored.

    Attributes:
        data: its JSON, decoded.
    """

    seq: int
    type: str
    version: int
    ordinal: int
    data: Any


@dataclass(frozen=True, slots=True)
class _Page:
    """All events of one version."""

    payment: AnyPayment
    types: tuple[str, ...]
    seq: int


def differing_log(
    payment: AnyPayment, entries: Sequence[Entry], *, decided: bool = False
) -> Iterator[Difference]:
    """Where the events of a payment, by their number, do not add up to what it is now.

    Args:
        payment: as it is stored.
        entries: its events, ascending by `seq`.
        decided: a person decided something about it, or money went back to a card, which may
            change it without a word.
    """
    id_ = payment.terms.id
    if not entries:
        yield Difference(payment_id=id_, what="event", chain=str(EventType.CREATED))
        return
    try:
        pages = list(_pages(payment, entries))
    except (KeyError, TypeError, ValueError, AttributeError):
        shown = public_state(payment)
        yield Difference(
            payment_id=id_, what="event.data", stored="unreadable", chain=sorted(shown)
        )
        return
    yield from _order(id_, entries)
    yield from _terms(payment, entries)
    if pages[0].types != (EventType.CREATED,) or pages[0].payment.version != 1:
        yield _difference(id_, pages[0], chain=[EventType.CREATED])
    for before, after in pairwise(pages):
        yield from _between(id_, before, after, decided=decided)
    yield from _end(payment, pages[-1], decided=decided)


def _pages(payment: AnyPayment, entries: Sequence[Entry]) -> Iterator[_Page]:
    for version, group in groupby(entries, key=lambda entry: entry.version):
        events = list(group)
        shown = _as_shown(payment, events[0].data["payment"])
        if any(event.data["payment"] != events[0].data["payment"] for event in events):
            raise ValueError("one version has two faces")
        if shown.version != version:
            raise ValueError("an event tells of another version than its own")
        yield _Page(shown, tuple(event.type for event in events), events[0].seq)


def _as_shown(payment: AnyPayment, shown: Mapping[str, Any]) -> AnyPayment:
    """The payment in the state that an event shows."""
    settled_at = shown["settled_at"]
    state = State(
        status=Status(shown["status"]),
        paid=Paid(shown["paid"]),
        late=bool(shown["late"]),
        review=tuple(shown["review"]),
        received=int(shown["received_base_units"]),
        settled_at=None
        if settled_at is None
        else int(datetime.fromisoformat(settled_at).timestamp()),
        canceled_at=payment.state.canceled_at,
    )
    return replace(payment, state=state, version=int(shown["version"]))


def _order(id_: str, entries: Sequence[Entry]) -> Iterator[Difference]:
    """Versions ascend; the events of one version are numbered from 0."""
    before = (0, 0)
    for entry in entries:
        here = (entry.version, entry.ordinal)
        follows = (before[0], before[1] + 1)
        if here != follows and not (entry.version > before[0] and entry.ordinal == 0):
            yield Difference(
                payment_id=id_,
                what="event.version",
                where=str(entry.seq),
                stored=f"version {here[0]}, event {here[1]} after {before[0]}, {before[1]}",
                chain=f"version {follows[0]}, event {follows[1]}, or a later version",
            )
        before = here


def _terms(payment: AnyPayment, entries: Sequence[Entry]) -> Iterator[Difference]:
    """What was asked for never changes, neither in the row nor in what was published."""
    now = public_state(payment)
    fixed = [name for name in now if name not in _CHANGING]
    for name in fixed:
        for entry in entries:
            if (published := entry.data["payment"].get(name)) != now[name]:
                yield Difference(
                    payment_id=payment.terms.id,
                    what=f"payment.{name}",
                    where=f"event {entry.seq}",
                    stored=now[name],
                    chain=published,
                )
                break


def _between(id_: str, before: _Page, after: _Page, *, decided: bool) -> Iterator[Difference]:
    """A change published what it had to, once, and was one that may be."""
    status, becomes = before.payment.state.status, after.payment.state.status
    if becomes is not status and becomes not in TRANSITIONS[status]:
        yield _difference(id_, after, chain=f"nothing that follows {status}")
        return
    is_next = after.payment.version == before.payment.version + 1
    if not is_next and not decided and status not in _MAY_BE_SILENT:
        missing = f"an event of version {before.payment.version + 1}"
        yield Difference(payment_id=id_, what="event", where=f"after {before.seq}", chain=missing)
        return
    expected = tuple(event.type for event in of_change(before.payment, after.payment, 0))
    if expected != after.types and (is_next or becomes is not status):
        yield _difference(id_, after, chain=list(expected))


def _end(payment: AnyPayment, last: _Page, *, decided: bool) -> Iterator[Difference]:
    """The row is what the last event says, or changed since in a way that publishes nothing."""
    id_, now = payment.terms.id, public_state(payment)
    told = public_state(last.payment)
    if last.payment.version == payment.version:
        for name in sorted(_CHANGING):
            if told[name] != now[name]:
                yield Difference(
                    payment_id=id_,
                    what=f"payment.{name}",
                    where=f"event {last.seq}",
                    stored=now[name],
                    chain=told[name],
                )
        return
    missing = [event.type for event in of_change(last.payment, payment, 0)]
    is_silent = decided or last.payment.state.status in _MAY_BE_SILENT
    is_same = all(told[name] == now[name] for name in _CHANGING - {"version"})
    if missing or is_same or not is_silent or payment.version < last.payment.version:
        yield Difference(
            payment_id=id_,
            what="event",
            where=f"after {last.seq}",
            stored=f"version {payment.version} of the payment",
            chain=missing or f"version {last.payment.version}",
        )


def _difference(id_: str, page: _Page, *, chain: Any) -> Difference:
    return Difference(
        payment_id=id_, what="event.type", where=str(page.seq), stored=list(page.types), chain=chain
    )
