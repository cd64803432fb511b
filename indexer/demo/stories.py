"""What payers do, well and badly, and how each payment must end all the same.

Everything that can go wrong here is what people really do, or what anyone may do to a payment
whose reference is public: send too little, too much, too late, dust, or a transfer that fails.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from indexer.core.types import Paid, Status


#: Half a payment, as one transfer.
_HALF: Final = 2


class Payer(Protocol):
    """What a story can do to its payment.

    Attributes:
        amount: base units that the payment asks for.
    """

    amount: int

    async def pay(self, amount: int | None = None) -> None:
        """Pays the URL; None pays what it asks for."""
        ...

    async def fail(self) -> None:
        """Sends a transfer that carries the reference and fails on the chain."""
        ...

    async def until(self, *, status: Status | None = None, paid: Paid | None = None) -> None:
        """Waits until the shop has heard so."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One payment, what is done to it, and the state in which it must end.

    Attributes:
        name: for the table.
        symbol: of what is paid in.
        amount: decimal text.
        happens: what the payer does.
        paid, late, received: of the settled payment; `received` in decimal text.
        expires_in_s: seconds.
    """

    name: str
    symbol: str
    amount: str
    happens: Callable[[Payer], Awaitable[None]]
    paid: Paid
    received: str
    late: bool = False
    expires_in_s: int = 600


async def _at_once(payer: Payer) -> None:
    await payer.pay()


async def _in_two_parts(payer: Payer) -> None:
    await payer.pay(payer.amount // _HALF)
    await payer.until(paid=Paid.PARTIAL)
    await payer.pay(payer.amount - payer.amount // _HALF)


async def _after_dust(payer: Payer) -> None:
    await payer.pay(1)
    await payer.until(paid=Paid.PARTIAL)
    await payer.pay()


async def _after_a_failure(payer: Payer) -> None:
    await payer.fail()
    await payer.pay()


async def _too_much(payer: Payer) -> None:
    await payer.pay(payer.amount + payer.amount // _HALF)


async def _too_late(payer: Payer) -> None:
    await payer.until(status=Status.EXPIRED)
    await payer.pay()


def stories(symbol: str) -> tuple[Story, ...]:
    """The stories of the demo, in SOL and in the token of that symbol."""
    return (
        Story(
            name="paid at once",
            symbol="SOL",
            amount="0.25",
            happens=_at_once,
            paid=Paid.EXACT,
            received="0.25",
        ),
        Story(
            name="paid in a token",
            symbol=symbol,
            amount="12.5",
            happens=_at_once,
            paid=Paid.EXACT,
            received="12.5",
        ),
        Story(
            name="half, then the rest",
            symbol=symbol,
            amount="40",
            happens=_in_two_parts,
            paid=Paid.EXACT,
            received="40",
        ),
        Story(
            name="dust first",
            symbol="SOL",
            amount="0.1",
            happens=_after_dust,
            paid=Paid.OVER,
            received="0.100000001",
        ),
        Story(
            name="a failing transfer first",
            symbol="SOL",
            amount="0.3",
            happens=_after_a_failure,
            paid=Paid.EXACT,
            received="0.3",
        ),
        Story(
            name="too much",
            symbol=symbol,
            amount="8",
            happens=_too_much,
            paid=Paid.OVER,
            received="12",
        ),
        Story(
            name="too late, within grace",
            symbol="SOL",
            amount="0.5",
            happens=_too_late,
            paid=Paid.EXACT,
            received="0.5",
            late=True,
            expires_in_s=2,
        ),
    )
