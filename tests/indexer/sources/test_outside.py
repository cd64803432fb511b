"""The guarded way out: where it leads, and what the other side can do to us."""

import asyncio
import gzip
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from indexer.core.addresses import Address, Networks
from indexer.core.receiver import ENDPOINTS_MAX
from indexer.courier import AT_ONCE
from indexer.errors import InvariantError, SourceRejected, SourceUnavailable
from indexer.sources import outside as module
from indexer.sources.guard import ADDRESSES_MAX, Guard
from indexer.sources.names import Lookup
from indexer.sources.outside import BODY_BYTES_KEPT, RETRY_AFTER_S_MAX, Limits, Outside, Sender
from tests.indexer.sources.answering import OK, Answering, Script, endless, said, silent
from tests.ports import free_port
from tests.servers import tls


LOCAL: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
#: Stands for the public internet, where tests must not go: the rest of loopback is refused.
ONE: Networks = (IPv4Network("127.0.0.1/32"),)

PATIENT = Limits(timeout_s=30, connect_timeout_s=30, body_timeout_s=30)
SHORT = Limits(timeout_s=0.3, connect_timeout_s=0.3, body_timeout_s=0.3)

BODY = b'{"type":"payment.settled"}'
HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1"}


def leading(*answers: Sequence[str]) -> tuple[Lookup, list[str]]:
    """A look-up that gives these answers one after the other, the last one for ever."""
    asked: list[str] = []
    rest = [[ip_address(text) for text in answer] for answer in answers]

    async def lookup(host: str) -> Sequence[Address]:
        asked.append(host)
        return rest.pop(0) if len(rest) > 1 else rest[0]

    return lookup, asked


def outside(networks: Networks = LOCAL, **options: Any) -> Outside:
    return Outside(networks, **{"limits": PATIENT, **options})


async def post(out: Sender, url: str) -> Any:
    return await out.post(url, HEADERS, BODY)


# ---------------------------------------------------------------------------- what is sent


async def test_a_body_is_posted_as_it_is_and_the_answer_comes_back() -> None:
    async with Answering(said(OK)) as server, outside() as out:
        reply = await post(out, server.url)

    [(head, body)] = server.requests
    assert (reply.status, reply.body, reply.retry_after_s) == (200, b"ok", None)
    assert body == BODY
    assert head.startswith(b"POST /hooks?shop=SECRET HTTP/1.1\r\n")
    assert b"webhook-id: evt_1\r\n" in head
    assert b"Content-Type: application/json\r\n" in head
    assert b"Accept-Encoding: identity\r\n" in head


async def test_a_url_is_used_as_it_is_written() -> None:
    async with Answering(said(OK)) as server, outside() as out:
        await post(out, f"http://127.0.0.1:{server.port}/%7Ea/../b//c?x=%20+%2F&y=[1]")

    assert server.requests[0][0].split(b" ")[1] == b"/%7Ea/../b//c?x=%20+%2F&y=[1]"


