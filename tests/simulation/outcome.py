"""What is left when a simulated world has ended: what was true, and what the daemon made of it.

The judge reads nothing else. Times that end in `at_s` are virtual seconds since the beginning of
the world; `block_time` and everything inside `Terms` and rows are unix seconds.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from indexer.core.payment import Offer, Terms
from indexer.core.types import ChargeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One transfer as the wallet meant it.

    Attributes:
        source: the account that is debited: a wallet (SOL) or a token account.
        destination: the account that is credited: a wallet (SOL) or a token account.
        owner: the wallet that `destination` belongs to; the same as `destination` for SOL.
        mint: None for native SOL.
        amount: base units.
        references: the extra keys of this instruction's own account list, in its order: what
            the wallet did not drop of the payment's reference and the watch key.
    """

    source: str
    destination: str
    owner: str
    mint: str | None
    amount: int
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A transaction as it stands in a block.

    Attributes:
        index: position in the block.
        failed: `meta.err` is set: no leg moved anything.
        keys: all account keys of the transaction.
        finalized_at_s: when the cluster finalized its slot; None for one that a fork dropped,
            and for one that was not final yet when the world ended.
    """

    signature: str
    slot: int
    index: int
    block_time: int
    failed: bool
    keys: tuple[str, ...]
    legs: tuple[Leg, ...]
    finalized_at_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A payment as the merchant asked for it.

    Attributes:
        stored_at_s: when the store had it for certain, at the latest.
        canceled_at: unix seconds of a cancellation that the store accepted; None: none.
    """

    terms: Terms
    stored_at_s: float
    canceled_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A frontier that was moved, and what was stored in the instant after that commit.

    Attributes:
        finalized_slot: the cluster's true finalized slot in that instant.
        judged: (signature, payment id) of every verdict.
        parked: signatures of the dead letters.
        payment_ids: the payments that existed.
    """

    at_s: float
    process: int
    key: str
    slot: int
    block_time: int
    finalized_slot: int
    judged: frozenset[tuple[str, str]]
    parked: frozenset[str]
    payment_ids: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A payment's row as it was in the instant after a commit that wrote it."""

    at_s: float
    process: int
    payment_id: str
    version: int
    status: str
    paid: str
    received: int
    late: bool
    review: tuple[str, ...]
    settled_at: int | None
    finalized_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A daemon that ended by itself: of an exception, or of a task that returned."""

    at_s: float
    process: int
    problem: str
    traceback: str


@dataclass(slots=True, kw_only=True)
class Told:
    """A webhook that a provider sent, as often as it wanted to.

    Attributes:
        dedupe_key: of its bytes.
        signatures: that it names.
        is_true: it says of each of them what the chain said when it was confirmed.
        tried: how often it reached a door that may have stored it.
        accepted: how often the door said that it had.
    """

    dedupe_key: str
    signatures: tuple[str, ...]
    is_true: bool
    tried: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """A webhook that came to an end, and what was stored in the instant after that commit.

    Attributes:
        received_at_s: when it was first stored.
        judged: (signature, payment id) of every verdict.
        sighted: (signature, payment id) of every sighting.
        statuses: payment id -> status.
    """

    at_s: float
    process: int
    dedupe_key: str
    verdict: str
    received_at_s: float
    judged: frozenset[tuple[str, str]]
    sighted: frozenset[tuple[str, str]]
    statuses: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class Order:
    """An order; `charges` are the numbers of those on it, the oldest first."""

    id: int
    reference: str
    amount: int
    charges: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class TrueCharge:
    """What truly became of a charge.

    Attributes:
        state: `pending`, `declined` or `paid`, and never anything else again after the last two.
        paid_at, visible_at: unix seconds.
    """

    id: int
    order_id: int
    amount: int
    made_at: str
    visible_at: float
    state: str = "pending"
    paid_at: float | None = None
    refunded: int = 0
    is_voided: bool = False

    @property
    def shown_state(self) -> ChargeState:
        """What everybody who knows all about it calls it."""
        if self.is_voided:
            return ChargeState.VOIDED
        if self.state == "paid" and self.refunded == self.amount:
            return ChargeState.REFUNDED
        return ChargeState(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A charge's row as it was in the instant after a commit that wrote it."""

    id: int
    state: str
    refunded: int
    paid_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """What was true about payments by card. Times are unix seconds.

    Attributes:
        asked: terms of the payments that were stored, in the order of their creation.
        page: payment id -> number of the order that its customer could pay.
        orders: every order that was made, by number.
        charges: every charge, by number.
        taken_in: numbers of charges of which a door took in a true callback that says by itself
            where they stand.
        answered: (number of an order, when it was asked about) of each answered inquiry.
        learned: every stored version of every charge, in order of commit.
        paid: (payment id, version) -> what had truly been paid when that version was stored.
    """

    asked: Sequence[Offer]
    page: Mapping[str, int]
    orders: Mapping[int, Order]
    charges: Mapping[int, TrueCharge]
    taken_in: frozenset[int]
    answered: Sequence[tuple[int, float]]
    learned: Sequence[Learned]
    paid: Mapping[tuple[str, int], int]


