"""Whatever happens while a file is edited, it is as it was or as it was saved."""

import os
import pty
import re
import resource
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from indexer import age
from indexer.cli.secret_edit import Edit, Unfit
from indexer.errors import AxiomError, ConfigError
from tests.indexer.cli.secret_keeping import (
    LIMIT_S,
    MINE,
    TEXT,
    TO_ME,
    TO_YOU,
    YOURS,
    Folder,
    wait_for,
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def edit(folder: Folder, editor: str, *to: str, unchecked: bool = False) -> bool:
    return Edit(folder.file, folder.environ(editor), to=to, unchecked=unchecked).run()


REPLACING = "path.write_text(path.read_text().replace({!r}, {!r}))"


def replacing(folder: Folder, old: str, new: str) -> str:
    return folder.script(REPLACING.format(old, new))


def test_what_is_typed_is_saved_and_nothing_else_is_left(folder: Folder) -> None:
    folder.file.chmod(0o640)

    assert edit(folder, replacing(folder, "9000", "9001"))

    assert folder.text() == TEXT.replace("9000", "9001")
    assert stat.S_IMODE(folder.file.stat().st_mode) == 0o640
    assert folder.names == {".env.age"}
    assert folder.left_in_memory == []


def test_the_text_is_where_only_its_owner_reads_it(folder: Folder) -> None:
    seen = (
        "of_place = path.parent.stat().st_mode\n"
        "(here / 'seen').write_text(f'{path} {path.stat().st_mode:o} {of_place:o}')"
    )

    edit(folder, folder.script(seen))

    path, mode, of_place = (folder.path / "seen").read_text().split()
    assert Path(path).is_relative_to(folder.memory)
    assert (Path(path).name, mode, of_place) == (".env", "100600", "40700")


def test_an_unchanged_file_is_not_written(folder: Folder) -> None:
    before = folder.file.read_bytes(), folder.file.stat()

    assert not edit(folder, "true")

    assert (folder.file.read_bytes(), folder.file.stat()) == before


def test_an_editor_may_put_another_file_in_its_place(folder: Folder) -> None:
    script = "new = path.with_suffix('.new'); new.write_text('AXIOM_PORT=1\\n'); new.rename(path)"

    assert edit(folder, folder.script(script))

    assert folder.text() == "AXIOM_PORT=1\n"


def test_a_link_stays_a_link(folder: Folder) -> None:
    real = folder.path / "elsewhere.age"
    folder.file.rename(real)
    folder.file.symlink_to(real.name)

    assert edit(folder, replacing(folder, "9000", "9001"))

    assert folder.file.is_symlink()
    assert "9001" in age.decrypt(real.read_bytes(), [MINE])


# ----------------------------------------------------------------------------------- recipients


def test_recipients_are_kept_and_may_be_changed_in_the_first_line(folder: Folder) -> None:
    folder.put(TEXT, TO_ME, TO_YOU)

    edit(folder, replacing(folder, "9000", "9001"))
    assert folder.text(YOURS) == folder.text(MINE)

    edit(folder, replacing(folder, f" {TO_YOU}", ""))
    with pytest.raises(ValueError, match="to others"):
        folder.text(YOURS)


def test_recipients_that_are_named_replace_those_before(folder: Folder) -> None:
    assert edit(folder, "true", TO_YOU)

    assert folder.text(YOURS) == TEXT
    with pytest.raises(ValueError, match="to others"):
        folder.text(MINE)


def test_nobody_leaves_himself_out_by_a_slip(folder: Folder) -> None:
    folder.put(TEXT, TO_ME, TO_YOU)
    before = folder.file.read_bytes()

    with pytest.raises(Unfit, match="to others"):
        edit(folder, replacing(folder, f" {TO_ME}", ""))

    assert folder.file.read_bytes() == before


def test_a_first_line_that_is_taken_away_comes_back(folder: Folder) -> None:
    assert edit(folder, folder.script("path.write_text('AXIOM_PORT=1\\n')"))

    assert age.named_recipients(age.decrypt(folder.file.read_bytes(), [MINE])) == (TO_ME,)


def test_a_file_that_names_nobody_is_for_who_opens_it_if_there_is_no_one_else(
    folder: Folder,
) -> None:
    keys = [pyrage.x25519.Recipient.from_str(each) for each in (TO_ME, TO_YOU)]

    folder.file.write_bytes(pyrage.encrypt(TEXT.encode(), keys[:1]))
    assert edit(folder, replacing(folder, "9000", "9001"))
    assert folder.text() == TEXT.replace("9000", "9001")

    folder.file.write_bytes(pyrage.encrypt(TEXT.encode(), keys))
    with pytest.raises(ConfigError, match="2 recipients and does not say whom: name them by --to"):
        edit(folder, replacing(folder, "9000", "9001"))


# --------------------------------------------------------------------------------- what is typed


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("AXIOM_PORT=0", "AXIOM_PORT: '0' is no whole number"),
        ("AXIOM_PORT='9000", "not understood in line 2"),
        ("AXIOM_HELIUS_WEBHOOK_SECRETS=changeme", "placeholder"),
        ("AXIOM_PAYMOB_OWNER=1", "AXIOM_PAYMOB_SECRET_KEY"),
        ("", "nothing but blanks"),
        ("\n \n", "nothing but blanks"),
    ],
)
def test_what_no_process_would_start_with_is_refused(typed: str, says: str, folder: Folder) -> None:
    before = folder.file.read_bytes()
    script = f"path.write_text(path.read_text().splitlines()[0] + '\\n' + {typed!r})"

    with pytest.raises(Unfit, match=says) as caught:
        edit(folder, folder.script(script))

    assert folder.file.read_bytes() == before
    assert str(folder.memory) not in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("path.unlink()", "cannot be read"),
        ("path.write_bytes(b'AXIOM_PORT=1\\n\\xff')", "no UTF-8"),
        ("path.write_bytes(b'#' * 300_000)", "longer than"),
        ("path.write_text('# recipients: age1nobody\\nAXIOM_PORT=1')", "is no recipient"),
        ("path.unlink(); path.mkdir()", "cannot be read"),
    ],
)
def test_what_cannot_be_kept_is_refused_whatever_is_said(
    script: str, says: str, folder: Folder
) -> None:
    before = folder.file.read_bytes()

    with pytest.raises(Unfit, match=says):
        edit(folder, folder.script(script), unchecked=True)

    assert folder.file.read_bytes() == before
    assert folder.left_in_memory == []


