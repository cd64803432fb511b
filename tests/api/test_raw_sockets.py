"""What no client library sends: requests that two programs could read in two ways.

Behind a proxy, a request that is hidden in another one's body would be answered to somebody else.
So the proof is always the same: how many answers come for the bytes that were sent.
"""

import asyncio
import re
from typing import Final

import msgspec
import pytest
from structlog.testing import capture_logs

from api.limits import HEADERS_BYTES_MAX, HEADERS_MAX, PIPELINED_MAX, URL_BYTES_MAX
from tests.api.raw import HIDDEN, HOST, LAST, PATIENCE_S, answers_in, get_with, post, talk
from tests.api.running import Api


CHUNKED: Final = b"Transfer-Encoding: chunked"

AMBIGUOUS: Final = {
    "both lengths": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "both lengths, the other way round": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN)),
    "the same length twice": post(b"Content-Length: 1", b"Content-Length: 1", body=b"a"),
    "a list of lengths": post(b"Content-Length: 0, 0"),
    "a length with a sign": post(b"Content-Length: +1", body=b"a"),
    "a negative length": post(b"Content-Length: -1"),
    "a length in hexadecimal": post(b"Content-Length: 0x1", body=b"a"),
    "a length with an underscore": post(b"Content-Length: 1_0", body=b"a" * 10),
    "a length of a digit that is not ASCII": post(b"Content-Length: \xb2", body=b"aa"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999999"),
    "an empty length": post(b"Content-Length:"),
    "a space before the colon": post(b"Content-Length : 1", body=b"a"),
    "a coding that ends in another one": post(b"Transfer-Encoding: chunked, identity"),
    "a coding twice": post(CHUNKED, b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "a coding behind a control character": post(b"Transfer-Encoding: \x0bchunked"),
    "a folded header": post(b"X: a", b" Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "a header that begins with a space": post(b" X: a"),
    "a header without a name": post(b": a"),
    "a header without a colon": post(b"Content-Length"),
    "a name that is not ASCII": post(b"X\xff: a"),
    "a line that ends without CR": post(b"X: a\n" + CHUNKED),
    "a line that ends without LF": post(b"X: a\r" + CHUNKED),
    "a NUL": post(b"X: a\0b"),
    "a first line that ends without CR": b"GET /livez HTTP/1.1\n" + HOST + b"\r\n",
    "a method in small letters": b"get /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is none": b"FOO /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a space in the target": b"GET /livez x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is not ASCII": b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "all of the server": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with another host": b"GET http://evil.example/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a user": b"GET http://x@localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target of another scheme": b"GET ftp://localhost/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a host beside two": b"GET http://localhost/livez HTTP/1.1\r\n"
    + HOST * 2
    + b"\r\n",
}


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_read(
    api: Api, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as captured:
        answers = await talk(api, request_ + HIDDEN, HIDDEN + LAST)

    assert [answer.status for answer in answers] == [400]
    assert answers[0].headers["connection"] == "close"
    # A stranger does not fill the log.
    assert [line for line in captured if line["log_level"] != "debug"] == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(b"GET /livez HTTP/2.0\r\n" + HOST + b"\r\n", 505, id="HTTP/2.0"),
        pytest.param(b"GET /livez HTTP/0.9\r\n\r\n", 505, id="HTTP/0.9"),
        pytest.param(b"GET /livez\r\n\r\n", 505, id="no version"),
        pytest.param(
            post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 2"), 501, id="upgrade"
        ),
        pytest.param(post(b"Connection: upgrade", b"Upgrade: h2c", CHUNKED), 501, id="upgrade 2"),
        pytest.param(post(CHUNKED, body=b"0\r\n\r\n", version=b"1.0"), 501, id="chunked in 1.0"),
        pytest.param(post(b"Transfer-Encoding: identity", body=b"a"), 501, id="identity"),
        pytest.param(post(b"Transfer-Encoding: xchunked", body=b"a"), 501, id="xchunked"),
        pytest.param(post(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n"), 501, id="more"),
        pytest.param(post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501, id="gzip"),
    ],
)
async def test_what_is_not_spoken_here_is_said(api: Api, request_: bytes, status: int) -> None:
    answers = await talk(api, request_ + HIDDEN, LAST)

    assert [answer.status for answer in answers] == [status]


CHUNKS: Final = {
    "a size with a prefix": b"0x1\r\na\r\n0\r\n\r\n",
    "a size with a sign": b"+1\r\na\r\n0\r\n\r\n",
    "a negative size": b"-1\r\na\r\n0\r\n\r\n",
    "a size behind which is a space": b"1 \r\na\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"fffffffffffffffff\r\na",
    "no size": b"\r\na\r\n0\r\n\r\n",
    "lines that end without CR": b"1\na\n0\n\n",
    "a chunk that is longer than it says": b"1\r\nab\r\n0\r\n\r\n",
    "an extension with a line's end": b"1;\n\r\na\r\n0\r\n\r\n",
    "an extension with a NUL": b"1;a\0b\r\na\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
async def test_chunks_that_can_be_read_in_two_ways_end_the_connection(
    api: Api, chunks: bytes
) -> None:
    """The request itself is cut off: what waits for its body learns that it does not come."""
    headers = [
        b"Authorization: " + api.writer["Authorization"].encode(),
        b"Idempotency-Key: k",
        b"Content-Type: application/json",
        CHUNKED,
    ]

    answers = await talk(api, post(*headers), chunks + HIDDEN, LAST)

    assert [answer.status for answer in answers] == [400]
    assert msgspec.json.decode(answers[0].body)["code"] == "malformed_request"
    assert (await api.get("/api/pay", api.reader))[1]["data"] == []


async def test_a_hidden_request_in_a_body_stays_a_body(api: Api) -> None:
    bodies = [
        post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN),
        post(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
        post(CHUNKED, body=b"1;a=b\r\nx\r\n0\r\n\r\n"),
    ]

    answers = await talk(api, *bodies, LAST)

    assert [answer.status for answer in answers] == [401, 401, 401, 200]


async def test_what_follows_the_last_request_is_not_read(api: Api) -> None:
    answers = await talk(api, LAST + HIDDEN, HIDDEN)

    assert [answer.status for answer in answers] == [200]


async def test_a_trailer_is_no_header(api: Api) -> None:
    """A proxy that looks at headers has not looked at these."""
    trailers = b"Authorization: %b\r\nIdempotency-Key: k\r\nHost: evil.example\r\n" % (
        api.writer["Authorization"].encode()
    )

    answers = await talk(api, post(CHUNKED, body=b"0\r\n" + trailers + b"\r\n"), LAST)

    assert [answer.status for answer in answers] == [401, 200]


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_an_upgrade_is_passed_over(api: Api, protocol: bytes) -> None:
    """The connection goes on in HTTP/1.1, and what follows is read from its beginning."""
    upgrade = b"Connection: upgrade\r\nUpgrade: %b\r\n" % protocol
    get = b"GET /livez HTTP/1.1\r\n" + HOST + upgrade + b"\r\n"
    with capture_logs() as captured:
        answers = await talk(
            api,
            get + get[:10],
            get[10:],
            LAST,
        )

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert {line["event"] for line in captured} == {"http.request_served"}


async def test_a_target_with_our_own_host_is_read(api: Api) -> None:
    get = b"GET http://LOCALHOST/livez?a=b HTTP/1.1\r\n" + HOST + b"\r\n"

    assert [answer.status for answer in await talk(api, get, LAST)] == [200, 200]


@pytest.mark.parametrize(
    ("field", "status"),
    [
        pytest.param(b"", 400, id="none"),
        pytest.param(b"Host:\r\n", 400, id="empty"),
        pytest.param(HOST + HOST, 400, id="two"),
        pytest.param(HOST + b"Host: evil.example\r\n", 400, id="two that differ"),
        pytest.param(b"Host: localhost, evil.example\r\n", 400, id="a list"),
        pytest.param(b"Host: local host\r\n", 400, id="a space"),
        pytest.param(b"Host: x@localhost\r\n", 400, id="a user"),
        pytest.param(b"Host: localhost/\r\n", 400, id="a path"),
        pytest.param(b"Host: localhost:http\r\n", 400, id="a port of letters"),
        pytest.param(b"Host: localhost:65536\r\n", 400, id="a port too high"),
        pytest.param(b"Host: [::1\r\n", 400, id="half an address"),
        pytest.param(b"Host: evil.example\r\n", 421, id="another one"),
        pytest.param(b"Host: localhost.evil.example\r\n", 421, id="a longer one"),
        pytest.param(b"Host: 10.0.0.1\r\n", 421, id="another address"),
        pytest.param(b"Host: localhost\r\nX-Forwarded-Host: evil.example\r\n", 404, id="forwarded"),
        pytest.param(b"Host: LocalHost.:8000\r\n", 404, id="ours, otherwise written"),
        pytest.param(b"Host: [0:0::1]:80\r\n", 404, id="our address, otherwise written"),
        pytest.param(b"Host: pay.example.com\r\n", 404, id="the public one"),
    ],
)
async def test_a_request_names_one_host_of_ours(api: Api, field: bytes, status: int) -> None:
    get = b"GET /api/pay/x HTTP/1.1\r\n" + field + b"\r\n"

    answers = await talk(api, get, LAST)

    assert [answer.status for answer in answers] == [status, 200]


async def test_a_probe_of_http_1_0_needs_no_host(api: Api) -> None:
    assert [a.status for a in await talk(api, b"GET /livez HTTP/1.0\r\n\r\n")] == [200]
    assert [a.status for a in await talk(api, b"GET /api/pay HTTP/1.0\r\n\r\n")] == [421]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(get_with(path=b"/" + b"a" * (URL_BYTES_MAX - 1)), 404, id="target"),
        pytest.param(get_with(path=b"/" + b"a" * URL_BYTES_MAX), 414, id="target + 1"),
        pytest.param(get_with(path=b"/livez?" + b"a" * URL_BYTES_MAX), 414, id="query"),
        pytest.param(get_with(*[b"X: a"] * (HEADERS_MAX - 1)), 200, id="headers"),
        pytest.param(get_with(*[b"X: a"] * HEADERS_MAX), 431, id="headers + 1"),
        pytest.param(
            get_with(b"X: " + b"a" * (HEADERS_BYTES_MAX - len(HOST) - 5)), 200, id="bytes"
        ),
        pytest.param(
            get_with(b"X: " + b"a" * (HEADERS_BYTES_MAX - len(HOST) - 4)), 431, id="bytes + 1"
        ),
        pytest.param(get_with(b"X" * HEADERS_BYTES_MAX + b": a"), 431, id="name"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_heads_are_bounded_to_the_byte(
    api: Api, request_: bytes, status: int, pieces: int
) -> None:
    size = -(-len(request_) // pieces)
    parts = [request_[at : at + size] for at in range(0, len(request_), size)]

    answers = await talk(api, *parts, LAST)

    assert [a.status for a in answers] == ([status] if status in (414, 431) else [status, 200])
    assert status == 200 or "code" in msgspec.json.decode(answers[0].body)


async def test_trailers_are_bounded(api: Api) -> None:
    begun = post(CHUNKED, body=b"0\r\n")

    for endless in (b"X: a\r\n" * 10_000, b"X: " + b"a" * 100_000, b"a" * 100_000):
        answers = await talk(api, begun, *[endless[i : i + 9_999] for i in range(0, 60_000, 9_999)])
        assert [answer.status for answer in answers] == [401, 431]


async def test_an_extension_of_a_chunk_is_bounded(api: Api) -> None:
    answers = await talk(api, post(CHUNKED, body=b"1;"), *[b"a" * 10_000] * 10)

    assert [answer.status for answer in answers] == [401, 431]


async def test_what_the_parser_refuses_has_the_headers_of_every_answer(api: Api) -> None:
    async with api.session.get("/livez") as response:
        usual = {name.lower(): value for name, value in response.headers.items()}
    for request_ in (b"\0", get_with(path=b"/" + b"a" * URL_BYTES_MAX)):
        [answer] = await talk(api, request_)

        assert answer.headers["content-type"] == "application/problem+json"
        problem = msgspec.json.decode(answer.body)
        assert (problem["status"], problem["type"]) == (answer.status, "about:blank")
        assert answer.headers.keys() == usual.keys() | {"connection"}
        for name in usual.keys() - {"content-length", "content-type", "date"}:
            assert answer.headers[name] == usual[name]


async def test_refused_requests_are_counted(api: Api) -> None:
    await talk(api, b"\0")

    async with api.session.get("/metrics") as response:
        figures = await response.text()
    assert re.search(r'requests?_seconds_count\{.*route="none",status="400"\} 1.0', figures)


async def test_garbage_behind_a_request_does_not_take_its_answer_away(api: Api) -> None:
    answers = await talk(api, get_with() + get_with() + b"\0garbage" + LAST)

    assert [answer.status for answer in answers] == [200, 200]
    assert answers[-1].headers["connection"] == "close"


async def test_garbage_in_the_body_of_a_stream_does_not_get_into_it(api: Api) -> None:
    """It is this request's own body, but its answer has begun."""
    payment = await api.create()
    path = f"/api/sse/payments/{payment['id']}".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(PATIENCE_S):
        writer.write(get_with(CHUNKED, path=path))
        await reader.readuntil(b"event: payment")
        writer.write(b"wrong")
        await api.settle(payment["id"], 12_500_000)
        rest = await reader.read()
    writer.close()

    assert b"event: payment.settled" in rest
    assert b"HTTP/1.1" not in rest


@pytest.mark.parametrize("path", [b"/livez", b"/api/pay"])
async def test_nobody_answers_behind_a_refusal(
    api: Api, path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for a body that is wrong, and who does not, is already at work."""
    headers = [
        b"Authorization: " + api.writer["Authorization"].encode(),
        b"Idempotency-Key: k",
        b"Content-Type: application/json",
        b"Expect: 100-continue",
        CHUNKED,
    ]
    request_ = post(*headers, body=b"wrong").replace(b"/api/pay", path)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    with capture_logs() as captured:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(request_.replace(b"POST /livez", b"GET /livez"))
            answers = answers_in(await reader.read())
            while "http.request_served" not in {line["event"] for line in captured}:
                await asyncio.sleep(0.01)
    writer.close()

    assert [answer.status for answer in answers] == [400]
    assert "http.failed" not in {line["event"] for line in captured}
    assert caplog.records == []


async def test_garbage_behind_a_stream_does_not_get_into_it(api: Api) -> None:
    payment = await api.create()
    path = f"/api/sse/payments/{payment['id']}".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(PATIENCE_S):
        writer.write(get_with(path=path))
        head = await reader.readuntil(b"event: payment")
        writer.write(b"\0garbage\r\n\r\n")
        await api.settle(payment["id"], 12_500_000)
        rest = await reader.read()
    writer.close()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"event: payment.settled" in rest
    assert b"HTTP/1.1" not in rest


async def test_a_body_is_asked_for_only_where_it_is_read(api: Api) -> None:
    """`Expect: 100-continue`, and a body that is wrong when it comes at last."""
    expects = b"Expect: 100-continue"
    told = post(expects, b"Content-Length: 9")
    headers = [
        b"Authorization: " + api.writer["Authorization"].encode(),
        b"Idempotency-Key: k",
        b"Content-Type: application/json",
    ]

    assert [answer.status for answer in await talk(api, told, b"a" * 9 + LAST)] == [401, 200]
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(PATIENCE_S):
        writer.write(post(*headers, expects, CHUNKED))
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        writer.write(b"wrong")
        assert b"HTTP/1.1 400 " in await reader.read()
    writer.close()


async def test_two_slashes_are_a_path_and_no_host(api: Api) -> None:
    answers = await talk(api, get_with(path=b"//localhost/livez"), LAST)

    assert [answer.status for answer in answers] == [404, 200]


async def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    payment = await api.create()
    paths = [b"/livez", f"/api/pay/{payment['id']}".encode(), b"/nothing"] * 5

    answers = await talk(api, b"".join(get_with(path=path) for path in paths) + LAST)

    assert [answer.status for answer in answers] == [200, 200, 404] * 5 + [200]


async def test_requests_behind_one_that_does_not_end_are_bounded(api: Api) -> None:
    """A thousand of them behind a stream would each keep their place in memory."""
    payment = await api.create()
    path = f"/api/sse/payments/{payment['id']}".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    async with asyncio.timeout(PATIENCE_S):
        writer.write(get_with(path=path) + get_with() * 1_000)
        await reader.readuntil(b"event: payment")
        await api.settle(payment["id"], 12_500_000)
        rest = await reader.read()
    writer.close()

    assert rest.count(b"HTTP/1.1 200 ") == PIPELINED_MAX
