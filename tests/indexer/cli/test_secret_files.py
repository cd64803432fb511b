"""The four commands as they are typed, and processes that are given an encrypted file alone."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from indexer import age
from tests.indexer.cli.conftest import Run
from tests.indexer.cli.secret_keeping import LIMIT_S, MINE, TEXT, TO_ME, TO_YOU, YOURS, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --------------------------------------------------------------------------------------- keygen


def test_a_new_identity_is_printed_or_kept_for_its_owner(run: Run, tmp_path: Path) -> None:
    printed = run("secrets", "keygen")
    kept = run("secrets", "keygen", "-o", "identity")

    (identity,) = age.read_identities(printed.out)
    (other,) = age.read_identities((tmp_path / "identity").read_text())
    assert printed.out == f"# public key: {age.recipient_of(identity)}\n{identity}\n"
    assert kept.out == f"{age.recipient_of(other)}\n"
    assert stat.S_IMODE((tmp_path / "identity").stat().st_mode) == 0o600
    assert identity != other


def test_no_identity_is_overwritten(run: Run, tmp_path: Path) -> None:
    run("secrets", "keygen", "-o", "identity")
    before = (tmp_path / "identity").read_text()

    result = run("secrets", "keygen", "-o", "identity")

    assert (result.code, result.out) == (1, "")
    assert (tmp_path / "identity").read_text() == before


# -------------------------------------------------------------------------------------- encrypt


def test_a_plain_file_is_encrypted_to_each(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(TEXT)

    result = run("secrets", "encrypt", "--to", TO_ME, "--to", TO_YOU, "--to", TO_ME)

    data = (tmp_path / ".env.age").read_bytes()
    assert (result.code, result.out) == (0, "")
    assert "for 2 recipient(s)" in result.err
    assert ".env still holds it in clear" in result.err
    assert age.decrypt(data, [MINE]) == age.decrypt(data, [YOURS])
    assert age.decrypt(data, [MINE]).endswith(TEXT)
    assert (tmp_path / ".env").read_text() == TEXT


def test_without_a_recipient_it_is_for_who_does_it(run: Run, folder: Folder) -> None:
    (folder.path / "production.env").write_text(TEXT)

    result = run("secrets", "encrypt", "production.env", "-o", "p.age", **folder.settings)

    assert result.code == 0
    assert age.decrypt((folder.path / "p.age").read_bytes(), [MINE]).endswith(TEXT)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((".env", "--to", TO_ME), 1, ".env.age exists already"),
        ((".env.age", "--to", TO_ME, "-o", "x"), 1, "encrypted already"),
        ((".env", "-o", "x"), 2, "AXIOM_AGE_IDENTITY_FILE is not set"),
        (("nothing", "--to", TO_ME), 2, "cannot read nothing: No such file"),
        (("broken", "--to", TO_ME), 2, "broken is not understood in line 2"),
        ((".env", "--to", "age1x", "-o", "x"), 2, "is no recipient"),
        ((".env", "--to", MINE, "-o", "x"), 2, "this is an identity, which is secret"),
        ((".env", "--to", TO_ME, "-o", "no/where"), 1, "cannot write no/where: No such file"),
    ],
)
def test_what_cannot_be_encrypted_is_said_and_nothing_is_written(
    arguments: tuple[str, ...], code: int, says: str, run: Run, folder: Folder
) -> None:
    (folder.path / ".env").write_text(TEXT)
    (folder.path / "broken").write_text("AXIOM_A=1\nAXIOM_B='canary\n")
    before = folder.names

    result = run("secrets", "encrypt", *arguments)

    assert (result.code, says in result.err) == (code, True), result.err
    assert folder.names == before
    assert not {"canary", MINE} & set(re.split(r"\W+", result.err.replace("-", "")))


# ------------------------------------------------------------------------------- edit and check


def test_an_edit_says_whether_it_changed_anything(
    run: Run, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder.memory))
    monkeypatch.delenv("VISUAL", raising=False)
    said = []
    for editor in ("true", "sed -i s/9000/9001/", "false"):
        monkeypatch.setenv("EDITOR", editor)
        said.append(run("secrets", "edit", **folder.settings))

    assert [result.code for result in said] == [0, 0, 1]
    assert said[0].err == "axiompay: unchanged\n"
    assert "is changed; what runs reads it at its next start" in said[1].err
    assert "9001" in folder.text()


def test_a_check_lists_names_and_answers_with_its_code(run: Run, folder: Folder) -> None:
    good = run("secrets", "check", "--json", **folder.settings)
    folder.put("AXIOM_PORT=0\n")
    bad = run("secrets", "check", **folder.settings)
    shut = run("secrets", "check")

    assert [good.code, bad.code, shut.code] == [0, 1, 2]
    assert {json.loads(line)["check"] for line in good.lines} >= {
        "AXIOM_PORT",
        "AXIOM_HELIUS_WEBHOOK_SECRETS",
        ".env.age",
    }
    assert "FAIL" in bad.out
    assert "AXIOM_AGE_IDENTITY_FILE is not set" in shut.err
    assert "canary" not in good.out + good.err + bad.out + shut.err


def test_a_named_file_is_read_alone_and_dot_env_age_over_dot_env(run: Run, folder: Folder) -> None:
    (folder.path / ".env").write_text("AXIOM_HOST=::1\n")
    (folder.path / "other.age").write_bytes(folder.file.read_bytes())

    alone = run("secrets", "check", "other.age", **folder.settings).out
    named = run("--env-file", "other.age", "secrets", "check", **folder.settings).out
    over = run("secrets", "check", str(folder.file), **folder.settings).out

    assert ["AXIOM_HOST" in out for out in (alone, named, over)] == [False, False, True]
    assert all("AXIOM_PORT" in out for out in (alone, named, over))


# ------------------------------------------------------------------------------ a real process


def start(folder: Folder, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A process that is started in the folder with nothing but these variables."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")}
    return subprocess.run(
        [sys.executable, "-m", "indexer", *arguments],
        cwd=folder.path,
        env=plain | {f"AXIOM_{name}": text for name, text in settings.items()},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_a_process_is_set_by_an_encrypted_file_and_an_identity_alone(folder: Folder) -> None:
    folder.put("AXIOM_DATABASE_URL=sqlite:///hidden.db\nAXIOM_RPC_URLS=http://127.0.0.1:9\n")

    migrated = start(folder, "migrate", **folder.settings)
    examined = start(folder, "doctor", "--json", **folder.settings)

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert (folder.path / "hidden.db").is_file()
    assert "sqlite:///hidden.db, schema up to date" in examined.stdout
    assert "http://127.0.0.1:9" in examined.stdout


def test_a_process_without_the_identity_does_not_start(folder: Folder) -> None:
    """It would otherwise run with defaults where its owner meant something else."""
    for settings, says in [
        ({}, "AXIOM_AGE_IDENTITY_FILE is not set"),
        ({"AGE_IDENTITY": YOURS}, "is encrypted to others"),
    ]:
        result = start(folder, "migrate", **settings)

        assert (result.returncode, says in result.stderr) == (2, True)
        assert "axiom.db" not in folder.names


def test_no_command_shows_what_is_encrypted(folder: Folder) -> None:
    secret = "canary-0123456789"
    folder.put(
        f"AXIOM_RPC_URLS=http://127.0.0.1:9/{secret}\nAXIOM_LOG_LEVEL=debug\n"
        f"AXIOM_HELIUS_WEBHOOK_SECRETS={secret}\n"
    )

    for arguments in (("doctor",), ("secrets", "check"), ("payments", "list")):
        result = start(folder, *arguments, **folder.settings)
        assert "canary" not in result.stdout + result.stderr
