"""Where a merchant wants to be told of events: what may be registered, and a sentence otherwise.

What a name leads to is only known when something is sent there: the sender looks again, each
time. Here is refused what never leads to a receiver, as early as possible.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from indexer.core.addresses import Networks, is_public, literal, may_reach
from indexer.core.texts import check_line
from indexer.core.types import EventType
from indexer.errors import InvalidInput


#: Receivers that a deployment may have: every event is written once for each of them.
ENDPOINTS_MAX: Final = 100
URL_CHARS_MAX: Final = 2_048
DESCRIPTION_CHARS_MAX: Final = 200

#: How long the secret before a rotation signs too, unless it is said: a working day and more.
OVERLAP_S_DEFAULT: Final = 24 * 60 * 60
OVERLAP_S_MAX: Final = 7 * 24 * 60 * 60

_URL_CHARS: Final = re.compile(r"[!-~]+", re.ASCII)
#: What no program agrees with another on, so that one checks a host and the next calls another.
_AMBIGUOUS: Final = frozenset('\\<>"^`{|}')
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
#: `127.1`, `2130706433`, `0x7f.1`: a resolver takes them for addresses.
_NUMERIC: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.ASCII)

#: Where services listen that take lines of text from whoever calls, and make something of them:
#: mail, files, names, terminals, databases, caches, printers.
PORTS_REFUSED: Final = frozenset((
    7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 43, 53, 69, 79, 110, 111, 113, 119, 135,
    137, 139, 143, 161, 179, 389, 427, 445, 465, 512, 513, 514, 515, 540, 548, 563, 587, 601, 631,
    636, 873, 989, 990, 993, 995, 1433, 1719, 1720, 1723, 2049, 3306, 3389, 5060, 5061, 5432, 5672,
    5900, 6000, 6379, 6566, 9100, 9200, 9300, 10_080, 11_211, 27_017,
))  # fmt: skip

_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReceiver:
    """What the merchant asks for, checked.

    Attributes:
        event_types: the types that are wanted, in the order of `EventType`; none: all of them.
        description: a line of the merchant's own.
    """

    url: str
    event_types: tuple[EventType, ...]
    description: str | None


def new_receiver(
    url: str,
    event_types: Sequence[str] | None,
    description: str | None,
    *,
    private_networks: Networks,
) -> NewReceiver:
    """A receiver that may be registered.

    Args:
        url: as the merchant wrote it, and as it is kept.
        event_types: None and an empty one: all types, also those that there will be.
        description: one line.
        private_networks: that may be reached although they are not public.

    Raises:
        InvalidInput: names the field.
    """
    check_url(url, private_networks)
    check_line("description", description, chars_max=DESCRIPTION_CHARS_MAX)
    return NewReceiver(
        url=url, event_types=_event_types(event_types or ()), description=description
    )


def check_overlap(overlap_s: int | None) -> int:
    """Seconds for which the secret before a rotation signs too; None takes the default.

    Raises:
        InvalidInput: field `overlap_s`.
    """
    if overlap_s is None:
        return OVERLAP_S_DEFAULT
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise InvalidInput("overlap_s", f"must be 0 to {OVERLAP_S_MAX} seconds")
    return overlap_s


def check_since(since: int, *, retention_days: int, now: int) -> None:
    """Accepts a time from which on a receiver may be sent what it has not taken.

    Of the time before it is not known what was delivered: all of it would be sent again.

    Args:
        since: unix seconds.
        retention_days: for which deliveries are kept.
        now: unix seconds.

    Raises:
        InvalidInput: field `since`.
    """
    if since > now:
        raise InvalidInput("since", "lies in the future")
    if since < now - retention_days * 24 * 60 * 60:
        raise InvalidInput(
            "since", f"is too long ago: what was delivered is known for {retention_days} days"
        )


# ------------------------------------------------------------------------------------ the URL


def check_url(url: str, private_networks: Networks) -> None:
    """Accepts a URL that may be posted to.

    Raises:
        InvalidInput: field `url`.
    """
    if not url or len(url) > URL_CHARS_MAX:
        raise InvalidInput("url", f"must have 1 to {URL_CHARS_MAX} characters")
    if not _URL_CHARS.fullmatch(url) or _AMBIGUOUS & set(url):
        raise InvalidInput(
            "url", "must be ASCII without spaces: escape what is none, and write xn-- names"
        )
    parts = _split(url)
    if parts.scheme not in ("https", "http") or "://" not in url:
        raise InvalidInput("url", "must begin with https://")
    if "@" in parts.netloc:
        raise InvalidInput("url", "must not hold a user name or a password")
    if "#" in url:
        raise InvalidInput("url", "must not have a fragment: no server sees it")
    if parts.scheme == "http" and not private_networks:
        raise InvalidInput("url", "must begin with https://")
    _check_host(parts, private_networks)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("url", f"is no URL: {error}") from None
    if port == 0:
        raise InvalidInput("url", "its port is 0, where nobody listens")
    if port in PORTS_REFUSED:
        raise InvalidInput("url", f"its port is {port}, where other services than HTTP listen")
    return parts


def _check_host(parts: SplitResult, private_networks: Networks) -> None:
    host = (parts.hostname or "").removesuffix(".")
    address = literal(host)
    if address is not None:
        if not may_reach(address, private_networks):
            raise InvalidInput("url", "its address is not public")
        if parts.scheme == "http" and is_public(address):
            raise InvalidInput("url", "must begin with https://: its address is public")
        return
    if (
        "[" in parts.netloc
        or not _NAME.fullmatch(host)
        or _NUMERIC.fullmatch(host.rpartition(".")[2])
    ):
        raise InvalidInput("url", "its host is neither a name nor an address")
    is_local = host == "localhost" or host.endswith(".localhost")
    if is_local and not any(
        network.version == loop.version and network.overlaps(loop)
        for network in private_networks
        for loop in _LOOPBACK
    ):
        raise InvalidInput("url", "its host is this machine")


# ---------------------------------------------------------------------------------- the types


def _event_types(given: Sequence[str]) -> tuple[EventType, ...]:
    known = {str(each) for each in EventType}
    for type_ in given:
        if type_ not in known:
            raise InvalidInput(
                "event_types", f"{type_[:64]!a} is none; there are {', '.join(EventType)}"
            )
    return tuple(each for each in EventType if each in given)
