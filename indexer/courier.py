"""Takes to one receiver what is due there, and notes what came of it.

    due ──► post ──► 2xx: delivered
                ├──► 410: the receiver wants nothing more; it is disabled
                └──► anything else, or nothing: again, by the schedule of `core.delivery`

Several are under way at once, but never two of one payment: the store gives out the next event of
a payment only when the one before has its end.

A receiver that fails several times in a row is taken to be away: then one delivery at a time is
tried, less and less often, and when one arrives everything that waits is due at once. One that
asks for a pause is sent nothing at all for a while.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urlsplit

import structlog

from indexer.core import delivery, standard_webhooks
from indexer.core.standard_webhooks import SigningKey
from indexer.errors import Conflict, InvariantError, SourceError, StoreUnavailable
from indexer.sources.outside import Reply, Sender
from indexer.tenure import Everything, Share
from store import deliveries, webhook_endpoints
from store.database import Database, Statement
from store.deliveries import Attempt, Due
from store.webhook_endpoints import WebhookEndpoint


log = structlog.get_logger(__name__)

#: Deliveries that are under way at once to one receiver.
AT_ONCE: Final = 8
#: Deliveries that are read at once.
BATCH_SIZE: Final = 64
#: Failures in a row after which a receiver is taken to be away.
AWAY_AFTER: Final = 5
#: Seconds between two tries at one that is away: from the first, doubling, to the longest.
PROBE_PAUSE_S_MIN: Final = 5.0
PROBE_PAUSE_S_MAX: Final = 300.0
#: Seconds until the store is asked again what is due, if the owner does not say so before.
REST_S: Final = 30.0
#: Seconds of pause when the store does not answer.
PAUSE_S: Final = 1.0
#: Characters of an answer that are kept.
RESPONSE_CHARS_MAX: Final = 1024

_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class _Began:
    """The beginning of an attempt.

    Attributes:
        time: by the loop's clock.
        at: unix seconds.
        guard: refuses what came of it, should the receiver be another indexer's by then.
    """

    time: float
    at: int
    guard: Sequence[Statement]


class Courier:
    """Delivers to one receiver, when its owner says that something is due. Ends when canceled.

    Attributes:
        endpoint: the receiver as it is stored now; replaced by the owner when it changes.
        outcomes: deliveries by what came of an attempt, since the start.
    """

    def __init__(
        self,
        endpoint: WebhookEndpoint,
        database: Database,
        sender: Sender,
        keys: Mapping[str, SigningKey],
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        outcomes: dict[str, int],
        share: Share | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: the receiver.
            database: where deliveries are.
            sender: posts them.
            keys: signing keys by id.
            clock: unix seconds.
            draw: 0 … 1, at random.
            outcomes: is added to.
            share: whether this receiver is served here; always when None.
        """
        self._share = share or Everything()
        self.endpoint = endpoint
        self.outcomes = outcomes
        self._database = database
        self._sender = sender
        self._keys = keys
        self._clock = clock
        self._draw = draw
        self._under_way: set[int] = set()
        self._failures = 0
        self._quiet_until = 0.0  # by the loop's clock
        self._is_gone = False
        self._is_outdated = False
        self._stirred = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """Why nothing can be sent at all; None: it can."""
        signer = self.endpoint.signer
        if signer.key_id in self._keys:
            return None
        return (
            f"the signing key {signer.key_id} is not configured, from which the secret of "
            f"{self.endpoint.id} is derived: bring it back, or rotate the secret"
        )

    @property
    def is_ready(self) -> bool:
        """Whether it would send now what is due."""
        if self._is_gone or self.problem is not None or self._time() < self._quiet_until:
            return False
        if not self._is_ours:
            return False
        return len(self._under_way) < (1 if self._is_away else AT_ONCE)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    def stir(self) -> None:
        """Something may be due."""
        self._stirred.set()

    async def run(self) -> NoReturn:
        """Delivers for ever."""
        places = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:

            async def deliver(due: Due) -> None:
                try:
                    with self._share.under_way(self.endpoint.id):
                        await self._deliver(due)
                finally:
                    self._under_way.discard(due.id)
                    places.release()
                    self.stir()

            while True:
                self._stirred.clear()
                for due in await self._due():
                    await places.acquire()
                    if self._is_outdated or not self._is_ours:
                        places.release()
                        break
                    self._under_way.add(due.id)
                    group.create_task(deliver(due), name=f"dlv_{due.id}")
                await self._rest()

    # ---------------------------------------------------------------------------- what is due

    @property
    def _is_ours(self) -> bool:
        return self._share.does(self.endpoint.id)

    @property
    def _is_away(self) -> bool:
        return self._failures >= AWAY_AFTER

    async def _due(self) -> list[Due]:
        if not self.is_ready:
            return []
        self._is_outdated = False
        limit = 1 if self._is_away else BATCH_SIZE
        # As it was before the look: what ends during the look was seen waiting all the same.
        under_way = frozenset(self._under_way)
        try:
            found = await deliveries.due(
                self._database, self.endpoint.id, self._now(), limit + len(under_way)
            )
        except StoreUnavailable as error:
            log.warning("delivery.store_unavailable", error=str(error))
            await asyncio.sleep(PAUSE_S)
            self.stir()
            return []
        return [due for due in found if due.id not in under_way][:limit]

    async def _rest(self) -> None:
        """Until something may be due, or what wants to be quiet may be spoken to again."""
        quiet_s = self._quiet_until - self._time()
        rest_s = quiet_s if quiet_s > 0 else REST_S
        try:
            async with asyncio.timeout(rest_s):
                await self._stirred.wait()
        except TimeoutError:
            return

    def _secrets(self) -> tuple[str, ...]:
        """What signs now; none when the key is not there that the current one is derived from."""
        if self.problem is not None:
            return ()
        signers = self.endpoint.signers(self._now())
        return tuple(
            standard_webhooks.secret_of(key, self.endpoint.id, signer.generation)
            for signer in signers
            if (key := self._keys.get(signer.key_id)) is not None
        )

    # ------------------------------------------------------------------------------- one of it

    async def _deliver(self, due: Due) -> None:
        # Now, not when it was read: the secret may have been replaced while it waited.
        secrets = self._secrets()
        if not secrets:
            return
        began = _Began(self._time(), self._now(), self._share.guard(self.endpoint.id))
        reply, problem = None, None
        try:
            reply = await self._post(due, secrets, began.at)
        except SourceError as error:
            problem = str(error)
        except Exception as error:
            # A fault of ours ends the process, as everywhere. But it is counted before: the
            # delivery shall not be what ends every process after this one as well.
            problem = f"a fault of ours: {type(error).__name__}"
            await self._note(due, began, None, problem)
            raise
        if reply is not None and not 200 <= reply.status < 300:
            problem = f"answered {reply.status}"
        await self._note(due, began, reply, problem)

    async def _note(
        self, due: Due, began: _Began, reply: Reply | None, problem: str | None
    ) -> None:
        """Puts on record what came of an attempt, and what follows from it."""
        attempt = Attempt(
            number=due.tried + 1,
            at=began.at,
            duration_ms=round((self._time() - began.time) * 1000),
            status=None if reply is None else reply.status,
            problem=problem,
            response="" if reply is None else _text(reply.body),
        )
        await self._keep([*began.guard, *self._consequences(due, attempt, reply)])
        if attempt.status == _GONE:
            self._is_gone = False  # what waited is dropped: nothing is due any more
        log.info(
            "webhook.delivered" if problem is None else "webhook.not_delivered",
            endpoint_id=self.endpoint.id,
            host=urlsplit(self.endpoint.url).hostname,
            delivery_id=due.id,
            status=attempt.status,
            problem=problem,
            attempt=attempt.number,
        )

    async def _post(self, due: Due, secrets: tuple[str, ...], at: int) -> Reply:
        id_, body = _message(due)
        headers = {
            "Content-Type": "application/json",
            standard_webhooks.ID_HEADER: id_,
            standard_webhooks.TIMESTAMP_HEADER: str(at),
            standard_webhooks.SIGNATURE_HEADER: standard_webhooks.sign(
                secrets, id=id_, timestamp=at, body=body
            ),
        }
        return await self._sender.post(self.endpoint.url, headers, body)

    def _consequences(self, due: Due, attempt: Attempt, reply: Reply | None) -> list[Statement]:
        """What is written after an attempt."""
        endpoint_id, now = self.endpoint.id, self._now()
        batch = [deliveries.tried(due.id, attempt)]
        if attempt.problem is None:
            batch.append(deliveries.delivered(due.id, now))
            if self._is_away:
                batch.append(deliveries.hasten(endpoint_id, now))
                log.info("receiver.back", endpoint_id=endpoint_id)
            self._failures = 0
            self._count("delivered")
            return batch
        retry_after_s = None if reply is None else reply.retry_after_s
        self._failed(retry_after_s or 0)
        if attempt.status == _GONE:
            self._count("gone")
            self._is_gone = self._is_outdated = True
            log.warning("receiver.gone", endpoint_id=endpoint_id)
            return [*batch, *webhook_endpoints.disable(endpoint_id, "it answered 410 Gone", now)]
        next_at = delivery.next_try_at(due.attempts + 1, now, self._draw(), retry_after_s)
        if next_at is None:
            self._count("given_up")
            batch.append(deliveries.failed(due.id, now))
        else:
            self._count("failed")
            batch.append(deliveries.again(due.id, next_at))
        if self._is_away:
            batch.append(deliveries.give_up(endpoint_id, now - delivery.GIVE_UP_AFTER_S, now))
        return batch

    def _failed(self, pause_s: float) -> None:
        """Counts a failure; from the fifth in a row on, each one makes for a longer pause.

        Args:
            pause_s: what the receiver asked for. Not more than the longest pause is kept for all:
                it may have meant this one webhook only.
        """
        # Several are under way when a receiver goes away. Their ends say nothing new.
        if not self._is_away or self._time() >= self._quiet_until:
            self._failures += 1
        if self._is_away:
            beyond = min(self._failures - AWAY_AFTER, 16)
            pause_s = max(pause_s, PROBE_PAUSE_S_MIN * 2**beyond)
            if self._failures == AWAY_AFTER:
                log.warning("receiver.away", endpoint_id=self.endpoint.id)
        if pause_s > 0:
            quiet_until = self._time() + min(pause_s, PROBE_PAUSE_S_MAX)
            self._quiet_until = max(self._quiet_until, quiet_until)
            self._is_outdated = True

    async def _keep(self, batch: list[Statement]) -> None:
        """Writes what came of an attempt, however long the store takes: else it is sent again."""
        while True:
            try:
                await self._database.write(batch)
            except StoreUnavailable as error:
                log.warning("delivery.not_stored", error=str(error))
                await asyncio.sleep(PAUSE_S)
            except Conflict as error:  # it was pruned meanwhile, or another indexer sends it now
                log.warning("delivery.not_stored", error=str(error))
                return
            else:
                return

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def _now(self) -> int:
        return int(self._clock())

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()


def _message(due: Due) -> tuple[str, bytes]:
    """Id and body of what is sent."""
    if due.payment_id is None or due.type is None or due.data is None:
        return standard_webhooks.test_id(due.id), delivery.test_payload(due.created_at)
    if due.version is None or due.ordinal is None:
        raise InvariantError("an event has a version and an ordinal")
    id_ = standard_webhooks.event_id(due.payment_id, due.version, due.ordinal)
    return id_, delivery.payload(due.type, due.created_at, due.data, due.order_id)


def _text(body: bytes) -> str:
    """An answer's beginning, fit for a terminal."""
    text = body.decode(errors="replace")[:RESPONSE_CHARS_MAX]
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
