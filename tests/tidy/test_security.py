"""SECURITY.md says what is so: its tests exist, its limits are those of the code."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()

RISKS = tuple(f"API{number}" for number in range(1, 11))
UNITS = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024**2}


def named_tests(text: str) -> list[tuple[str, str]]:
    """`api/test_scopes::test_it`: the file below tests/, and the function."""
    return re.findall(r"`([a-z_/]+/test_[a-z_0-9]+)::(test_[a-z_0-9]+)`", text)


@cache
def functions_of(file: str) -> frozenset[str]:
    path = ROOT / "tests" / f"{file}.py"
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


def test_every_test_that_is_named_exists() -> None:
    named = named_tests(TEXT)

    assert len(named) > 60
    assert len(named) == TEXT.count("::"), "one of them is written in another way"
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(file)] == []


@pytest.mark.parametrize("risk", RISKS)
def test_every_risk_of_the_list_is_answered_with_tests(risk: str) -> None:
    [row] = re.findall(rf"^\| {risk} .*$", TEXT, re.MULTILINE)

    assert len(named_tests(row)) >= 3


def test_the_limits_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| [^|]+ \| ([\d,.]+) ?(\w*) \| `([a-z_.]+)\.([A-Z_]+)` \|$", TEXT, re.MULTILINE
    )
    wrong = [
        f"{module}.{name}"
        for number, unit, module, name in rows
        if float(number.replace(",", "")) * UNITS[unit]
        != getattr(importlib.import_module(module), name)
    ]

    assert len(rows) >= 15
    assert wrong == []


#: Names that a secret, or what proves one, would have. Solana's tokens and signatures are public.
SECRET = re.compile(
    r"secret(?!s_)|hmac|digest|passw|api_?key|authorization|bearer|credential|hash_key|hashed"
)

#: Comparisons of what is called so and is none that a stranger could measure.
HARMLESS = {
    "api/auth.py": {"keys.hash_key(token) not in self._known"},  # a hash of 256 random bits
    "indexer/core/partner_answer.py": {  # looks for our own secret in what a partner says
        "secret in text",
        "json.dumps(secret)[1:-1] in text",
    },
}


def compared(path: Path) -> set[str]:
    """Comparisons with a secret that end at the first difference."""
    telling = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare) and any(isinstance(op, telling) for op in node.ops):
            names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            names |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
            if any(SECRET.search(name) for name in names):
                found.add(ast.unparse(node))
    return found


def test_no_secret_is_compared_in_a_way_that_tells_where_it_differs() -> None:
    """By their names: a comparison with another one is for its reader to judge."""
    paths = [path for name in ("api", "indexer", "store") for path in (ROOT / name).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): compared(path) for path in paths}

    assert {path: names for path, names in found.items() if names} == HARMLESS


@pytest.mark.parametrize("module", ["api/doors.py", "indexer/core/paymob.py", "indexer/helius.py"])
def test_what_strangers_prove_themselves_with_is_compared_in_constant_time(module: str) -> None:
    assert "hmac.compare_digest(" in (ROOT / module).read_text()
