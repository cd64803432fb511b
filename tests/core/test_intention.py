"""What is asked of Paymob names no customer, and what it answers opens no page, when printed."""

from indexer.core.card_creation import Customer
from indexer.core.intention import Intention, NewIntention


def test_a_customer_is_never_printed() -> None:
    new = NewIntention(
        reference="pay_1",
        amount=100,
        expires_in_s=60,
        customer=Customer(first_name="Mona", email="mona@example.com"),
    )

    assert "mona" not in repr(new).lower()
    assert "pay_1" in repr(new)


def test_the_page_is_never_printed() -> None:
    made = Intention(order_id=3, intention_id="pi_1", checkout_url="https://x/?clientSecret=canary")

    assert "canary" not in repr(made)
    assert "pi_1" in repr(made)
