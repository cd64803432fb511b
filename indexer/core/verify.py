"""The rule that decides what a transaction pays.

For a finalized transaction without error, and a payment to recipient R of asset X under
reference S:

    credit = max(0, min(B - D, Δ))

B   what the bound legs brought: transfers of X, at any depth, to R (SOL) or to R's associated
    token account, owned by R afterwards; not out of R's own pocket; whose *own* account list
    names S, beyond the accounts that every such transfer has. A transfer fee is taken off.
D   everything decoded as leaving R's accounts of X in this transaction.
Δ   what R's accounts of X gained (for SOL with the network fee added back, if R paid it).

The payer signed an instruction that names S: that ties the money to the payment. B caps the
credit by what that instruction moved, Δ by what R really kept, and D takes round trips out even
where an unrelated inflow would hide them. Instructions alone over-credit (fees, round trips) and
balances alone cannot tell whose money it was; only together they are sound.

A leg counts for one payment. Where one names the references of several, the first one in its
account list that it can pay gets it, and the others are flagged. Payments that share an account
share its Δ: together they are never credited more than it gained.

A credit is `clean`, and may settle without a person, when D is nothing, the books balance, and
nothing undecodable touches R's accounts of X.

A transaction that names no payment pays none by itself. A person may say whose it is: that
binds its transfers as S would have (`verify_matched`), and B, D and Δ still cap the credit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from indexer.core.legs import Ledger, Movement, Opaque, read_ledger
from indexer.core.match import mentioned
from indexer.core.payment import Terms
from indexer.core.transaction import TokenBalance, Transaction
from indexer.core.types import TOKEN_2022_PROGRAM, Reason
from indexer.core.verdict import CreditedLeg, Evidence, Verdict


def verify(
    payments: Sequence[Terms], transaction: Transaction, *, block_time: int | None
) -> tuple[Verdict, ...]:
    """A verdict for each of the payments that the transaction mentions.

    Args:
        payments: all payments whose reference the transaction may carry, open or not: which
            of them gets a leg must not depend on where they stand.
        transaction: finalized, for a verdict that may be stored; decoded completely.
        block_time: unix seconds, from a source that can be relied on; None only when the
            transaction failed.
    """
    named = mentioned(payments, transaction)
    if transaction.failed:
        return tuple(
            _verdict(terms, transaction, block_time, reasons={Reason.FAILED_TRANSACTION})
            for terms in named
        )
    ledger = read_ledger(transaction)
    books = _Balances(transaction)
    allocation = _allocate(named, ledger, books)
    groups: dict[tuple[str, str | None], list[Terms]] = {}
    for terms in named:
        groups.setdefault((terms.recipient, terms.asset.mint), []).append(terms)
    verdicts: dict[str, Verdict] = {}
    for (recipient, mint), members in groups.items():
        account = _Account(recipient, mint, transaction, ledger, books, allocation)
        remaining = max(0, account.delta)
        for terms in members:
            verdict = _judge(terms, account, remaining, block_time)
            remaining -= verdict.credit
            verdicts[terms.id] = verdict
    return tuple(verdicts[terms.id] for terms in named)


def arrivals(terms: Terms, transaction: Transaction) -> tuple[CreditedLeg, ...]:
    """The transfers that brought a payment's asset to where it belongs, whomever they name.

    From somebody else, and with something in them; none where the transaction failed.
    """
    if transaction.failed:
        return ()
    account = _account_for(terms, transaction)
    legs = [
        _credited_leg(movement, account.net[position])
        for position, movement in account.inflows.items()
        if position in account.allocation
    ]
    return tuple(leg for leg in legs if leg.net > 0)


def verify_matched(terms: Terms, transaction: Transaction, *, block_time: int | None) -> Verdict:
    """The verdict for a payment that the transaction does not name, and a person says it pays.

    The person takes the place of the reference and of nothing else: every transfer of the asset
    to where it belongs is bound, and the credit is reckoned by the same rule. What would have
    been in doubt is told among the reasons, but the person has seen it: the verdict is clean.
    """
    if transaction.failed:
        return _verdict(terms, transaction, block_time, reasons={Reason.FAILED_TRANSACTION})
    account = _account_for(terms, transaction)
    verdict = _judge(terms, account, max(0, account.delta), block_time)
    reasons = tuple(sorted({*verdict.reasons, Reason.MATCHED}))
    return replace(verdict, clean=True, reasons=reasons)


def _account_for(terms: Terms, transaction: Transaction) -> "_Account":
    """The payment's account, with every transfer that may pay it allocated to it."""
    ledger, books = read_ledger(transaction), _Balances(transaction)
    allocation = {
        position: terms
        for position, movement in enumerate(ledger.movements)
        if movement.transfer and _pays(movement, terms, books)
    }
    return _Account(terms.recipient, terms.asset.mint, transaction, ledger, books, allocation)


