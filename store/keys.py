"""API keys: shown once, stored as a hash.

A key is 256 random bits, so a plain SHA-256 of it cannot be turned back, and looking it up by
its hash leaks nothing through timing that would help to guess one.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.errors import Conflict, InvalidInput
from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


SCOPES: Final = frozenset({"payments:read", "payments:write", "webhooks", "proxy", "ops"})

KEY_PREFIX: Final = "axk_"
NAME_LENGTH_MAX: Final = 100

_strings = msgspec.json.Decoder(list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it may be shown.

    Attributes:
        id: stands for the key in logs and lists; no secret.
        revoked_at: unix seconds; None while it is valid.
    """

    id: str
    name: str
    scopes: frozenset[str]
    created_at: int
    revoked_at: int | None


def new_key(random_bytes: bytes) -> str:
    """The key that 32 random bytes make."""
    if len(random_bytes) != 32:
        raise ValueError("an API key is made of 32 random bytes")
    return KEY_PREFIX + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def hash_key(key: str) -> str:
    """What is stored of a key: SHA-256, hex."""
    return hashlib.sha256(key.encode()).hexdigest()


async def create(
    database: Database, name: str, scopes: Iterable[str], *, key: str, id: str, now: int
) -> ApiKey:
    """Stores a new key.

    Raises:
        InvalidInput: the name is empty, too long or taken; a scope is unknown.
    """
    wanted = frozenset(scopes)
    if not name.strip() or len(name) > NAME_LENGTH_MAX:
        raise InvalidInput("name", f"must have 1 to {NAME_LENGTH_MAX} characters")
    if unknown := wanted - SCOPES:
        raise InvalidInput(
            "scopes",
            f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCOPES))}",
        )
    if not wanted:
        raise InvalidInput("scopes", f"name at least one of {', '.join(sorted(SCOPES))}")
    values = (id, name, hash_key(key), json_text(sorted(wanted)), now)
    try:
        await database.write([Statement(QUERIES["api_key_insert"], values)])
    except Conflict as error:
        raise InvalidInput("name", f"there is a key named {name!r} already") from error
    return ApiKey(id=id, name=name, scopes=wanted, created_at=now, revoked_at=None)


async def find(database: Database, key: str) -> ApiKey | None:
    """The key's entry; None when it is unknown or revoked."""
    [found] = await database.read([Statement(QUERIES["api_key_by_hash"], (hash_key(key),))])
    return _api_key(*found[0]) if found else None


async def listing(database: Database) -> list[ApiKey]:
    """Every key, also revoked ones, the oldest first."""
    [found] = await database.read([Statement(QUERIES["api_keys_all"])])
    return [_api_key(*row) for row in found]


async def revoke(database: Database, name_or_id: str, now: int) -> bool:
    """Revokes a key; False when there is no valid one of that name or id."""
    [found] = await database.write([Statement(QUERIES["api_key_revoke"], (name_or_id, now))])
    return bool(found)


def _api_key(id_: str, name: str, scopes: str, created_at: int, revoked_at: Any) -> ApiKey:
    return ApiKey(
        id=id_,
        name=name,
        scopes=frozenset(_strings.decode(scopes)),
        created_at=created_at,
        revoked_at=revoked_at,
    )
