"""The signing keys: as configured, or made once, whole, and for nobody else's eyes."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from indexer import keyring
from indexer.core.standard_webhooks import signing_key
from indexer.errors import ConfigError
from indexer.settings import Settings
from store import webhook_endpoints
from store.database import Database, open_database
from store.migrate import migrate


ROOT = Path(__file__).resolve().parents[2]
GIVEN = ("the newest key, which makes new secrets", "the one before it, for those that there are")


def settings_in(folder: Path, *keys: str) -> Settings:
    return Settings(database_url=f"sqlite:///{folder}/axiom.db", webhook_signing_keys=keys)


def key_file(folder: Path) -> Path:
    return folder / "axiom.db.key"


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def test_keys_that_are_configured_are_taken_in_their_order_and_nothing_is_made(
    tmp_path: Path,
) -> None:
    assert keyring.load(settings_in(tmp_path, *GIVEN)) == tuple(map(signing_key, GIVEN))
    assert list(tmp_path.iterdir()) == []


def test_without_any_one_is_made_and_kept_beside_the_database(tmp_path: Path) -> None:
    [first] = keyring.load(settings_in(tmp_path))

    assert keyring.load(settings_in(tmp_path)) == (first,)
    assert list(tmp_path.iterdir()) == [key_file(tmp_path)], "nothing else is left behind"
    assert len(first.secret) >= 32
    assert key_file(tmp_path).read_bytes().strip() == first.secret


def test_each_deployment_makes_another_one(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()

    assert len({keyring.load(settings_in(folder)) for folder in folders}) == len(folders)


def test_a_key_is_readable_by_its_owner_only_whatever_the_process_allows_others(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        keyring.load(settings_in(tmp_path))
    finally:
        os.umask(before)

    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keyring.load(settings_in(tmp_path))
    for mode in (0o640, 0o604, 0o620, 0o602):
        key_file(tmp_path).chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            keyring.load(settings_in(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"too short", b" " * 64, b"x" * 5_000, b"\xff" * 40],
    ids=["empty", "a line", "short", "blank", "long", "binary"],
)
def test_a_file_that_holds_no_key_is_refused_and_never_replaced(
    tmp_path: Path, content: bytes
) -> None:
    """Another key would be a wrong one for every receiver that there is."""
    write(key_file(tmp_path), content)

    with pytest.raises(ConfigError, match=r"axiom\.db\.key"):
        keyring.load(settings_in(tmp_path))

    assert key_file(tmp_path).read_bytes() == content


def test_no_refusal_shows_what_is_in_the_file(tmp_path: Path) -> None:
    write(key_file(tmp_path), b"canary")

    with pytest.raises(ConfigError) as raised:
        keyring.load(settings_in(tmp_path))

    assert "canary" not in str(raised.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    key_file(tmp_path).mkdir()

    with pytest.raises(ConfigError, match="AXIOM_WEBHOOK_SIGNING_KEYS"):
        keyring.load(settings_in(tmp_path))


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(ConfigError, match="Permission denied"):
        keyring.load(settings_in(tmp_path))


def test_one_that_fails_in_between_leaves_neither_a_key_nor_a_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="No space left"):
            keyring.load(settings_in(tmp_path))

    assert list(tmp_path.iterdir()) == []


async def with_a_receiver(settings: Settings, key_id: str) -> Database:
    database = await open_database(settings.database_url)
    await migrate(database)
    statement = webhook_endpoints.create(
        id="we_" + "1" * 26,
        url="https://shop.example/hook",
        event_types=(),
        description=None,
        key_id=key_id,
        now=1,
        at_most=9,
    )
    await database.write([statement])
    return database


async def test_a_database_that_came_without_its_key_file_says_so(tmp_path: Path) -> None:
    """A key that is made then is none that receivers know."""
    settings = settings_in(tmp_path)
    [key] = keyring.load(settings)
    database = await with_a_receiver(settings, key.id)
    assert await keyring.missing(database, settings, keyring.load(settings)) is None

    kept = key_file(tmp_path).read_bytes()
    key_file(tmp_path).unlink()
    assert keyring.peek(settings) == ()
    assert not key_file(tmp_path).exists(), "looking makes none"
    said = await keyring.missing(database, settings, keyring.load(settings))
    assert said is not None
    assert key.id in said
    assert str(key_file(tmp_path)) in said

    key_file(tmp_path).write_bytes(kept)
    assert await keyring.missing(database, settings, keyring.peek(settings)) is None
    await database.close()


async def test_a_configured_key_that_is_not_theirs_is_told_of_too(tmp_path: Path) -> None:
    database = await with_a_receiver(settings_in(tmp_path), signing_key(GIVEN[0]).id)
    for keys, is_told in ((GIVEN[:1], False), (GIVEN, False), (GIVEN[1:], True)):
        settings = settings_in(tmp_path, *keys)
        said = await keyring.missing(database, settings, keyring.load(settings))
        assert (said is not None) is is_told
        assert GIVEN[0] not in str(said)
    await database.close()


async def test_processes_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    script = (
        "import sys; from indexer import keyring; from indexer.settings import Settings; "
        "print('ready', flush=True); sys.stdin.readline(); "
        "[key] = keyring.load(Settings(database_url=sys.argv[1])); print(key.id)"
    )
    url = settings_in(tmp_path).database_url
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            url,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    async with asyncio.timeout(90):
        for child in children:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
        ends = await asyncio.gather(*(child.communicate(b"go\n") for child in children))

    [key] = keyring.load(settings_in(tmp_path))
    assert {said.splitlines()[-1] for said, _ in ends} == {key.id.encode()}
    assert list(tmp_path.iterdir()) == [key_file(tmp_path)]


def test_who_comes_second_takes_the_key_that_came_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        write(key_file(tmp_path), GIVEN[0].encode())
        link(source, target)

    monkeypatch.setattr(os, "link", late)

    assert keyring.load(settings_in(tmp_path)) == (signing_key(GIVEN[0]),)
    assert list(tmp_path.iterdir()) == [key_file(tmp_path)]
