"""Receivers of webhooks, the merchants that register them, and the network between.

A receiver refuses, fails, takes a webhook and does not say so, is slow, goes away for hours, or
wants nothing more. A merchant rotates its secret, disables and enables it, and asks for what it
has missed.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from indexer.core import standard_webhooks
from indexer.core.standard_webhooks import SigningKey
from indexer.errors import Conflict, SourceUnavailable, StoreUnavailable
from indexer.sources.outside import Reply
from store import deliveries, webhook_endpoints
from store.database import Database, Statement
from tests.simulation.calendar import Calendar
from tests.simulation.database import Disk
from tests.simulation.life import Life
from tests.simulation.outcome import Post, Reached, Turn


KEY: Final = SigningKey("simulated", b"a signing key of a simulated world")
#: How long a sender waits for an answer, in virtual seconds.
TIMEOUT_S: Final = 15.0
#: How long the secret before a rotation signs too.
OVERLAP_S: Final = 3_600

#: Who is away for so long does not come back in the three days in which it is waited for.
FOR_GOOD_S: Final = 90 * 3_600.0

_GONE: Final = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What is wrong with one receiver, and what its merchant does. Chances from 0 to 1.

    Times are seconds since the beginning of the world; None: never.

    Attributes:
        event_types: what it is registered for; empty: everything.
        latency_s: the longest that it takes, mostly much less.
        refuses, fails, hangs: of a webhook: that it never arrives; that it is answered with an
            error; that it is received, and the answer comes too late.
        asks_to_wait: of an error: that it says when to come again.
        away: (from, how long) in which nobody is there; it breaks down for everything, or only
            for what is not the first of a minute.
        is_flapping: while it is away it takes one in five.
        gone_at: from when on it answers 410 Gone.
        rotates_at, disabled_at, enabled_at, deleted_at: what the merchant does then.
        asks_again: once enabled again, the merchant has all sent that was missed.
    """

    event_types: tuple[str, ...] = ()
    latency_s: float = 0.3
    refuses: float = 0.0
    fails: float = 0.0
    hangs: float = 0.0
    asks_to_wait: float = 0.0
    away: tuple[float, float] = (0.0, 0.0)
    is_flapping: bool = False
    gone_at: float | None = None
    rotates_at: float | None = None
    disabled_at: float | None = None
    enabled_at: float | None = None
    deleted_at: float | None = None
    asks_again: bool = False


@dataclass(slots=True)
class Traffic:
    """What is on its way, to receivers and from merchants, of all processes: no time to leap."""

    under_way: int = 0


