"""`axiompay dlq`: what was set aside is seen, tried again, and taken away only whole."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.cli.command import CommandFailed
from indexer.core.types import Status
from indexer.errors import InvalidInput
from indexer.pipeline import UNREADABLE_ATTEMPTS_MAX
from store import dead_letters
from store.dead_letters import DeadLetter
from tests.indexer.cli.commanding import Commanding
from tests.indexer.stage import FINAL_SLOT, WATCH_KEY, stage
from tests.servers.fake_rpc import result as answering


LETTER = DeadLetter(
    signature="5abc",
    key=WATCH_KEY,
    slot=FINAL_SLOT,
    reason="malformed",
    detail="no meta\x1b[31m",
    payload=b'{"slot":7}\x1b]0;title\x07\xff',
    attempts=UNREADABLE_ATTEMPTS_MAX,
    next_try_at=None,
    created_at=1_790_000_000,
    updated_at=1_790_000_000,
)


async def test_all_of_them_are_listed_the_newest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        run = Commanding(it, tmp_path, capsys)
        waiting = replace(
            LETTER,
            signature="6def",
            reason="not_found",
            next_try_at=2**33,
            created_at=1_790_000_001,
        )
        await it.database.write([dead_letters.park(LETTER), dead_letters.park(waiting)])

        table, lines = await run("dlq", "list"), await run("dlq", "list", "--json")
        first = await run("dlq", "list", "--limit", "1")

        assert table.code == lines.code == 0
        assert [line.split()[:3] for line in table.lines] == [
            ["signature", "reason", "attempts"],
            ["6def", "not_found", "5"],
            ["5abc", "malformed", "5"],
        ]
        assert "\x1b" not in table.out
        said = [json.loads(line) for line in lines.lines]
        assert [each["signature"] for each in said] == ["6def", "5abc"]
        assert said[1]["next_try_at"] is None
        assert said[1]["payload_bytes"] == len(LETTER.payload or b"")
        assert said[0]["next_try_at"] == "2242-03-16T12:56:32Z"
        assert len(first.lines) == 2
        assert first.err == "axiompay: 1 more; see --limit\n"


async def test_one_is_shown_with_the_answer_that_could_not_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        run = Commanding(it, tmp_path, capsys)
        await it.database.write([dead_letters.park(LETTER)])

        text, line = await run("dlq", "show", "5abc"), await run("dlq", "show", "5abc", "--json")

        assert '{"slot":7}\\x1b]0;title\\x07\\xff' in text.lines
        assert "\x1b" not in text.out
        said = json.loads(line.out)
        assert base64.b64decode(said["payload_base64"]) == LETTER.payload
        assert said["payload"].startswith('{"slot":7}')


@pytest.mark.parametrize("verb", ["show", "retry", "drop"])
async def test_an_unknown_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    async with stage(tmp_path) as it:
        await it.database.write([dead_letters.park(LETTER)])

        with pytest.raises(CommandFailed, match="there is no dead letter '5ab'; see"):
            await Commanding(it, tmp_path, capsys)("dlq", verb, "5ab")

        assert await it.letters() == [LETTER]


async def test_one_that_can_be_read_now_pays_its_payment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it had been given up."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        given_up = replace(LETTER, signature=found.signature)
        await it.database.write([dead_letters.park(given_up)])

        result = await Commanding(it, tmp_path, capsys)("dlq", "retry", found.signature)

        assert result.code == 0
        assert result.lines == [
            f"{found.signature}  read: 0.005 SOL for {order.terms.id}, now settled"
        ]
        assert await it.letters() == []
        assert (await it.record(order)).payment.state.status is Status.SETTLED


async def test_one_that_concerns_nobody_is_read_and_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        stranger = it.pay(replace(order, terms=replace(order.terms, reference=WATCH_KEY)), amount=7)
        letters = [replace(LETTER, signature=each.signature) for each in (found, stranger)]
        await it.database.write([dead_letters.park(letter) for letter in letters])

        result = await Commanding(it, tmp_path, capsys)("dlq", "retry", "--all", "--json")

        said = {each["signature"]: each for each in map(json.loads, result.lines)}
        assert result.code == 0
        assert said[stranger.signature]["payments"] == []
        assert [each["status"] for each in said[found.signature]["payments"]] == ["settled"]
        assert all(each["read"] for each in said.values())
        assert await it.letters() == []


async def test_one_that_still_cannot_be_read_stays_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        it.node.fail("getTransaction", answering(7), times=None)
        await it.database.write([dead_letters.park(replace(LETTER, signature=found.signature))])
        run = Commanding(it, tmp_path, capsys)

        text, line = (
            await run("dlq", "retry", "--all"),
            await run("dlq", "retry", "--all", "--json"),
        )

        assert text.code == line.code == 1
        assert text.out.startswith(f"{found.signature}  still not read: malformed: ")
        assert json.loads(line.out)["reason"] == "malformed"
        (letter,) = await it.letters()
        assert letter.attempts == UNREADABLE_ATTEMPTS_MAX + 2


@pytest.mark.parametrize("arguments", [[], ["5abc", "--all"]])
async def test_what_to_retry_must_be_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    async with stage(tmp_path) as it:
        with pytest.raises(InvalidInput, match="name signatures, or --all"):
            await Commanding(it, tmp_path, capsys)("dlq", "retry", *arguments)


async def test_what_is_dropped_is_printed_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        await it.database.write([dead_letters.park(LETTER)])

        result = await Commanding(it, tmp_path, capsys)("dlq", "drop", "5abc")

        said = json.loads(result.lines[0])
        assert base64.b64decode(said["payload_base64"]) == LETTER.payload
        assert {
            name: said[name] for name in ("signature", "key", "slot", "reason", "attempts")
        } == {
            "signature": "5abc",
            "key": WATCH_KEY,
            "slot": FINAL_SLOT,
            "reason": "malformed",
            "attempts": LETTER.attempts,
        }
        assert await it.letters() == []


async def test_what_nobody_can_read_is_not_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        await it.database.write([dead_letters.park(LETTER)])

        def closed(_: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr("indexer.cli.dlq.print_json", closed)
        with pytest.raises(BrokenPipeError):
            await Commanding(it, tmp_path, capsys)("dlq", "drop", "5abc")

        assert await it.letters() == [LETTER]


@pytest.mark.parametrize("limit", ["0", "-1", "x", "100001", "\u0661"])
async def test_a_limit_is_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    async with stage(tmp_path) as it:
        with pytest.raises(SystemExit):
            await Commanding(it, tmp_path, capsys)("dlq", "list", "--limit", limit)
