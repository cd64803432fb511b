"""What every answer says to browsers, whoever made the answer.

The API serves no pages. So nothing of it may be run, framed, or taken for something else, and a
browser that opens one of its URLs tells nobody where it has been: the path names a payment.

Sources: the OWASP Secure Headers Project; RFC 6797 (HSTS); the Fetch standard (CORP).
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit


RawHeaders = Sequence[tuple[bytes, bytes]]

#: Features that no answer of ours uses, wherever it may be shown.
_FEATURES: Final = (
    "accelerometer",
    "camera",
    "display-capture",
    "geolocation",
    "gyroscope",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "publickey-credentials-get",
    "screen-wake-lock",
    "usb",
    "xr-spatial-tracking",
)

_ALWAYS: Final[RawHeaders] = (
    # A payment changes, and what is shown with a key is nobody else's.
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", ", ".join(f"{name}=()" for name in _FEATURES).encode("ascii")),
    (b"cross-origin-opener-policy", b"same-origin"),
    # Pages of other origins read what CORS lets them read; nothing else may be drawn into them.
    (b"cross-origin-resource-policy", b"same-origin"),
)

#: A year, as browsers ask for. Only this host: of its neighbours we know nothing.
_BEHIND_TLS: Final = (b"strict-transport-security", b"max-age=31536000")


def safe_headers(public_url: str) -> RawHeaders:
    """The headers of every answer under that URL, names in lower case."""
    is_secure = urlsplit(public_url).scheme == "https"
    return (*_ALWAYS, _BEHIND_TLS) if is_secure else _ALWAYS


def completed(headers: RawHeaders, missing: RawHeaders) -> list[tuple[bytes, bytes]]:
    """An answer's own headers, which win, and those that it does not have.

    Args:
        headers: names in lower case, as an application sends them.
        missing: what is added, unless the answer says something else.
    """
    own = {name for name, _ in headers}
    return [*headers, *(pair for pair in missing if pair[0] not in own)]
