"""One request to a partner: what it carries, where it leads, and what an answer can do to us."""

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest

from indexer.core.addresses import Address, Networks
from indexer.errors import InvariantError
from indexer.sources.names import Lookup
from indexer.sources.partner import PIECE_BYTES, Answer, NoAnswer, Partner, Why
from tests.indexer.sources.answering import OK, Answering, Script, endless, said, silent
from tests.ports import free_port
from tests.servers import tls


LOCAL: Networks = (IPv4Network("127.0.0.0/8"),)
#: Stands for the public internet, where tests must not go: the rest of loopback is refused.
ONE: Networks = (IPv4Network("127.0.0.1/32"),)
BYTES_MAX = 1_000_000


def leading(*answers: str) -> Lookup:
    """A look-up that gives these addresses one after the other, the last one for ever."""
    rest = list(answers)

    async def lookup(_host: str) -> Sequence[Address]:
        return [ip_address(rest.pop(0) if len(rest) > 1 else rest[0])]

    return lookup


async def ask(
    partner: Partner,
    url: str,
    *,
    method: str = "POST",
    timeout_s: float = 30.0,
    bytes_max: int = BYTES_MAX,
    is_repeatable: bool = True,
    **headers: str,
) -> Answer:
    return await partner.send(
        method,
        url,
        headers,
        b"{}",
        timeout_s=timeout_s,
        bytes_max=bytes_max,
        is_repeatable=is_repeatable,
    )


async def why(script: Script, **options: Any) -> tuple[Why, str]:
    """Why such a server's answer is none."""
    async with Answering(script) as server, Partner(server.url, LOCAL) as partner:
        with pytest.raises(NoAnswer) as raised:
            await ask(partner, server.url, **options)
    return raised.value.why, str(raised.value)


def packed(body: bytes, *, encoding: str = "gzip") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# ---------------------------------------------------------------------------- what is sent


async def test_a_request_is_sent_as_it_is_and_its_answer_comes_back() -> None:
    answer = (
        b"HTTP/1.1 418 X\r\nContent-Type: a/b\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nok"
    )
    async with Answering(said(answer)) as server, Partner(server.url, LOCAL) as partner:
        url = f"http://127.0.0.1:{server.port}/%7Ea/b?x=%20+%2F&y=[1]"
        found = await ask(partner, url, method="PUT", Authorization="Bearer t")

    [(head, body)] = server.requests
    lines = head.split(b"\r\n")
    assert lines[0] == b"PUT /%7Ea/b?x=%20+%2F&y=[1] HTTP/1.1"
    assert b"Authorization: Bearer t" in lines
    assert b"Accept-Encoding: gzip" in lines
    assert body == b"{}"
    assert (found.status, found.body, found.retry_after_s) == (418, b"ok", None)
    assert found.headers == {"content-type": "a/b", "x-a": "1", "content-length": "2"}


async def test_a_pause_that_is_asked_for_is_told() -> None:
    answer = b"HTTP/1.1 503 X\r\nRetry-After: 99999999\r\nContent-Length: 0\r\n\r\n"
    async with Answering(said(answer)) as server, Partner(server.url, LOCAL) as partner:
        assert (await ask(partner, server.url)).retry_after_s == 300


async def test_what_may_arrive_twice_goes_on_a_kept_connection_and_all_else_on_a_new_one() -> None:
    async with Answering(said(OK)) as server, Partner(server.url, LOCAL) as partner:
        for _ in range(3):
            await ask(partner, server.url)
        assert server.connections == 1
        for _ in range(3):
            await ask(partner, server.url, is_repeatable=False)
        assert server.connections == 4


async def test_a_kept_connection_that_was_closed_costs_one_more_try() -> None:
    scripts = said(OK), said(then_close=True), said(OK)
    async with Answering(*scripts) as server, Partner(server.url, LOCAL) as partner:
        await ask(partner, server.url)
        assert (await ask(partner, server.url)).status == 200

    assert len(server.requests) == 3


async def test_what_must_not_arrive_twice_is_sent_once() -> None:
    async with Answering(said(then_close=True)) as server, Partner(server.url, LOCAL) as partner:
        with pytest.raises(NoAnswer) as raised:
            await ask(partner, server.url, is_repeatable=False)

    assert raised.value.why is Why.UNREACHABLE
    assert len(server.requests) == 1


# ------------------------------------------------------------------------ where it must not lead


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "https://partner.example/",
        "http://partner.example:81/",
        "http://partner.example@127.0.0.1/",
        "http://partner.example.evil.example/",
        "//partner.example/",
        "partner.example",
        "",
    ],
)
async def test_only_the_partner_is_asked(url: str) -> None:
    async with Partner("http://partner.example/api", LOCAL) as partner:
        with pytest.raises(InvariantError):
            await ask(partner, url)


