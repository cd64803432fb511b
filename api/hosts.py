"""Under which names the API answers.

A page can be made to call any address that its name server gives out, the browser's own machine
and its neighbours among them (DNS rebinding): to the browser that is still the page's own origin,
and CORS allows it everything. What gives it away is `Host`, which is the page's name and none of
ours.

Sources: RFC 9110 section 7.2 (Host), section 15.5.20 (421); RFC 9112 section 3.2 (400).
"""

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

from starlette.types import Scope

from api.errors import Problem


#: Who asks these asks a process, by whatever name or address he knows it.
EXEMPT_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics"})

_HOST: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._\-]{1,255}))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)


class Hosts:
    """The names under which a deployment may be called."""

    def __init__(self, names: Collection[str] | None) -> None:
        """Prepares.

        Args:
            names: host names and addresses in lower case, without ports; None: any.
        """
        self._names = None if names is None else frozenset(map(_comparable, names))

    def refusal(self, scope: Scope) -> Problem | None:
        """What is wrong with the `Host` of a request; None: nothing.

        Without the header is only who speaks HTTP/1.0, such as a load balancer's probe.
        """
        found = [value for name, value in scope["headers"] if name == b"host"]
        if not found and scope["http_version"] == "1.0":
            host: str | None = ""
        else:
            host = host_of(found[0]) if len(found) == 1 else None
        if host is None:
            return Problem(400, "malformed_host", "the request must name one host, in one `Host`")
        if self._names is None or host in self._names or scope["path"] in EXEMPT_PATHS:
            return None
        return Problem(
            421,
            "unknown_host",
            "the API is not served under the host that the request names (AXIOM_ALLOWED_HOSTS)",
        )


@lru_cache(maxsize=256)
def host_of(value: bytes) -> str | None:
    """The name in a `Host` header, in a form that can be compared; None when it is none."""
    match = _HOST.fullmatch(value.decode("latin-1"))
    if match is None or int(match["port"] or 1) not in range(1, 2**16):
        return None
    if match["v6"] is None:
        return _comparable(match["name"])
    try:
        return str(IPv6Address(match["v6"]))
    except ValueError:
        return None


def _comparable(name: str) -> str:
    """Lower case, without the dot of the root; an address in its shortest form."""
    try:
        return str(IPv6Address(name))
    except ValueError:
        return name.lower().removesuffix(".")
