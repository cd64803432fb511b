import re
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given, strategies as st

from indexer import age
from indexer.environment import (
    CREDENTIALS,
    Reader,
    credential_names,
    identities,
    merged,
    suspicious,
)
from indexer.errors import ConfigError


def test_only_our_variables_that_say_something_are_kept(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_A=file\nAXIOM_B=file\nAXIOM_C\nPATH=file\n")

    found = merged({"AXIOM_A": " real ", "AXIOM_D": "  ", "HOME": "/"}, dotenv)

    assert found == {"AXIOM_A": "real", "AXIOM_B": "file"}


def test_an_empty_real_variable_hides_the_file(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_A=file\n")

    assert merged({"AXIOM_A": ""}, dotenv) == {}


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not UTF-8 text"):
        merged({}, dotenv)


def test_a_name_is_suspicious_when_nobody_reads_it() -> None:
    assert suspicious({"AXIOM_PORT", "AXIOM_PRT"}, {"AXIOM_PORT"}) == (
        "AXIOM_PRT is ignored: did you mean AXIOM_PORT?",
    )


def test_a_reader_notes_what_it_cannot_take_and_goes_on() -> None:
    reader = Reader({"AXIOM_A": "x", "AXIOM_B": "2"})

    taken = [reader.take(field, int) for field in ("a", "b", "c")]

    assert taken == [None, 2, None]
    assert len(reader.problems) == 1
    assert reader.faulty == {"a"}


def test_only_a_secret_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("7\n")
    reader = Reader({"AXIOM_A_FILE": str(tmp_path / "secret")})

    assert reader.take("a", int) is None
    assert reader.take("a", int, secret=True) == 7
    assert reader.problems == []


def test_two_sources_of_one_secret_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "AXIOM_A").write_text("1")
    (tmp_path / "axiom_a").write_text("2")
    reader = Reader({"AXIOM_A": "3", CREDENTIALS: str(tmp_path)})

    assert reader.take("a", int, secret=True) is None
    (problem,) = reader.problems
    assert problem.startswith("AXIOM_A and the credential AXIOM_A and the credential axiom_a are")
    assert reader.faulty == {"a"}, "so that it is not said to be missing as well"


@pytest.mark.parametrize("name", ["AXIOM_A", "axiom_a"])
def test_systemd_hands_a_secret_over(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("7\n")
    variables = merged({CREDENTIALS: str(tmp_path)})
    reader = Reader(variables)

    assert [reader.take("a", int, secret=True), reader.take("b", int, secret=True)] == [7, None]
    assert reader.take("a", int) is None, "what is no secret has another place"
    assert reader.problems == []
    assert credential_names(variables) == {"AXIOM_A"}


@pytest.mark.parametrize("directory", ["", "/nowhere/at/all", "/dev/null"])
def test_without_credentials_there_are_none(directory: str) -> None:
    variables = merged({CREDENTIALS: directory})
    reader = Reader(variables)

    assert reader.take("a", int, secret=True) is None
    assert reader.problems == []
    assert credential_names(variables) == frozenset()


def test_no_file_says_where_credentials_are(tmp_path: Path) -> None:
    (tmp_path / "AXIOM_A").write_text("7")
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"{CREDENTIALS}={tmp_path}\n")

    assert CREDENTIALS not in merged({}, dotenv)


# ------------------------------------------------------------------------------------ encrypted

MINE, TO_ME = age.new_identity()
OTHER, TO_OTHER = age.new_identity()


def encrypted(path: Path, text: str) -> Path:
    path.write_bytes(age.encrypt(text, [TO_ME]))
    return path


def test_the_environment_wins_over_the_encrypted_file_and_that_over_the_plain_one(
    tmp_path: Path,
) -> None:
    plain = tmp_path / ".env"
    plain.write_text("AXIOM_A=plain\nAXIOM_B=plain\nAXIOM_C=plain\n")
    hidden = encrypted(tmp_path / ".env.age", "AXIOM_A=hidden\nAXIOM_B=hidden\n")
    environ = {"AXIOM_A": "real", "AXIOM_AGE_IDENTITY": MINE}

    found = merged(environ, plain, hidden)

    assert found == environ | {"AXIOM_B": "hidden", "AXIOM_C": "plain"}


def test_an_empty_line_of_the_encrypted_file_hides_the_plain_one(tmp_path: Path) -> None:
    plain = tmp_path / ".env"
    plain.write_text("AXIOM_A=plain\n")
    hidden = encrypted(tmp_path / ".env.age", "AXIOM_A=\n")

    assert "AXIOM_A" not in merged({"AXIOM_AGE_IDENTITY": MINE}, plain, hidden)


def test_an_encrypted_file_is_known_by_what_is_in_it_as_well(tmp_path: Path) -> None:
    hidden = encrypted(tmp_path / "settings", "AXIOM_A=1\n")

    assert merged({"AXIOM_AGE_IDENTITY": MINE}, hidden)["AXIOM_A"] == "1"


def test_a_file_that_is_named_encrypted_must_be(tmp_path: Path) -> None:
    path = tmp_path / ".env.age"
    path.write_text("AXIOM_A=canary\n")

    with pytest.raises(ConfigError, match="is not encrypted with age") as caught:
        merged({"AXIOM_AGE_IDENTITY": MINE}, path)

    assert "canary" not in str(caught.value)


def test_the_identity_comes_from_a_file_a_variable_or_a_credential(tmp_path: Path) -> None:
    hidden = encrypted(tmp_path / ".env.age", "AXIOM_A=1\n")
    file = tmp_path / "axiom_age_identity"
    file.write_text(f"# for rotation\n{OTHER}\n{MINE}\n")
    file.chmod(0o440)
    plain = tmp_path / ".env"
    plain.write_text(f"AXIOM_AGE_IDENTITY_FILE={file}\n")

    for environ, files in [
        ({"AXIOM_AGE_IDENTITY": f"{OTHER}, {MINE}"}, (hidden,)),
        ({"AXIOM_AGE_IDENTITY_FILE": str(file)}, (hidden,)),
        ({CREDENTIALS: str(tmp_path)}, (hidden,)),
        ({}, (plain, hidden)),
    ]:
        assert merged(environ, *files)["AXIOM_A"] == "1"


def test_an_identity_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    file.write_text(MINE)
    file.chmod(0o604)

    with pytest.raises(ConfigError, match=r"everybody may read .*chmod o="):
        identities({"AXIOM_AGE_IDENTITY_FILE": str(file)})


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "AXIOM_AGE_IDENTITY_FILE is not set"),
        ({"AXIOM_AGE_IDENTITY": MINE.replace("1", "2", 1)}, "AXIOM_AGE_IDENTITY: line 1 is no"),
        ({"AXIOM_AGE_IDENTITY": OTHER}, "none of the identities"),
        ({"AXIOM_AGE_IDENTITY_FILE": "/nowhere"}, "No such file"),
        ({"AXIOM_AGE_IDENTITY_FILE": "/dev/zero"}, "larger than"),
        ({"AXIOM_AGE_IDENTITY_FILE": "/x", "AXIOM_AGE_IDENTITY": MINE}, "both set"),
    ],
)
def test_what_does_not_open_the_file_is_said(
    variables: dict[str, str], says: str, tmp_path: Path
) -> None:
    hidden = encrypted(tmp_path / ".env.age", "AXIOM_A=canary\n")

    with pytest.raises(ConfigError, match=says) as caught:
        merged(variables, hidden)

    assert not {"canary", MINE[20:], OTHER[20:]} & set(str(caught.value).split())
    assert "AGE-SECRET-KEY-1" not in str(caught.value).replace("AGE-SECRET-KEY-1 and", "")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than"):
        merged({}, Path("/dev/zero"))


@given(st.text(max_size=200))
def test_a_file_is_understood_or_refused_by_the_number_of_its_line(text: str) -> None:
    with NamedTemporaryFile() as file:
        Path(file.name).write_bytes(text.encode(errors="surrogatepass"))
        try:
            merged({}, Path(file.name))
        except ConfigError as error:
            (problem,) = error.problems
            rest = problem.removeprefix(f"{file.name} ").removeprefix(f"cannot read {file.name}: ")
            assert re.fullmatch(
                r"is not understood in line [0-9, ]+: write NAME=value|it is not UTF-8 text"
                r"|is not encrypted with age.*|is damaged.*",
                rest,
            )


def test_a_secret_without_its_name_is_refused_by_its_number(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_A=\n\ncanary3f2a9c\nexport AXIOM_B=1\n")

    with pytest.raises(ConfigError, match=r"not understood in line 3: write NAME=value$") as caught:
        merged({}, dotenv)
    assert "canary" not in str(caught.value)


def test_a_line_that_sets_nothing_is_refused_by_its_number(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("AXIOM_A=1\n\n\nAXIOM_B='canary\nAXIOM_C=3\n")

    with pytest.raises(ConfigError, match=r"not understood in line 4: write NAME=value$"):
        merged({}, dotenv)
