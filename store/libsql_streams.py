"""Streams of a libSQL server that stay open from one read to the next.

A stream is a connection to the database within the server. A new one reads the whole schema before
it can answer, which costs it more than most answers do (with this schema four times as much as a
lookup). So a few are kept; each belongs to one read at a time, and no transaction is open in one
that waits. A server ends those that wait for ten seconds, and forgets all when it starts anew: then
the read is asked once more, on a new one.
"""

import asyncio
from typing import Final

from indexer.errors import StoreUnavailable
from store.connection import Rows
from store.hrana import ReadAnswer, ReadRequest
from store.libsql import Lost, NotSent, Refused, Server, TimedOut


#: Reads under way at one server, and so streams that are kept there; more wait, which is faster
#: than to open more. A server has 128 connections unless told otherwise, and no more than eight
#: processes use one (ADR 16).
AT_ONCE: Final = 16
#: Seconds for which one that waits is used again: well below what the server allows.
IDLE_S: Final = 5.0


class Streams:
    """Those of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        #: Batons and the loop time of their last use, the latest last.
        self._idle: list[tuple[str, float]] = []
        self._places = asyncio.Semaphore(AT_ONCE)

    async def read(
        self, request: ReadRequest, *, index: int | None = None, timeout_s: float
    ) -> tuple[list[Rows], int | None]:
        """The rows of each statement, and the replication index that they were read at.

        Args:
            request: reads alone, which may be repeated.
            index: a replica answers once it has come so far; None: at once.
            timeout_s: for its turn and the first try; the second has what the first one had.

        Raises:
            NotSent, Lost: there is no answer.
            Unreadable: there is one to something else.
            StoreError, InvariantError: the server refuses.
        """
        deadline = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError as error:
            raise TimedOut(f"{self._server.name} has been busy for {timeout_s:g} s") from error
        try:
            return await self._in_turn(request, index, deadline - self._loop.time())
        finally:
            self._places.release()

    def forget(self) -> None:
        """Keeps none of those that wait; the server ends them by itself."""
        self._idle.clear()

    async def _in_turn(
        self, request: ReadRequest, index: int | None, timeout_s: float
    ) -> tuple[list[Rows], int | None]:
        baton = self._taken()
        try:
            answer = await self._ask(request, index, baton, timeout_s)
        except StoreUnavailable as error:
            if not _may_be_of_the_stream(error, baton):
                raise
            self.forget()  # a server that starts anew knows none of them
            answer = await self._ask(request, index, None, timeout_s)
        return answer.rows, answer.index

    async def _ask(
        self, request: ReadRequest, index: int | None, baton: str | None, timeout_s: float
    ) -> ReadAnswer:
        body = request.body(index=index, baton=baton, keeps=True)
        answer = request.answer(await self._server.post(body, timeout_s=timeout_s))
        if answer.baton is not None:
            self._idle.append((answer.baton, self._loop.time()))
        if answer.error is not None:
            raise answer.error
        return answer

    def _taken(self) -> str | None:
        """The one that was used last; None: there is none that the server still knows."""
        if not self._idle:
            return None
        baton, used_at = self._idle.pop()
        if self._loop.time() - used_at < IDLE_S:
            return baton
        self.forget()
        return None


def _may_be_of_the_stream(error: StoreUnavailable, baton: str | None) -> bool:
    """Whether another stream, or another connection, may fare better at once."""
    match error:
        case TimedOut():
            return False
        case Lost():  # a connection that the server had closed looks like this
            return True
        case Refused():
            return baton is not None
        case NotSent():
            return False
        case _:
            return baton is not None
