"""The webhooks API of Helius: what is asked, what every failure means, and no key anywhere."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from indexer.errors import InvariantError, SourceError, SourceRejected, SourceUnavailable
from indexer.sources import helius as helius_module
from indexer.sources.helius import ADDRESSES_MAX, Helius
from tests.chain import key
from tests.ports import free_port
from tests.servers.fake_helius import (
    AUTH_HEADER,
    FakeHelius,
    Fault,
    answers,
    hangs,
    hangs_up,
    refuses,
)


API_KEY = "0f1e2d3c-canary-api-key"
A, B, C = (key(name) for name in "abc")


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeHelius]:
    async with FakeHelius(API_KEY) as fake:
        fake.add("hook", [A, B])
        yield fake


@pytest_asyncio.fixture
async def helius(fake: FakeHelius) -> AsyncIterator[Helius]:
    async with Helius(fake.url, API_KEY, timeout_s=5) as helius:
        yield helius


async def test_a_webhook_is_read(fake: FakeHelius, helius: Helius) -> None:
    webhook = await helius.read("hook")

    assert webhook.addresses == {A, B}
    assert webhook.active
    assert webhook.auth_header == AUTH_HEADER
    [call] = fake.calls
    assert (call.method, call.path, call.query) == (
        "GET", "/v0/webhooks/hook", f"api-key={API_KEY}",
    )  # fmt: skip


async def test_its_addresses_are_replaced_and_nothing_else(
    fake: FakeHelius, helius: Helius
) -> None:
    before = dict(fake.hooks["hook"])
    webhook = await helius.read("hook")

    after = await helius.replace(webhook, {C, B})

    assert after.addresses == {B, C}
    assert fake.hooks["hook"] == before | {"accountAddresses": sorted([B, C])}
    assert fake.calls[-1].query == f"api-key={API_KEY}"
    assert "webhookID" not in fake.calls[-1].body, "what an edit may not have is left out"


async def test_what_helius_does_not_say_is_said_for_it(fake: FakeHelius, helius: Helius) -> None:
    fake.hides_auth_header = True
    webhook = await helius.read("hook")
    assert webhook.auth_header is None

    await helius.replace(webhook, {A}, auth_header="the new one")

    assert fake.hooks["hook"]["authHeader"] == "the new one"


async def test_it_is_switched_on(fake: FakeHelius, helius: Helius) -> None:
    fake.hooks["hook"]["active"] = False
    assert not (await helius.read("hook")).active

    await helius.switch_on("hook")

    assert (await helius.read("hook")).active
    assert fake.methods() == ["GET", "PATCH", "GET"]


@pytest.mark.parametrize("said", [{}, {"active": None}, {"active": True}], ids=repr)
async def test_one_that_does_not_say_that_it_is_off_is_on(
    fake: FakeHelius, helius: Helius, said: dict[str, Any]
) -> None:
    del fake.hooks["hook"]["active"]
    fake.hooks["hook"] |= said

    assert (await helius.read("hook")).active


async def test_as_many_addresses_as_there_may_be_are_written_and_read(
    fake: FakeHelius, helius: Helius
) -> None:
    crowd = [f"{n:044d}" for n in range(ADDRESSES_MAX)]
    webhook = await helius.replace(await helius.read("hook"), crowd)

    assert len((await helius.read("hook")).addresses) == ADDRESSES_MAX
    with pytest.raises(InvariantError):
        await helius.replace(webhook, [*crowd, A])


async def test_an_id_cannot_leave_its_place_in_the_url(fake: FakeHelius, helius: Helius) -> None:
    with pytest.raises(SourceRejected):
        await helius.read("../webhooks/hook?x=/#y")

    assert fake.calls[0].path == "/v0/webhooks/..%2Fwebhooks%2Fhook%3Fx%3D%2F%23y"


async def test_the_api_may_stand_below_a_path(fake: FakeHelius) -> None:
    async with Helius(f"{fake.url}/gateway/", API_KEY) as helius:
        with pytest.raises(SourceRejected):
            await helius.read("hook")

    assert fake.calls[0].path == "/gateway/v0/webhooks/hook"


# -------------------------------------------------------------------------------- failures


FAULTS: dict[str, tuple[Fault, type[SourceError], str]] = {
    "unauthorized": (refuses(401, API_KEY), SourceRejected, "AXIOM_HELIUS_API_KEY"),
    "forbidden": (refuses(403, API_KEY), SourceRejected, "AXIOM_HELIUS_API_KEY"),
    "not found": (refuses(404, "no"), SourceRejected, "no webhook hook; see AXIOM_HELIUS_WEBHOOK_"),
    "bad request": (refuses(400, "Invalid params"), SourceRejected, "HTTP 400: 'Invalid params'"),
    "an echo": (
        refuses(400, f"?api-key={API_KEY} " * 50), SourceRejected, "HTTP 400: '?api-key=… ?api",
    ),
    "an error in words": (
        answers(400, b'{"error": "too many credits"}'), SourceRejected, "'too many credits'",
    ),
    "an error of another kind": (answers(422, b'{"error": [1]}'), SourceRejected, "HTTP 422"),
    "a page": (answers(400, f"<html>{API_KEY}</html>"), SourceRejected, "HTTP 400"),
    "too many requests": (refuses(429, "slow down"), SourceUnavailable, "HTTP 429"),
    "a timeout of theirs": (answers(408), SourceUnavailable, "HTTP 408"),
    "broken": (answers(500, API_KEY), SourceUnavailable, "HTTP 500"),
    "a gateway": (answers(504), SourceUnavailable, "HTTP 504"),
    "a redirect": (
        answers(302, headers={"Location": f"http://127.0.0.1:1/?{API_KEY}"}),
        SourceRejected,
        "HTTP 302",
    ),
    "no JSON": (answers(200, "<html>"), SourceUnavailable, "no webhook"),
    "no text": (answers(200, b"\xff\xfe"), SourceUnavailable, "no webhook"),
    "nothing": (answers(200), SourceUnavailable, "no webhook"),
    "an empty object": (answers(200, "{}"), SourceUnavailable, "no webhook"),
    "a list": (answers(200, "[]"), SourceUnavailable, "no webhook"),
    "nested without end": (answers(200, "[" * 50_000), SourceUnavailable, "no webhook"),
    "addresses that are none": (
        answers(200, '{"webhookURL": "x", "accountAddresses": [7]}'),
        SourceUnavailable,
        "no webhook",
    ),
    "somebody else's": (
        answers(200, '{"webhookURL": "x", "webhookID": "other"}'),
        SourceUnavailable,
        "another webhook",
    ),
    "hung up": (hangs_up, SourceUnavailable, "ServerDisconnectedError"),
}  # fmt: skip


def all_texts(error: BaseException) -> str:
    """Everything that a log may print of it."""
    chain = [error, error.__cause__, error.__context__ if not error.__suppress_context__ else None]
    return " ".join(f"{each} {each!r}" for each in chain if each is not None)


@pytest.mark.parametrize(("fault", "kind", "words"), FAULTS.values(), ids=FAULTS)
async def test_a_failure_is_told_in_words_that_hold_no_key(
    fake: FakeHelius, helius: Helius, fault: Fault, kind: type[SourceError], words: str
) -> None:
    fake.fail(fault, times=2)

    with pytest.raises(kind) as raised:
        await helius.read("hook")

    assert words in str(raised.value)
    assert fake.url in str(raised.value)
    assert API_KEY not in all_texts(raised.value)


async def test_no_echo_of_what_it_sends_is_repeated(fake: FakeHelius, helius: Helius) -> None:
    webhook = await helius.read("hook")
    fake.fail(refuses(400, f"authHeader {AUTH_HEADER!r} is not unique"))

    with pytest.raises(SourceRejected) as raised:
        await helius.replace(webhook, {A})

    assert AUTH_HEADER not in all_texts(raised.value)
    assert AUTH_HEADER not in repr(webhook)


async def test_the_pause_that_helius_asks_for_is_told(fake: FakeHelius, helius: Helius) -> None:
    fake.fail(refuses(429, "slow down", **{"Retry-After": "17"}))

    with pytest.raises(SourceUnavailable) as raised:
        await helius.read("hook")

    assert raised.value.retry_after_s == 17


async def test_silence_has_an_end(fake: FakeHelius) -> None:
    fake.fail(hangs)
    async with Helius(fake.url, API_KEY, timeout_s=0.1) as helius:
        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.1 s") as raised:
            await helius.read("hook")

    assert API_KEY not in all_texts(raised.value)


async def test_nobody_at_home_is_said_without_the_key() -> None:
    async with Helius(f"http://127.0.0.1:{free_port()}", API_KEY) as helius:
        with pytest.raises(SourceUnavailable, match="ClientConnectorError") as raised:
            await helius.read("hook")

    assert API_KEY not in all_texts(raised.value)


async def test_an_endless_answer_is_cut_off(
    fake: FakeHelius, helius: Helius, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helius_module, "ANSWER_BYTES_MAX", 1_000)
    fake.fail(answers(200, " " * 5_000))

    with pytest.raises(SourceUnavailable, match="more than 1000 bytes"):
        await helius.read("hook")


async def test_it_is_used_inside_of_its_block_only(fake: FakeHelius) -> None:
    with pytest.raises(InvariantError):
        await Helius(fake.url, API_KEY).read("hook")
