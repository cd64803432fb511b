import pytest

from indexer.demo.tokens import TransferFee


@pytest.mark.parametrize(
    ("amount", "fee"), [(0, 0), (1, 1), (9_999, 1), (10_000, 1), (10_001, 2), (10**9, 50)]
)
def test_a_fee_is_rounded_up_and_bounded(amount: int, fee: int) -> None:
    assert TransferFee(basis_points=1, maximum=50).of(amount) == fee