class Receiver:
    """One receiver and its merchant.

    Attributes:
        posts: everything that was sent to it, whether it arrived or not.
        secrets: (unix seconds, secret): which one it verifies with from when on.
        asked_again_at: when its merchant had all sent that was missed; None: never.
        is_calm: nothing goes wrong any more, but for what was decided.
    """

    def __init__(
        self,
        number: int,
        rng: random.Random,
        calendar: Calendar,
        habits: Habits,
        database: Database,
        traffic: Traffic,
        *,
        wake: Callable[[], bool],
        note: Callable[[str, str], None],
    ) -> None:
        self.id = f"we_{number:026}"
        self.url = f"https://receiver{number}.test/webhooks"
        self.habits = habits
        self.posts: list[Post] = []
        self.secrets: list[tuple[float, str]] = [(0.0, self._secret(1))]
        self.asked_again_at: float | None = None
        self.is_calm = False
        self._rng = rng
        self._calendar = calendar
        self._database = database
        self._traffic = traffic
        self._wake = wake
        self._note = note
        self._began_at = calendar.now()

    # ------------------------------------------------------------------------- the merchant

    async def register(self) -> None:
        """As the API does it."""
        statement = webhook_endpoints.create(
            id=self.id,
            url=self.url,
            event_types=self.habits.event_types,
            description=None,
            key_id=KEY.id,
            now=int(self._calendar.now()),
            at_most=100,
        )
        await self._surely(lambda: self._only_once(statement))

    async def live(self) -> None:
        """What the merchant does in the course of time."""
        habits = self.habits
        plans = [
            (habits.rotates_at, self._rotate),
            (habits.disabled_at, self._disable),
            (habits.enabled_at, self._enable),
            (habits.deleted_at, self._delete),
        ]
        for at_s, act in sorted((at_s, act) for at_s, act in plans if at_s is not None):
            await self._calendar.until(self._began_at + at_s)
            self._note(self.url[8:17], act.__name__[1:])
            self._traffic.under_way += 1
            await act()
            self._traffic.under_way -= 1
            self._wake()

    async def _only_once(self, statement: Statement) -> None:
        if await webhook_endpoints.get(self._database, self.id) is None:
            with suppress(Conflict):  # an earlier try of it was under way still
                await self._database.write([statement])

    async def _rotate(self) -> None:
        async def rotate() -> None:
            found = await webhook_endpoints.get(self._database, self.id)
            if found is not None and found.signer.generation == 1:
                now = int(self._calendar.now())
                await self._database.write(
                    [webhook_endpoints.rotate(found, key_id=KEY.id, overlap_s=OVERLAP_S, now=now)]
                )

        began_at = self._calendar.now()
        await self._surely(rotate)
        # It is told the new secret, and uses it some time later: both sign until then.
        self.secrets.append(
            (began_at + OVERLAP_S * (0.1 + 0.8 * self._rng.random()), self._secret(2))
        )

    async def _disable(self) -> None:
        await self._surely(
            lambda: self._database.write(
                webhook_endpoints.disable(self.id, "by its merchant", int(self._calendar.now()))
            )
        )

    async def _enable(self) -> None:
        now = int(self._calendar.now())
        await self._surely(lambda: self._database.write([webhook_endpoints.enable(self.id, now)]))
        if self.habits.asks_again:
            self.asked_again_at = self._calendar.now()
            since = int(self._began_at)
            await self._surely(
                lambda: self._database.write(deliveries.redeliver_since(self.id, since, now))
            )

    async def _delete(self) -> None:
        await self._surely(
            lambda: self._database.write(
                webhook_endpoints.delete(self.id, int(self._calendar.now()))
            )
        )

    def _secret(self, generation: int) -> str:
        return standard_webhooks.secret_of(KEY, self.id, generation)

    async def _surely(self, write: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await write()
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            else:
                return

    def reached(self, turns: Sequence[Turn]) -> Reached:
        """What is left of it for the judge."""
        return Reached(
            id=self.id,
            event_types=self.habits.event_types,
            posts=self.posts,
            turns=turns,
            secrets=self.secrets,
            asked_again=self.asked_again_at is not None,
            is_away_for_good=self.habits.away[1] >= FOR_GOOD_S,
        )

    # ------------------------------------------------------------------------- the receiver

    @property
    def _now_s(self) -> float:
        return self._calendar.now() - self._began_at

    async def take(self, post: Post) -> Reply:
        """What becomes of a webhook.

        Raises:
            SourceUnavailable: no answer came; `post` says whether it was received.
        """
        self.posts.append(post)
        habits = self.habits
        if self._is_away() or self._chance(habits.refuses):
            await asyncio.sleep(0.1)
            raise SourceUnavailable("connection refused (simulated)")
        await asyncio.sleep(habits.latency_s * self._rng.random() ** 2)
        post.received_at = self._calendar.now()
        if self._chance(habits.hangs):
            await asyncio.sleep(TIMEOUT_S)
            raise SourceUnavailable(f"no answer within {TIMEOUT_S:g} s (simulated)")
        post.status = self._status()
        await asyncio.sleep(habits.latency_s * self._rng.random() ** 2)
        is_asking = not 200 <= post.status < 300 and self._chance(habits.asks_to_wait)
        return Reply(status=post.status, body=b"ok", retry_after_s=120.0 if is_asking else None)

    def _status(self) -> int:
        gone_at = self.habits.gone_at
        if gone_at is not None and self._now_s >= gone_at:
            return _GONE
        if self._chance(self.habits.fails):
            return self._rng.choice((301, 400, 404, 429, 500, 503))
        return self._rng.choice((200, 200, 204))

    def _is_away(self) -> bool:
        start, length = self.habits.away
        if not start <= self._now_s < start + length:
            return False
        return not (self.habits.is_flapping and self._rng.random() < 0.2)

    def _chance(self, of: float) -> bool:
        return of > 0 and not self.is_calm and self._rng.random() < of


class SimulatedSender:
    """The way out of one process."""

    def __init__(
        self, receivers: Sequence[Receiver], life: Life, calendar: Calendar, traffic: Traffic
    ) -> None:
        self._traffic = traffic
        self._receivers = {receiver.url: receiver for receiver in receivers}
        self._life = life
        self._calendar = calendar

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """As `Outside.post`."""
        if self._life.is_over:
            await asyncio.Event().wait()
        self._traffic.under_way += 1
        post = Post(
            at=self._calendar.now(),
            process=self._life.process,
            headers=dict(headers),
            body=body,
        )
        try:
            reply = await self._receivers[url].take(post)
        except SourceUnavailable:
            await self._life.answered()
            raise
        finally:
            self._traffic.under_way -= 1
        await self._life.answered()
        return reply


def add_turn(turns: list[Turn], disk: Disk, endpoint_id: str, calendar: Calendar) -> None:
    """Notes the state of a receiver, when it is another one than before."""
    found = disk.rows("SELECT state FROM webhook_endpoints WHERE id = ?", endpoint_id)
    if not found or (turns and turns[-1].state == found[0][0]):
        return
    [(last_seq,)] = disk.rows("SELECT coalesce(max(seq), 0) FROM events")
    turns.append(Turn(at=calendar.now(), last_seq=last_seq, state=found[0][0]))
