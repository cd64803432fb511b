from pathlib import Path

import pytest

from indexer.environment import Reader, merged, suspicious


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

    with pytest.raises(UnicodeDecodeError):
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