# ---------------------------------------------------------------------- who gets which leg


def _allocate(named: Sequence[Terms], ledger: Ledger, books: "_Balances") -> Mapping[int, Terms]:
    """Position of each paying leg in the ledger, and the one payment that it pays."""
    by_reference = {terms.reference: terms for terms in named}
    allocation: dict[int, Terms] = {}
    for position, movement in enumerate(ledger.movements):
        for key in movement.references:
            terms = by_reference.get(key)
            if terms is not None and _pays(movement, terms, books):
                allocation[position] = terms
                break
    return allocation


def _pays(movement: Movement, terms: Terms, books: "_Balances") -> bool:
    """Whether a leg brings the payment's asset to where it belongs, from somebody else."""
    if movement.mint != terms.asset.mint or _is_own(movement, terms.recipient, books):
        return False
    if terms.token_account is None:
        return movement.destination == terms.recipient
    return movement.destination == terms.token_account and books.is_held_after(
        terms.token_account, terms.recipient, terms.asset.mint
    )


def _is_own(movement: Movement, recipient: str, books: "_Balances") -> bool:
    """Whether the money came out of the recipient's own pocket."""
    if movement.source is None:
        return False
    if recipient in (movement.source, movement.own_base):
        return True
    owner = books.owner_before(movement.source)
    # An account that came and went within the transaction has no row: who signed for it owns it.
    return recipient == (movement.authority if owner is None else owner)


# ------------------------------------------------------------------------- the balance rows


class _Balances:
    """The balance rows of one transaction, by account."""

    def __init__(self, transaction: Transaction) -> None:
        self.before: dict[str, TokenBalance] = {row.account: row for row in transaction.pre_tokens}
        self.after: dict[str, TokenBalance] = {row.account: row for row in transaction.post_tokens}

    def owner_before(self, account: str) -> str | None:
        """Who owned a token account when the transaction began, or got it when it was made."""
        row = self.before.get(account) or self.after.get(account)
        return None if row is None else row.owner

    def owner_after(self, account: str) -> str | None:
        """Who owns a token account once the transaction is done; None when it is gone."""
        row = self.after.get(account)
        return None if row is None else row.owner

    def is_held_after(self, account: str, owner: str, mint: str | None) -> bool:
        """Whether `owner` ends up with that account, and it is one of that mint."""
        row = self.after.get(account)
        return row is not None and row.owner == owner and row.mint == mint

    def accounts_of(self, owner: str, mint: str) -> frozenset[str]:
        """Every account of the mint that was the owner's before or is after."""
        return frozenset(
            row.account
            for row in (*self.before.values(), *self.after.values())
            if row.owner == owner and row.mint == mint
        )

    def change(self, account: str) -> int:
        """Base units that the account gained, whoever owned it."""
        before, after = self.before.get(account), self.after.get(account)
        return (after.amount if after else 0) - (before.amount if before else 0)

    def change_of_owner(self, owner: str, mint: str) -> int:
        """Base units of the mint that the owner gained, over all accounts."""
        return _held(self.after, owner, mint) - _held(self.before, owner, mint)


def _held(rows: Mapping[str, TokenBalance], owner: str, mint: str) -> int:
    return sum(row.amount for row in rows.values() if (row.owner, row.mint) == (owner, mint))


