"""Text to values: one function for each kind of setting.

Each raises ValueError with a phrase that says what would be right. A phrase never repeats a
value that may carry a key.
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from solders.pubkey import Pubkey

from indexer.core.rate import Rate, parse_rate
from indexer.redact import URL_CHARACTERS, passwords_in, redact


ITEMS_MAX: Final = 100
PORT_MAX: Final = 65_535

_KEY_LENGTH_MAX: Final = 44

_SYMBOL: Final = re.compile(r"[A-Za-z0-9$._\-]{1,16}", re.ASCII)
_URL: Final = re.compile(rf"[{URL_CHARACTERS}]+", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9.\-]+|[0-9A-Fa-f:.]+", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

_WORD: Final = re.compile(r"[A-Za-z0-9._\-]{1,256}", re.ASCII)
_SECRET_CHARS_MIN: Final = 8
_SECRET: Final = re.compile(rf"[!-+\--~]{{{_SECRET_CHARS_MIN},512}}", re.ASCII)
#: How many secrets of one kind are valid at once.
_SECRETS_MAX: Final = 2
_SIGNING_KEY_CHARS_MIN: Final = 32
#: What stands in examples and is left there by mistake, whatever stands between the letters.
_PLACEHOLDERS: Final = frozenset(
    {"changeme", "changethis", "example", "mysecret", "password", "placeholder", "replaceme"}
    | {"secret", "supersecret", "todo", "yourkey", "yourpassword", "yoursecret", "yoursecrethere"}
)
_NO_LETTERS: Final = re.compile(r"[^a-z]+")
#: The same part so often, or so few characters in all, is no secret.
_REPEATED_MIN: Final = 3
_ALIKE_MAX: Final = 2

_REDIS_QUERY: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_REDIS_DATABASE: Final = re.compile(r"/?|/[0-9]{1,4}", re.ASCII)

_SERVER_SCHEMES: Final = ("libsql", "https", "http")
_TOKEN: Final = re.compile(r"[!-~]{8,4096}", re.ASCII)

#: How a machine calls itself.
THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})

E = TypeVar("E", bound=StrEnum)
Network = IPv4Network | IPv6Network


def integer(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers, both bounds included."""

    def parse(text: str) -> int:
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return parse


def integers(least: int, most: int) -> Callable[[str], tuple[int, ...]]:
    """A parser of a comma list of distinct whole numbers."""
    parse_one = integer(least, most)

    def parse(text: str) -> tuple[int, ...]:
        return tuple(parse_one(item) for item in _distinct(_items(text)))

    return parse


def word(text: str) -> str:
    """An identifier that somebody else made."""
    if not _WORD.fullmatch(text):
        raise ValueError(f"{redact(text)!r} is no identifier: letters, digits and . _ - only")
    return text


def secret(text: str) -> str:
    """A secret that somebody else made: visible ASCII. It is never shown."""
    if not _SECRET.fullmatch(text):
        raise ValueError(f"must be {_SECRET_CHARS_MIN} to 512 visible ASCII characters")
    if weak := _weakness(text):
        raise ValueError(weak)
    return text


def _weakness(text: str) -> str | None:
    """Why it is no secret, whoever made it; None when nothing speaks against it."""
    if len(text) < _SECRET_CHARS_MIN:
        return f"must have {_SECRET_CHARS_MIN} characters at the least"
    if _NO_LETTERS.sub("", text.lower()) in _PLACEHOLDERS:
        return "is a placeholder, not a secret"
    if _is_repetitive(text):
        return "only repeats itself: it is no secret"
    return None


