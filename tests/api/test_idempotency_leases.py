"""Two processes and one key: paused, cut off, with clocks apart, and a database that fails.

A process is a ledger with a connection and a clock of its own; all share one file.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from starlette.responses import Response

from api.errors import Problem
from api.idempotency import Effect, Ledger
from indexer.errors import Conflict, InvariantError, StoreBroken, StoreError, StoreUnavailable
from store import deployment, idempotency, migrate
from store.database import Database, Rows, Statement, open_database
from store.idempotency import CLOCKS_APART_S_MAX, LEASE_S, Once
from tests.api.running import NOW, Clock


ONCE = Once("key_writer", "POST /api/pay", "k")


class Process:
    """One process of the API, as far as this is concerned; its database can be made to fail.

    Attributes:
        steps: how often its database was asked.
        batch: what it was asked last.
        before: called before each step, with the number of the step; may raise.
        after: the same, once the step is done.
    """

    def __init__(self, name: str, database: Database, clock: Clock) -> None:
        self.name = name
        self.real = database
        self.clock = clock
        self.database = Database(self, self)
        self.ledger = Ledger(self.database, clock)
        self.steps = 0
        self.prepared = 0
        self.preparing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.before: Callable[[int], object] = lambda _: None
        self.after: Callable[[int], object] = lambda _: None
        self.batch: Sequence[Statement] = ()

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        return await self._step(self.real.write, batch)

    async def read(self, batch: Sequence[Statement]) -> list[Rows]:
        return await self._step(self.real.read, batch)

    async def close(self) -> None:
        await self.real.close()

    async def _step(self, ask: Callable[..., object], batch: Sequence[Statement]) -> list[Rows]:
        number, self.steps = self.steps, self.steps + 1
        self.batch = batch
        self.before(number)
        rows = await ask(batch)  # type: ignore[misc] # one of the two above
        self.after(number)
        return rows  # type: ignore[no-any-return] # as above

    async def prepare(self) -> Effect:
        """An effect that shows who had it, and that can happen twice."""
        self.prepared += 1
        self.preparing.set()
        await self.go_on.wait()
        name = f"{self.name}-{self.prepared}"
        effect = Statement("INSERT INTO deployment (name, value) VALUES (?, 'x')", (name,))
        return Effect(
            statements=[effect], status=201, headers={"Location": f"/{name}"}, body=name.encode()
        )

    async def ask(self, raw: bytes = b"same") -> Response:
        async with asyncio.timeout(30):
            return await self.ledger.answer(ONCE, raw, self.prepare)

    async def paused_at_work(self) -> asyncio.Task[Response]:
        """A request that goes on when told, and knows nothing of what happens meanwhile."""
        self.go_on.clear()
        asked = asyncio.create_task(self.ask())
        async with asyncio.timeout(30):
            await self.preparing.wait()
        return asked


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Process, Process]]:
    async with process(tmp_path, "one") as first, process(tmp_path, "two") as second:
        yield first, second


@asynccontextmanager
async def process(folder: Path, name: str) -> AsyncIterator[Process]:
    database = await open_database(f"sqlite:///{folder / 'axiom.db'}", readers=1)
    try:
        await migrate.migrate(database)
        yield Process(name, database, Clock())
    finally:
        await database.close()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.idempotency.IDEMPOTENCY_WAIT_S", 0.05)


async def effects(it: Process) -> list[str]:
    sql = "SELECT name FROM deployment WHERE value = 'x' ORDER BY name"
    [rows] = await it.real.read([Statement(sql)])
    return [name for (name,) in rows]


async def until(it: Process) -> int:
    """When the lease ends, in unix seconds."""
    [rows] = await it.real.read([Statement("SELECT until FROM idempotency_leases")])
    return int(rows[0][0]) if rows else 0


def is_replayed(response: Response) -> bool:
    return response.headers.get("Idempotent-Replayed") == "true"


def refused(error: BaseException | None) -> tuple[int, str]:
    assert isinstance(error, Problem), error
    return error.status, error.code


# ------------------------------------------------------------------------------------ lost leases


async def test_a_paused_holder_answers_with_what_another_stored(
    two: tuple[Process, Process],
) -> None:
    slow, other = two
    waiting = await slow.paused_at_work()
    other.clock.now += LEASE_S
    theirs = await other.ask()

    slow.go_on.set()
    ours = await waiting

    assert (theirs.body, is_replayed(theirs)) == (b"two-1", False)
    assert (ours.body, ours.headers["Location"], is_replayed(ours)) == (b"two-1", "/two-1", True)
    assert await effects(slow) == ["two-1"]


async def test_a_paused_holder_stores_nothing_while_another_is_at_work(
    two: tuple[Process, Process],
) -> None:
    slow, other = two
    waiting = await slow.paused_at_work()
    other.clock.now += LEASE_S
    theirs = await other.paused_at_work()

    slow.go_on.set()
    with pytest.raises(Problem) as told:
        await waiting
    assert refused(told.value) == (409, "idempotency_key_in_use")
    assert await effects(slow) == []

    other.go_on.set()
    assert (await theirs).body == b"two-1"
    assert is_replayed(await slow.ask())
    assert await effects(slow) == ["two-1"]


async def test_a_paused_holder_stores_nothing_after_another_gave_up(
    two: tuple[Process, Process],
) -> None:
    slow, other = two
    waiting = await slow.paused_at_work()
    other.clock.now += LEASE_S
    theirs = await other.paused_at_work()
    theirs.cancel()
    await asyncio.wait([theirs])

    slow.go_on.set()
    with pytest.raises(Problem) as told:
        await waiting

    assert refused(told.value) == (409, "idempotency_key_in_use")
    assert await effects(slow) == []
    assert (await slow.ask()).body == b"one-2"


async def test_a_paused_holder_is_told_when_its_key_went_to_another_body(
    two: tuple[Process, Process],
) -> None:
    slow, other = two
    waiting = await slow.paused_at_work()
    other.clock.now += LEASE_S
    await other.ask(b"another")

    slow.go_on.set()
    with pytest.raises(Problem) as told:
        await waiting

    assert refused(told.value) == (422, "idempotency_key_reused")
    assert await effects(slow) == ["two-1"]


async def test_a_paused_holder_whom_nobody_replaced_goes_on(two: tuple[Process, Process]) -> None:
    slow, other = two
    waiting = await slow.paused_at_work()
    slow.clock.now += 100 * LEASE_S

    slow.go_on.set()

    assert (await waiting).body == b"one-1"
    assert is_replayed(await other.ask())


@pytest.mark.parametrize(
    "apart_s", [-86_400, -CLOCKS_APART_S_MAX - 1, -5, -1, 1, 5, LEASE_S, 60, 86_400]
)
async def test_with_clocks_apart_there_is_still_one_effect(
    two: tuple[Process, Process], apart_s: int
) -> None:
    slow, other = two
    other.clock.now += apart_s
    waiting = await slow.paused_at_work()
    with suppress(Problem):  # far enough apart it takes the lease; otherwise it is told to wait
        await other.ask()

    slow.go_on.set()
    bodies = {(await waiting).body, (await other.ask()).body, (await slow.ask()).body}

    assert len(bodies) == 1
    assert len(await effects(slow)) == 1


@pytest.mark.parametrize("later_s", [0, 20, 60])
@pytest.mark.parametrize("apart_s", [-86_400, -60, 0, 30, 60, 86_400])
async def test_with_clocks_apart_a_dead_process_holds_nobody_up_for_long(
    two: tuple[Process, Process], apart_s: int, later_s: int
) -> None:
    """Whenever one comes, and whatever the lease says, it is waited for no longer than this."""
    dead, other = two
    dead.clock.now += apart_s
    waiting = await dead.paused_at_work()

    other.clock.now += later_s
    with suppress(Problem):
        await other.ask()
    other.clock.now += LEASE_S + CLOCKS_APART_S_MAX
    assert (await other.ask()).body == b"two-1"

    waiting.cancel()
    await asyncio.wait([waiting])


# --------------------------------------------------------------------------------------- renewal


@pytest.fixture
def _renewing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.idempotency.IDEMPOTENCY_RENEW_EVERY_S", 0.01)


def renewals() -> int:
    """How many leases are being renewed."""
    return sum(task.get_name() == "idempotency.renew" for task in asyncio.all_tasks())


async def renewed_until(it: Process, end: int) -> None:
    async with asyncio.timeout(30):
        while await until(it) != end:
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("_renewing")
async def test_a_slow_holder_keeps_its_lease(two: tuple[Process, Process]) -> None:
    """A payment by card may take 45 seconds to prepare."""
    slow, other = two
    waiting = await slow.paused_at_work()
    for now in range(NOW + 9, NOW + 54, 9):
        slow.clock.now = other.clock.now = now
        await renewed_until(slow, now + LEASE_S)
        with pytest.raises(Problem) as told:
            await other.ask()
        assert refused(told.value) == (409, "idempotency_key_in_use")

    slow.go_on.set()

    assert (await waiting).body == b"one-1"
    assert (other.prepared, await until(slow)) == (0, 0)


@pytest.mark.usefixtures("_renewing")
async def test_a_database_that_is_away_for_a_moment_does_not_end_the_renewal(
    two: tuple[Process, Process],
) -> None:
    slow, _ = two
    waiting = await slow.paused_at_work()
    first = slow.steps

    def away(number: int) -> None:
        if number < first + 3:
            raise StoreUnavailable("away")

    slow.before = away
    slow.clock.now += 5
    await renewed_until(slow, NOW + 5 + LEASE_S)

    slow.go_on.set()
    assert (await waiting).body == b"one-1"


@pytest.mark.usefixtures("_renewing")
async def test_a_lost_lease_is_not_taken_back(two: tuple[Process, Process]) -> None:
    """Who has lost it renews no more, and who has it goes on."""
    slow, other = two
    slow.clock.now -= LEASE_S  # so that its renewals end nothing
    waiting = await slow.paused_at_work()
    theirs = await other.paused_at_work()
    async with asyncio.timeout(30):
        while renewals() > 1:
            await asyncio.sleep(0.005)

    assert (await idempotency.look(slow.real, ONCE, NOW)).holder is not None
    slow.go_on.set()
    with pytest.raises(Problem):
        await waiting
    assert renewals() == 1
    other.go_on.set()

    assert (await theirs).body == b"two-1"
    assert await effects(slow) == ["two-1"]


@pytest.mark.usefixtures("_renewing")
@pytest.mark.parametrize("ending", ["done", "failed", "canceled"])
async def test_nothing_is_renewed_after_the_work(two: tuple[Process, Process], ending: str) -> None:
    it, _ = two
    if ending == "canceled":
        waiting = await it.paused_at_work()
        waiting.cancel()
        await asyncio.wait([waiting])
    elif ending == "failed":
        with pytest.raises(ZeroDivisionError):
            await it.ledger.answer(ONCE, b"", fails)
    else:
        await it.ask()

    assert renewals() == 0


async def fails() -> Effect:
    raise ZeroDivisionError


# ------------------------------------------------------------- a database that fails at any step


#: look, claim, write, and what follows when one of them fails.
STEPS = range(5)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_step_whose_outcome_is_not_known_neither_loses_nor_doubles(
    two: tuple[Process, Process], step: int, when: str
) -> None:
    it, other = two

    def fail(number: int) -> None:
        if number == step:
            raise StoreUnavailable("no answer")

    setattr(it, when, fail)
    first: bytes | None = None
    with suppress(StoreUnavailable):
        first = bytes((await it.ask()).body)
    it.before = it.after = lambda _: None

    second = await other.ask()

    assert first in {None, second.body}
    assert is_replayed(second) == (first is not None or await effects(it) == ["one-1"])
    assert len(await effects(it)) == 1
    assert await until(it) == 0


async def test_a_write_of_which_only_the_word_was_lost_is_answered(
    two: tuple[Process, Process],
) -> None:
    it, _ = two

    def fail(number: int) -> None:
        if number == 2:
            raise StoreUnavailable("no answer")

    it.after = fail
    answered = await it.ask()

    assert (answered.status_code, answered.body, is_replayed(answered)) == (201, b"one-1", False)
    assert it.steps == 4, "looked, claimed, written, and asked what became of it"


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), StoreBroken("damaged")])
async def test_a_database_that_stays_away_is_said_once(
    two: tuple[Process, Process], failure: StoreError
) -> None:
    it, other = two
    waiting = await it.paused_at_work()

    def fail(_: int) -> None:
        raise failure

    it.before = fail
    it.go_on.set()
    with pytest.raises(type(failure)):
        await waiting

    other.clock.now += LEASE_S
    assert (await other.ask()).body == b"two-1"
    assert await effects(it) == ["two-1"]


async def test_a_batch_that_arrives_late_is_refused(two: tuple[Process, Process]) -> None:
    """A server may apply what it never answered, after everyone has been told that it failed."""
    it, other = two
    late: list[Sequence[Statement]] = []

    def hold_back(number: int) -> None:
        if number == 2:
            late.append(it.batch)
            raise StoreUnavailable("no answer")

    it.before = hold_back
    with pytest.raises(StoreUnavailable):
        await it.ask()

    with pytest.raises(Conflict, match="idempotency_keys"):
        await other.real.write(late[0])
    assert await effects(it) == []
    assert (await it.ask()).body == b"one-2"


# ------------------------------------------------------------------------------- who goes away


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_caller_who_leaves_at_any_step_leaves_nothing_half_done(
    two: tuple[Process, Process], step: int, when: str
) -> None:
    it, other = two
    asked = asyncio.create_task(it.ask())

    def leave(number: int) -> None:
        if number == step:
            asked.cancel()

    setattr(it, when, leave)
    await asyncio.wait([asked])
    done = None if asked.cancelled() else bytes(asked.result().body)

    # At once: no clock has moved, so no lease has ended by itself.
    second = await other.ask()

    assert done in {None, second.body}
    assert len(await effects(it)) == 1
    assert await until(it) == 0


async def test_a_caller_who_leaves_while_it_is_prepared_gives_the_lease_back(
    two: tuple[Process, Process],
) -> None:
    it, other = two
    waiting = await it.paused_at_work()

    waiting.cancel()
    await asyncio.wait([waiting])

    assert waiting.cancelled()
    assert (await other.ask()).body == b"two-1"


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(
    "failure", [StoreBroken("damaged"), InvariantError("a bug"), asyncio.CancelledError("no room")]
)
async def test_a_batch_that_was_never_sent_leaves_no_lease(
    two: tuple[Process, Process], failure: BaseException, step: int
) -> None:
    it, other = two

    def fail(number: int) -> None:
        if number == step:
            raise failure

    it.before = fail
    with pytest.raises(type(failure)):
        await it.ask()

    assert (await other.ask()).body == b"two-1"


# ----------------------------------------------------------------------------------------- races


async def test_of_many_at_once_in_two_processes_one_has_an_effect(
    two: tuple[Process, Process],
) -> None:
    answers = await asyncio.gather(
        *(it.ask() for it in two for _ in range(25)), return_exceptions=True
    )

    given = [answer for answer in answers if isinstance(answer, Response)]
    told = {refused(answer) for answer in answers if isinstance(answer, BaseException)}
    assert len({answer.body for answer in given}) == 1
    assert [is_replayed(answer) for answer in given].count(False) == 1
    assert told <= {(409, "idempotency_key_in_use")}
    assert sum(it.prepared for it in two) == 1
    assert len(await effects(two[0])) == 1


async def test_of_two_bodies_at_once_one_has_an_effect(two: tuple[Process, Process]) -> None:
    answers = await asyncio.gather(
        *(it.ask(body) for it, body in zip(two, (b"one", b"other"), strict=True)),
        return_exceptions=True,
    )

    [told] = [answer for answer in answers if isinstance(answer, BaseException)]
    assert refused(told) == (422, "idempotency_key_reused")
    assert len(await effects(two[0])) == 1


async def test_an_effect_that_the_database_refuses_is_the_callers(
    two: tuple[Process, Process],
) -> None:
    it, other = two
    await deployment.put_once(it.real, "one-1", "there before")

    with pytest.raises(Conflict):
        await it.ask()

    assert await until(it) == 0
    assert (await idempotency.look(it.real, ONCE, NOW)).stored is None
    assert (await other.ask()).body == b"two-1"
