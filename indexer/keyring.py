"""The keys that the secrets of receivers are derived from: as configured, or kept in a file.

Without a setting, one key is made at the first start and kept beside the database, readable by its
owner only. It is not in the database, so that a copy of that lets nobody forge a webhook. So a
database that was restored without it has receivers that nothing can be sent to until it is back,
which `missing` says; a key that is made then is none of theirs.
"""

import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from indexer.core.standard_webhooks import SigningKey, signing_key
from indexer.errors import ConfigError
from indexer.log import hide
from indexer.settings import Settings
from store import webhook_endpoints
from store.database import Database, is_file, path_of


log = structlog.get_logger(__name__)

_KEY_BYTES: Final = 32
_FILE_BYTES_MAX: Final = 4096
_KEY_CHARS_MIN: Final = 32
_SETTING: Final = "AXIOM_WEBHOOK_SIGNING_KEYS"


def load(settings: Settings) -> tuple[SigningKey, ...]:
    """The keys, the one that makes new secrets first.

    Raises:
        ConfigError: the file cannot be read or made, holds no key, or others may read it.
    """
    if settings.webhook_signing_keys:
        return tuple(map(signing_key, settings.webhook_signing_keys))
    if not is_file(settings.database_url):
        raise ConfigError((f"{_SETTING} must be set where the database is a server",))
    database = path_of(settings.database_url)
    path = database.with_name(f"{database.name}.key")
    try:
        _make(path)
        text = _read(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        problem = f"{_SETTING} is not set, and {path}, where the key is kept, cannot be used"
        raise ConfigError((f"{problem}: {reason}",)) from error
    hide([text])  # the settings do not know it
    return (signing_key(text),)


def peek(settings: Settings) -> tuple[SigningKey, ...]:
    """The keys that are there; makes none.

    Raises:
        ConfigError: the file cannot be read, holds no key, or others may read it.
    """
    if not settings.webhook_signing_keys and is_file(settings.database_url):
        database = path_of(settings.database_url)
        if not database.with_name(f"{database.name}.key").exists():
            return ()
    return load(settings)


async def missing(
    database: Database, settings: Settings, keys: Collection[SigningKey]
) -> str | None:
    """Says which receivers cannot be sent anything, and what to do; None: each key is there."""
    known = {key.id for key in keys}
    receivers = [
        each
        for each in await webhook_endpoints.listing(database)
        if each.signer.key_id not in known
    ]
    if not receivers:
        return None
    lost = ", ".join(sorted({each.signer.key_id for each in receivers}))
    place = _SETTING
    if not settings.webhook_signing_keys:
        path = path_of(settings.database_url)
        place = f"{path.with_name(f'{path.name}.key')}, in place of another one, or {_SETTING}"
    return (
        f"nothing can be sent to {len(receivers)} receivers: the signing key {lost} is missing, "
        f"from which their secrets are derived; bring it back ({place}), or rotate their secrets"
    )


def _make(path: Path) -> None:
    """Writes a new key, whole or not at all, unless there is one; two at once make one."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_urlsafe(_KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # refuses to replace one that came in between
        _keep(path.parent)
    except FileExistsError:
        return
    else:
        log.info("signing_key.made", path=str(path))
    finally:
        draft.unlink()


def _keep(folder: Path) -> None:
    """Has the folder's new entry survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> str:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(_FILE_BYTES_MAX + 1)
    if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError((f"{path} may be read by others: `chmod 600 {path}`",))
    text = content.decode().strip()
    if not _KEY_CHARS_MIN <= len(text) < _FILE_BYTES_MAX:
        raise ConfigError(
            (f"{path} holds no key of {_KEY_CHARS_MIN} characters or more: restore it",)
        )
    return text
