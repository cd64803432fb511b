"""What processes share and may lose: a few short-lived values in Redis.

Nothing here is the truth. Whoever asks is told within `TIMEOUT_S`, or at once while Redis is known
to be away, that it is not there (`SharedUnavailable`), and goes on without it.

Redis is away from the first request that it does not answer, until it takes a write again: it is
asked for one twice a second, whether it is away or not, so that it comes back by itself and is
missed also when nobody uses it.

The library's connections are used one by one, without its pool and its retries: a retry repeats a
write whose answer was lost, and the pool may lose a connection whose user is canceled twice.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Final, NoReturn, Self, cast

from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from indexer.errors import SharedUnavailable
from indexer.log import get_logger


log = get_logger(__name__)

#: The longest that anybody waits for an answer, for a connection and his turn included.
TIMEOUT_S: Final = 0.5
#: How often Redis is asked whether it takes a write.
PROBE_EVERY_S: Final = 0.5
#: A line of the log says that Redis refused something, this often at the most.
REFUSED_TOLD_EVERY_S: Final = 60.0
#: When this process itself is so late, an answer may lie there unread: it gets a little more time.
_LATE_S: Final = 0.05
_LATE_GRACE_S: Final = 0.1

#: Requests under way at once; the others wait for their turn.
CONNECTIONS_MAX: Final = 16
#: A connection that was not used for so long is not trusted any more: what stands between may
#: have dropped it without a word.
_IDLE_S_MAX: Final = 30.0

#: All keys begin so: a Redis may serve others as well.
PREFIX: Final = "axiom:"

_AWAY: Final = "Redis does not answer"

#: What a library's connection raises: its own errors, the system's, and those of parsing what is
#: no Redis at all.
_FAILURES: Final = (RedisError, OSError, EOFError, ValueError)

Argument = str | bytes | int


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, which Redis runs as one step.

    Attributes:
        text: its source.
        digest: SHA-1 of the source in hexadecimal, by which Redis knows it.
    """

    text: str
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "digest", digest)


#: Seconds of silence after which a connection that listens is asked whether anybody is there; after
#: as many again it is given up.
SILENT_S: Final = 5.0

#: A script that writes: it fails wherever a rate limit would, such as on a replica or a full one.
_PROBE: Final = Script("return redis.call('SET', KEYS[1], redis.call('TIME')[1], 'PX', ARGV[1])")
_DELETE_IF: Final = Script(
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call('DEL', KEYS[1])"
)
_PROBE_TTL_MS: Final = 10_000


