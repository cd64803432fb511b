"""What a load came to, in numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from rich.table import Table

from tests.cluster.books import Receipts
from tests.cluster.chain import Times
from tests.cluster.crowd import AMOUNT, Order
from tests.cluster.trouble import Death


#: Of a death, for so long after it everything is looked at; until the next one at most.
_WINDOW_S: Final = 12.0
_MIB: Final = 1024 * 1024


@dataclass(slots=True)
class Settled:
    """When the shop heard that payments settled; loop time by payment id."""

    at: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """One payment's: seconds from its last transfer's confirmation, and from finality, to news.

    Attributes:
        final_at: loop time at which the transfer that paid it was final.
    """

    final_at: float
    from_confirmed_s: float
    from_final_s: float


def delays(
    orders: Sequence[Order], receipts: Receipts, times: Times, settled: Settled
) -> list[Delay]:
    """Of each payment that settled and whose slot was seen."""
    found = []
    for order in orders:
        heard_at = settled.at.get(order.id)
        slot = _slot_paid(receipts[order.reference].values())
        if heard_at is None or slot is None:
            continue
        confirmed_at, final_at = times.of(slot, "confirmed"), times.of(slot, "finalized")
        if confirmed_at is not None and final_at is not None:
            found.append(
                Delay(
                    final_at=final_at,
                    from_confirmed_s=heard_at - confirmed_at,
                    from_final_s=heard_at - final_at,
                )
            )
    return found


def _slot_paid(got: Iterable[tuple[int, int]]) -> int | None:
    """The slot in which all of it had come; None: it never had."""
    total = 0
    for slot, lamports in sorted(got):
        total += lamports
        if total >= AMOUNT:
            return slot
    return None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies; nan of none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def delay_table(found: Sequence[Delay]) -> Table:
    """Of all payments."""
    table = _table("from … until the shop's stream says settled", "p50", "p90", "p99", "most")
    for name, values in (
        ("confirmed", [each.from_confirmed_s for each in found]),
        ("finalized", [each.from_final_s for each in found]),
    ):
        shown = [quantile(values, share) for share in (0.5, 0.9, 0.99, 1.0)]
        table.add_row(name, *(f"{value:.2f} s" for value in shown))
    return table


def death_table(deaths: Sequence[Death], found: Sequence[Delay], heard: Sequence[float]) -> Table:
    """What became of the whole when one part died.

    Args:
        deaths: in order.
        found: delays of all payments.
        heard: loop times at which payments settled.
    """
    table = _table("killed", "dead for", "until it ran", "no payment settled for", "slowest")
    for turn, death in enumerate(deaths):
        until = death.killed_at + _WINDOW_S
        if turn + 1 < len(deaths):
            until = min(until, deaths[turn + 1].killed_at)
        slow = [each.from_final_s for each in found if death.killed_at <= each.final_at < until]
        up_s = math.nan if death.up_at is None else death.up_at - death.started_at
        table.add_row(
            death.name,
            f"{death.started_at - death.killed_at:.1f} s",
            f"{up_s:.1f} s",
            f"{_silence(heard, death.killed_at, until):.1f} s",
            f"{max(slow, default=math.nan):.1f} s",
        )
    return table


def usage_table(
    names: Sequence[str], cpu_s: Sequence[float], rss_bytes: Sequence[int], elapsed_s: float
) -> Table:
    """What each process took."""
    table = _table("process", "share of a core", "memory at most")
    for name, cpu, rss in zip(names, cpu_s, rss_bytes, strict=True):
        table.add_row(name, f"{cpu / elapsed_s:.0%}", f"{rss / _MIB:.0f} MiB")
    return table


def _silence(heard: Sequence[float], since: float, until: float) -> float:
    """The longest time between two payments that settled."""
    edges = [since, *sorted(at for at in heard if since < at < until), until]
    return max((b - a for a, b in pairwise(edges)), default=0.0)


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table
