"""What Paymob is asked for so that a customer can pay, and what it answers.

An intention is an order together with the page on which it is paid. The page's address is known
only from the answer, so an intention whose answer was lost can be paid by nobody.
"""

from dataclasses import dataclass, field

from indexer.core.card_creation import Customer


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIntention:
    """What is asked for.

    Attributes:
        reference: our own name of the order (`special_reference`): the payment's id, with a number
            behind it from the second try on. Never used twice.
        amount: minor units of the currency, from 1.
        expires_in_s: seconds from now in which it can be paid, from 1.
        label: what the customer reads on the page; None for a plain word.
        customer: what is known of the customer.
    """

    reference: str
    amount: int
    expires_in_s: int
    label: str | None = None
    customer: Customer = field(default_factory=Customer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intention:
    """What can be paid now.

    Attributes:
        order_id: Paymob's number of the order: what callbacks sign.
        intention_id: Paymob's name of the intention, `pi_…`.
        checkout_url: where the customer pays. It holds a secret that lets its bearer pay, and
            nothing else.
    """

    order_id: int
    intention_id: str
    checkout_url: str = field(repr=False)
