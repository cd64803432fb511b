"""Which payments a transaction speaks of: those whose reference is among its keys."""

from collections.abc import Iterable, Sequence

from indexer.core.payment import Terms
from indexer.core.transaction import Transaction


def mentioned(payments: Iterable[Terms], transaction: Transaction) -> Sequence[Terms]:
    """The payments whose reference the transaction carries, in the order of its keys.

    The reference may be static or loaded from a lookup table, writable or not, a signer or not:
    wallets differ, and none of it changes who is meant.
    """
    by_reference = {terms.reference: terms for terms in payments}
    return [by_reference[key] for key in dict.fromkeys(transaction.keys) if key in by_reference]
