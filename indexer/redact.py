"""What must never be printed, taken out of text that will be.

Providers hide their keys in every part of a URL: in the path (`/v2/<key>`), in the query
(`?api-key=<key>`), in the user name. So nothing of a URL is shown past its host and port. Other
secrets are known by their form, by the name that stands before them, or by their value: what is
configured as a secret is hidden wherever it appears.

This is the second net. The first is that secrets are not put into text.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from indexer.core.card_secrets import masked


HIDDEN: Final = "***"

#: What a URL of ours may consist of (RFC 3986 without quotes, commas, brackets and semicolons,
#: which end a URL in running text). Settings accept no other URL, so that this pattern always
#: sees the whole of it.
URL_CHARACTERS: Final = r"A-Za-z0-9\-._~:/?#\[\]@!$&*+=%"

#: Shorter ones would hide words. Settings accept no shorter secret.
VALUE_CHARS_MIN: Final = 8
#: A part of a URL's path or query of this length is a key if there is a digit in it.
_KEY_CHARS_MIN: Final = 12
#: Words of this length come in every line: what became of so many of them is remembered.
_WORD_CHARS_MAX: Final = 32
_WORDS_MAX: Final = 1_024
#: How deep a value of a log line is looked into; what lies deeper is hidden as a whole.
_DEPTH_MAX: Final = 8

_URL: Final = re.compile(
    rf"(?P<scheme>\b[a-z][a-z0-9+.\-]*)://(?P<userinfo>[^\s/?#@\"]*@)?"
    rf"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%]*)(?P<port>:[0-9]+)?"
    rf"(?P<rest>[/?#][{URL_CHARACTERS}]*)?",
    re.IGNORECASE,
)
#: Known by how they begin: keys of this product, secrets of receivers, identities of age, keys of
#: Paymob in all of its countries (`egy_sk_test_…`, `are_pk_live_…`, `sau_csk_…`).
_BY_FORM: Final = re.compile(
    r"(?P<form>\b(?:axk_|whsec_|age-secret-key-|[a-z]{2,4}_c?[sp]k_))[A-Za-z0-9_\-+/=]+",
    re.IGNORECASE,
)
#: Paymob's `Token` is a secret key; a token that is named in a sentence of ours is a mint.
_SCHEME: Final = re.compile(
    r"\b(?P<scheme>(?i:Bearer|Basic)|Token)\s+"
    r"(?!(?:\*\*\*|[1-9A-HJ-NP-Za-km-z]{32,44}(?![\w~+/=\-]|\.\w)))[A-Za-z0-9._~+/=\-]{8,}"
)
#: Between a name and its value: as in a header, a query, JSON, JSON in JSON, or a Python repr.
_IS: Final = r"(?:\\*[\"']\s*[:=,]|\s*[:=])\s*(?:b?\\*[\"'])?"
_NAMED: Final = re.compile(
    r"(?P<shown>\b(?:hmac|client_?secret|(?:secret_?|x-)?api[_-]?key|secret_?key|password"
    r"|(?:access|auth|card|payment)_?token|x-qn-signature)" + _IS + r")[^\s\"'\\&,;}\])]{8,}",
    re.IGNORECASE,
)
#: Some senders put a secret there as it is, with spaces or without.
_AUTHORIZATION: Final = re.compile(
    r"(?P<shown>\b(?:proxy-)?authorization" + _IS + r"(?:(?:Bearer|Basic|Token)\s+)?)"
    r"[^\"'\\,;}\r\n]+",
    re.IGNORECASE,
)
_SHOWN: Final = rf"\g<shown>{HIDDEN}"

#: A card number in running text. Amounts, slots and identifiers are numbers of their own, or
#: have letters beside them; no card's number begins with another digit.
_CARD: Final = re.compile(r"(?<![\w.])(?=[2-6])\d(?:[ -]?\d){12,18}(?![\w.])", re.ASCII)


def redact(text: str) -> str:
    """The text with every URL cut after its host and port, and secrets of known form hidden."""
    text = _AUTHORIZATION.sub(_SHOWN, _NAMED.sub(_SHOWN, text))
    text = _SCHEME.sub(rf"\g<scheme> {HIDDEN}", _BY_FORM.sub(rf"\g<form>{HIDDEN}", text))
    return _URL.sub(_host_only, text)


def secrets_of(url: str) -> tuple[str, ...]:
    """The parts of a URL that may be keys, longest first, as a server might echo them."""
    parts = urlsplit(url)
    found = {parts.username or "", parts.password or "", parts.query, *parts.path.split("/")}
    for pair in parts.query.split("&"):
        found.add(pair.partition("=")[2])
    found |= {unquote(secret) for secret in found}
    return tuple(sorted((secret for secret in found if len(secret) >= 4), key=len, reverse=True))


def keys_in(url: str) -> tuple[str, ...]:
    """The parts of a URL that are most likely keys, and no words such as `mainnet`.

    A password is one, whatever it looks like.
    """
    found = (part for part in secrets_of(url) if any(each.isdigit() for each in part))
    keys = tuple(part for part in found if len(part) >= _KEY_CHARS_MIN)
    return tuple(dict.fromkeys((*passwords_in(url), *keys)))


def passwords_in(url: str) -> tuple[str, ...]:
    """The password before the host, as it is written and as it is meant."""
    written = urlsplit(url).password
    return tuple(dict.fromkeys((written, unquote(written)))) if written else ()


class Redactor:
    """Hides what `redact` does, card numbers, and certain values."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Knows the values: secrets as they are used."""
        self._values: frozenset[str] = frozenset()
        self._words: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Hides these as well from now on; too short ones are not hidden."""
        self._values |= {value for value in values if len(value) >= VALUE_CHARS_MIN}
        written = {form for value in self._values for form in _written(value)}
        # The longest first: one may be a part of another.
        longest_first = sorted(written, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if written else None
        self._words = {}

    def text(self, text: str) -> str:
        """The text without secrets."""
        if len(text) > _WORD_CHARS_MAX:
            return self._searched(text)
        if text not in self._words:
            if len(self._words) >= _WORDS_MAX:
                self._words = {}
            self._words[text] = self._searched(text)
        return self._words[text]

    def _searched(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(HIDDEN, text)
        return _CARD.sub(lambda match: masked(match[0]), redact(text))

    def value(self, value: object, depth: int = 0) -> Any:
        """The value without secrets, fit for JSON; numbers stay as they are.

        Amounts are numbers, and one in ten of them would pass for a card's: so text is searched
        before it is a line in which both look alike.
        """
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(value)
            case _ if depth >= _DEPTH_MAX:
                return HIDDEN
            case Mapping():
                return {
                    self.text(str(key)): self.value(each, depth + 1) for key, each in value.items()
                }
            case list() | tuple():
                return [self.value(each, depth + 1) for each in value]
            case _:
                return self.text(repr(value))


def _written(value: str) -> set[str]:
    """A secret as it may stand in text: as it is, in JSON, in a URL, in a Python repr."""
    in_repr = repr(value)[1:-1]
    return {value, json.dumps(value)[1:-1], quote(value, safe=""), quote(value), in_repr}


def _host_only(match: re.Match[str]) -> str:
    if match["scheme"].lower() in {"file", "sqlite"}:  # a path on this machine, no key
        return match[0]
    shown = f"{match['scheme']}://{match['host']}{match['port'] or ''}"
    if match["userinfo"]:
        shown = f"{match['scheme']}://{HIDDEN}@{match['host']}{match['port'] or ''}"
    return f"{shown}/{HIDDEN}" if (match["rest"] or "/") != "/" else shown
