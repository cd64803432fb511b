"""deploy/Dockerfile is in order, as far as that can be told without Docker."""

import fnmatch
import json
import re
import shlex
import tomllib
from itertools import chain
from typing import NamedTuple

import pytest

from indexer.settings import may_hold_secret
from tests.deploy.commands import has_registry, no_settings, refusal
from tests.deploy.composition import DEPLOY, ROOT


INSTRUCTIONS = {
    "FROM", "ARG", "LABEL", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE",
    "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD",
}  # fmt: skip


class Instruction(NamedTuple):
    """One of the file, with its lines joined."""

    name: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", kept)
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name, rest) for name, rest in found]


ALL = instructions((DEPLOY / "Dockerfile").read_text())
LAST_STAGE = ALL[max(n for n, each in enumerate(ALL) if each.name == "FROM") :]


def rest_of(name: str, among: list[Instruction] = LAST_STAGE) -> list[str]:
    return [each.rest for each in among if each.name == name]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps the file out; the last line that speaks of it decides."""
    is_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, means_in = line.removeprefix("!"), line.startswith("!")
        if matches(path, pattern):
            is_out = not means_in
    return is_out


def matches(path: str, pattern: str) -> bool:
    """The path itself, or a folder that it is in."""
    parts = path.split("/")
    wanted = pattern.split("/")
    if wanted[0] == "**":
        return any(fnmatch.fnmatchcase(part, wanted[1]) for part in parts)
    return len(parts) >= len(wanted) and all(
        fnmatch.fnmatchcase(part, each) for part, each in zip(parts, wanted, strict=False)
    )


def test_it_is_made_of_instructions() -> None:
    assert {each.name for each in ALL} <= INSTRUCTIONS
    assert ALL[0].name == "FROM"


def test_both_stages_begin_with_the_python_that_the_product_is_made_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floor = project["requires-python"].removeprefix(">=")
    images = [rest.partition(" ")[0] for rest in rest_of("FROM", ALL)]

    assert images == [f"python:{floor}-slim-bookworm"] * 2
    assert not any(map(has_registry, images))
    assert rest_of("FROM", ALL)[0].endswith(" AS build")


def copied() -> list[tuple[str, str]]:
    """Where from, and where to, of what comes from the repository."""
    rows = [shlex.split(rest) for rest in rest_of("COPY", ALL) if not rest.startswith("--from")]
    return [(source, to) for *sources, to in rows for source in sources]


@pytest.mark.parametrize("source", [source for source, _ in copied()])
def test_what_is_copied_is_there_and_gets_to_the_builder(source: str) -> None:
    path = ROOT / source
    files = [path] if path.is_file() else [each for each in path.rglob("*.py") if each.is_file()]

    assert files
    assert not any(ignored(each.relative_to(ROOT).as_posix()) for each in files)


def test_every_package_of_the_product_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    sources = {source for source, _ in copied()}

    assert set(packages) <= sources
    assert {"pyproject.toml", project["project"]["readme"]} <= sources


@pytest.mark.parametrize(
    "path",
    [
        ".env", ".env.age", ".git/config", "axiom.db", "axiom.db.key", "axiom.db-wal",
        "deploy/secrets/rpc_urls", "indexer/.env", "store/axiom.db", "tests/conftest.py",
        ".venv/bin/python", "api/__pycache__/app.cpython-311.pyc", "identity.txt",
        "indexer/demo/surfnet/node_modules/a.js",
    ],
)  # fmt: skip
def test_nothing_else_gets_to_the_builder(path: str) -> None:
    assert ignored(path)


def test_it_runs_as_nobody_else_and_not_as_root() -> None:
    [user] = rest_of("USER")
    made = " ".join(rest_of("RUN"))

    assert user == "10001:10001"
    assert "useradd --uid 10001 --gid 10001" in made
    assert "groupadd --gid 10001" in made
    before_user = LAST_STAGE[: [each.name for each in LAST_STAGE].index("USER")]
    assert {"RUN", "COPY"}.isdisjoint(each.name for each in LAST_STAGE[len(before_user) :])


def test_it_writes_where_a_volume_is() -> None:
    [environment] = rest_of("ENV")
    variables = dict(each.split("=", 1) for each in shlex.split(environment))
    [volume] = rest_of("VOLUME")

    assert no_settings(variables) == []
    assert not any(map(may_hold_secret, variables))
    assert variables["AXIOM_DATABASE_URL"].removeprefix("sqlite:///").startswith(f"{volume}/")
    assert rest_of("WORKDIR") == [volume]
    assert f"--mode=0700 {volume}" in rest_of("RUN")[0]


def test_no_argument_is_a_secret() -> None:
    names = {rest.partition("=")[0] for rest in rest_of("ARG", ALL)}

    assert names == {"VERSION", "REVISION"}


def test_what_it_starts_and_asks_are_commands() -> None:
    [entry], [command], [health] = rest_of("ENTRYPOINT"), rest_of("CMD"), rest_of("HEALTHCHECK")
    options, _, asked = health.partition("CMD ")

    assert json.loads(entry) == ["axiompay"]
    assert refusal(json.loads(command)) is None
    assert json.loads(asked)[0] == "axiompay"
    assert refusal(json.loads(asked)[1:]) is None
    assert set(re.findall(r"--([a-z-]+)=\d+", options)) == {
        "interval",
        "timeout",
        "start-period",
        "retries",
    }


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(each.split("=", 1) for each in shlex.split(rest_of("LABEL")[0]))

    assert f"VERSION={project['version']}" in rest_of("ARG")
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert labels["org.opencontainers.image.title"] == "Axiom Pay"


def test_only_what_is_locked_is_installed() -> None:
    installs = [
        shlex.split(piece)
        for piece in chain.from_iterable(rest.split("&&") for rest in rest_of("RUN", ALL))
        if "pip install" in piece
    ]

    assert len(installs) == 2
    assert {"--require-hashes", "--only-binary", "--requirement"} <= set(installs[0])
    assert {"--no-deps", "."} <= set(installs[1])


def test_the_linter_sees_what_is_wrong() -> None:
    """What judges the file is judged by a file that is wrong."""
    wrong = instructions("FROM reg.example/python\n# RUN x\nRUN a \\\n  # no\n  b\nCPY x y\n")

    assert [each.name for each in wrong] == ["FROM", "RUN", "CPY"]
    assert wrong[1].rest == "a b"
    assert has_registry("reg.example/python")
    assert has_registry("localhost/python")
    assert not has_registry("library/python:3")
    assert refusal(["doctor", "--proces", "api"]) is not None
    assert refusal(["no-such-command"]) is not None
    assert refusal([]) is not None
    assert no_settings(["AXIOM_DATABASE_URI", "AXIOM_PORT", "PATH"]) == ["AXIOM_DATABASE_URI"]
