"""How outgoing webhooks are signed, and where the secrets of receivers come from.

A receiver's secret is derived from a signing key of the deployment, never stored: HMAC-SHA256 of
the receiver's id and a generation. Rotating it is the next generation; see ADR 11.

Source: Standard Webhooks 1.0.0.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final


SECRET_PREFIX: Final = "whsec_"
#: Of the same event, over all attempts and receivers.
ID_HEADER: Final = "webhook-id"
#: Unix seconds of the attempt.
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

#: Tells what is derived here from what may be derived from the same key elsewhere.
_PURPOSE: Final = b"axiompay webhook secret"
_KEY_ID_CHARS: Final = 12


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What secrets are derived from.

    Attributes:
        id: tells keys apart, and says nothing of the secret.
    """

    id: str
    secret: bytes = field(repr=False)


def signing_key(text: str) -> SigningKey:
    """The key that a configured text is."""
    secret = text.encode()
    digest = hashlib.sha256(b"axiompay signing key id" + secret).hexdigest()
    return SigningKey(digest[:_KEY_ID_CHARS], secret)


def secret_of(key: SigningKey, endpoint_id: str, generation: int) -> str:
    """The secret of a receiver: `whsec_` and base64 of 32 bytes."""
    message = b"\0".join((_PURPOSE, endpoint_id.encode(), str(generation).encode()))
    derived = hmac.new(key.secret, message, hashlib.sha256).digest()
    return SECRET_PREFIX + base64.b64encode(derived).decode()


def sign(secrets: Sequence[str], *, id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, the newest first.

    Args:
        secrets: `whsec_` and base64.
        id: value of `webhook-id`.
        timestamp: unix seconds, value of `webhook-timestamp`.
        body: as it is sent.
    """
    message = b".".join((id.encode(), str(timestamp).encode(), body))
    return " ".join(f"v1,{_signature(secret, message)}" for secret in secrets)


def event_id(payment_id: str, version: int, ordinal: int) -> str:
    """The id of an event's webhook: the same whoever sends it, however often."""
    return f"evt_{payment_id.removeprefix('pay_')}_{version}_{ordinal}"


def test_id(delivery_id: int) -> str:
    """The id of a webhook that is about nothing."""
    return f"test_{delivery_id}"


def _signature(secret: str, message: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
