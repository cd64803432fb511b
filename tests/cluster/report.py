"""Shows what a load came to."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from tests.cluster import figures
from tests.cluster.listeners import EVENTS
from tests.cluster.load import Load


#: Of each kind of problem.
_SHOWN_MAX: Final = 10


def show(load: Load, console: Console) -> None:
    """Figures first, then what is wrong."""
    found = figures.delays(load.crowd.orders, load.receipts, load.times, load.settled)
    for line in _lines(load):
        console.print(line, markup=False, soft_wrap=True)
    console.print(figures.delay_table(found))
    if load.deaths:
        console.print(figures.death_table(load.deaths, found, list(load.settled.at.values())))
    names = [name for name, _, _ in load.processes()]
    usage = load.usage
    cpu_s, rss = [usage.cpu_s(name) for name in names], [usage.rss_bytes[n] for n in names]
    console.print(figures.usage_table(names, cpu_s, rss, usage.seconds))
    verdict = load.verdict
    for what, problems in (
        ("lost", verdict.lost),
        ("double", verdict.double),
        ("missed or heard twice by clients of streams", verdict.streams),
        ("otherwise wrong", verdict.wrong),
    ):
        _problems(console, what, problems)


def _lines(load: Load) -> list[str]:
    crowd = load.crowd
    sent = sum(len(order.signatures) for order in crowd.orders)
    repeated = sum(1 for order in crowd.orders if order.tries > 1)
    took = sorted(order.made_at - order.asked_at for order in crowd.orders)
    shops = [each for each in load.listeners if each.path == EVENTS]
    heard = sum(len(each.heard) for each in load.listeners)
    refused = sum(each.refused for each in load.listeners)
    failures = ", ".join(f"{name} {count}" for name, count in crowd.failures.most_common())
    payments = (
        f"{len(crowd.orders)} payments in {load.elapsed_s:.1f} s "
        f"({len(crowd.orders) / load.elapsed_s:.1f}/s) by {sent} transactions; "
        f"{len(load.settled.at)} settled, {load.events} events"
    )
    requests = (
        f"a payment is made in p50 {figures.quantile(took, 0.5) * 1000:.0f} ms, "
        f"p99 {figures.quantile(took, 0.99) * 1000:.0f} ms, at most {took[-1]:.1f} s; "
        f"{crowd.failures.total()} requests failed ({failures or 'none'}); {repeated} payments "
        f"were asked for more than once, {crowd.replayed} of them had been made already"
    )
    streams = (
        f"{len(load.listeners)} streams ({len(shops)} of everything) brought {heard} events; "
        f"clients came back {load.reconnects} times, {refused} times to a closed door"
    )
    return [payments, requests, streams]


def _problems(console: Console, what: str, problems: Sequence[str]) -> None:
    console.print(f"{len(problems)} {what}", markup=False)
    for problem in problems[:_SHOWN_MAX]:
        console.print(f"  {problem}", markup=False, soft_wrap=True)