# ----------------------------------------------------- one recipient, one asset, one transaction


@dataclass(frozen=True)
class _Account:
    """What happened to one recipient's holdings of one asset: Δ, D, net legs, the books."""

    recipient: str
    mint: str | None
    transaction: Transaction
    ledger: Ledger
    balances: _Balances
    allocation: Mapping[int, Terms]
    _unclear: set[str] = field(default_factory=set)

    @cached_property
    def accounts(self) -> frozenset[str]:
        """The accounts in which the recipient holds the asset."""
        if self.mint is None:
            return frozenset({self.recipient})
        return self.balances.accounts_of(self.recipient, self.mint)

    @cached_property
    def fee_lamports(self) -> int:
        """The network fee, where it came out of the very balance that is looked at."""
        pays_fee = self.mint is None and self.transaction.fee_payer == self.recipient
        return self.transaction.fee if pays_fee else 0

    @cached_property
    def delta(self) -> int:
        """Δ: base units gained."""
        if self.mint is not None:
            return self.balances.change_of_owner(self.recipient, self.mint)
        if self.recipient not in self.transaction.keys:
            return 0
        position = self.transaction.keys.index(self.recipient)
        before, after = self.transaction.pre_lamports, self.transaction.post_lamports
        return after[position] - before[position] + self.fee_lamports

    @cached_property
    def inflows(self) -> Mapping[int, Movement]:
        """Everything decoded as arriving, by position in the ledger."""
        return {
            position: movement
            for position, movement in enumerate(self.ledger.movements)
            if movement.mint == self.mint and movement.destination in self.accounts
        }

    @cached_property
    def debited(self) -> int:
        """D: everything decoded as leaving."""
        return sum(self._leaving(account) for account in self.accounts)

    def _leaving(self, account: str) -> int:
        return sum(
            movement.amount
            for movement in self.ledger.movements
            if movement.mint == self.mint and movement.source == account
        )

    @cached_property
    def net(self) -> Mapping[int, int]:
        """What really arrived by each inflow: its amount less the transfer fee, if any.

        The fee is read from the instruction where it says so. Otherwise, if one leg (or one
        payment's legs) is all that can have been charged, it is what is missing in the account.
        Otherwise nobody can say whose it was: each leg is taken at its worst, and flagged.
        """
        net = {
            position: max(0, movement.amount - (movement.fee or 0))
            for position, movement in self.inflows.items()
        }
        if self.mint is None:
            return net
        for account in self.accounts:
            self._take_fees_off(account, net)
        return net

    def _take_fees_off(self, account: str, net: dict[int, int]) -> None:
        arrived = [p for p, movement in self.inflows.items() if movement.destination == account]
        withheld = sum(net[p] for p in arrived) - (
            self.balances.change(account) + self._leaving(account)
        )
        charged = [
            p
            for p in arrived
            if self.inflows[p].transfer and self.inflows[p].fee is None and net[p] > 0
        ]
        if withheld <= 0 or not charged or not self._may_withhold(account):
            return
        owners = {self.allocation[p].id if p in self.allocation else "" for p in charged}
        if len(owners) > 1:
            self._unclear.add(account)
            for position in charged:
                net[position] = max(0, net[position] - withheld)
            return
        for position in charged:
            taken = min(withheld, net[position])
            net[position] -= taken
            withheld -= taken

    def _may_withhold(self, account: str) -> bool:
        """Only Token-2022 has transfer fees; elsewhere a missing amount is a riddle."""
        row = self.balances.after.get(account) or self.balances.before.get(account)
        return row is not None and row.token_program in (TOKEN_2022_PROGRAM, None)

    @cached_property
    def is_balanced(self) -> bool:
        """Whether what was decoded explains what the balances did.

        SOL may gain more than was decoded (rent that came back); it pays for nothing.
        """
        explained = sum(self.net.values()) - self.debited
        if self.mint is None:
            return self.delta >= explained
        return self.delta == explained

    @cached_property
    def opaque(self) -> Sequence[Opaque]:
        """What touched the accounts and cannot be told."""
        return [
            opaque for opaque in self.ledger.opaque if not self.accounts.isdisjoint(opaque.keys)
        ]

    @cached_property
    def doubts(self) -> frozenset[Reason]:
        """Why no credit out of this transaction is clean; empty when all is well."""
        found = set()
        if self.debited:
            found.add(Reason.DEBITED)
        if not self.is_balanced:
            found.add(Reason.BOOKS)
        if self.opaque:
            found.add(Reason.UNDECODABLE)
        if self._unclear:
            found.add(Reason.FEE_UNKNOWN)
        return frozenset(found)


