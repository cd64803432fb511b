"""How a bug is planted in the real product, and taken out again.

The words of a function's own source are replaced, it is compiled anew, and everybody who calls
it runs the changed one, whatever name they imported it under. Where the words are not there any
more, because the code was rewritten, planting fails, and the fault must be rewritten too.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any

from store.queries import QUERIES


#: What is wrong with the world, or the shop, of a seed; None where it cannot show the fault.
Objections = Callable[["Fault", int], list[str] | None]
#: Puts into a world (its profile) or a shop (its trade) the trouble that a bug waits for; None
#: where it cannot be.
Kind = Callable[[Any], Any]


def any_world(profile: Any) -> Any:
    """Every world will do, as it is."""
    return profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Words that stand for others.

    Attributes:
        where: the function that has them, or the name of a statement of `store/queries.sql`.
        old: words of its text, which stand there once.
        new: what stands there instead.
    """

    where: Callable[..., Any] | str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One bug.

    Attributes:
        name: what the bug is.
        edits: mostly one; more where the product keeps a rule in several places.
        world: of which kind the worlds must be in which it shows.
        shows_in: where the search for a seed that shows it begins; any will do, this one is quick.
    """

    name: str
    edits: Sequence[Edit]
    world: Kind = any_world
    shows_in: int = 0

    def seeds(self, count: int) -> Iterator[int]:
        """The first `count` seeds, each once, beginning with the one that showed it before."""
        return ((self.shows_in + n) % count for n in range(count))


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The product with this bug in it, until the end of the block."""
    with ExitStack() as stack:
        places = {id(_place(edit.where)): edit.where for edit in fault.edits}
        for place, where in places.items():
            edits = [edit for edit in fault.edits if id(_place(edit.where)) == place]
            stack.enter_context(_edited(where, edits, fault.name))
        yield


def found(fault: Fault, objections_to: Objections, seeds_max: int) -> None:
    """Fails unless one of so many seeds shows the fault, and is sound without it."""
    with planted(fault):
        for seed in fault.seeds(seeds_max):
            if objections := objections_to(fault, seed):
                break
        else:
            raise AssertionError(f"{fault.name}: not found in {seeds_max} seeds")

    print(f"{fault.name}: seed {seed}: {objections[0]}")  # noqa: T201 - shown with -s, and when the next line fails
    assert objections_to(fault, seed) == []


@contextmanager
def _edited(where: Callable[..., Any] | str, edits: Sequence[Edit], name: str) -> Iterator[None]:
    if isinstance(where, str):
        sound = QUERIES[where]
        QUERIES[where] = _replaced(sound, edits, name)
        try:
            yield
        finally:
            QUERIES[where] = sound
        return
    function = _place(where)
    code = function.__code__
    function.__code__ = _compiled(function, edits, name)
    try:
        yield
    finally:
        function.__code__ = code


def _place(where: Callable[..., Any] | str) -> Any:
    """The function behind a bound method, a decorator or a class method; a statement's name."""
    if isinstance(where, str):
        return where
    return inspect.unwrap(getattr(where, "__func__", where))


def _compiled(function: Any, edits: Sequence[Edit], name: str) -> CodeType:
    """The code of the function as it would be with the fault in its text."""
    text = _replaced(inspect.getsource(function), edits, name)
    # A method keeps its indentation, so that words of several lines are as in the file.
    text = "if True:\n" + textwrap.indent(text, " ")
    made: dict[str, Any] = {}
    exec(compile(text, f"<fault: {name}>", "exec"), dict(function.__globals__), made)  # noqa: S102 - our own source
    code = _place(made[function.__name__]).__code__
    assert isinstance(code, CodeType)
    return code


def _replaced(text: str, edits: Sequence[Edit], name: str) -> str:
    for edit in edits:
        count = text.count(edit.old)
        assert count == 1, f"{name}: {edit.old!r} stands {count} times in {edit.where}"
        text = text.replace(edit.old, edit.new)
    return text
