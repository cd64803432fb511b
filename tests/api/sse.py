"""Reads server-sent events as the HTML standard says, without reconnecting."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Message:
    """One block of a stream.

    Attributes:
        comment: a block without any field.
    """

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: str | None = None
    comment: str | None = None

    @property
    def json(self) -> Any:
        assert self.data is not None
        return json.loads(self.data)


class Reader:
    """The messages of one response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, timeout_s: float = 30.0) -> Message | None:
        """The next message; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(timeout_s):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    return Message(**fields)
                name, _, value = line.rstrip("\n").partition(":")
                fields[name or "comment"] = value.removeprefix(" ")
        assert not fields, "the stream ended inside a message"
        return None

    async def event(self, timeout_s: float = 30.0) -> Message | None:
        """The next message that carries data; None at the end of the stream."""
        while (message := await self.next(timeout_s)) is not None:
            if message.data is not None:
                return message
        return None

    async def rest(self) -> list[Message]:
        """Every message with data until the stream ends."""
        messages = []
        while (message := await self.event()) is not None:
            messages.append(message)
        return messages


@asynccontextmanager
async def stream(
    session: aiohttp.ClientSession, path: str, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Reader]:
    """An open stream."""
    async with session.get(path, headers=headers, timeout=aiohttp.ClientTimeout()) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Reader(response)
