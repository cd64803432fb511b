"""The end of a load: is everything in the books that happened, and nothing twice?

What happened is read from the chain over raw RPC; what the product says, over its API.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import aiohttp

from tests.cluster.crowd import AMOUNT, Order
from tests.cluster.listeners import ONE, Listener


_PAGE: Final = 100
_REQUEST_TIMEOUT_S: Final = 30.0

#: reference -> signature -> slot and lamports.
Receipts = Mapping[str, Mapping[str, tuple[int, int]]]
#: Number, type and payment id.
Log = Sequence[tuple[int, str, str]]


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        lost: money or payments that the product does not know of.
        double: what it counts more than once.
        streams: what clients of streams missed, or heard twice.
        wrong: all else that is not as it must be.
    """

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """Everything."""
        return [*self.lost, *self.double, *self.streams, *self.wrong]


async def all_payments(api: str, key: str) -> list[dict[str, Any]]:
    """Every payment that there is, as the API lists them."""
    found: list[dict[str, Any]] = []
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(api, headers=headers, timeout=timeout) as http:
        cursor = ""
        while True:
            query = {"limit": str(_PAGE), **({"cursor": cursor} if cursor else {})}
            async with http.get("/api/pay", params=query, raise_for_status=True) as answer:
                page = await answer.json()
            found += page["data"]
            cursor = page["next_cursor"] or ""
            if not cursor:
                return found


def judge_payments(
    verdict: Verdict,
    orders: Sequence[Order],
    receipts: Receipts,
    listed: Sequence[Mapping[str, Any]],
    log: Log,
) -> None:
    """Holds each payment against the chain, and against what its customer sent."""
    of_order: dict[str | None, list[Mapping[str, Any]]] = defaultdict(list)
    for payment in listed:
        of_order[payment["order_id"]].append(payment)
    of_order.pop(None, None)  # those of the demo's stories, which are judged by them
    if strangers := of_order.keys() - {order.name for order in orders}:
        verdict.wrong.append(f"payments that nobody ordered: {sorted(map(str, strangers))[:3]}")
    types: dict[str, Counter[str]] = defaultdict(Counter)
    for _, type_, payment_id in log:
        types[payment_id][type_] += 1
    for order in orders:
        made = of_order[order.name]
        if len(made) > 1:
            verdict.double.append(f"{order.name} made {len(made)} payments")
        if [payment["id"] for payment in made[:1]] != [order.id]:
            verdict.lost.append(f"{order.name}: the payment {order.id} is not listed")
            continue
        _judge(verdict, order, made[0], receipts[order.reference], types[order.id])


def _judge(
    verdict: Verdict,
    order: Order,
    payment: Mapping[str, Any],
    on_chain: Mapping[str, tuple[int, int]],
    types: Mapping[str, int],
) -> None:
    arrived, counted = sum(n for _, n in on_chain.values()), int(payment["received_base_units"])
    name = f"{order.name} ({order.id})"
    if set(on_chain) != set(order.signatures):
        verdict.wrong.append(f"{name}: the chain has other transactions than were sent")
    shown = {each["signature"] for each in payment["transfers"]}
    if shown != set(on_chain):
        verdict.wrong.append(f"{name}: the API shows other transfers than the chain")
    if counted < arrived:
        verdict.lost.append(f"{name}: {arrived} lamports came, {counted} are in the books")
    if counted > arrived:
        verdict.double.append(f"{name}: {arrived} lamports came, {counted} are in the books")
    is_settled, settled = payment["status"] == "settled", types.get("payment.settled", 0)
    if is_settled != (arrived >= AMOUNT) or settled < int(is_settled):
        verdict.lost.append(f"{name}: {arrived} lamports came and it is {payment['status']}")
    if settled > 1 or types.get("payment.created") != 1:
        verdict.double.append(f"{name}: its events are {dict(types)}")
    if not order.habit and payment["status"] != "expired":
        verdict.wrong.append(f"{name}: nobody paid, and it is {payment['status']}")


def judge_logs(verdict: Verdict, logs: Sequence[Log]) -> None:
    """The log is the same wherever it is read, and has no gap."""
    first, *others = logs
    if any(list(other) != list(first) for other in others):
        verdict.streams.append("the whole log is not the same at both APIs")
    numbers = [number for number, _, _ in first]
    if numbers != list(range(1, len(numbers) + 1)):
        gaps = [(a, b) for a, b in pairwise([0, *numbers]) if b != a + 1]
        verdict.wrong.append(f"the log is not whole: {gaps[:3]}")


def judge_streams(verdict: Verdict, listeners: Sequence[Listener], log: Log) -> None:
    """Each client heard all that it was to hear, once, in order."""
    of_payment: dict[str, list[int]] = defaultdict(list)
    settled_by: dict[str, int] = {}
    for number, type_, payment_id in log:
        of_payment[payment_id].append(number)
        if type_ == "payment.settled":
            settled_by.setdefault(payment_id, number)
    everything = [number for number, _, _ in log]
    for listener in listeners:
        payment_id = listener.path.removeprefix(ONE)
        wanted = of_payment.get(payment_id, everything)
        if listener.is_over:  # the stream of a payment ends with that
            wanted = [n for n in wanted if n <= settled_by.get(payment_id, 0)]
        _judge_stream(verdict, listener, wanted)


def _judge_stream(verdict: Verdict, listener: Listener, wanted: Sequence[int]) -> None:
    """`wanted` is what there was to hear, from the beginning."""
    who, heard = f"the client of {listener.path}", [each.seq for each in listener.heard]
    if listener.began_after is None:
        verdict.streams.append(f"{who} never got a stream")
        return
    missed = {number for number in wanted if number > listener.began_after} - set(heard)
    if missed:
        verdict.streams.append(f"{who} missed {len(missed)}: {sorted(missed)[:5]}")
    if doubles := [number for number, times in Counter(heard).items() if times > 1]:
        verdict.streams.append(f"{who} heard twice: {doubles[:5]}")
    if heard != sorted(heard):
        verdict.streams.append(f"{who} heard events out of order")
