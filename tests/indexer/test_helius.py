"""The webhook at Helius is what it should be, or somebody is told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexer import helius as upkeep_module
from indexer.errors import SourceRejected, SourceUnavailable, StoreUnavailable
from indexer.helius import FAILURES_TOLD, Upkeep
from indexer.sources.helius import Helius
from store.database import Rows, Statement
from tests.chain import key
from tests.indexer.stage import EXPIRES_AT, GRACE_S, WATCH_KEY, Stage, stage
from tests.servers.fake_helius import AUTH_HEADER, FakeHelius, answers, refuses
from tests.servers.fake_rpc import eventually


API_KEY = "0f1e2d3c-canary-api-key"
STRANGER = key("stranger")


@dataclass
class Office:
    """A stage, and a webhook that is to be kept."""

    it: Stage
    fake: FakeHelius
    upkeep: Upkeep

    @property
    def addresses(self) -> set[str]:
        return set(self.fake.hooks["hook"]["accountAddresses"])


@asynccontextmanager
async def office(
    folder: Path,
    addresses: Sequence[str] = (WATCH_KEY,),
    *,
    secrets: Sequence[str] = (AUTH_HEADER,),
) -> AsyncIterator[Office]:
    async with (
        stage(folder) as it,
        FakeHelius(API_KEY) as fake,
        Helius(fake.url, API_KEY, timeout_s=5) as helius,
    ):
        fake.add("hook", addresses)
        upkeep = Upkeep(it.database, helius, "hook", secrets=secrets, clock=it.clock)
        yield Office(it, fake, upkeep)


@asynccontextmanager
async def kept(upkeep: Upkeep) -> AsyncIterator[None]:
    task = asyncio.create_task(upkeep.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# ------------------------------------------------------------------------------- what is wanted


async def test_wanted_are_watch_keys_and_references_that_lack_one(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.it.expect(name="with the watch key")
        older = await at.it.expect(name="of before a rotation", watch_key=key("older"))
        foreign = await at.it.expect(name="of another maker", watch_key=None)
        closed = await at.it.expect(name="closed", watch_key=None)
        await at.it.cancel(closed)

        assert await at.upkeep.wanted() == {WATCH_KEY, key("older"), foreign.terms.reference}
        assert older.terms.watch_key == key("older")


async def test_of_too_many_the_references_made_last_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "ADDRESSES_MAX", 3)
    async with office(tmp_path) as at:
        made = [
            await at.it.expect(name=f"{n}", watch_key=None, created_at=EXPIRES_AT - 100 + n)
            for n in range(4)
        ]

        plan = await at.upkeep.sync()

        assert at.addresses == {WATCH_KEY, *(each.terms.reference for each in made[-2:])}
        assert plan.warning == "the webhook takes 3 addresses, and no more; others are swept"


# ------------------------------------------------------------------------------------ one look


async def test_one_that_is_as_wanted_is_left_alone(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        plan = await at.upkeep.sync()

        assert plan.is_empty
        assert (plan.kept, plan.warning) == (1, None)
        assert at.fake.methods() == ["GET"], "every change costs credits"


async def test_addresses_are_compared_as_sets(tmp_path: Path) -> None:
    async with office(tmp_path, [key("older"), WATCH_KEY, WATCH_KEY]) as at:
        await at.it.expect(watch_key=key("older"))

        assert (await at.upkeep.sync()).is_empty


async def test_what_is_missing_is_added_and_what_nobody_wants_removed(tmp_path: Path) -> None:
    async with office(tmp_path, [STRANGER, WATCH_KEY]) as at:
        foreign = await at.it.expect(watch_key=None)
        before = dict(at.fake.hooks["hook"])

        plan = await at.upkeep.sync()

        assert plan.added == (foreign.terms.reference,)
        assert plan.removed == (STRANGER,)
        assert plan.kept == 1
        assert at.addresses == {WATCH_KEY, foreign.terms.reference}
        after = at.fake.hooks["hook"]
        assert {n for n in before if before[n] != after.get(n)} == {"accountAddresses"}
        assert at.fake.methods() == ["GET", "PUT"]
        assert (await at.upkeep.sync()).is_empty


async def test_one_that_was_switched_off_is_switched_on(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        at.fake.hooks["hook"]["active"] = False

        plan = await at.upkeep.sync()

        assert plan.switches_on
        assert at.fake.hooks["hook"]["active"] is True
        assert at.fake.methods() == ["GET", "PATCH"]


async def test_one_that_is_off_and_wrong_is_right_before_it_is_on(tmp_path: Path) -> None:
    async with office(tmp_path, [STRANGER]) as at:
        at.fake.hooks["hook"]["active"] = False

        await at.upkeep.sync()

        assert at.fake.methods() == ["GET", "PUT", "PATCH"]
        assert at.addresses == {WATCH_KEY}


async def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    async with office(tmp_path, [STRANGER], secrets=["another"]) as at:
        at.fake.hooks["hook"]["active"] = False

        dry = await at.upkeep.sync(dry_run=True)

        assert at.fake.methods() == ["GET"]
        assert dry == await at.upkeep.sync()


async def test_a_payment_that_is_over_is_forgotten_there_too(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        foreign = await at.it.expect(watch_key=None)
        await at.upkeep.sync()
        await at.it.cancel(foreign)

        assert (await at.upkeep.sync()).removed == (foreign.terms.reference,)
        assert at.addresses == {WATCH_KEY}


# ----------------------------------------------------------------------- the header that it sends


@pytest.mark.parametrize(
    ("secrets", "is_told"),
    [([AUTH_HEADER], False), (["new", AUTH_HEADER], False), (["new"], True), ([], True)],
    ids=repr,
)
async def test_a_header_that_our_door_turns_away_is_told_and_kept(
    tmp_path: Path, secrets: list[str], is_told: bool
) -> None:
    async with office(tmp_path, [STRANGER], secrets=secrets) as at:
        plan = await at.upkeep.sync()

        assert (plan.warning is not None) is is_told
        assert AUTH_HEADER not in (plan.warning or "")
        assert at.fake.hooks["hook"]["authHeader"] == AUTH_HEADER


async def test_a_header_that_is_not_shown_is_not_lost(tmp_path: Path) -> None:
    async with office(tmp_path, [STRANGER], secrets=["first", "second"]) as at:
        at.fake.hides_auth_header = True

        plan = await at.upkeep.sync()

        assert plan.warning is None
        assert at.fake.hooks["hook"]["authHeader"] == "first"


# ------------------------------------------------------------------------------------- for ever


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "INTERVAL_S", 0.01)
    monkeypatch.setattr(upkeep_module, "RETRY_INTERVAL_S", 0.01)


@pytest.mark.usefixtures("brisk")
async def test_it_is_kept_while_it_runs(tmp_path: Path) -> None:
    async with office(tmp_path) as at, kept(at.upkeep):
        foreign = await at.it.expect(watch_key=None)
        await eventually(lambda: foreign.terms.reference in at.addresses)
        at.fake.hooks["hook"]["accountAddresses"] = [STRANGER]  # somebody edits it by hand
        await eventually(lambda: at.addresses == {WATCH_KEY, foreign.terms.reference})
        assert at.upkeep.problem is None


@pytest.mark.usefixtures("brisk")
async def test_a_missing_webhook_is_a_problem_until_it_is_there(tmp_path: Path) -> None:
    async with office(tmp_path) as at, kept(at.upkeep):
        hook = at.fake.hooks.pop("hook")
        await eventually(lambda: "no webhook hook" in (at.upkeep.problem or ""))
        at.fake.hooks["hook"] = hook
        await eventually(lambda: at.upkeep.problem is None)


async def test_one_that_was_off_is_a_problem_until_the_next_look(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        at.fake.hooks["hook"]["active"] = False
        await at.upkeep._once()
        assert "was switched off" in (at.upkeep.problem or "")

        await at.upkeep._once()
        assert at.upkeep.problem is None


async def test_one_that_cannot_be_switched_on_is_a_problem(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        at.fake.hooks["hook"]["active"] = False
        at.fake.fail(answers(200, '{"webhookURL": "x", "active": false}'))
        at.fake.fail(refuses(400, "your plan is over"))
        await at.upkeep._once()

        assert "your plan is over" in (at.upkeep.problem or "")


async def test_an_outage_is_told_when_it_lasts(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        at.fake.fail(answers(503), times=FAILURES_TOLD)
        for _ in range(FAILURES_TOLD):
            assert at.upkeep.problem is None
            assert await at.upkeep._once() == upkeep_module.RETRY_INTERVAL_S
        assert "HTTP 503" in (at.upkeep.problem or "")

        assert await at.upkeep._once() == upkeep_module.INTERVAL_S
        assert at.upkeep.problem is None


async def test_outages_that_pass_are_not_added_up(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        for _ in range(FAILURES_TOLD):
            at.fake.fail(answers(503))
            await at.upkeep._once()
            assert at.upkeep.problem is None
            await at.upkeep._once()


async def test_a_pause_that_helius_asks_for_is_kept(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        at.fake.fail(refuses(429, "slow down", **{"Retry-After": "200"}))

        assert await at.upkeep._once() == 200


async def test_a_store_that_does_not_answer_changes_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path, [STRANGER]) as at:

        async def fail(_: Sequence[Statement]) -> list[Rows]:
            raise StoreUnavailable("locked")

        monkeypatch.setattr(at.it.database, "read", fail)
        await at.upkeep._once()

        assert at.fake.calls == [], "an empty answer would have emptied the list"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, SourceRejected), (500, SourceUnavailable)], ids=repr
)
async def test_a_refused_change_is_raised(
    tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    async with office(tmp_path, [STRANGER]) as at:
        at.fake.fail(answers(200, '{"webhookURL": "x", "accountAddresses": []}'))
        at.fake.fail(answers(status))

        with pytest.raises(kind):
            await at.upkeep.sync()


async def test_a_payment_is_wanted_until_it_has_expired_by_block_time(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.it.expect(watch_key=key("older"))

        at.it.clock.now = EXPIRES_AT + GRACE_S + 1

        assert key("older") in await at.upkeep.wanted()