def _is_repetitive(text: str) -> bool:
    """Whether it was typed to fill the field: `aaaaaaaa`, `abababab`, `0123012301230123`."""
    parts = (text[:length] for length in range(1, len(text) // _REPEATED_MIN + 1))
    return len(set(text)) <= _ALIKE_MAX or any(
        text == (part * len(text))[: len(text)] for part in parts
    )


def secrets(text: str) -> tuple[str, ...]:
    """Two secrets at most, commas between: the one before a rotation and the one after."""
    found = tuple(secret(item) for item in _distinct(_items(text)))
    if len(found) > _SECRETS_MAX:
        raise ValueError(f"has {len(found)} secrets; {_SECRETS_MAX} are valid at once")
    return found


def signing_keys(text: str) -> tuple[str, ...]:
    """Secrets that are long enough to derive others from."""
    found = secrets(text)
    if any(len(item) < _SIGNING_KEY_CHARS_MIN for item in found):
        raise ValueError(f"must have {_SIGNING_KEY_CHARS_MIN} characters at the least")
    return found


def networks(text: str) -> tuple[Network, ...]:
    """A comma list of networks such as `10.0.0.0/8` or `fd00::/8`; one address is one as well.

    None holds every address: if all were proxies, each caller would be whoever he says he is; if
    all were private networks to be reached, webhooks would lead anywhere.
    """
    found: list[Network] = []
    for item in _distinct(_items(text)):
        try:
            found.append(ip_network(item))
        except ValueError:
            raise ValueError(
                f"{item!r} is no network: write an address, a slash and the length of its prefix"
            ) from None
        if found[-1].prefixlen == 0:
            raise ValueError(f"{item} is everybody: name the networks that are meant")
    return tuple(found)


def upper_choice(words: type[E]) -> Callable[[str], E]:
    """A parser of one of a few words that are written in capitals."""

    def parse(text: str) -> E:
        try:
            return words(text.upper())
        except ValueError:
            raise ValueError(f"{text!r} is none of {', '.join(words)}") from None

    return parse


def choice(words: type[E]) -> Callable[[str], E]:
    """A parser of one of a few words, in any case."""

    def parse(text: str) -> E:
        try:
            return words(text.lower())
        except ValueError:
            raise ValueError(f"{text!r} is none of {', '.join(words)}") from None

    return parse


def urls(*schemes: str) -> Callable[[str], tuple[str, ...]]:
    """A parser of a comma list of distinct URLs; paths, queries and user names are kept."""

    def parse(text: str) -> tuple[str, ...]:
        found = _distinct(_items(text))
        for number, url in enumerate(found, 1):
            problem = _url_problem(url, schemes)
            if problem:
                which = "the URL" if len(found) == 1 else f"URL {number} of {len(found)}"
                raise ValueError(f"{which} {problem}")
        return found

    return parse


def base_url(text: str) -> str:
    """A URL to which paths are appended, without its last slash."""
    problem = _url_problem(text, ("http", "https"))
    parts = urlsplit(text) if problem is None else SplitResult("", "", "", "", "")
    if problem is None and (parts.query or parts.fragment or parts.username):
        problem = "must be a scheme, a host and at most a path"
    if problem:
        raise ValueError(f"the URL {problem}")
    return text.rstrip("/")


def secure_base_url(text: str) -> str:
    """The same, for who is told a secret: https, or a program on this machine."""
    url = base_url(text)
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in THIS_MACHINE:
        raise ValueError("the URL must begin with https://: a secret is sent there")
    return url


def origins(text: str) -> tuple[str, ...]:
    """A comma list of `scheme://host[:port]`, or `*` alone."""
    found = _distinct(_items(text))
    if found == ("*",):
        return found
    for origin in found:
        parts = urlsplit(origin)
        if _url_problem(origin, ("http", "https")) or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(
                f"{redact(origin)!r} is no origin: write scheme://host or scheme://host:port, "
                "without a path, or * alone"
            )
    return found


def key(text: str) -> str:
    """Base58 of 32 bytes."""
    try:
        return str(Pubkey.from_string(text))
    except ValueError:
        # A private key is longer: whoever pastes one by mistake must not find it in a log.
        shown = repr(redact(text)) if len(text) <= _KEY_LENGTH_MAX else "this"
        raise ValueError(f"{shown} is no Solana key: base58 of 32 bytes") from None


def tokens(text: str) -> dict[str, str | None]:
    """`SOL,USDC=<mint>`: symbols with their mints, None for native SOL."""
    found: dict[str, str | None] = {}
    for item in _items(text):
        symbol, equals, mint = (part.strip() for part in item.partition("="))
        if not _SYMBOL.fullmatch(symbol):
            raise ValueError(f"{symbol!r} is no symbol: 1 to 16 letters, digits or $ . _ -")
        if symbol.upper() in {known.upper() for known in found}:
            raise ValueError(f"{symbol} stands there twice")
        if (symbol == "SOL") == bool(equals):
            raise ValueError("write SOL alone, and every other token as SYMBOL=mint")
        found[symbol] = key(mint) if equals else None
        if list(found.values()).count(found[symbol]) > 1:
            raise ValueError(f"{symbol} has the mint of another symbol")
    return found


def database_url(text: str) -> str:
    """`sqlite:///` and a path, or a libSQL server."""
    scheme, _, path = text.partition("://")
    if scheme in _SERVER_SCHEMES:
        return _server_url(text)
    if scheme != "sqlite" or not path.startswith("/") or path in {"/", "//"}:
        raise ValueError(
            "must be sqlite:///relative/path.db or sqlite:////absolute/path.db, "
            "or a libSQL server: libsql://host, https://host, http://host:port"
        )
    return text


def server_urls(text: str) -> tuple[str, ...]:
    """A comma list of libSQL servers."""
    return _distinct([_server_url(item) for item in _items(text)])


def _server_url(text: str) -> str:
    problem = _url_problem(text, _SERVER_SCHEMES)
    parts = urlsplit(text) if problem is None else SplitResult("", "", "", "", "")
    if problem is None and (parts.query or parts.fragment or "@" in parts.netloc):
        problem = "must be no more than a host and a path: AXIOM_DATABASE_TOKEN holds the token"
    if problem:
        raise ValueError(f"the URL {problem}")
    return text.rstrip("/")


def token(text: str) -> str:
    """What proves to a server who we are: printable, without spaces."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("must be 8 to 4096 printable characters without spaces")
    return text


def redis_url(text: str) -> str:
    """Where Redis is: `redis://`, `rediss://` (with TLS), or `unix://` and the path of a socket.

    Of what a Redis URL may say in its query, only what says where and who: how long to wait, and
    the like, is not the deployment's to set.
    """
    local = text.startswith("unix://")
    # A socket has a path in place of a host.
    problem = _url_problem(text, ("redis", "rediss", "unix"), host_needed=not local)
    parts = urlsplit(text) if problem is None else SplitResult("", "", "", "", "")
    names = [pair.partition("=")[0] for pair in parts.query.split("&") if pair]
    if problem is None and local and (parts.hostname or len(parts.path) <= 1):
        problem = "needs a path: unix:///run/redis.sock"
    if problem is None and (parts.fragment or not _REDIS_QUERY.issuperset(names)):
        problem = f"may say no more than {', '.join(sorted(_REDIS_QUERY))} behind its `?`"
    if problem is None and not local and not _REDIS_DATABASE.fullmatch(parts.path):
        problem = "must end in the number of a database, such as /0, or not name one"
    if problem:
        raise ValueError(f"the URL {problem}")
    for password in passwords_in(text):
        if weak := _weakness(password):
            raise ValueError(f"the password in the URL {weak}")
    return text


def rates(text: str) -> dict[str, Rate]:
    """`getPayment=60/10s,listPayments=100/m`: calls with their rates."""
    found: dict[str, Rate] = {}
    for item in _items(text):
        name, equals, rate = (part.strip() for part in item.partition("="))
        if not _WORD.fullmatch(name) or not equals:
            raise ValueError(
                f"{redact(item)!r:.80} names no call and its rate, as getPayment=60/10s"
            )
        if name in found:
            raise ValueError(f"{name} stands there twice")
        found[name] = parse_rate(rate)
    return found


def paths(text: str) -> tuple[str, ...]:
    """A comma list of distinct names of files."""
    return _distinct(_items(text))


def hosts(text: str) -> tuple[str, ...]:
    """A comma list of host names or addresses, without ports; `*` alone is any."""
    found = _distinct(_items(text))
    return found if found == ("*",) else tuple(host(item.strip("[]").lower()) for item in found)


def host(text: str) -> str:
    """A host name or an IP address to listen on."""
    if not _HOST.fullmatch(text):
        raise ValueError(f"{redact(text)!r} is neither a host name nor an IP address")
    return text


def is_loopback(host_: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ip_address(host_).is_loopback
    except ValueError:
        return host_ in THIS_MACHINE


def authority(host_: str) -> str:
    """The host as it stands in a URL that others can follow."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host_, host_)  # noqa: S104 - recognised, not bound to
    return f"[{reachable}]" if ":" in reachable else reachable


def ws_url(rpc_url: str) -> str:
    """The WebSocket endpoint that belongs to an RPC endpoint by the convention of Solana's tools.

    Raises:
        ValueError: when there is no next port.
    """
    parts = urlsplit(rpc_url)
    netloc = parts.netloc
    if parts.port is not None:
        if parts.port >= PORT_MAX:
            raise ValueError(f"there is no port after {parts.port}: set AXIOM_WS_URLS as well")
        netloc = f"{netloc.removesuffix(f':{parts.port}')}:{parts.port + 1}"
    scheme = {"http": "ws", "https": "wss"}[parts.scheme]
    return parts._replace(scheme=scheme, netloc=netloc).geturl()


def _items(text: str) -> tuple[str, ...]:
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise ValueError("has an empty item: look for a comma too many")
    if len(items) > ITEMS_MAX:
        raise ValueError(f"has {len(items)} items; {ITEMS_MAX} are the most")
    return items


def _distinct(items: Sequence[str]) -> tuple[str, ...]:
    if len(set(items)) < len(items):
        raise ValueError("has an item twice")
    return tuple(items)


def _url_problem(url: str, schemes: tuple[str, ...], *, host_needed: bool = True) -> str | None:
    """What is wrong with it, without showing it."""
    if not _URL.fullmatch(url):
        return "has characters that must be percent-encoded"
    try:
        parts = urlsplit(url)
        port, host_ = parts.port, parts.hostname
    except ValueError:
        return "is malformed"
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if parts.netloc.count("@") > 1:
        # Whoever takes the first one for the end of the password shows the rest of it.
        return "has an @ in its user name or password: write %40"
    if host_needed and not host_:
        return "has no host"
    return "has port 0" if port == 0 else None
