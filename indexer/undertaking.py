"""What a replay is asked to do, how far it is, and what it comes to."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from indexer.core.outcome import Outcome, Preview
from indexer.core.ranges import Slots
from store.replays import Run


#: Signatures that are remembered as examined in this run: lists of several endpoints overlap.
REMEMBERED_MAX: Final = 100_000
#: Transactions that a report names one by one; beyond, they are only counted.
NAMED_MAX: Final = 10_000


class Strategy(StrEnum):
    """How transactions are found."""

    SIGNATURES = "signatures"
    BLOCKS = "blocks"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run has done so far.

    Attributes:
        slots: how many of them are done.
        blocks, transactions: how many were read, by the strategy of that name.
        examined: signatures that went down the road.
    """

    slots: int = 0
    blocks: int = 0
    transactions: int = 0
    examined: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))

    def note(self, previews: Sequence[Preview]) -> None:
        """Counts what was examined."""
        self.examined += len(previews)
        for each in previews:
            self.outcomes[each.outcome] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is about to do.

    Attributes:
        run: its number in the store; None of a run that is not recorded.
        from_slot: where it goes on; the first slot of a new one.
        keys: whose transactions are listed.
        references: how many are matched against blocks besides.
        calls: requests that it takes at the least.
    """

    run: int | None
    strategy: Strategy
    slots: Slots
    from_slot: int
    keys: tuple[str, ...]
    references: int
    calls: int


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to.

    Attributes:
        run: its number in the store; None of a run that is not recorded.
        resumed: it went on from where an earlier one had stopped.
        done_to: everything up to this slot is stored; None: slots do not tell.
        named: the transactions, by slot; the first `NAMED_MAX` of them.
        coverage: key -> slots that are covered now, by this run.
        frontiers: key -> the slot up to which it is complete after this run.
    """

    run: int | None
    strategy: Strategy
    slots: Slots
    keys: tuple[str, ...]
    dry_run: bool
    resumed: bool = False
    done_to: int | None = None
    tally: Tally = field(default_factory=Tally)
    named: list[Preview] = field(default_factory=list)
    coverage: dict[str, Slots] = field(default_factory=dict)
    frontiers: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Nothing is left that could not be read."""
        return not self.tally.outcomes[Outcome.UNREADABLE]


@dataclass(slots=True, kw_only=True)
class Work:
    """A run under way.

    Attributes:
        started_at: unix seconds; payments made later may not have been looked for.
        foreign: the keys among `report.keys` that are references made elsewhere.
        from_slot: where blocks begin.
        keys_done: how many of the keys are done, in order.
        left_to: of the next key, everything after this slot is stored.
    """

    report: Report
    started_at: int
    foreign: Collection[str] = ()
    from_slot: int = -1
    keys_done: int = 0
    left_to: int = -1
    seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.from_slot, self.left_to = self.report.slots.first, self.report.slots.last

    def go_on(self, run: Run) -> None:
        """Takes over what an earlier run had done."""
        if run.done_to is not None:
            self.from_slot, self.report.done_to = run.done_to + 1, run.done_to
        self.keys_done = run.report.get("keys_done", 0)
        self.left_to = run.report.get("left_to", self.left_to)
        self.report.tally = Tally(**run.report.get("tally", {}))

    def noted(self) -> dict[str, object]:
        """What `go_on` needs."""
        tally = self.report.tally
        return {
            "keys_done": self.keys_done,
            "left_to": self.left_to,
            "tally": {name: getattr(tally, name) for name in Tally.__slots__},
        }

    def is_new(self, signature: str) -> bool:
        """Whether it is asked about for the first time."""
        if signature in self.seen:
            return False
        self.seen[signature] = None
        if len(self.seen) > REMEMBERED_MAX:
            self.seen.popitem(last=False)
        return True

    def note(self, previews: Sequence[Preview]) -> None:
        """Counts them, and keeps some to be shown."""
        self.report.tally.note(previews)
        room = NAMED_MAX - len(self.report.named)
        self.report.named += previews[:room]

    def order(self) -> None:
        """Puts what is named into the order of the chain."""
        self.report.named.sort(key=lambda each: (each.slot or 0, each.signature))
