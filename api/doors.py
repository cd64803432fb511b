"""How those who send us webhooks prove that it is them. Nothing here waits, or knows a clock.

    Helius      sends back the `Authorization` that it was given: a shared secret, no signature
    QuickNode   HMAC-SHA256 over nonce, timestamp and body; the secret is the key, as text
    Paymob      HMAC-SHA512 over 20 values of the body: see `indexer.core.paymob`

Everything is compared in constant time, with every secret that is valid, and a door without a
secret is closed. Who is turned away is told nothing of the reason, which only we see.

Source: Helius, "Webhooks"; QuickNode, "Validating incoming Streams webhook messages".
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers

from api.body import too_large
from api.errors import Problem
from api.limits import WEBHOOK_BYTES_MAX, WEBHOOK_TOLERANCE_S
from indexer.core.paymob import Pins
from indexer.settings import Settings


#: QuickNode does not say how it makes a nonce. Without separators in what is signed, its form
#: matters little: the timestamp's, and that a body begins with a bracket, leave one way to split.
_NONCE: Final = re.compile(r"[A-Za-z0-9_.=+/\-]{1,128}", re.ASCII)
#: Unix seconds, until the year 2286.
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{9}", re.ASCII)
_DIGEST: Final = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})", re.ASCII)
_GZIP: Final = 31  # a window of any size, and the header and checksum of gzip


class TurnedAway(Exception):
    """Somebody came who is not who they must be.

    Attributes:
        reason: for our own eyes; holds nothing of what was sent.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What opens each door.

    Attributes:
        helius: values of `Authorization`; none: the door is closed. The same of the others.
        quicknode: security tokens of streams.
        paymob: HMAC secrets.
        pins: what Paymob's callbacks must be about; None when no cards are taken.
    """

    helius: tuple[str, ...] = field(default=(), repr=False)
    quicknode: tuple[str, ...] = field(default=(), repr=False)
    paymob: tuple[str, ...] = field(default=(), repr=False)
    pins: Pins | None = None


def doors_of(settings: Settings) -> Doors:
    """The doors that the deployment has secrets for.

    Raises:
        ConfigError: two integrations at Paymob could be mistaken for one another.
    """
    pins = settings.paymob_pins
    return Doors(
        helius=settings.helius_webhook_secrets,
        quicknode=settings.quicknode_webhook_secrets,
        paymob=settings.paymob_hmac_secret if pins else (),
        pins=pins,
    )


# ---------------------------------------------------------------------------------------- Helius


def check_helius(headers: Headers, secrets: Sequence[str]) -> None:
    """Lets pass who sends the secret as the whole of the header `Authorization`.

    Raises:
        TurnedAway: it is missing, doubled or wrong.
    """
    given = _one(headers, "authorization")
    if given is None:
        raise TurnedAway("not exactly one Authorization header")
    if not _is_among(given.encode("latin-1"), [secret.encode() for secret in secrets]):
        raise TurnedAway("wrong Authorization header")


# ------------------------------------------------------------------------------------- QuickNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What QuickNode's headers say, of a form that it may have.

    Attributes:
        nonce: good for one event.
        timestamp: unix seconds, ten digits.
        digest: lower-case hex of HMAC-SHA256.
    """

    nonce: str
    timestamp: str
    digest: str


def quicknode_claim(headers: Headers, now: int) -> Claim:
    """The signature of a request, before its body is known.

    Raises:
        TurnedAway: a header is missing, doubled or none of QuickNode's; the time is not now.
    """
    nonce = _NONCE.fullmatch(_one(headers, "x-qn-nonce") or "")
    timestamp = _TIMESTAMP.fullmatch(_one(headers, "x-qn-timestamp") or "")
    digest = _DIGEST.fullmatch(_one(headers, "x-qn-signature") or "")
    if nonce is None or timestamp is None or digest is None:
        raise TurnedAway("no signature, or none that could be one")
    if abs(now - int(timestamp[0])) > WEBHOOK_TOLERANCE_S:
        raise TurnedAway(f"signed more than {WEBHOOK_TOLERANCE_S} s from now")
    return Claim(nonce=nonce[0], timestamp=timestamp[0], digest=digest[1].lower())


def check_quicknode(claim: Claim, body: bytes, secrets: Sequence[str]) -> None:
    """Lets pass what was signed with one of the secrets.

    Args:
        claim: what the headers say.
        body: as it was before it was compressed.
        secrets: security tokens, used as text.

    Raises:
        TurnedAway: it was not.
    """
    message = f"{claim.nonce}{claim.timestamp}".encode() + body
    digests = [hmac.digest(secret.encode(), message, "sha256").hex() for secret in secrets]
    if not _is_among(claim.digest.encode(), [digest.encode() for digest in digests]):
        raise TurnedAway("wrong signature")


def unpacked(body: bytes, bytes_max: int = WEBHOOK_BYTES_MAX) -> bytes:
    """What was compressed with gzip; never more than `bytes_max` of it is unpacked.

    Raises:
        Problem: 413 when there is more; 400 when it is no gzip, cut off, or goes on behind.
    """
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, bytes_max + 1)
    except zlib.error:
        raise _not_gzip() from None
    if len(plain) > bytes_max:
        raise too_large(bytes_max)
    if not stream.eof or stream.unused_data:
        raise _not_gzip()
    return plain


def _not_gzip() -> Problem:
    return Problem(400, "malformed_gzip", "the body is not one whole gzip stream")


# -------------------------------------------------------------------------------------------- all


def _one(headers: Headers, name: str) -> str | None:
    """The value of a header that stands there once."""
    values = headers.getlist(name)
    return values[0] if len(values) == 1 else None


def _is_among(given: bytes, accepted: Sequence[bytes]) -> bool:
    """Takes as long for a wrong value as for a right one, however long either is."""
    digest = hashlib.sha256(given).digest()
    same = [hmac.compare_digest(digest, hashlib.sha256(each).digest()) for each in accepted]
    return any(same)