@pytest.mark.parametrize("address", ["127.0.0.2", "10.0.0.1", "169.254.169.254", "::1"])
async def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async with Partner("https://partner.example", ONE, lookup=leading(address)) as partner:
        with pytest.raises(NoAnswer, match="not public") as raised:
            await ask(partner, "https://partner.example/")

    assert raised.value.why is Why.REFUSED


@pytest.mark.parametrize("host", ["127.0.0.2", "169.254.169.254", "[::1]", "[::ffff:10.0.0.1]"])
async def test_an_address_inside_is_refused(host: str) -> None:
    async with Partner(f"https://{host}", ONE) as partner:
        with pytest.raises(NoAnswer) as raised:
            await ask(partner, f"https://{host}/")

    assert raised.value.why is Why.REFUSED


async def test_a_name_server_that_changes_its_mind_gains_nothing() -> None:
    async with Answering(said(OK, then_close=True), host="127.0.0.1") as server:
        url = f"http://partner.example:{server.port}/"
        lookup = leading("127.0.0.1", "127.0.0.2")
        async with Partner(url, ONE, lookup=lookup) as partner:
            assert (await ask(partner, url, is_repeatable=False)).status == 200
            with pytest.raises(NoAnswer) as raised:
                await ask(partner, url, is_repeatable=False)

    assert raised.value.why is Why.REFUSED
    assert server.connections == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_not_followed_and_no_answer(status: int) -> None:
    async with Answering(said(OK)) as aim:
        answer = f"HTTP/1.1 {status} X\r\nLocation: {aim.url}\r\nContent-Length: 0\r\n\r\n"
        assert (await why(said(answer.encode())))[0] is Why.REDIRECT
        assert aim.connections == 0


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Answering(said(OK)) as server, Answering(said(OK)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with Partner(server.url, LOCAL) as partner:
            await ask(partner, server.url)

    assert proxy.connections == 0


async def test_a_certificate_is_looked_at() -> None:
    async with Answering(said(OK), tls=tls.of_server()) as server:
        for host, is_right in ((tls.HOST, True), ("other.example", False)):
            url = f"https://{host}:{server.port}/"
            options: Any = {"lookup": leading("127.0.0.1"), "tls": tls.of_client()}
            async with Partner(url, LOCAL, **options) as partner:
                if is_right:
                    assert (await ask(partner, url)).status == 200
                else:
                    with pytest.raises(NoAnswer, match="certificate"):
                        await ask(partner, url)


# ------------------------------------------------------------------------------- its answers


@pytest.mark.parametrize(
    "script",
    [
        silent(),
        silent(b"HTTP/1.1 200 OK\r\nX: 1\r\n"),
        silent(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.01),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a", 0.01),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 0.01),
    ],
    ids=["nothing", "half a head", "half a body", "a slow head", "a slow body", "slow chunks"],
)
async def test_the_whole_answer_comes_in_time_or_it_is_none(script: Script) -> None:
    assert (await why(script, timeout_s=0.3))[0] is Why.TIMEOUT


async def test_a_name_server_that_does_not_answer_takes_no_longer() -> None:
    async def lookup(_host: str) -> Sequence[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    async with Partner("https://partner.example", lookup=lookup) as partner:
        with pytest.raises(NoAnswer) as raised:
            await ask(partner, "https://partner.example/", timeout_s=0.1)

    assert raised.value.why is Why.TIMEOUT


async def test_a_partner_that_is_not_there_is_told_by_the_systems_own_word() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    async with Partner(url, LOCAL) as partner:
        with pytest.raises(NoAnswer, match=r"^no connection: Connection refused$") as raised:
            await ask(partner, url)

    assert raised.value.why is Why.UNREACHABLE


@pytest.mark.parametrize(
    "script",
    [
        endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 100_000),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n" * 99),
        said(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"a" * 2 * BYTES_MAX),
    ],
    ids=["endless", "endless chunks", "long"],
)
async def test_a_body_that_is_too_long_ends_at_the_bound(script: Script) -> None:
    assert await why(script) == (Why.TOO_LARGE, "its answer has more than 1000000 bytes")


async def test_who_goes_on_for_ever_is_hung_up_on() -> None:
    script = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 100_000)
    async with Answering(script) as server, Partner(server.url, LOCAL) as partner:
        with pytest.raises(NoAnswer):
            await ask(partner, server.url)
        async with asyncio.timeout(90):
            while server.open:
                await asyncio.sleep(0.005)