# --------------------------------------------------------------------------------- the verdict


def _judge(terms: Terms, account: _Account, remaining: int, block_time: int | None) -> Verdict:
    legs = {p: m for p, m in account.inflows.items() if account.allocation.get(p) is terms}
    bound = sum(account.net[position] for position in legs)
    credit = max(0, min(bound - account.debited, remaining))
    reasons = _reasons(terms, account)
    if legs:
        reasons |= account.doubts
    elif not reasons:
        reasons = {Reason.NOT_BOUND}
    return _verdict(
        terms,
        account.transaction,
        block_time,
        credit=credit,
        clean=not account.doubts,
        reasons=reasons,
        evidence=Evidence(
            bound=bound,
            debited=account.debited,
            delta=account.delta,
            other_inflow=sum(account.net.values()) - bound,
            fee_lamports=account.fee_lamports,
        ),
        legs=tuple(_credited_leg(m, account.net[p]) for p, m in legs.items()),
    )


def _reasons(terms: Terms, account: _Account) -> set[Reason]:
    """What is to be said of the legs that name the payment and do not pay it."""
    reasons = set()
    for position, movement in enumerate(account.ledger.movements):
        if account.allocation.get(position) is terms:
            continue
        if terms.reference in movement.references:
            reasons.add(_reason(terms, movement, account.balances))
        elif terms.asset.mint is None and _creates_recipient(movement, terms):
            reasons.add(Reason.ACCOUNT_CREATED)
    if any(terms.reference in opaque.keys for opaque in account.opaque):
        reasons.add(Reason.UNDECODABLE)  # perhaps a payment, such as a confidential transfer
    return reasons


def _creates_recipient(movement: Movement, terms: Terms) -> bool:
    """Lamports that came with an account's creation, or out of a nonce account."""
    return not movement.transfer and (movement.mint, movement.destination) == (
        None,
        terms.recipient,
    )


def _reason(terms: Terms, movement: Movement, balances: _Balances) -> Reason:
    """Why a leg that names the payment does not pay it."""
    recipient = terms.recipient
    if _pays(movement, terms, balances):
        return Reason.ALREADY_ALLOCATED  # it could, but names another payment first
    if _is_own(movement, recipient, balances):
        return Reason.OWN_FUNDS
    destination = movement.destination or ""
    if recipient not in (destination, balances.owner_after(destination)):
        return Reason.WRONG_RECIPIENT
    if movement.mint != terms.asset.mint:
        return Reason.WRONG_MINT
    return Reason.AUXILIARY_ACCOUNT


def _credited_leg(movement: Movement, net: int) -> CreditedLeg:
    return CreditedLeg(
        outer=movement.outer,
        inner=movement.inner,
        sub=movement.sub,
        source=movement.source or "",
        destination=movement.destination or "",
        amount=movement.amount,
        net=net,
    )


def _verdict(
    terms: Terms,
    transaction: Transaction,
    block_time: int | None,
    *,
    reasons: set[Reason],
    credit: int = 0,
    clean: bool = True,
    evidence: Evidence | None = None,
    legs: tuple[CreditedLeg, ...] = (),
) -> Verdict:
    return Verdict(
        payment_id=terms.id,
        signature=transaction.signature,
        slot=transaction.slot,
        index=transaction.index,
        block_time=block_time,
        credit=credit,
        clean=clean,
        reasons=tuple(sorted(reasons)),
        evidence=evidence or Evidence(),
        legs=legs,
    )
