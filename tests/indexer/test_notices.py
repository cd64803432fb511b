"""What a webhook mentions is looked at, if it may be ours; nothing it says is believed."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer import notices as notices_module
from indexer.core.notice import Notice, read_notice
from indexer.core.payment import Asset, Payment
from indexer.core.types import TOKEN_PROGRAM, Status, WebhookSource, WebhookVerdict
from indexer.expiry import Expiry
from indexer.inbox import Later
from indexer.live import Live
from indexer.notices import Notices
from indexer.pipeline import Found, Unread
from indexer.sources.doorbells import Doorbell
from store.webhook_events import Outcome
from tests.chain import ata, key, sol_transfer
from tests.indexer.living import answering, hasten, told
from tests.indexer.receiving import arrive, event_of
from tests.indexer.stage import (
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    GRACE_S,
    SHOP,
    WATCH_KEY,
    Stage,
    forged,
    paying,
    stage,
)
from tests.servers.fake_rpc import rpc_error


SLOT = FINAL_SLOT + 20  # confirmed at the start, and not final
HELIUS, QUICKNODE, _ = WebhookSource
DONE, IGNORED, REFUSED = WebhookVerdict.DONE, WebhookVerdict.IGNORED, WebhookVerdict.REFUSED
USDC = Asset(symbol="USDC", mint=key("usdc"), decimals=6, token_program=TOKEN_PROGRAM)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def spoken(*found: Found | str, accounts: Sequence[str] = (WATCH_KEY,), **said: Any) -> list[Any]:
    """What Helius says of transactions, true or not."""
    signatures = [each if isinstance(each, str) else each.signature for each in found]
    data = [{"account": account} for account in accounts]
    return [{"signature": s, "accountData": data, "slot": SLOT} | said for s in signatures]


async def handled(it: Stage, live: Any, body: Any, source: WebhookSource = HELIUS) -> Outcome:
    notices = Notices(it.database, live, clock=it.clock)
    event_id = await arrive(it.database, body, source=source, now=int(it.clock()), name=repr(body))
    return await notices.handle(await event_of(it.database, event_id))


@asynccontextmanager
async def looking(folder: Path) -> AsyncIterator[tuple[Stage, Live]]:
    async with stage(folder) as it, answering(it) as (live, _):
        yield it, live


class Looked:
    """Looks at nothing, and remembers what it was to look at."""

    def __init__(self) -> None:
        self.signatures: list[str] = []

    async def look(self, bells: Sequence[Doorbell]) -> list[Unread]:
        self.signatures += [bell.signature for bell in bells]
        return []


# --------------------------------------------------------------------------- the plain way


async def test_what_pays_us_is_shown_at_once_and_settled_when_final(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        landed = paying(order, slot=SLOT)
        it.chain.add(landed)

        outcome = await handled(it, live, [landed])  # raw, as the node has it

        assert outcome.verdict is DONE
        assert outcome.payment_ids == (order.terms.id,)
        assert outcome.detail == "transactions looked at: 1"
        assert await it.events(order) == ["created", "detected"]

        it.chain.finalize(SLOT)
        await told(it, order, "detected", "settled")


async def test_what_is_final_already_is_settled_too(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()

        outcome = await handled(it, live, spoken(it.pay(order)))

        assert outcome.payment_ids == (order.terms.id,)
        await told(it, order, "detected", "settled")


async def test_one_body_may_be_about_several_payments(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        first, second = await it.expect(name="first"), await it.expect(name="second")
        await it.expect(name="nobody pays it")

        outcome = await handled(it, live, spoken(it.pay(first), it.pay(second), forged("x")[:9]))

        assert outcome.payment_ids == tuple(sorted((first.terms.id, second.terms.id)))
        assert outcome.detail == "transactions looked at: 2; elements that cannot be read: 1"


async def test_the_same_again_changes_nothing_and_says_the_same(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        body = spoken(it.pay(order, slot=SLOT))
        first = await handled(it, live, body)
        it.chain.finalize(SLOT)
        await told(it, order, "detected", "settled")

        assert await handled(it, live, body) == first
        assert await it.events(order) == ["created", "detected", "settled"]


async def test_money_for_an_expired_payment_is_looked_for_until_it_is_final(
    tmp_path: Path,
) -> None:
    """It is never shown as detected: nothing but the event would remember it."""
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        await expire(it, order)
        body = spoken(it.pay(order, slot=SLOT))

        with pytest.raises(Later, match="no node has it finalized"):
            await handled(it, live, body)
        assert await it.events(order) == ["created", "expired"]

        it.chain.finalize(SLOT)
        assert (await handled(it, live, body)).payment_ids == (order.terms.id,)
        assert await it.events(order) == ["created", "expired", "settled"]


async def expire(it: Stage, order: Payment, *, watched: str = WATCH_KEY) -> None:
    """The payment's time is over, and everything before is known."""
    for each in (watched, order.terms.reference):
        await it.advance(FINAL_SLOT, EXPIRES_AT + 10, watched=each)
    await Expiry(it.database, it.pipeline, clock=it.clock).expire(watched)
    assert (await it.record(order)).payment.state.status is Status.EXPIRED