async def test_a_body_may_be_as_long_as_the_bound() -> None:
    body = b"a" * 1_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + body
    async with Answering(said(answer)) as server, Partner(server.url, LOCAL) as partner:
        assert (await ask(partner, server.url, bytes_max=1_000)).body == body
        with pytest.raises(NoAnswer):
            await ask(partner, server.url, bytes_max=999)


@pytest.mark.parametrize(
    "script",
    [
        said(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", then_close=True),
        said(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5_000 + b"\r\n\r\n"),
        said(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 100 + b"\r\n"),
        said(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        said(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", then_close=True),
        said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", then_close=True),
        said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
        said(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    ],
    ids=["ssh", "long header", "many headers", "length", "cut", "cut chunk", "no chunk", "101"],
)
async def test_what_is_no_http_is_no_answer(script: Script) -> None:
    assert (await why(script))[0] is Why.UNREADABLE


# -------------------------------------------------------------------------------- packed answers


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", bytes(PIECE_BYTES), bytes(PIECE_BYTES + 1), bytes(900_000), b"abc" * 200_000],
    ids=len,
)
@pytest.mark.parametrize("piece", [1, 7, 10**6])
async def test_a_packed_answer_is_unpacked_whatever_pieces_it_comes_in(
    body: bytes, piece: int
) -> None:
    raw = gzip.compress(body)
    chunks = [raw[at : at + piece] for at in range(0, len(raw), piece)]
    head = packed(raw)[: -len(raw)]
    async with (
        Answering(said(head, *chunks)) as server,
        Partner(server.url, LOCAL) as partner,
    ):
        assert (await ask(partner, server.url)).body == body


async def test_several_packed_members_are_one_answer() -> None:
    raw = gzip.compress(b"a" * 100) + gzip.compress(b"") + gzip.compress(b"b" * PIECE_BYTES)
    async with Answering(said(packed(raw))) as server, Partner(server.url, LOCAL) as partner:
        found = await ask(partner, server.url)

    assert found.body == b"a" * 100 + b"b" * PIECE_BYTES


async def test_a_bomb_ends_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counting:
        def __init__(self, unpacker: Any) -> None:
            self._unpacker = unpacker

        def __getattr__(self, name: str) -> Any:
            return getattr(self._unpacker, name)

        def decompress(self, data: bytes, length: int) -> bytes:
            nonlocal made
            piece: bytes = self._unpacker.decompress(data, length)
            made += len(piece)
            return piece

    real = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda bits: Counting(real(bits)))
    bomb = gzip.compress(bytes(100_000_000), 9)

    assert (await why(said(packed(bomb))))[0] is Why.TOO_LARGE
    assert len(bomb) < BYTES_MAX
    assert made <= BYTES_MAX + PIECE_BYTES


@pytest.mark.parametrize(
    "answer",
    [
        packed(b"no gzip at all"),
        packed(gzip.compress(b"a" * 100)[:-1]),
        packed(gzip.compress(b"a" * 100)[:-8] + b"damaged!"),
        packed(gzip.compress(b"ok") + b"rest"),
        packed(zlib.compress(b"ok")),
        packed(zlib.compress(b"ok"), encoding="deflate"),
        packed(b"ok", encoding="br"),
        packed(gzip.compress(gzip.compress(b"ok")), encoding="gzip, gzip"),
    ],
    ids=["no gzip", "cut", "sum", "rest", "zlib", "deflate", "br", "twice"],
)
async def test_what_cannot_be_unpacked_is_no_answer(answer: bytes) -> None:
    assert (await why(said(answer)))[0] is Why.UNREADABLE


# --------------------------------------------------------------------------------------- words


async def test_no_error_tells_of_the_url_the_body_or_an_address() -> None:
    told = [
        await why(said(then_close=True), is_repeatable=False),
        await why(silent(), timeout_s=0.1),
        await why(said(b"garbage\r\n\r\n", then_close=True)),
        await why(said(packed(b"SECRET"))),
        await why(said(b"HTTP/1.1 302 SECRET\r\nLocation: /SECRET\r\n\r\n")),
        await why(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"SECRET" * 9_999)),
    ]

    for _, sentence in told:
        assert not any(part in sentence for part in ("SECRET", "hooks", "127.0", "://"))


async def test_it_is_used_inside_of_its_block() -> None:
    partner = Partner("https://partner.example")
    with pytest.raises(InvariantError):
        await ask(partner, "https://partner.example/")
