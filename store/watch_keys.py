"""The keys that stand beside a payment's reference: which there are, and what becomes of them.

    in use     new payments get it
    retired    none does any more; it is watched until the grace time of every payment that carries
               it is over, also of those that are settled: money may come twice (see
               `watching.watch_keys`)

A shared key is for every payment; a reserved one is for the API keys that name it, so that the
payments of one merchant are a piece of work by themselves. A key that was retired stays so: some
process may believe for a few more seconds that it is in use, and what it makes with it is watched
as well. One shared key is in use at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from indexer.core.account import KNOWN_ADDRESSES, is_key
from indexer.errors import Conflict, InvalidInput
from store.database import Database, Statement
from store.queries import QUERIES


#: Keys in use at once. Each is listed every few seconds at an endpoint, whether anybody pays or
#: not, and has a subscription at each.
IN_USE_MAX: Final = 200
NAME_LENGTH_MAX: Final = 100
#: Characters of a key that tell it from another in a name that nobody chose.
_SHOWN_CHARS: Final = 8

_strings = msgspec.json.Decoder(list[str])


class Purpose(StrEnum):
    """For whom a key is."""

    SHARED = "shared"
    RESERVED = "reserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchKey:
    """One of them.

    Attributes:
        key: base58 of 32 bytes.
        name: for people; of those in use each has another.
        created_at: unix seconds.
        retired_at: unix seconds; None while it is in use.
    """

    key: str
    name: str
    purpose: Purpose
    created_at: int
    retired_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What hangs on a key.

    Attributes:
        open_payments: pending or processing.
        slot: up to which everything finalized is stored; None: nothing yet.
        block_time: of that slot, unix seconds; None when it is not known.
        callers: names of the API keys that it is meant for.
    """

    open_payments: int
    slot: int | None
    block_time: int | None
    callers: tuple[str, ...]


async def ensure(database: Database, *, configured: str | None, fresh: str, now: int) -> None:
    """Takes in the configured key if it is new, and makes one where there is none to share.

    Args:
        database: migrated.
        configured: base58; None: none is.
        fresh: base58 of a new one, for where none is there.
        now: unix seconds.
    """
    batch = []
    if configured is not None:
        values = (configured, f"configured-{configured[:_SHOWN_CHARS]}", now)
        batch.append(Statement(QUERIES["watch_key_take_in"], values))
    made = (fresh, f"shared-{fresh[:_SHOWN_CHARS]}", now)
    batch.append(Statement(QUERIES["watch_key_make_first"], made))
    await database.write(batch)


async def listing(database: Database) -> list[WatchKey]:
    """Every key, also retired ones, the oldest first."""
    [found] = await database.read([Statement(QUERIES["watch_keys_all"])])
    return [_watch_key(*row) for row in found]


async def standings(database: Database, keys: Sequence[str]) -> list[Standing]:
    """What hangs on each of the keys, in their order."""
    query = QUERIES["watch_key_standing"]
    answers = await database.read([Statement(query, (key,)) for key in keys])
    return [_standing(*rows[0]) for rows in answers]


async def add(database: Database, key: str, name: str, purpose: Purpose, *, now: int) -> WatchKey:
    """Puts a key to use.

    Raises:
        InvalidInput: the name is no name, or taken; the key is none, is known already as something
            else or as a watch key; too many are in use.
    """
    if not name.strip() or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise InvalidInput("name", f"must be printable, of 1 to {NAME_LENGTH_MAX} characters")
    if not is_key(key):
        raise InvalidInput("key", f"{key!r:.60} is no key: base58 of 32 bytes")
    if key in KNOWN_ADDRESSES:
        raise InvalidInput("key", "is a program or sysvar, whose own business it would find")
    values = (key, name, purpose, now, IN_USE_MAX)
    try:
        [added] = await database.write([Statement(QUERIES["watch_key_add"], values)])
    except Conflict as error:
        raise await _why_taken(database, key, name) from error
    if not added:
        in_use = [each for each in await listing(database) if each.retired_at is None]
        if len(in_use) >= IN_USE_MAX:
            raise InvalidInput("name", f"{IN_USE_MAX} keys are in use already: retire one first")
        raise InvalidInput("key", f"{key} is the reference or the destination of a payment")
    return WatchKey(key=key, name=name, purpose=purpose, created_at=now)


async def rotate(database: Database, name: str, fresh: str, *, now: int) -> WatchKey:
    """Puts a fresh key in the place of one in use, under its name; returns the fresh one.

    Raises:
        InvalidInput: no key of that name is in use.
        Conflict: somebody else has just done it.
    """
    old = await named(database, name)
    _, made, _ = await database.write(
        [
            Statement(QUERIES["watch_key_replace"], (old.key, now)),
            Statement(QUERIES["watch_key_succeed"], (old.key, fresh, now)),
            Statement(QUERIES["watch_key_move_callers"], (old.key, fresh)),
        ]
    )
    if not made:
        raise Conflict(f"the watch key {name!r} was retired meanwhile")
    return _watch_key(*made[0])


async def retire(database: Database, name: str, *, now: int) -> WatchKey:
    """Ends the use of a key; returns it as it stands then.

    Raises:
        InvalidInput: no key of that name is in use; it is the last one that is shared.
    """
    retired, _ = await database.write(
        [
            Statement(QUERIES["watch_key_retire"], (name, now)),
            Statement(QUERIES["watch_key_leave_callers"], (name,)),
        ]
    )
    if retired:
        return _watch_key(*retired[0])
    await named(database, name)
    raise InvalidInput("name", f"{name!r} is the last shared key: rotate it instead")


async def named(database: Database, name: str) -> WatchKey:
    """The key in use of that name.

    Raises:
        InvalidInput: there is none.
    """
    for each in await listing(database):
        if each.name == name and each.retired_at is None:
            return each
    raise InvalidInput("name", f"no watch key named {name!r} is in use; see `axiompay watch list`")


async def _why_taken(database: Database, key: str, name: str) -> InvalidInput:
    for each in await listing(database):
        if each.key == key:
            state = "in use" if each.retired_at is None else "retired, and stays so"
            return InvalidInput("key", f"is the watch key {each.name!r} already, which is {state}")
    return InvalidInput("name", f"there is a watch key named {name!r} already")


def _watch_key(key: str, name: str, purpose: str, created_at: int, retired_at: Any) -> WatchKey:
    return WatchKey(
        key=key, name=name, purpose=Purpose(purpose), created_at=created_at, retired_at=retired_at
    )


def _standing(open_payments: int, slot: Any, block_time: Any, callers: str) -> Standing:
    return Standing(
        open_payments=open_payments,
        slot=slot,
        block_time=block_time or None,
        callers=tuple(_strings.decode(callers)),
    )
