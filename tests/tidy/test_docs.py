"""What the documents say is what the code does."""

import importlib
import re
import tomllib
from operator import attrgetter
from pathlib import Path

from indexer.core.settle import TRANSITIONS
from indexer.settings import PARSERS


ROOT = Path(__file__).resolve().parents[2]


def transition_table() -> str:
    rows = []
    for status, targets in TRANSITIONS.items():
        named = ", ".join(f"`{to}`" for to in type(status) if to in targets)
        rows.append(f"| `{status}` | {named or 'nothing'} |")
    return "\n".join(["| from | may become |", "| --- | --- |", *rows])


def test_the_table_of_states_is_that_of_the_code() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    shown = re.search(r"<!-- transitions:.*?-->\n(.*?)\n<!-- end", text, re.DOTALL)

    assert shown is not None
    assert shown[1] == transition_table()


def test_the_ways_that_are_shown_step_by_step_lead_through_what_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    shown = re.search(r"## Three ways to follow\n(.*?)\n## ", text, re.DOTALL)
    assert shown is not None
    steps = re.findall(r"`((?:api|indexer|store)/[a-z_/]+)\.([A-Za-z_.]+)`", shown[1])

    for path, names in steps:
        module = importlib.import_module(path.replace("/", "."))
        assert attrgetter(names)(module), f"{path}.{names}"
    assert len(steps) > 10


def test_the_readme_names_every_setting() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [f"AXIOM_{name.upper()}" for name in PARSERS if name.upper() not in text]

    assert missing == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    text = (ROOT / "ARCHITECTURE.md").read_text()
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = [match[0] for entry in wanted if (match := re.match(r"[\w-]+", entry))]

    assert [name for name in names if f"`{name}`" not in text] == []


def test_documents_link_to_what_is_there() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("migrations/*.md"))
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text())
        if not (path.parent / target).exists()
    ]

    assert broken == []


def test_every_benchmark_is_listed_by_the_runner() -> None:
    """`python -m bench` knows every file in bench/."""
    text = (ROOT / "bench" / "__main__.py").read_text()
    names = [path.stem for path in (ROOT / "bench").glob("*.py") if not path.stem.startswith("_")]

    assert [name for name in names if name not in text] == []
