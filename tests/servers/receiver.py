"""A receiver of webhooks, as real HTTP on loopback.

    async with Receiver() as shop:
        shop.answer = Answer(status=500)        # from now on
        shop.once(Answer(status=429, headers={"Retry-After": "3"}), hangs_up)
        await shop.die()                        # its port is closed, its connections are cut
        await shop.rise()                       # the same port again
        shop.posts                              # everything that came, in order

What came is kept before it is answered, so what is in `posts` may never have been acknowledged.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web


@dataclass(frozen=True)
class Post:
    """What came: header names in lower case; `number` counts from 0."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def payment(self) -> str:
        """Whose event it is."""
        return str(self.json["data"]["payment"]["id"])

    @property
    def version(self) -> int:
        """The version of the payment after the event."""
        return int(self.json["data"]["payment"]["version"])


@dataclass(frozen=True)
class Answer:
    """How a post is answered, after `delay_s` seconds."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


#: Something else that becomes of a post.
Fate = Callable[[web.BaseRequest, Post], Awaitable[web.StreamResponse]]
#: Chooses by what came.
Choice = Callable[[Post], Answer | Fate]


class Receiver:
    """One HTTP server. An async context manager.

    Attributes:
        url: where it is, with a path that nobody is to read in a log.
        posts: what came.
        answer: what is answered, unless `once` has something else.
        at_once: posts that are being answered now; `at_once_max`: at most so far.
    """

    def __init__(self) -> None:
        self.url = ""
        self.posts: list[Post] = []
        self.answer: Answer | Fate = Answer()
        self.choice: Choice | None = None
        self.at_once = self.at_once_max = 0
        self._next: deque[Answer | Fate] = deque()
        self._port = 0
        self._runner: web.ServerRunner | None = None

    def once(self, *answers: Answer | Fate) -> None:
        """The next posts are answered so, one each."""
        self._next.extend(answers)

    @property
    def ids(self) -> list[str]:
        """The `webhook-id` of each post, in order."""
        return [post.id for post in self.posts]

    async def rise(self) -> None:
        """Listens; nothing happens when it does already."""
        if self._runner is not None:
            return
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True, backlog=1024)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}/hooks/canary-path?token=canary-query"

    async def die(self) -> None:
        """Refuses connections, and cuts those that there are."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.rise()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.die()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        post = Post(len(self.posts), request.raw_path, headers, body)
        self.posts.append(post)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            return await self._answer(request, post)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.BaseRequest, post: Post) -> web.StreamResponse:
        if self._next:
            answer = self._next.popleft()
        else:
            answer = self.answer if self.choice is None else self.choice(post)
        if not isinstance(answer, Answer):
            return await answer(request, post)
        if answer.delay_s:
            await asyncio.sleep(answer.delay_s)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


# ------------------------------------------------------------------------------------- fates


async def hangs(_: web.BaseRequest, __: Post) -> web.StreamResponse:
    """Takes the post and says nothing."""
    await asyncio.sleep(3_600)
    raise AssertionError("somebody waited for an hour")


async def hangs_up(request: web.BaseRequest, _: Post) -> web.StreamResponse:
    """Takes the post and closes the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