@pytest.mark.parametrize("status", [200, 204, 302, 404, 410, 500, 503])
async def test_every_status_is_an_answer(status: int) -> None:
    answer = said(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    async with Answering(answer) as server, outside() as out:
        assert (await post(out, server.url)).status == status


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [
        ("Retry-After: 3600", 3600.0),
        ("Retry-After: 99999999999999999999", RETRY_AFTER_S_MAX),
        ("Retry-After: soon", None),
        ("Retry-After: -1", None),
        ("X: 1", None),
    ],
)
async def test_a_pause_that_is_asked_for_is_told(header: str, pause_s: float | None) -> None:
    answer = said(f"HTTP/1.1 503 X\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode())
    async with Answering(answer) as server, outside() as out:
        assert (await post(out, server.url)).retry_after_s == pause_s


async def test_a_connection_is_used_again() -> None:
    async with Answering(said(OK)) as server, outside() as out:
        for _ in range(5):
            await post(out, server.url)

    assert (len(server.requests), server.connections) == (5, 1)


async def test_a_kept_connection_that_was_closed_costs_one_more_try() -> None:
    scripts = said(OK), said(then_close=True), said(OK)
    async with Answering(*scripts) as server, outside() as out:
        await post(out, server.url)
        assert (await post(out, server.url)).status == 200

    assert (len(server.requests), server.connections) == (3, 2)


async def test_a_new_connection_that_is_closed_costs_no_second_try() -> None:
    async with Answering(said(then_close=True)) as server, outside() as out:
        with pytest.raises(SourceUnavailable, match="closed before an answer"):
            await post(out, server.url)

    assert len(server.requests) == 1


async def test_it_is_of_no_use_when_it_is_closed() -> None:
    out = outside()
    with pytest.raises(InvariantError):
        await post(out, "https://receiver.example/")
    async with out:
        pass
    with pytest.raises(InvariantError):
        await post(out, "https://receiver.example/")


# ------------------------------------------------------------------------ where it must not lead


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::127.0.0.1]/",
        "https://[2002:7f00:1::]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://0.0.0.0/",
        "https://localhost/",
        "https://receiver.localhost/",
        "https://user@127.0.0.1/",
        "https://127.0.0.1\\@receiver.example/",
        "https://receiver.example:25/",
        "http://receiver.example/",
        "http://8.8.8.8/",
        "ftp://receiver.example/",
        "receiver.example",
        "https://",
        "",
    ],
)
async def test_nothing_is_looked_up_or_sent_for_a_url_that_is_refused(url: str) -> None:
    lookup, asked = leading(["127.0.0.1"])
    async with outside((), lookup=lookup) as out:
        with pytest.raises(SourceRejected):
            await post(out, url)

    assert asked == []


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["fe80::1%eth0"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["8.8.8.8"] * ADDRESSES_MAX + ["10.0.0.1"],
    ],
)
async def test_a_name_that_leads_inside_is_refused_whatever_else_it_leads_to(
    answer: list[str],
) -> None:
    async with outside((), lookup=leading(answer)[0]) as out:
        with pytest.raises(SourceRejected, match="its address is not public"):
            await post(out, "https://receiver.example/")


async def test_a_name_is_looked_up_once_for_a_connection_and_again_for_the_next() -> None:
    """A name server that says the right thing first and another one afterwards gains nothing."""
    lookup, asked = leading(["127.0.0.1"], ["127.0.0.2"])
    keeps, closes = said(OK), said(OK.replace(b"OK", b"OK\r\nConnection: close"))
    async with Answering(keeps, closes, host="127.0.0.1") as server:
        async with outside(ONE, lookup=lookup) as out:
            url = f"http://receiver.example:{server.port}/"
            for _ in range(2):
                assert (await post(out, url)).status == 200
            assert asked == ["receiver.example"]

            with pytest.raises(SourceRejected):
                await post(out, url)

        assert (len(server.requests), len(asked)) == (2, 2)


async def test_of_mixed_answers_none_is_connected_to() -> None:
    async with Answering(said(OK)) as server:
        lookup, _ = leading(["127.0.0.1", "127.0.0.2"])
        async with outside(ONE, lookup=lookup) as out:
            with pytest.raises(SourceRejected):
                await post(out, f"http://receiver.example:{server.port}/")

        assert server.connections == 0


async def test_without_tls_only_listed_networks_are_reached() -> None:
    for answer in (["8.8.8.8"], ["127.0.0.1", "8.8.8.8"]):
        async with outside(lookup=leading(answer)[0]) as out:
            with pytest.raises(SourceRejected, match="https"):
                await post(out, "http://receiver.example/")


async def test_a_public_network_that_is_listed_is_still_reached_by_tls_alone() -> None:
    everything: Networks = (IPv4Network("0.0.0.0/0"),)
    async with outside(everything, lookup=leading(["8.8.8.8"])[0]) as out:
        with pytest.raises(SourceRejected, match="https"):
            await post(out, "http://receiver.example/")