def test_settings_that_are_not_to_be_judged_here_are_saved(folder: Folder) -> None:
    assert edit(folder, replacing(folder, "9000", "0"), unchecked=True)

    assert "AXIOM_PORT=0" in folder.text()


def test_what_was_wrong_before_does_not_stand_in_the_way(folder: Folder) -> None:
    folder.put("AXIOM_PORT=0\n")

    assert edit(folder, folder.script("path.write_text(path.read_text() + 'AXIOM_HOST=::1\\n')"))

    assert folder.text() == "AXIOM_PORT=0\nAXIOM_HOST=::1\n"


# ---------------------------------------------------------------------------- when it goes wrong


@pytest.mark.parametrize(
    ("editor", "says"),
    [
        ("false", r"the editor failed \(1\)"),
        ("no-such-editor", "cannot start the editor 'no-such-editor'"),
        ("vi 'unfinished", "EDITOR is no command"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("path.write_text('AXIOM_PORT=1'); os.kill(os.getpid(), signal.SIGINT)", "SIGINT|failed"),
    ],
)
def test_an_editor_that_fails_changes_nothing(editor: str, says: str, folder: Folder) -> None:
    before = folder.file.read_bytes()

    with pytest.raises(AxiomError, match=says):
        edit(folder, folder.script(editor) if "os.kill" in editor else editor)

    assert folder.file.read_bytes() == before
    assert folder.left_in_memory == []


WAITING = """
path.write_text(path.read_text().replace("9000", "9001"))
(here / "memory" / "opened").touch()
while not (here / "memory" / "done").exists():
    time.sleep(0.02)
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" + WAITING


@pytest.fixture
def waiting(folder: Folder) -> Iterator[subprocess.Popen[bytes]]:
    with folder.start(folder.script(WAITING)) as process:
        wait_for((folder.memory / "opened").exists)
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_edit_and_leaves_nothing(
    number: signal.Signals, waiting: subprocess.Popen[bytes], folder: Folder
) -> None:
    before = folder.file.read_bytes()

    waiting.send_signal(number)
    _, said = waiting.communicate(timeout=LIMIT_S)

    assert waiting.returncode == 1
    assert said == f"axiompay: stopped by {number.name}; nothing was changed\n".encode()
    assert folder.file.read_bytes() == before
    assert [path.name for path in folder.left_in_memory] == ["opened"]


def test_an_editor_that_will_not_end_is_ended(folder: Folder) -> None:
    with folder.start(folder.script(STUBBORN)) as process:
        wait_for((folder.memory / "opened").exists)
        process.terminate()
        assert process.wait(LIMIT_S) == 1

    assert [path.name for path in folder.left_in_memory] == ["opened"]
    assert folder.text() == TEXT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_ctrl_c_is_for_the_editor_to_understand(
    number: signal.Signals, waiting: subprocess.Popen[bytes], folder: Folder
) -> None:
    for _ in range(3):
        waiting.send_signal(number)
    (folder.memory / "done").touch()

    _, said = waiting.communicate(timeout=LIMIT_S)

    assert (waiting.returncode, b"is changed" in said) == (0, True)
    assert "9001" in folder.text()


def test_a_second_editor_is_refused_while_the_first_is_open(
    waiting: subprocess.Popen[bytes], folder: Folder
) -> None:
    with pytest.raises(AxiomError, match="is being edited by another process"):
        edit(folder, "true")

    (folder.memory / "done").touch()
    assert waiting.wait(LIMIT_S) == 0
    assert not edit(folder, "true")
    assert "9001" in folder.text()


def test_what_somebody_else_wrote_meanwhile_is_not_lost_nor_what_was_typed(folder: Folder) -> None:
    theirs = age.encrypt("AXIOM_PORT=1\n", [TO_ME])
    script = REPLACING.format("9000", "9001") + f"\n(here / '.env.age').write_bytes({theirs!r})"

    with pytest.raises(AxiomError, match="changed by somebody else") as caught:
        edit(folder, folder.script(script))

    assert folder.file.read_bytes() == theirs
    (kept,) = folder.names - {".env.age"}
    assert str(folder.path / kept) in str(caught.value)
    assert "9001" in age.decrypt((folder.path / kept).read_bytes(), [MINE])


#: Takes the room from the process that waits for it, as a full disk would.
NO_ROOM = "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, {}))\n"


def test_a_full_disk_leaves_the_file_as_it_was(folder: Folder) -> None:
    before = folder.file.read_bytes()
    script = REPLACING.format("9000", "9001") + "\n" + NO_ROOM.format("0")

    with folder.start(folder.script(script)) as process:
        _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert re.fullmatch(rb"axiompay: cannot write .*, which is as it was: File too large\n", said)
    assert folder.file.read_bytes() == before
    assert folder.names == {".env.age"}
    assert folder.left_in_memory == []


def test_no_room_for_the_text_is_said_before_the_editor_opens(folder: Folder) -> None:
    before = folder.file.read_bytes()
    command = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")

    with folder.start(folder.script("(here / 'opened').touch()"), through=command) as process:
        _, said = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert re.fullmatch(rb"axiompay: cannot write .*: File too large\n", said)
    assert (folder.file.read_bytes(), folder.names) == (before, {".env.age"})
    assert folder.left_in_memory == []


# ------------------------------------------------------------------------- with a person before it


class Person:
    """Sits before a terminal of a real process."""

    def __init__(self, folder: Folder, script: str) -> None:
        self._own, theirs = pty.openpty()
        self.process = folder.start(folder.script(script), terminal=theirs)
        os.close(theirs)
        self.seen = ""

    def sees(self, text: str) -> None:
        while text not in self.seen:
            try:
                self.seen += os.read(self._own, 4096).decode()
            except OSError:  # the terminal is closed
                break
        assert text in self.seen
        self.seen = self.seen.partition(text)[2]

    def types(self, text: str) -> None:
        os.write(self._own, text.encode())

    def close(self) -> None:
        os.close(self._own)
        self.process.kill()
        self.process.wait()


#: Types 0 for the port the first time, which is refused, and 9001 the second time.
WRONG_FIRST = """
been = here / "memory" / "been"
text = path.read_text()
path.write_text(text.replace("=0", "=9001") if been.exists() else text.replace("=9000", "=0"))
been.touch()
"""


@pytest.fixture
def person(folder: Folder) -> Iterator[Person]:
    found = Person(folder, WRONG_FIRST)
    yield found
    found.close()


def test_a_person_may_edit_again_what_was_typed(folder: Folder, person: Person) -> None:
    person.sees("AXIOM_PORT: '0' is no whole number")
    person.sees("[e]dit again, [s]ave all the same, or [q]uit without saving?")
    person.types("what?\n")
    person.sees("[q]uit without saving?")
    person.types("e\n")
    person.sees("is changed")

    assert person.process.wait(LIMIT_S) == 0
    assert folder.text() == TEXT.replace("9000", "9001")


def test_a_person_may_save_it_all_the_same(folder: Folder, person: Person) -> None:
    person.sees("[q]uit without saving?")
    person.types("s\n")

    assert person.process.wait(LIMIT_S) == 0
    assert folder.text() == TEXT.replace("9000", "0")


@pytest.mark.parametrize("answer", ["q\n", "\x04", signal.SIGINT])
def test_a_person_may_leave_it(
    answer: str | signal.Signals, folder: Folder, person: Person
) -> None:
    person.sees("[q]uit without saving?")
    if isinstance(answer, str):
        person.types(answer)
    else:
        person.process.send_signal(answer)
    person.sees("the file is as it was")

    assert person.process.wait(LIMIT_S) == 1
    assert folder.text() == TEXT


def test_a_signal_ends_the_question_too(folder: Folder, person: Person) -> None:
    person.sees("[q]uit without saving?")
    person.process.terminate()
    person.sees("stopped by SIGTERM")

    assert person.process.wait(LIMIT_S) == 1
    assert [path.name for path in folder.left_in_memory] == ["been"]


def test_what_cannot_be_written_may_be_tried_again(folder: Folder) -> None:
    script = REPLACING.format("9000", "9001") + "\n" + NO_ROOM.format("10**9")
    person = Person(folder, script)
    try:
        person.sees("cannot write")
        person.sees("[t]ry to write it again, [e]dit again, or [q]uit without saving?")
        resource.prlimit(person.process.pid, resource.RLIMIT_FSIZE, (10**9, 10**9))
        person.types("t\n")
        person.sees("is changed")
        assert person.process.wait(LIMIT_S) == 0
    finally:
        person.close()
    assert "9001" in folder.text()