# ------------------------------------------------------------------------ what may be ours


async def test_only_what_may_be_ours_is_looked_at(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        foreign = await it.expect(name="foreign", watch_key=None, recipient=key("other shop"))
        rotated = await it.expect(name="rotated", watch_key=key("older watch key"))
        token_account = ata(SHOP, key("usdc"))
        await it.expect(name="token", asset=USDC, token_account=token_account)
        canceled = await it.expect(name="canceled", recipient=key("closed"), watch_key=None)
        await it.cancel(canceled)
        names = {
            "the deployment's watch key": WATCH_KEY,
            "the watch key of an open payment": rotated.terms.watch_key,
            "a reference": order.terms.reference,
            "a reference without a watch key": foreign.terms.reference,
            "a wallet": foreign.terms.recipient,
            "a token account": token_account,
        }
        strangers = {
            "a stranger": key("stranger"),
            "the buyer": BUYER,
            "a mint": key("usdc"),
            "the reference of a closed payment": canceled.terms.reference,
            "the wallet of a closed payment": canceled.terms.recipient,
        }
        body = [
            said
            for name, account in (names | strangers).items()
            for said in spoken(forged(name), accounts=[key("noise"), str(account)])
        ]
        looked = Looked()

        await handled(it, looked, body)

        assert looked.signatures == [forged(name) for name in names]


async def test_the_watch_key_counts_while_no_payment_is_open(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        looked = Looked()

        outcome = await handled(it, looked, spoken(forged("x")))

        assert looked.signatures == [forged("x")]
        assert outcome == Outcome(verdict=IGNORED, detail="by the chain it pays nobody here")


async def test_a_payment_is_worth_a_look_until_its_grace_time_is_over(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect(watch_key=key("older watch key"))
        await expire(it, order, watched=key("older watch key"))
        body = spoken(forged("x"), accounts=[order.terms.reference, SHOP, key("older watch key")])
        for now, count in ((EXPIRES_AT + GRACE_S, 1), (EXPIRES_AT + GRACE_S + 1, 0)):
            it.clock.now, looked = now, Looked()
            await handled(it, looked, body)

            assert len(looked.signatures) == count


@pytest.mark.parametrize("source", [HELIUS, QUICKNODE])
async def test_bare_signatures_count_where_a_filter_chose_them(
    tmp_path: Path, source: WebhookSource
) -> None:
    async with stage(tmp_path) as it:
        looked = Looked()

        said = [forged("x"), *spoken(forged("y"), accounts=[key("stranger")])]
        outcome = await handled(it, looked, {"data": said}, source)

        assert looked.signatures == ([forged("x")] if source is QUICKNODE else [])
        assert outcome.verdict is IGNORED


async def test_no_more_are_looked_at_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "LOOKS_MAX", 3)
    async with stage(tmp_path) as it:
        looked = Looked()
        crowd = [forged(f"{n}") for n in range(5)]

        outcome = await handled(it, looked, spoken(*crowd))

        assert looked.signatures == crowd[:3]
        assert outcome.detail is not None
        assert outcome.detail.endswith("; left to the sweep: 2")


@pytest.mark.parametrize(
    ("body", "verdict"),
    [(b"[]", IGNORED), (b'{"data":[]}', IGNORED), (b"not JSON", REFUSED), (b"7", REFUSED)],
    ids=repr,
)
async def test_a_body_without_transactions_comes_to_an_end(
    tmp_path: Path, body: bytes, verdict: WebhookVerdict
) -> None:
    async with stage(tmp_path) as it:
        looked = Looked()

        assert (await handled(it, looked, body)).verdict is verdict
        assert looked.signatures == []


async def test_a_large_body_is_read_as_well(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        looked = Looked()
        noise = spoken(*(forged(f"{n}") for n in range(2_000)), accounts=[key("noise")])

        await handled(it, looked, [*noise, *spoken(forged("ours"))])

        assert looked.signatures == [forged("ours")]


async def test_large_bodies_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, each takes many times its size in memory."""
    under_way, most = 0, 0

    def read(body: bytes) -> Notice:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.01)  # of a thread
        under_way -= 1
        return read_notice(body)

    monkeypatch.setattr(notices_module, "read_notice", read)
    monkeypatch.setattr(notices_module, "INLINE_BYTES_MAX", 0)
    async with stage(tmp_path) as it:
        notices = Notices(it.database, Looked(), clock=it.clock)
        now = int(it.clock())
        ids = [await arrive(it.database, spoken(forged(f"{n}")), now=now) for n in range(8)]
        events = [await event_of(it.database, event_id) for event_id in ids]

        outcomes = await asyncio.gather(*map(notices.handle, events))

    assert len(outcomes) == 8
    assert most == 1


# -------------------------------------------------------------------------------- lies


async def test_a_transaction_that_paid_nothing_leads_to_nothing(tmp_path: Path) -> None:
    """Whatever amounts, keys and types the body invents."""
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        other = await it.expect(name="other", recipient=key("other shop"), watch_key=None)
        elsewhere = it.pay(other)
        lie = spoken(
            elsewhere,
            accounts=[WATCH_KEY, order.terms.reference, SHOP],
            nativeTransfers=[{"toUserAccount": SHOP, "amount": order.terms.amount}],
            type="TRANSFER",
        )

        outcome = await handled(it, live, lie)

        assert order.terms.id not in outcome.payment_ids
        assert await it.events(order) == ["created"]


async def test_a_transaction_of_nobody_here_is_ignored(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        stranger = sol_transfer(BUYER, key("somebody"), 7, slot=FINAL_SLOT)
        it.chain.add(stranger)

        outcome = await handled(it, live, spoken(it.found(stranger), accounts=[WATCH_KEY]))

        assert outcome.verdict is IGNORED
        assert await it.events(order) == ["created"]


async def test_one_that_does_not_exist_is_waited_for_and_parks_nothing(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        true = it.pay(order)
        body = spoken(forged("rumour"), true.signature)

        with pytest.raises(Later) as raised:
            await handled(it, live, body)

        assert str(raised.value) == f"1 of 2: {forged('rumour')}: no node has it confirmed"
        assert raised.value.payment_ids == (order.terms.id,), "what is true of it was done"
        assert await it.letters() == []


@pytest.mark.parametrize("slot", [0, 5, SLOT + 10**6, 2**62])
async def test_a_slot_that_is_a_lie_holds_nothing_up(tmp_path: Path, slot: int) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        body = spoken(it.pay(order, slot=SLOT), slot=slot)

        assert (await handled(it, live, body)).verdict is DONE

        it.chain.finalize(SLOT)
        await told(it, order, "detected", "settled")
        assert not live._awaited


async def test_a_chain_out_of_reach_is_asked_again_later(tmp_path: Path) -> None:
    async with looking(tmp_path) as (it, live):
        order = await it.expect()
        body = spoken(it.pay(order))
        it.node.fail("getTransaction", rpc_error(-32005), times=200)

        with pytest.raises(Later):
            await handled(it, live, body)

        assert await it.events(order) == ["created"]
