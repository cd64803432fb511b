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

from indexer.core.rate import Rate, parse_rate
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
        revoked_at: unix seconds; None while it is not revoked.
        expires_at: unix seconds, from which on it is refused; None: it does not end by itself.
        rate: how often it may call; None: as often as the deployment lets everyone.
        watch_key: base58 of the one that its payments carry while that is in use; None: a shared
            one.
    """

    id: str
    name: str
    scopes: frozenset[str]
    created_at: int
    revoked_at: int | None
    expires_at: int | None = None
    rate: Rate | None = None
    watch_key: str | None = None

    def expired(self, now: float) -> bool:
        """Whether it has ended by itself, at that time in unix seconds."""
        return self.expires_at is not None and self.expires_at <= now


def new_key(random_bytes: bytes) -> str:
    """The key that 32 random bytes make."""
    if len(random_bytes) != 32:
        raise ValueError("an API key is made of 32 random bytes")
    return KEY_PREFIX + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def hash_key(key: str) -> str:
    """What is stored of a key: SHA-256, hex."""
    return hashlib.sha256(key.encode()).hexdigest()


async def create(
    database: Database,
    name: str,
    scopes: Iterable[str],
    *,
    key: str,
    id: str,
    now: int,
    expires_at: int | None = None,
    rate: Rate | None = None,
    watch: str | None = None,
) -> ApiKey:
    """Stores a new key. The name of one that has expired is free again: that one is revoked.

    Args:
        database: where.
        name: for people.
        scopes: what it may do.
        key: of `new_key`; only its hash is stored.
        id: stands for it.
        now: unix seconds.
        expires_at: unix seconds; None: valid until it is revoked.
        rate: how often it may call; None: as the deployment says.
        watch: name of the watch key that its payments carry, a reserved one; None: a shared one.

    Raises:
        InvalidInput: the name is empty, too long or taken; a scope is unknown; it has ended; no
            reserved watch key of that name is in use.
    """
    wanted = _checked(name, scopes)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("expires_at", "lies in the past")
    hashed, shown_rate = hash_key(key), None if rate is None else str(rate)
    values = (id, name, hashed, json_text(sorted(wanted)), now, expires_at, shown_rate, watch)
    batch = [
        Statement(QUERIES["api_key_free_name"], (name, now)),
        Statement(QUERIES["api_key_insert"], values),
    ]
    try:
        _, made = await database.write(batch)
    except Conflict as error:
        raise InvalidInput("name", f"there is a key named {name!r} already") from error
    if not made:
        raise _no_watch_key(watch)
    return ApiKey(
        id=id,
        name=name,
        scopes=wanted,
        created_at=now,
        revoked_at=None,
        expires_at=expires_at,
        rate=rate,
        watch_key=made[0][0],
    )


def _no_watch_key(name: str | None) -> InvalidInput:
    return InvalidInput(
        "watch", f"no reserved watch key named {name!r} is in use; see `axiompay watch list`"
    )


def _checked(name: str, scopes: Iterable[str]) -> frozenset[str]:
    """The scopes of a key to be, when they and its name are what they must be."""
    wanted = frozenset(scopes)
    if not name.strip() or len(name) > NAME_LENGTH_MAX:
        raise InvalidInput("name", f"must have 1 to {NAME_LENGTH_MAX} characters")
    if not name.isprintable():  # in a list of keys, one could pass for another
        raise InvalidInput("name", "must be printable, on one line")
    if unknown := wanted - SCOPES:
        raise InvalidInput(
            "scopes",
            f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(SCOPES))}",
        )
    if not wanted:
        raise InvalidInput("scopes", f"name at least one of {', '.join(sorted(SCOPES))}")
    return wanted


async def find(database: Database, key: str, now: int) -> ApiKey | None:
    """The key's entry; None when it is unknown, revoked or, at `now`, expired."""
    [found] = await database.read([Statement(QUERIES["api_key_by_hash"], (hash_key(key), now))])
    return _api_key(*found[0]) if found else None


async def listing(database: Database) -> list[ApiKey]:
    """Every key, also revoked ones, the oldest first."""
    [found] = await database.read([Statement(QUERIES["api_keys_all"])])
    return [_api_key(*row) for row in found]


async def revoke(database: Database, name_or_id: str, now: int) -> bool:
    """Revokes a key; False when there is no valid one of that name or id."""
    [found] = await database.write([Statement(QUERIES["api_key_revoke"], (name_or_id, now))])
    return bool(found)


async def assign(database: Database, name_or_id: str, watch: str | None) -> str | None:
    """Has the payments that a key makes from now on carry another watch key; returns that one.

    Args:
        database: where.
        name_or_id: of the key.
        watch: name of a reserved watch key; None: they carry shared ones, and None is returned.

    Raises:
        InvalidInput: there is no such key that is not revoked; no reserved watch key of that name
            is in use.
    """
    moved, there = await database.write(
        [
            Statement(QUERIES["api_key_assign"], (name_or_id, watch)),
            Statement(QUERIES["api_key_valid"], (name_or_id,)),
        ]
    )
    if not there:
        raise InvalidInput(
            "name", f"there is no valid key {name_or_id!r}; see `axiompay keys list`"
        )
    if not moved:
        raise _no_watch_key(watch)
    found: str | None = moved[0][0]
    return found


def _api_key(
    id_: str,
    name: str,
    scopes: str,
    created_at: int,
    revoked_at: Any,
    expires_at: Any,
    rate: str | None,
    watch_key: str | None,
) -> ApiKey:
    return ApiKey(
        id=id_,
        name=name,
        scopes=frozenset(_strings.decode(scopes)),
        created_at=created_at,
        revoked_at=revoked_at,
        expires_at=expires_at,
        rate=None if rate is None else parse_rate(rate),
        watch_key=watch_key,
    )