async def test_what_comes_past_the_other_checks_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(_self: Guard, host: str, port: int = 0, family: int = 0) -> Any:
        return [
            {
                "hostname": host,
                "host": "127.0.0.1",
                "port": port,
                "family": family,
                "proto": 0,
                "flags": 0,
            }
        ]

    monkeypatch.setattr(Guard, "resolve", resolve)
    async with Answering(said(OK)) as server, outside(()) as out:
        with pytest.raises(SourceRejected):
            await post(out, f"https://receiver.example:{server.port}/")

        assert server.connections == 0


async def test_a_name_without_addresses_leads_nowhere() -> None:
    async with outside(lookup=leading([])[0]) as out:
        with pytest.raises(SourceUnavailable, match="no address"):
            await post(out, "https://receiver.example/")


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    redirect = said(
        b"HTTP/1.1 307 X\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    )
    async with Answering(redirect) as server, outside() as out:
        assert (await post(out, server.url)).status == 307

    assert len(server.requests) == 1


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login shop password SECRET\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with Answering(said(OK)) as server, Answering(said(OK)) as proxy, outside() as out:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await post(out, server.url)

    assert proxy.connections == 0
    assert b"authorization" not in server.requests[0][0].lower()


async def test_cookies_are_not_kept() -> None:
    cookie = OK.replace(b"OK", b"OK\r\nSet-Cookie: a=b; Path=/")
    lookup, _ = leading(["127.0.0.1"])
    async with Answering(said(cookie)) as server, outside(lookup=lookup) as out:
        for _ in range(2):  # by its name: addresses have no cookies anyway
            await post(out, f"http://receiver.example:{server.port}/")

    assert b"cookie" not in server.requests[1][0].lower()


# ---------------------------------------------------------------------------------- TLS


async def test_a_certificate_is_looked_at() -> None:
    lookup, _ = leading(["127.0.0.1"])
    async with Answering(said(OK), tls=tls.of_server()) as server:
        async with outside(lookup=lookup, tls=tls.of_client()) as out:
            assert (await post(out, f"https://{tls.HOST}:{server.port}/")).status == 200
            with pytest.raises(SourceUnavailable, match=r"certificate .* not valid for"):
                await post(out, f"https://other.example:{server.port}/")
        async with outside(lookup=lookup) as out:
            with pytest.raises(SourceUnavailable, match="its certificate is not accepted"):
                await post(out, f"https://{tls.HOST}:{server.port}/")

    assert len(server.requests) == 1


async def test_who_does_not_speak_tls_gets_nothing() -> None:
    heard: list[bytes] = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, outside(lookup=leading(["127.0.0.1"])[0]) as out:
        with pytest.raises(SourceUnavailable, match="it does not speak TLS as we do"):
            await post(out, f"https://{tls.HOST}:{port}/hooks")
        await until(lambda: bool(heard))

    assert b"hooks" not in heard[0]


# ------------------------------------------------------------------------------- its answers


@pytest.mark.parametrize(
    "script",
    [
        silent(),
        silent(b"HTTP/1.1 200 OK\r\nX: 1\r\n"),
        endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.01),
    ],
)
async def test_who_does_not_answer_in_time_has_not_answered(script: Script) -> None:
    async with Answering(script) as server, outside(limits=SHORT) as out:
        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.3 s"):
            await post(out, server.url)