class Shared:
    """One Redis, for the length of an `async with` block; `run` is to be running meanwhile.

    Attributes:
        problem: why Redis is not used now, fit for everyone to read; None while it is there.
    """

    def __init__(self, url: str) -> None:
        """Prepares; connects when first used.

        Args:
            url: `redis://`, `rediss://` or `unix://`, checked by the settings.
        """
        self.problem: str | None = None
        self._away_since = 0.0
        self._tell_refused_at = 0.0
        options = cast("dict[str, Any]", parse_url(url))
        self._connection_class: type[AbstractConnection] = options.pop(
            "connection_class", Connection
        )
        # Without a protocol and a name of the library, a connection costs no more than its
        # password and its database; without timeouts of its own there is only one: ours.
        self._options = options | {
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            "socket_timeout": None,
            "socket_connect_timeout": None,
        }
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: list[tuple[float, AbstractConnection]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop_idle()

    @property
    def away_s(self) -> float:
        """For how long Redis has not been used; 0 while it is there."""
        if self.problem is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._away_since

    async def run(self) -> NoReturn:
        """Looks whether Redis is there, for ever."""
        while True:
            await self._probe()
            await asyncio.sleep(PROBE_EVERY_S)

    async def script(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """What the script returns: integers, bytes, None and lists of them.

        Args:
            script: what to run.
            keys: all that it touches, without the prefix.
            args: everything else.

        Raises:
            SharedUnavailable: no answer; it may have run all the same.
        """
        self._must_be_there()
        return await self._evaluate(script, keys, args)

    async def get(self, key: str) -> bytes | None:
        """What was put there; None when there is nothing, or nothing any more.

        Raises:
            SharedUnavailable: no answer.
        """
        self._must_be_there()
        return cast("bytes | None", await self._ask("GET", PREFIX + key))

    async def put(self, key: str, value: bytes, *, ttl_ms: int, only_new: bool = False) -> bool:
        """Puts a value there for so long; False when `only_new` and there is one.

        Raises:
            SharedUnavailable: no answer; it may be there all the same.
        """
        self._must_be_there()
        condition = ("NX",) if only_new else ()
        said = await self._ask("SET", PREFIX + key, value, "PX", ttl_ms, *condition)
        return said is not None

    async def delete_if(self, key: str, value: bytes) -> bool:
        """Takes the value away if it is this one; whether it was.

        Raises:
            SharedUnavailable: no answer; it may be gone all the same.
        """
        return bool(await self.script(_DELETE_IF, (key,), (value,)))

    async def messages(self, channel: str) -> AsyncIterator[None]:
        """Yields once it listens, and at each message on the channel: what is said is nothing.

        Has a connection of its own. What is said while there is none is lost.

        Raises:
            SharedUnavailable: the connection broke, or Redis is silent.
        """
        connection = self._connection_class(**self._options)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]  # as above
                await connection.send_command("SUBSCRIBE", PREFIX + channel)
            is_asked = False
            while True:
                said = await connection.read_response(timeout=SILENT_S)
                if said is None and is_asked:
                    raise TimeoutError(f"Redis was silent for {2 * SILENT_S:g} s")
                if said is None:
                    await connection.send_command("PING")
                elif said[0] != b"pong":
                    yield
                is_asked = said is None
        except (ResponseError, *_FAILURES) as error:
            raise SharedUnavailable(f"{_AWAY}: {str(error) or type(error).__name__}") from error
        finally:
            await connection.disconnect(nowait=True)

    async def say(self, channel: str) -> None:
        """A message to all who listen on the channel.

        Raises:
            SharedUnavailable: no answer.
        """
        self._must_be_there()
        await self._ask("PUBLISH", PREFIX + channel, b"")

    def _must_be_there(self) -> None:
        if self.problem is not None:
            raise SharedUnavailable(self.problem)

    async def _probe(self) -> None:
        try:
            await self._evaluate(_PROBE, ("probe",), (_PROBE_TTL_MS,))
        except SharedUnavailable as error:
            self._is_away(error)  # also what Redis refuses, such as a write on a replica
        else:
            self._is_back()

    def _tell_refused(self, error: ResponseError) -> None:
        """One line for many: each request of a key that is wrong is refused, and each probe."""
        now = asyncio.get_running_loop().time()
        if self.problem is None and now >= self._tell_refused_at:
            self._tell_refused_at = now + REFUSED_TOLD_EVERY_S
            log.warning("shared.refused", error=str(error))

    def _is_away(self, error: Exception) -> None:
        if self.problem is None:
            self.problem = _AWAY
            self._away_since = asyncio.get_running_loop().time()
            log.warning("shared.away", error=str(error))

    def _is_back(self) -> None:
        if self.problem is not None:
            self.problem = None
            log.info("shared.back")

    async def _evaluate(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        rest = (len(keys), *(PREFIX + key for key in keys), *args)
        whole = ("EVAL", script.text, *rest)
        return await self._ask("EVALSHA", script.digest, *rest, instead=whole)

    async def _ask(self, *command: Argument, instead: Sequence[Argument] = ()) -> Any:
        """The answer to a command; to `instead` where Redis does not know the script.

        Raises:
            SharedUnavailable: no answer (then Redis is away), or a refusal.
        """
        try:
            async with _in_time(), self._turns, self._connection() as connection:
                try:
                    return await _answer(connection, command)
                except NoScriptError:
                    return await _answer(connection, instead)
        except ResponseError as error:
            # Why it was refused may concern this key alone; the probe finds out what concerns all.
            self._tell_refused(error)
            raise SharedUnavailable(f"Redis refused: {error}") from error
        except _FAILURES as error:
            await self._drop_idle()  # made before: as dead as this one
            told = SharedUnavailable(f"{_AWAY}: {str(error) or type(error).__name__}")
            self._is_away(told)
            raise told from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        """A connection for one exchange; closed when that is broken off, whatever the reason."""
        connection = await self._take()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # the library types most
            yield connection
        except ResponseError:
            self._put_back(connection)  # the exchange is complete: this was the answer
            raise
        except BaseException:
            # What was asked and is not answered yet would be read by the next one.
            await connection.disconnect(nowait=True)
            raise
        self._put_back(connection)

    async def _take(self) -> AbstractConnection:
        now = asyncio.get_running_loop().time()
        if self._idle and now - self._idle[-1][0] > _IDLE_S_MAX:
            await self._drop_idle()  # the last one is the youngest
        return self._idle.pop()[1] if self._idle else self._connection_class(**self._options)

    def _put_back(self, connection: AbstractConnection) -> None:
        self._idle.append((asyncio.get_running_loop().time(), connection))

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for _, connection in idle:
            await connection.disconnect(nowait=True)


async def _answer(connection: AbstractConnection, command: Sequence[Argument]) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Ends what takes longer than `TIMEOUT_S` with a `TimeoutError`."""
    loop = asyncio.get_running_loop()
    due = loop.time() + TIMEOUT_S
    async with asyncio.timeout(None) as limit:
        timer = loop.call_at(due, _end, limit, due)
        try:
            yield
        finally:
            timer.cancel()


def _end(limit: asyncio.Timeout, due: float) -> None:
    now = asyncio.get_running_loop().time()
    limit.reschedule(now + _LATE_GRACE_S if now - due > _LATE_S else now)
