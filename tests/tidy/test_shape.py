"""The house rules that no linter knows: sizes, mirrors, words."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("indexer", "api", "store", "migrations")

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

#: Modules whose tests live under another name, and where.
TESTED_ELSEWHERE = {
    "indexer/__main__.py": "tests/indexer/cli",
    "indexer/demo/npm.py": "tests/indexer/demo/surfnet/test_install.py",
    "indexer/core/types.py": "tests/core/test_settle.py",
    "indexer/core/payment.py": "tests/core/test_settle.py",
    "indexer/core/profile.py": "tests/core/test_profile_reader.py",
    "indexer/core/transaction.py": "tests/core/test_decode.py",
    "indexer/core/verdict.py": "tests/core/test_verify.py",
    "api/calls.py": "tests/api/test_routes.py",
    "api/context.py": "tests/api/test_app.py",
    "api/endpoint_routes.py": "tests/api/test_routes.py",
    "api/limits.py": "tests/api/test_stream.py",
    "api/schema.py": "tests/api/test_openapi.py",
    "api/webhook_routes.py": "tests/api/test_routes.py",
    "api/webhook_schema.py": "tests/api/test_openapi.py",
}

#: One word for one thing: what stands on the left is called what stands on the right.
BANNED_WORDS = {
    r"\btx_?hash\b": "signature",
    r"\btxid\b": "signature",
    r"\btransaction_hash\b": "signature",
    r"\binvoice": "payment",
    r"\btimestamp_ms\b": "unix seconds",
}


def sources(*folders: str) -> Iterator[Path]:
    """Every Python file below the folders."""
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_each_module_of_the_indexer_has_its_layer() -> None:
    """One that stands in none of them would be held to nothing."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    lines = contracts["contracts"][0]["layers"]
    placed = {name.strip() for line in lines for name in line.split("|")}
    files = [path for path in ROOT.glob("indexer/*.py") if path.stem != "__init__"]
    folders = [path.parent for path in ROOT.glob("indexer/*/__init__.py")]

    assert {f"indexer.{path.stem}" for path in (*files, *folders)} - placed == set()


def test_the_layers_hold() -> None:
    """A line imports only from lines below it (the contracts are in pyproject.toml)."""
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", list(sources(*PACKAGES, "tests", "bench")), ids=relative)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    too_long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]

    assert text.count("\n") <= FILE_LINES_MAX
    assert too_long == []


@pytest.mark.parametrize("path", list(sources(*PACKAGES)), ids=relative)
def test_nothing_is_raised_where_python_3_11_puts_it_into_a_group_again(path: Path) -> None:
    """Of what `except*` raises, before Python 3.11.4: `indexer.together` does without."""
    handlers = [
        handler
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.TryStar)
        for handler in node.handlers
    ]

    assert [n.lineno for each in handlers for n in ast.walk(each) if isinstance(n, ast.Raise)] == []


def test_every_module_has_its_tests() -> None:
    missing = []
    for path in sources(*PACKAGES):
        name = relative(path)
        if path.name == "__init__.py" and not ast.parse(path.read_text()).body[1:]:
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        folder = parts[1:-1] if parts[:2] == ("indexer", "core") else parts[:-1]
        stem = parts[-2] if parts[-1] == "__init__" else parts[-1]
        mirrored = ROOT.joinpath("tests", *folder, f"test_{stem}.py")
        elsewhere = TESTED_ELSEWHERE.get(name)
        if not mirrored.exists() and not (elsewhere and (ROOT / elsewhere).exists()):
            missing.append(f"{name}: {relative(mirrored)}")

    assert missing == []


def test_one_word_for_one_thing() -> None:
    found = [
        f"{relative(path)}: {pattern} is called {word} here"
        for path in (*sources(*PACKAGES), *sorted(ROOT.glob("migrations/*.sql")))
        for pattern, word in BANNED_WORDS.items()
        if re.search(pattern, path.read_text(), re.IGNORECASE)
    ]

    assert found == []


def test_nothing_is_left_over() -> None:
    """No note to self stays behind in the product's code."""
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    found = [
        relative(path)
        for path in sources(*PACKAGES, "tests", "bench")
        if marks.search(path.read_text())
    ]

    assert found == []
