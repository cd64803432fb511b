"""What no client library sends, sent by hand; and all that is answered."""

import asyncio
from dataclasses import dataclass
from typing import Final

from tests.api.running import Api


PATIENCE_S: Final = 30.0

HOST: Final = b"Host: localhost\r\n"
LAST: Final = b"GET /livez HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
#: What a smuggler wants to be taken for a request of its own.
HIDDEN: Final = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def answers_in(raw: bytes) -> list[Answer]:
    """The answers that stand one after another; all of ours have a length."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        pairs = [field.split(": ", 1) for field in fields]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header stands there twice"
        length = int(headers["content-length"])
        assert len(rest) >= length, "an answer is cut off"
        found.append(Answer(int(line.split()[1]), headers, rest[:length]))
        raw = rest[length:]
    return found


async def talk(api: Api, *pieces: bytes) -> list[Answer]:
    """Everything that is answered, until the server closes; nothing when it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            return answers_in(await reader.read())
    except ConnectionError:
        return []
    finally:
        writer.close()


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A request that is answered without its body: 401."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"POST /api/pay HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n" + body


def get_with(*fields: bytes, path: bytes = b"/livez") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + lines + b"\r\n"
