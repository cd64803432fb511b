"""What is set is listed by name, never by value; what is unsafe about it is said."""

from pathlib import Path

import pyrage
import pytest

from indexer.cli.checks import Finding, Grade
from indexer.cli.secret_report import examine
from tests.indexer.cli.secret_keeping import MINE, TEXT, TO_ME, TO_YOU, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def report(folder: Folder, *plain: str, **environ: str) -> dict[str, Finding]:
    """The findings by what they are about; `plain` are lines of `.env`."""
    files = [folder.file]
    if plain:
        path = folder.path / ".env"
        path.write_text("\n".join(plain))
        path.chmod(0o600)
        files.insert(0, path)
    variables = {f"AXIOM_{name}": text for name, text in (folder.settings | environ).items()}
    found = examine(variables, files)
    assert "canary" not in repr(found)
    return {finding.check: finding for finding in found}


def test_what_is_set_is_named_with_its_place(folder: Folder) -> None:
    found = report(folder, "AXIOM_PORT=1", "AXIOM_HOST=::1", PORT="2")

    assert {finding.grade for finding in found.values()} == {Grade.OK}
    assert found["AXIOM_PORT"].found == f"set in the environment, over {folder.file}"
    assert found["AXIOM_HOST"].found == f"set in {folder.path / '.env'}"
    assert found["AXIOM_HELIUS_WEBHOOK_SECRETS"].found == f"set in {folder.file}"
    assert found[str(folder.file)].found == "encrypted to 1"


def test_a_secret_in_clear_is_a_warning_also_where_another_wins(folder: Folder) -> None:
    found = report(folder, "AXIOM_HELIUS_WEBHOOK_SECRETS=canary-canary", "AXIOM_HOST=::1")

    finding = found["AXIOM_HELIUS_WEBHOOK_SECRETS"]
    assert (finding.grade, "in clear in" in finding.found) == (Grade.WARN, True)
    assert "encrypted file" in finding.hint
    assert found["AXIOM_HOST"].grade is Grade.OK


def test_an_identity_beside_what_it_opens_is_a_warning(folder: Folder) -> None:
    plain = folder.path / ".env"
    plain.write_text(f"AXIOM_AGE_IDENTITY={MINE}\n")

    found = {finding.check: finding for finding in examine({}, [plain, folder.file])}

    finding = found["AXIOM_AGE_IDENTITY"]
    assert finding.grade is Grade.WARN
    assert finding.hint == "name a file that holds it: AXIOM_AGE_IDENTITY_FILE"
    assert MINE not in repr(found)


def test_files_that_others_may_read_are_warnings(folder: Folder) -> None:
    key = folder.path / "key"
    key.write_text("canary-of-redis")
    key.chmod(0o644)
    plain = folder.path / ".env"

    found = report(folder, "AXIOM_REDIS_URL=redis://:canary-one@cache")
    assert found[str(plain)].grade is Grade.OK

    plain.chmod(0o640)
    found = {
        finding.check: finding
        for finding in examine(
            {"AXIOM_HELIUS_API_KEY_FILE": str(key), "AXIOM_HELIUS_WEBHOOK_ID": "1"}, [plain]
        )
    }

    assert found[str(plain)].hint == f"`chmod 600 {plain}`"
    assert found["AXIOM_HELIUS_API_KEY_FILE"].hint == f"`chmod o= {key}`"


def test_the_same_secret_twice_is_a_warning(folder: Folder) -> None:
    found = report(folder, QUICKNODE_WEBHOOK_SECRETS="other-secret-1, canary-secret-1")

    finding = found["AXIOM_HELIUS_WEBHOOK_SECRETS"]
    assert finding.grade is Grade.WARN
    assert finding.found == "the same secret as in AXIOM_QUICKNODE_WEBHOOK_SECRETS"


def test_whom_it_is_for_must_be_whom_it_names(folder: Folder) -> None:
    folder.put(TEXT, TO_ME, TO_YOU)
    assert report(folder)[str(folder.file)].found == "encrypted to 2"

    key = pyrage.x25519.Recipient.from_str(TO_ME)
    text = f"# recipients: {TO_ME} {TO_YOU}\n{TEXT}".encode()
    folder.file.write_bytes(pyrage.encrypt(text, [key]))

    assert report(folder)[str(folder.file)].found == "encrypted to 1, but names 2"


@pytest.mark.parametrize(
    ("line", "name", "grade"),
    [
        ("AXIOM_PORT=canary", "AXIOM_PORT", Grade.FAIL),
        ("AXIOM_HELIUS_API_KEY=changeme", "AXIOM_HELIUS_API_KEY", Grade.FAIL),
        ("AXIOM_PAYMOB_HMAC_SECRET=canarycanarycanary", "AXIOM_PAYMOB_HMAC_SECRET", Grade.FAIL),
        ("AXIOM_PRT=1", "AXIOM_PRT", Grade.WARN),
    ],
)
def test_what_a_start_would_say_is_said(line: str, name: str, grade: Grade, folder: Folder) -> None:
    folder.put(f"{line}\n")
    variables = {"AXIOM_AGE_IDENTITY_FILE": folder.settings["AGE_IDENTITY_FILE"]}

    found = [each for each in examine(variables, [folder.file]) if each.check == name]

    assert found[-1].grade is grade


def test_credentials_are_listed_and_those_that_nobody_reads(folder: Folder, tmp_path: Path) -> None:
    place = tmp_path / "credentials"
    place.mkdir()
    for name in ("axiom_redis_url", "AXIOM_PORT", "axiom_nothing", "other"):
        (place / name).write_text("redis://cache")

    variables = {f"AXIOM_{name}": text for name, text in folder.settings.items()}
    found = examine(variables | {"CREDENTIALS_DIRECTORY": str(place)}, [folder.file])

    graded = [(each.check, each.grade) for each in found if "a credential" in each.found]
    assert graded == [
        ("AXIOM_NOTHING", Grade.WARN),
        ("AXIOM_PORT", Grade.WARN),
        ("AXIOM_REDIS_URL", Grade.OK),
    ]
