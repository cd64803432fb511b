"""The desk of the person who decides: lists, answers, and what becomes of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.charging import Charging
from indexer.errors import ConfigError
from indexer.sources import truth
from store import deployment
from tests.builders import NOW
from tests.cards import make_card_payment, make_news, stored_card
from tests.chain import key
from tests.indexer.cli.commanding import Commanding
from tests.indexer.cli.conftest import Run
from tests.indexer.desk import doubtful, send, suggest_all
from tests.indexer.stage import AMOUNT, Stage, forged, stage


NOBODY = "pay_" + "0" * 26


@dataclass
class Desk:
    """What waits in the database of the test's folder.

    Attributes:
        order: id of a payment that doubtful money came for, by `doubt`.
        plain: id of one that the transfer `sent`, which names nobody, may be meant for.
    """

    order: str = ""
    doubt: str = ""
    plain: str = ""
    sent: str = ""


def arrange(folder: Path, act: Callable[[Stage], Awaitable[None]]) -> None:
    async def play() -> None:
        async with stage(folder) as it:
            await act(it)

    with capture_logs():  # they would stand in the answer of the next command
        asyncio.run(play())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk()

    async def act(it: Stage) -> None:
        order = await it.expect()
        plain = await it.expect(AMOUNT + 7, name="plain")
        desk.order, desk.plain = order.terms.id, plain.terms.id
        desk.doubt = await doubtful(it, order)
        desk.sent = send(it, AMOUNT + 7, memo_text="tea \x1b[2J\u202e for you")
        await suggest_all(it)

    arrange(tmp_path, act)
    return desk


def as_json(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# -------------------------------------------------------------------------------------- list


def test_machines_get_one_object_a_line_with_the_numbers(run: Run, desk: Desk) -> None:
    result = run("review", "list", "--json")

    assert (result.code, result.err) == (0, "")
    question, suggestion = as_json(result.out)
    assert (question["kind"], suggestion["kind"]) == ("question", "suggestion")
    assert (question["payment_id"], question["status"]) == (desk.order, "processing")
    assert (question["amount"], question["received"]) == ("0.005", "0.005")
    assert question["review"] == ["debited"]
    (transaction,) = question["transactions"]
    assert (transaction["signature"], transaction["reasons"]) == (desk.doubt, ["debited"])
    assert transaction["credit_base_units"] == str(AMOUNT)
    assert transaction["evidence"] == {
        "bound": str(AMOUNT + 1),
        "debited": "1",
        "delta": str(AMOUNT),
        "other_inflow": "0",
        "fee_lamports": "0",
    }
    assert (suggestion["payment_id"], suggestion["signature"]) == (desk.plain, desk.sent)
    assert (suggestion["why"], suggestion["arrived_base_units"]) == ("amount", str(AMOUNT + 7))
    assert suggestion["memo"] == "tea \x1b[2J\u202e for you"


def test_people_get_tables_that_no_strangers_memo_can_play_with(run: Run, desk: Desk) -> None:
    result = run("review", "list")

    assert (result.code, result.err) == (0, "")
    for wanted in (desk.order, desk.doubt, "debited", f"{AMOUNT + 1} bound", desk.plain, desk.sent):
        assert wanted in result.out
    assert "\x1b" not in result.out
    assert "\u202e" not in result.out
    assert "tea \\x1b[2J\\u202e for you" in result.out


def test_payments_by_card_are_shown_and_put_right_elsewhere(migrated: Run, tmp_path: Path) -> None:
    async def pay_twice(it: Stage) -> None:
        record = await stored_card(it.database)
        told = [make_news(7), make_news(9)]
        charging = Charging(it.database, clock=it.clock, wake=lambda: None)
        await charging.learn(record.payment.terms.id, told, NOW + 60)

    arrange(tmp_path, pay_twice)
    id_ = make_card_payment().terms.id

    shown = migrated("review", "list")
    [line] = [json.loads(line) for line in migrated("review", "list", "--json").lines]
    refused = migrated("review", "refuse", id_)

    assert shown.lines[0] == "By card: to be put right at Paymob"
    assert [word for word in (id_, "paid_again", "7 9", "100") if word not in shown.out] == []
    assert (line["kind"], line["payment_id"], line["charges"]) == ("by_card", id_, ["7", "9"])
    assert (refused.code, refused.out) == (1, "")
    assert "given back at Paymob" in refused.err


def test_where_nothing_waits_that_is_said(migrated: Run) -> None:
    assert migrated("review", "list").out == "nothing waits for a decision\n"
    assert migrated("review", "list", "--json").out == ""


def test_that_there_is_more_is_said_beside_the_answer(run: Run, tmp_path: Path) -> None:
    async def act(it: Stage) -> None:
        for n in range(3):
            await doubtful(it, await it.expect(name=f"{n}"), 1, name=f"{n}")

    arrange(tmp_path, act)

    result = run("review", "list", "--json", "--limit", "2")

    assert (result.code, len(result.lines)) == (0, 2)
    assert "there is more" in result.err


# ------------------------------------------------------------------------------------ answers


def test_what_became_of_an_accepted_payment_is_shown(run: Run, desk: Desk) -> None:
    result = run("review", "accept", desk.order, "--note", "seen", "--json")

    assert (result.code, result.err) == (0, "")
    (payment,) = as_json(result.out)
    assert (payment["id"], payment["status"], payment["review"]) == (desk.order, "settled", [])
    again = run("review", "accept", desk.order)
    assert (again.code, again.out) == (1, "")
    assert again.err == f"axiompay: nothing about {desk.order} waits for a decision\n"
    assert "settled, paid: exact" in run("payments", "show", desk.order).out


def test_one_transaction_is_accepted_by_its_signature(run: Run, desk: Desk) -> None:
    wrong = run("review", "accept", desk.order, "--signature", forged("x"))
    right = run("review", "accept", desk.order, "--signature", desk.doubt)
    again = run("review", "accept", desk.order, "--signature", desk.doubt)

    assert (wrong.code, right.code, again.code) == (1, 0, 1)
    assert "is no transaction of" in wrong.err
    assert "status" in right.out
    assert "was accepted" in again.err


def test_several_things_are_refused_and_each_is_answered(run: Run, desk: Desk) -> None:
    result = run("review", "refuse", desk.order, forged("x"), desk.sent)

    assert result.code == 1
    assert result.lines == [
        f"{desk.order}: 1 refused, 0 dismissed",
        f"{desk.order} pending, paid: exact",
        f"{desk.sent}: 0 refused, 1 dismissed",
        f"{desk.plain} pending, paid: none",
    ]
    assert result.err == f"axiompay: nothing about {forged('x')} waits for a decision\n"
    assert run("review", "list").out == "nothing waits for a decision\n"


def test_refusals_as_json_are_the_payments(run: Run, desk: Desk) -> None:
    result = run("review", "refuse", desk.order, desk.plain, desk.plain, "--json")

    assert result.code == 0
    assert [payment["id"] for payment in as_json(result.out)] == [desk.order, desk.plain]


def test_without_the_chain_nothing_is_matched_and_all_else_can_be_decided(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "ROUNDS_MAX", 2)
    away = {"RPC_URLS": "http://127.0.0.1:1"}

    match = run("review", "match", desk.sent, desk.plain, **away)

    assert (match.code, match.out) == (1, "")
    assert f"{desk.sent} cannot be examined now" in match.err
    assert len(run("review", "list", "--json", **away).lines) == 2
    assert run("review", "accept", desk.order, **away).code == 0
    assert run("review", "refuse", desk.sent, **away).code == 0


async def test_nothing_is_matched_by_the_word_of_another_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        sent = send(it, AMOUNT)
        await deployment.put_once(it.database, "genesis_hash", key("another cluster"))

        with pytest.raises(ConfigError, match="serves the cluster with genesis hash"):
            await Commanding(it, tmp_path, capsys)("review", "match", sent, order.terms.id)

        assert (await it.record(order)).decisions == ()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("match", "x", NOBODY), 2, "'x' is no signature"),
        (("match", forged("x"), NOBODY), 1, "there is no payment"),
        (("match", forged("x")), 2, "PAYMENT_ID"),
        (("match", forged("x"), "order-1"), 2, "is no payment id"),
        (("match", forged("x"), NOBODY, "--note", "two\nlines"), 2, "note"),
        (("accept", NOBODY), 1, "there is no payment"),
        (("accept", NOBODY, "--signature", "x"), 2, "is no signature"),
        (("accept", "pay_x"), 2, "is no payment id"),
        (("accept",), 2, "PAYMENT_ID"),
        (("refuse", NOBODY), 1, "there is no payment"),
        (("refuse", "pay_x"), 1, "there is no payment pay_x"),
        (("refuse", "x"), 2, "'x' is no signature, nor a payment id"),
        (("refuse",), 2, "PAYMENT_ID|SIGNATURE"),
        (("list", "--limit", "0"), 2, "no number from 1"),
        (("list", "--limit", "x"), 2, "no number from 1"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    migrated: Run, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = migrated("review", *arguments)

    assert (result.code, result.out) == (code, "")
    assert says in result.err


def test_without_a_database_nothing_is_decided_and_none_is_made(run: Run, tmp_path: Path) -> None:
    for arguments in (("list",), ("accept", NOBODY), ("refuse", NOBODY)):
        result = run("review", *arguments)

        assert (result.code, result.out) == (1, "")
        assert "does not exist" in result.err
    assert list(tmp_path.iterdir()) == []
