"""Callbacks of Paymob at their door, and what of them may be stored."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from indexer.core import paymob
from indexer.core.types import WebhookVerdict
from tests import vectors
from tests.api.knocking import (
    CARD_TOKEN,
    INTEGRATION_ID,
    OWNER,
    PAYMOB_SECRETS,
    RECEIVED,
    by_browser,
    counted,
    events,
    from_paymob,
    guarded,
    paymob_hmac,
    redirect_query,
    the_event,
    token,
    transaction,
)
from tests.api.running import Api


PAN = "4111111111111111"


@pytest.fixture
async def guarded_api(tmp_path: Path) -> AsyncIterator[Api]:
    async with guarded(tmp_path) as api:
        yield api


@pytest.mark.parametrize(
    "changes",
    [
        {"order": 21_750_375, "owner": 4_302_852},
        {"id": 19_203_646, "integration_id": 54_097_558},
    ],
)
async def test_a_callback_that_is_split_otherwise_is_refused_though_it_is_signed(
    guarded_api: Api, changes: dict[str, int]
) -> None:
    genuine, shifted = transaction(), transaction(**changes)
    assert paymob_hmac(genuine) == paymob_hmac(shifted)

    answers = [
        await from_paymob(guarded_api, shifted),
        await from_paymob(guarded_api, shifted),
        await by_browser(guarded_api, redirect_query(shifted)),
    ]

    assert [(status, body["code"]) for status, body in answers] == [(403, "webhook_refused")] * 3
    event = await the_event(guarded_api)
    assert (event.verdict, event.repeats) == (WebhookVerdict.REFUSED, 2)
    assert event.detail is not None
    assert counted(guarded_api) == {("paymob", "refused"): 3}
    # And it does not stand in the way of the genuine one.
    assert await from_paymob(guarded_api, genuine) == RECEIVED
    assert [e.verdict for e in await events(guarded_api)] == [
        WebhookVerdict.REFUSED,
        WebhookVerdict.WAITING,
    ]


async def test_one_genuine_callback_makes_one_refused_row_however_it_is_split(
    guarded_api: Api,
) -> None:
    query = redirect_query(transaction())
    for digits in range(1, 9):
        shifted = query.replace("order=217503754", f"order={'217503754'[:digits]}").replace(
            "owner=302852", f"owner={'217503754'[digits:]}302852"
        )
        assert (await by_browser(guarded_api, shifted))[0] == 403

    assert (await the_event(guarded_api)).repeats == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": OWNER + 1},
        {"integration_id": INTEGRATION_ID + 1},
        {"currency": "USD"},
        {"amount_cents": 0},
        {"created_at": "yesterday"},
        {"owner": None},
    ],
)
async def test_what_is_not_about_this_deployment_is_refused(
    guarded_api: Api, changes: dict[str, Any]
) -> None:
    assert (await from_paymob(guarded_api, transaction(**changes)))[0] == 403

    event = await the_event(guarded_api)
    assert event.verdict is WebhookVerdict.REFUSED
    assert next(iter(changes)) in str(event.detail)


async def test_the_collected_callback_is_taken(guarded_api: Api) -> None:
    vector = vectors.load("hmac.json")["paymob_docs_2024"]
    assert vector["secret"] == PAYMOB_SECRETS[0]
    assert vector["hmac"] == paymob_hmac(transaction())

    assert await from_paymob(guarded_api, transaction(), hmac_hex=vector["hmac"]) == RECEIVED


async def test_nothing_that_stands_for_a_card_is_stored(guarded_api: Api, tmp_path: Path) -> None:
    source = {"pan": PAN, "sub_type": "MasterCard", "type": "card"}
    in_body = transaction(
        source_data=source, data={"card_num": f"n {PAN}", "secure_hash": "5ecr3t"}
    )
    redirect = transaction(id=192_036_466, source_data=source)

    assert await from_paymob(guarded_api, token()) == RECEIVED
    assert await from_paymob(guarded_api, in_body) == RECEIVED
    query = redirect_query(redirect, merchant_order_id=PAN, token=CARD_TOKEN)
    assert await by_browser(guarded_api, query) == RECEIVED

    saved, charged, returned = await events(guarded_api)
    assert json.loads(saved.body)["obj"]["token"] == "***"
    assert json.loads(charged.body)["obj"]["source_data"]["pan"] == "************1111"
    assert b"source_data_pan=%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A1111" in returned.body
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (PAN, CARD_TOKEN, "5ecr3t", paymob_hmac(token()), *PAYMOB_SECRETS):
        assert secret.encode() not in everything


@pytest.mark.parametrize("field", ["type", "currency", "created_at"])
@pytest.mark.parametrize("name", ["token", "otp"])
async def test_nobody_can_have_hidden_what_was_signed(
    guarded_api: Api, field: str, name: str
) -> None:
    """By saying in an unsigned field that it is a secret; the true callback counts as the same."""
    callback = transaction()
    value = {**callback, **callback["obj"]}[field]
    callback["obj"]["data"] = {name: value}

    assert await from_paymob(guarded_api, callback) == RECEIVED

    event = await the_event(guarded_api)
    stored = paymob.parse_redirect(event.body.decode())
    assert event.kind == paymob.CallbackKind.REDIRECT
    assert paymob.is_signed(stored, paymob_hmac(callback), PAYMOB_SECRETS)


async def test_a_long_order_number_is_not_taken_for_a_cards(guarded_api: Api) -> None:
    callback = transaction(order=int(PAN))

    assert await by_browser(guarded_api, redirect_query(callback)) == RECEIVED

    stored = paymob.parse_redirect((await the_event(guarded_api)).body.decode())
    assert stored.signed["order.id"] == PAN


async def test_a_stored_callback_reads_as_it_came(guarded_api: Api) -> None:
    callback = transaction(created_at="2024-06-13T11:33:44.592345+03:00", source_data={
        "pan": None, "sub_type": "CAGG", "type": "cash"})  # fmt: skip
    await from_paymob(guarded_api, callback)

    event = await the_event(guarded_api)
    assert paymob.parse_callback(event.body) == paymob.parse_callback(json.dumps(callback).encode())