@dataclass(slots=True, kw_only=True)
class Post:
    """A webhook that was sent to a receiver. Times are unix seconds.

    Attributes:
        at: when it was sent.
        received_at: when it was received; None: it never was.
        status: what was answered; None: nothing that arrived.
    """

    at: float
    process: int
    headers: Mapping[str, str]
    body: bytes
    received_at: float | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A receiver's state as it was stored at some moment.

    Attributes:
        at: unix seconds.
        last_seq: of the newest event that was there before.
    """

    at: float
    last_seq: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What became of one receiver.

    Attributes:
        id: as in the store.
        event_types: what it was registered for; empty: everything.
        posts: everything that was sent to it, in order.
        turns: every change of its state, the first one when it was registered.
        secrets: (unix seconds, secret): which one it verifies with from when on.
        asked_again: its merchant had all sent that was missed.
        is_away_for_good: it never came back.
    """

    id: str
    event_types: Sequence[str]
    posts: Sequence[Post]
    turns: Sequence[Turn]
    secrets: Sequence[tuple[float, str]]
    asked_again: bool
    is_away_for_good: bool


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Everything about one run of one seed.

    Attributes:
        seed: makes the same world again.
        profile: which troubles this world had (name -> value), for people and for exemptions.
        watch_key: the deployment's.
        retired_keys: those that were retired while customers bought.
        quorum: how many endpoints must agree.
        finalized: every transaction on the finalized chain, failed ones included, by
            (slot, index); each signature once, where it finally landed.
        dropped: what was confirmed once and then lost with a fork. A signature that landed
            again elsewhere is in both lists.
        invented: signatures that only a lying node knows.
        listed_late: signatures that some node left out of its lists for a while after it knew them;
            whoever believed it could not know better.
        payments: in the order of their creation.
        rows: table -> its rows as dicts, in a fixed order (events by seq); every table but
            `schema_migrations`.
        moves: every movement of a frontier, in order, over all crashes.
        changes: every stored version of every payment, in order of commit.
        told: every webhook of the provider, in the order of the first try.
        handled: every end of one, in order of commit.
        reached: every receiver of webhooks.
        sold: what was true about cards, in a world that has them.
        deaths: daemons that ended by themselves; there should be none.
        crashes: when a daemon was killed, and where ("write 12, after").
        finalized_slot, finalized_time: the cluster's last finalized slot and its block time.
        ended_at_s: virtual time at the end.
        is_quiet: the quiet period ended because nothing was left to do, not because it had
            lasted long enough.
        trace: what happened, in order: "   12.345 node1 getSlot 429".
        cpu_s: what it cost; not part of the digest.
    """

    seed: int
    profile: Mapping[str, Any]
    watch_key: str
    quorum: int
    finalized: Sequence[Landed] = ()
    dropped: Sequence[Landed] = ()
    invented: Sequence[str] = ()
    listed_late: frozenset[str] = frozenset()
    payments: Sequence[Asked] = ()
    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    moves: Sequence[Move] = ()
    changes: Sequence[Change] = ()
    told: Sequence[Told] = ()
    handled: Sequence[Handled] = ()
    retired_keys: Sequence[str] = ()
    reached: Sequence[Reached] = ()
    sold: Sold | None = None
    deaths: Sequence[Death] = ()
    crashes: Sequence[tuple[float, str]] = ()
    finalized_slot: int = 0
    finalized_time: int = 0
    ended_at_s: float = 0.0
    is_quiet: bool = False
    trace: Sequence[str] = ()
    cpu_s: float = 0.0

    @property
    def events(self) -> Sequence[Mapping[str, Any]]:
        """The event log, by seq."""
        return self.rows["events"]

    @property
    def digest(self) -> str:
        """SHA-256 of all rows and the trace: equal for two runs of one seed."""
        text = repr([(table, list(map(dict, rows))) for table, rows in self.rows.items()])
        return hashlib.sha256("\n".join([text, *self.trace]).encode()).hexdigest()
