"""What one finalized transaction means for one payment, with the numbers that say why.

Beside it stand what is not final yet, and what a person said of it.
"""

from dataclasses import dataclass

from indexer.core.types import DecisionKind, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedLeg:
    """One transfer that was bound to a payment: (signature, outer, inner, sub) is its name.

    Attributes:
        outer: position of the top-level instruction.
        inner: position among its inner instructions; None at top level.
        sub: position inside a `Batch`; None outside of one.
        source: base58 of the account that was debited.
        destination: base58 of the account that was credited.
        amount: base units that the instruction says.
        net: base units that arrived (a transfer fee taken off).
    """

    outer: int
    inner: int | None
    sub: int | None
    source: str
    destination: str
    amount: int
    net: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The numbers of the rule, in base units of the payment's asset.

    Attributes:
        bound: B, the net sum of the bound legs.
        debited: D, what is decoded as leaving the recipient's accounts.
        delta: Δ, what the recipient's accounts gained; may be negative.
        other_inflow: decoded inflow that is not bound to this payment.
        fee_lamports: the network fee that was added back to Δ, when the recipient paid it.
    """

    bound: int = 0
    debited: int = 0
    delta: int = 0
    other_inflow: int = 0
    fee_lamports: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one finalized transaction means for one payment.

    Attributes:
        credit: base units, `max(0, min(B - D, Δ))`, never more than is left of Δ when several
            payments share it.
        clean: the credit may settle the payment without a person.
        reasons: why the credit is nothing, or not clean; sorted, each once.
        block_time: unix seconds; decides lateness. None only on a verdict of no credit.
        index: position of the transaction in its block; None when unknown.
    """

    payment_id: str
    signature: str
    slot: int
    index: int | None
    block_time: int | None
    credit: int
    clean: bool
    reasons: tuple[Reason, ...]
    evidence: Evidence
    legs: tuple[CreditedLeg, ...] = ()

    @property
    def order(self) -> tuple[int, int, str]:
        """Sorts verdicts as the chain did: slot, position in the block, then signature."""
        return (self.slot, -1 if self.index is None else self.index, self.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A transaction seen at `confirmed` that would pay: shown to people, never settled on."""

    payment_id: str
    signature: str
    slot: int
    credit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person said of one transaction of one payment; made once, never taken back.

    Attributes:
        note: why, in the person's words; None when nothing was said.
        decided_at: unix seconds.
    """

    payment_id: str
    signature: str
    kind: DecisionKind
    note: str | None
    decided_at: int
