"""Names to addresses: in time, and without waiting for the names of others."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from indexer.errors import SourceUnavailable
from indexer.sources.names import LOOKUPS_MAX, Names


class Resolver:
    """Stands in for the system's. Names that begin with `slow` wait until `go`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def __call__(self, host: str, *_: object, **__: object) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.go.wait(60)
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = ["192.0.2.1", "2001:db8::1", "192.0.2.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 0)) for text in found]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.go.set()  # so that no thread outlives the test


async def test_each_address_is_told_once_in_the_resolvers_order(resolver: Resolver) -> None:
    found = await Names().addresses("receiver.example")

    assert found == [ip_address("192.0.2.1"), ip_address("2001:db8::1")]


async def test_the_systems_resolver_is_asked() -> None:
    assert await Names().addresses("127.1") == [ip_address("127.0.0.1")]


async def test_a_name_that_is_not_known_has_no_addresses(resolver: Resolver) -> None:
    with pytest.raises(SourceUnavailable, match="no address"):
        await Names().addresses("unknown.example")


async def test_a_host_that_cannot_be_a_name_has_no_addresses() -> None:
    for host in ("\udcff.example", "a" * 70 + ".example", "a..example", "\0"):
        with pytest.raises(SourceUnavailable, match="no address"):
            await Names().addresses(host)


async def test_who_does_not_answer_is_not_waited_for(resolver: Resolver) -> None:
    names = Names(timeout_s=0.05)
    with pytest.raises(SourceUnavailable, match="no name server answered"):
        await names.addresses("slow.example")


async def test_a_name_has_one_thread_however_many_ask(resolver: Resolver) -> None:
    names = Names(timeout_s=0.05)
    for _ in range(3):
        results = await asyncio.gather(
            *(names.addresses("slow.example") for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(each, SourceUnavailable) for each in results)

    assert resolver.asked == ["slow.example"]


async def test_a_slow_name_holds_up_no_other(resolver: Resolver) -> None:
    names = Names(timeout_s=60)
    slow = [asyncio.create_task(names.addresses(f"slow{n}.example")) for n in range(50)]

    assert await names.addresses("receiver.example")

    resolver.go.set()
    assert all(await asyncio.gather(*slow))
    assert await names.addresses("slow1.example")
    assert resolver.asked.count("slow1.example") == 2


async def test_who_stops_asking_takes_the_answer_from_nobody(resolver: Resolver) -> None:
    names = Names(timeout_s=60)
    first, second = (asyncio.create_task(names.addresses("slow.example")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    resolver.go.set()

    assert await second


async def test_names_that_are_asked_for_at_once_are_bounded(resolver: Resolver) -> None:
    names = Names(timeout_s=60)
    many = [asyncio.create_task(names.addresses(f"slow{n}.example")) for n in range(LOOKUPS_MAX)]
    await asyncio.sleep(0)

    with pytest.raises(SourceUnavailable, match="too many"):
        await names.addresses("one-more.example")

    resolver.go.set()
    await asyncio.gather(*many)
    assert await names.addresses("one-more.example")


def test_an_answer_that_comes_after_the_end_is_no_problem(resolver: Resolver) -> None:
    async def ask_and_leave() -> None:
        with pytest.raises(SourceUnavailable):
            await Names(timeout_s=0.01).addresses("slow.example")

    asyncio.run(ask_and_leave())
    resolver.go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("lookup:"):
            thread.join(30)
            assert not thread.is_alive()
