"""What must never be printed, taken out of text that will be.

Providers hide their keys in every part of a URL: in the path (`/v2/<key>`), in the query
(`?api-key=<key>`), in the user name. So nothing of a URL is shown past its host and port. An API
key of this product begins with `axk_` and is cut after that.
"""

import re
from typing import Final


HIDDEN: Final = "***"

#: What a URL of ours may consist of (RFC 3986 without quotes, commas, brackets and semicolons,
#: which end a URL in running text). Settings accept no other URL, so that this pattern always
#: sees the whole of it.
URL_CHARACTERS: Final = r"A-Za-z0-9\-._~:/?#\[\]@!$&*+=%"

_URL: Final = re.compile(
    rf"(?P<scheme>\b[a-z][a-z0-9+.\-]*)://(?P<userinfo>[^\s/?#@\"]*@)?"
    rf"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%]*)(?P<port>:[0-9]+)?"
    rf"(?P<rest>[/?#][{URL_CHARACTERS}]*)?",
    re.IGNORECASE,
)
_API_KEY: Final = re.compile(r"\baxk_[A-Za-z0-9_\-]+")
_BEARER: Final = re.compile(r"\b(?P<scheme>Bearer|Basic)\s+[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with every URL cut after its host and port, and every API key hidden."""
    text = _BEARER.sub(rf"\g<scheme> {HIDDEN}", _API_KEY.sub(f"axk_{HIDDEN}", text))
    return _URL.sub(_host_only, text)


def _host_only(match: re.Match[str]) -> str:
    if match["scheme"].lower() in {"file", "sqlite"}:  # a path on this machine, no key
        return match[0]
    shown = f"{match['scheme']}://{match['host']}{match['port'] or ''}"
    if match["userinfo"]:
        shown = f"{match['scheme']}://{HIDDEN}@{match['host']}{match['port'] or ''}"
    return f"{shown}/{HIDDEN}" if (match["rest"] or "/") != "/" else shown
