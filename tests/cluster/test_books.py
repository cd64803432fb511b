"""The comparison at the end of a load sees what it is there to see."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.books import Verdict, judge_logs, judge_payments, judge_streams
from tests.cluster.crowd import AMOUNT, Order
from tests.cluster.listeners import EVENTS, ONE, Heard, Listener


@dataclass
class World:
    """One payment that was paid as it must be, a second one that nobody paid, and who heard so."""

    orders: list[Order] = field(default_factory=list)
    receipts: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    log: list[tuple[int, str, str]] = field(default_factory=list)
    other_log: list[tuple[int, str, str]] = field(default_factory=list)
    shop: Listener = field(default_factory=lambda: listener(EVENTS, 0, 1, 2, 3, 4))
    customer: Listener = field(default_factory=lambda: listener(f"{ONE}pay_1", 1, 3))

    def verdict(self) -> Verdict:
        found = Verdict()
        judge_payments(found, self.orders, self.receipts, self.listed, self.log)
        judge_logs(found, [self.log, self.other_log])
        judge_streams(found, [self.shop, self.customer], self.log)
        return found


def listener(path: str, began_after: int | None, *heard: int) -> Listener:
    it = Listener(["http://127.0.0.1:1"], path, address="127.0.0.1", first=0)
    it.began_after = began_after
    it.heard = [Heard(seq, "payment.settled", 0.0) for seq in heard]
    it.is_over = path != EVENTS
    return it


@pytest.fixture
def world() -> World:
    paid = Order(number=1, habit=(AMOUNT,), id="pay_1", reference="ref_1", signatures=["s1"])
    unpaid = Order(number=2, habit=(), id="pay_2", reference="ref_2")
    log = [
        (1, "payment.created", "pay_1"),
        (2, "payment.created", "pay_2"),
        (3, "payment.settled", "pay_1"),
        (4, "payment.expired", "pay_2"),
    ]
    return World(
        orders=[paid, unpaid],
        receipts={"ref_1": {"s1": (7, AMOUNT)}, "ref_2": {}},
        listed=[
            payment("order-1", "pay_1", "settled", AMOUNT, "s1"),
            payment("order-2", "pay_2", "expired", 0),
        ],
        log=log,
        other_log=list(log),
    )


def payment(order_id: str, id: str, status: str, received: int, *signatures: str) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "id": id,
        "status": status,
        "received_base_units": str(received),
        "transfers": [{"signature": signature} for signature in signatures],
    }


def test_nothing_is_said_where_nothing_is_wrong(world: World) -> None:
    assert world.verdict().all == []


def not_listed(world: World) -> None:
    world.listed.pop(0)


def not_counted(world: World) -> None:
    world.listed[0]["received_base_units"] = "0"


def not_settled(world: World) -> None:
    world.listed[0]["status"] = "processing"


def settled_without_event(world: World) -> None:
    world.log[2] = world.other_log[2] = (3, "payment.detected", "pay_1")


def made_twice(world: World) -> None:
    world.listed.append(payment("order-1", "pay_3", "pending", 0))


def counted_twice(world: World) -> None:
    world.listed[0]["received_base_units"] = str(2 * AMOUNT)


def settled_twice(world: World) -> None:
    world.log.append((5, "payment.settled", "pay_1"))
    world.other_log = list(world.log)
    world.shop.heard.append(Heard(5, "payment.settled", 0.0))


def created_twice(world: World) -> None:
    world.log[1] = world.other_log[1] = (2, "payment.created", "pay_1")


def missed_by_a_shop(world: World) -> None:
    del world.shop.heard[1]


def missed_by_a_customer(world: World) -> None:
    world.customer.heard.clear()


def heard_twice(world: World) -> None:
    world.shop.heard.insert(1, world.shop.heard[0])


def heard_out_of_order(world: World) -> None:
    world.shop.heard.reverse()


def never_let_in(world: World) -> None:
    world.customer.began_after = None


def another_log(world: World) -> None:
    world.other_log.pop()


def hole_in_the_log(world: World) -> None:
    world.log = world.other_log = [(n + (n == 4), *rest) for n, *rest in world.log]  # type: ignore[misc]  # of three still
    world.shop.heard[3] = Heard(5, "payment.expired", 0.0)


def of_nobody(world: World) -> None:
    world.listed.append(payment("order-9", "pay_9", "pending", 0))


def of_other_transactions(world: World) -> None:
    world.listed[0]["transfers"] = [{"signature": "s2"}]


def sent_and_not_there(world: World) -> None:
    world.orders[0].signatures.append("s2")


def not_expired(world: World) -> None:
    world.listed[1]["status"] = "pending"


@pytest.mark.parametrize(
    ("kind", "happened"),
    [
        ("lost", not_listed),
        ("lost", not_counted),
        ("lost", not_settled),
        ("lost", settled_without_event),
        ("double", made_twice),
        ("double", counted_twice),
        ("double", settled_twice),
        ("double", created_twice),
        ("streams", missed_by_a_shop),
        ("streams", missed_by_a_customer),
        ("streams", heard_twice),
        ("streams", heard_out_of_order),
        ("streams", never_let_in),
        ("streams", another_log),
        ("wrong", hole_in_the_log),
        ("wrong", of_nobody),
        ("wrong", of_other_transactions),
        ("wrong", sent_and_not_there),
        ("wrong", not_expired),
    ],
)
def test_what_is_wrong_is_said(world: World, kind: str, happened: Callable[[World], None]) -> None:
    happened(world)
    assert getattr(world.verdict(), kind)
