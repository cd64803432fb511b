"""The books: what was credited is what legs brought is what the recipients' balances gained.

Money is compared transaction by transaction: all payments that one transaction pays to one
recipient in one asset share an account, and with it its gain. The gain is taken from the
balances alone, without looking at a single instruction; credits come from the instructions. That
both come to the same, for every credit that was called clean, is the proof.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indexer.core.payment import Asset
from indexer.core.reckoning import Difference
from indexer.core.transaction import TokenBalance, Transaction
from indexer.core.types import Reason
from indexer.core.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """One credited verdict, and who got the money in what."""

    verdict: Verdict
    recipient: str
    asset: Asset

    @property
    def is_beyond_doubt(self) -> bool:
        """It is clean by the rule alone, and not because a person said so."""
        return self.verdict.clean and Reason.MATCHED not in self.verdict.reasons


@dataclass(slots=True, kw_only=True)
class Account:
    """The sums of one asset, in base units.

    Attributes:
        credits: what was credited.
        legs: what the legs behind it brought.
        moved: what the recipients' balances gained in these transactions.
        beside: how much of that was for no payment.
    """

    asset: Asset
    credits: int = 0
    legs: int = 0
    moved: int = 0
    beside: int = 0


class Books:
    """Adds up clean credits, asset by asset; doubtful ones are left to a person."""

    def __init__(self) -> None:
        self.accounts: dict[str | None, Account] = {}

    def enter(self, transaction: Transaction, credits_: Iterable[Credit]) -> list[Difference]:
        """Enters all credits of one transaction, once; says where they do not add up.

        Args:
            transaction: as the chain has it.
            credits_: every stored credit that it gave, to whichever payment.
        """
        groups: dict[tuple[str, str | None], list[Credit]] = {}
        for credit in credits_:
            groups.setdefault((credit.recipient, credit.asset.mint), []).append(credit)
        differences = []
        for (recipient, mint), group in groups.items():
            if all(credit.is_beyond_doubt for credit in group):
                differences += self._enter(gained(transaction, recipient, mint), group)
        return differences

    def _enter(self, moved: int, group: Sequence[Credit]) -> list[Difference]:
        verdicts = [credit.verdict for credit in group]
        credited = sum(verdict.credit for verdict in verdicts)
        brought = sum(leg.net for verdict in verdicts for leg in verdict.legs)
        arrived = {verdict.evidence.bound + verdict.evidence.other_inflow for verdict in verdicts}
        asset = group[0].asset
        account = self.accounts.setdefault(asset.mint, Account(asset=asset))
        account.credits += credited
        account.legs += brought
        account.moved += moved
        account.beside += moved - credited
        # Rent that comes back with a closed account is no transfer: SOL may gain it on top.
        explained = moved >= max(arrived) if asset.mint is None else arrived == {moved}
        if credited == brought <= moved and explained:
            return []
        return [
            Difference(
                payment_id=verdicts[0].payment_id,
                what="books",
                where=verdicts[0].signature,
                stored={"credits": str(credited), "legs": str(brought)},
                chain={"moved": str(moved)},
            )
        ]


def gained(transaction: Transaction, recipient: str, mint: str | None) -> int:
    """What the balances of one owner gained, as the transaction's meta tells it.

    For SOL the network fee is added back where the recipient paid it.
    """
    if mint is None:
        if recipient not in transaction.keys:
            return 0
        position = transaction.keys.index(recipient)
        fee = transaction.fee if transaction.fee_payer == recipient else 0
        return transaction.post_lamports[position] - transaction.pre_lamports[position] + fee
    return _held(transaction.post_tokens, recipient, mint) - _held(
        transaction.pre_tokens, recipient, mint
    )


def _held(rows: Iterable[TokenBalance], owner: str, mint: str) -> int:
    by_account = {row.account: row for row in rows}
    return sum(row.amount for row in by_account.values() if (row.owner, row.mint) == (owner, mint))