async def test_a_name_server_that_does_not_answer_takes_no_longer() -> None:
    async def lookup(_host: str) -> Sequence[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    async with outside(limits=SHORT, lookup=lookup) as out:
        with pytest.raises(SourceUnavailable, match="no answer within"):
            await post(out, "https://receiver.example/")


@pytest.mark.parametrize(
    "script",
    [
        said(b"SSH-2.0-OpenSSH_9.6\r\n", then_close=True),
        said(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5_000 + b"\r\n\r\n"),
        said(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 100 + b"\r\n"),
        endless(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n" * 1_000),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000),
        endless(b"HTTP/1.1 200 ", b"OK" * 10_000),
        said(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        said(b"HTTP/1.1 200 OK\r\n\x00: 1\r\n\r\n"),
    ],
)
async def test_what_is_no_http_is_no_answer(script: Script) -> None:
    async with Answering(script) as server, outside() as out:
        with pytest.raises(SourceUnavailable, match="no HTTP"):
            await post(out, server.url)


@pytest.mark.parametrize(
    ("script", "body"),
    [
        (said(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"hello"), b"hello"),
        (
            said(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"a" * 9_999),
            b"a" * BODY_BYTES_KEPT,
        ),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 100_000), b"a" * BODY_BYTES_KEPT),
        (
            endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n"),
            (b"abc" * 400)[:BODY_BYTES_KEPT],
        ),
    ],
    ids=["short", "long", "endless", "endless chunks"],
)
async def test_of_a_body_the_beginning_is_kept(script: Script, body: bytes) -> None:
    async with Answering(script) as server, outside() as out:
        assert (await post(out, server.url)).body == body


async def test_who_has_said_the_status_has_answered_although_the_body_is_cut() -> None:
    cut = said(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", then_close=True)
    async with Answering(cut) as server, outside() as out:
        reply = await post(out, server.url)

    assert reply.status == 200
    assert b"ab".startswith(reply.body)


async def test_an_endless_body_ends_the_connection() -> None:
    async with (
        Answering(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 100_000)) as server,
        outside() as out,
    ):
        await post(out, server.url)
        await until(lambda: server.open == 0)


async def test_a_body_that_drips_is_not_waited_for() -> None:
    dripping = endless(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a", 0.01)
    limits = Limits(timeout_s=60, connect_timeout_s=60, body_timeout_s=0.1)
    async with Answering(dripping) as server, outside(limits=limits) as out:
        assert (await post(out, server.url)).status == 200
        await until(lambda: server.open == 0)


async def test_nothing_is_unpacked() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with Answering(said(head.encode(), bomb)) as server, outside() as out:
        assert (await post(out, server.url)).body == bomb[:BODY_BYTES_KEPT]


async def test_a_host_that_is_not_there_is_told_by_the_systems_own_word() -> None:
    async with outside() as out:
        with pytest.raises(SourceUnavailable, match=r"^no connection: Connection refused$"):
            await post(out, f"http://127.0.0.1:{free_port()}/")


async def test_a_slow_receiver_takes_no_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_PER_HOST_MAX", 4)
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(Answering(silent()))
        fast = await stack.enter_async_context(Answering(said(OK)))
        out = await stack.enter_async_context(outside())
        waiting = [asyncio.create_task(post(out, slow.url)) for _ in range(8)]
        await until(lambda: slow.connections == 4)

        assert (await post(out, fast.url)).status == 200

        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert slow.connections == 4


def test_all_receivers_may_be_at_one_host() -> None:
    assert module.CONNECTIONS_PER_HOST_MAX >= ENDPOINTS_MAX * AT_ONCE


async def test_no_error_tells_of_the_url_or_an_address() -> None:
    said_of: list[str] = []
    lookup, _ = leading(["127.0.0.1"])
    scripts = [said(then_close=True), silent(), said(b"garbage\r\n\r\n", then_close=True)]
    for script in scripts:
        async with Answering(script) as server, outside(limits=SHORT, lookup=lookup) as out:
            for url in (server.url, f"https://receiver.example:{server.port}/hooks?shop=SECRET"):
                with pytest.raises(SourceUnavailable) as raised:
                    await post(out, url)
                said_of.append(str(raised.value))
    async with outside((), lookup=lookup) as out:
        for url in ("https://receiver.example/hooks?SECRET", "https://10.0.0.1/hooks?SECRET"):
            with pytest.raises(SourceRejected) as refused:
                await post(out, url)
            said_of.append(str(refused.value))

    assert len(said_of) == 8
    for sentence in said_of:
        assert not any(part in sentence for part in ("SECRET", "hooks", "127.0", "10.0", "://"))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not holds():
            await asyncio.sleep(0.005)
