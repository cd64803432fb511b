import pytest

from indexer.core.match import mentioned
from indexer.core.payment import Terms
from tests.chain import key, memo, system_transfer, token_transfer, transaction
from tests.core.script import BUYER, ORDER, OTHER_ORDER, SHOP, USDC, decoded, in_sol, in_tokens


FIRST, SECOND = in_sol(), in_tokens(reference=OTHER_ORDER)
ELSEWHERE = in_sol(reference=key("an order that is not in the transaction"))


@pytest.mark.parametrize("payments", [[FIRST, SECOND, ELSEWHERE], [ELSEWHERE, SECOND, FIRST]])
def test_payments_come_in_the_order_in_which_the_transaction_names_them(
    payments: list[Terms],
) -> None:
    landed = decoded(transaction([system_transfer(BUYER, SHOP, 1, OTHER_ORDER, ORDER)]))

    assert mentioned(payments, landed) == [SECOND, FIRST]


def test_a_reference_counts_wherever_it_stands() -> None:
    """Static or from a lookup table, of a transfer or of a memo, failed or not."""
    landed = token_transfer(
        BUYER, SHOP, 1, mint=USDC, references=[ORDER], version=0, loaded_readonly=[ORDER]
    )
    in_memo = transaction([memo("for", OTHER_ORDER)], err="AccountInUse")

    assert mentioned([FIRST, SECOND], decoded(landed)) == [FIRST]
    assert mentioned([FIRST, SECOND], decoded(in_memo)) == [SECOND]


def test_a_transaction_without_references_speaks_of_no_payment() -> None:
    assert mentioned([FIRST, SECOND], decoded(transaction([memo(ORDER)]))) == []
    assert mentioned([], decoded(transaction([memo("for", ORDER)]))) == []
