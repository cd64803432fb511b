"""Host names to addresses, so that a name server which does not answer holds up nobody else.

The system's resolver blocks, for half a minute and more where a name server is silent. A pool of
threads would soon consist of those who wait for it. So each name has at most one thread of its
own, whoever asks for it; it is a daemon, so that the end of the process does not wait for it.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final

from indexer.core.addresses import Address
from indexer.errors import SourceUnavailable


#: The addresses of a host; raises SourceUnavailable when there are none, or none are told.
Lookup = Callable[[str], Awaitable[Sequence[Address]]]

#: How long one asks for the addresses of a name, in seconds.
LOOKUP_TIMEOUT_S: Final = 5.0

#: Names that are asked for at once. More than there may be receivers.
LOOKUPS_MAX: Final = 128


class Names:
    """Asks the system's resolver, which also reads the file of hosts."""

    def __init__(self, timeout_s: float = LOOKUP_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._under_way: dict[str, asyncio.Future[list[Address]]] = {}

    async def addresses(self, host: str) -> Sequence[Address]:
        """All addresses of a host, in the resolver's order.

        Raises:
            SourceUnavailable: it has none, or they are not told in time.
        """
        answer = self._under_way.get(host)
        if answer is None:
            if len(self._under_way) >= LOOKUPS_MAX:
                raise SourceUnavailable("too many names are being looked up")
            answer = self._ask(host)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(answer)
        except TimeoutError as error:
            problem = f"no name server answered within {self._timeout_s:g} s"
            raise SourceUnavailable(problem) from error
        except OSError as error:  # gaierror among them
            raise SourceUnavailable("its name leads to no address") from error

    def _ask(self, host: str) -> asyncio.Future[list[Address]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()
        # Whoever asked may have gone by then: a problem that nobody hears of is none.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())

        def tell(result: list[Address] | OSError) -> None:
            self._under_way.pop(host, None)
            if answer.cancelled():
                return
            if isinstance(result, OSError):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def work() -> None:
            result = _resolve(host)
            # A loop that has ended wants to know nothing.
            if not loop.is_closed():
                _tell_loop(loop, tell, result)

        self._under_way[host] = answer
        threading.Thread(target=work, name=f"lookup:{host}", daemon=True).start()
        return answer


def _tell_loop(
    loop: asyncio.AbstractEventLoop,
    tell: Callable[[list[Address] | OSError], None],
    result: list[Address] | OSError,
) -> None:
    try:
        loop.call_soon_threadsafe(tell, result)
    except RuntimeError:
        return  # it was closed meanwhile


def _resolve(host: str) -> list[Address] | OSError:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        return OSError("no host name")
    except OSError as error:
        return error
    # The same address may come more than once; the order is the system's preference.
    return list(dict.fromkeys(ip_address(str(each[4][0])) for each in found))
