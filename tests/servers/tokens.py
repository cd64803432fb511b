"""What a libSQL server that asks for tokens knows, and lets in: JWTs signed with Ed25519."""

import base64
import json

from solders.keypair import Keypair


def public_key(signing: Keypair) -> str:
    """What the server's key file holds."""
    return _url_safe(bytes(signing.pubkey()))


def token(signing: Keypair) -> str:
    """What is let in, to read and to write."""
    head, claims = (
        _url_safe(json.dumps(part).encode())
        for part in ({"alg": "EdDSA", "typ": "JWT"}, {"a": "rw"})
    )
    signature = _url_safe(bytes(signing.sign_message(f"{head}.{claims}".encode())))
    return f"{head}.{claims}.{signature}"


def _url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
