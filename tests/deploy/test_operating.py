"""What docs/operating.md tells people to do can be done, and each alert leads to its part of it."""

import re
import shlex

import pytest
import yaml

from api.limits import SHUTDOWN_TIMEOUT_S
from indexer import daemon
from indexer.cli.doctor_database import WRITERS_MAX
from tests.deploy.commands import no_settings, refusal
from tests.deploy.composition import DEPLOY, ROOT, products, services


TEXT = (ROOT / "docs" / "operating.md").read_text()
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"] if "alert" in rule]


def anchors(text: str) -> set[str]:
    """Of its headings, as they are linked to."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_each_alert_leads_to_what_to_do_and_nothing_else_is_there() -> None:
    _, _, told = TEXT.partition("\n## Alerts\n")
    heads = re.findall(r"^### (\w+)$", told, re.MULTILINE)

    assert sorted(heads) == sorted(rule["alert"] for rule in RULES)
    for rule in RULES:
        name = rule["alert"].lower()
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{name}"
        assert name in anchors(TEXT)


def test_links_into_other_pages_end_at_a_heading() -> None:
    links = re.findall(r"\]\(([^)#:]+)#([^)]+)\)", TEXT)

    assert links
    for path, anchor in links:
        assert anchor in anchors((ROOT / "docs" / path).read_text())


#: As they stand in the text; a line of text may break within one.
COMMANDS = {
    re.sub(r"\s+", " ", found)
    for found in re.findall(r"`(?:\S*/)?(axiompay [a-z][^`…|]*)`", TEXT)
    if "@" not in found
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_exists(command: str) -> None:
    said = refusal([each for each in shlex.split(command)[1:] if each != "--help"])

    # Some name what they are about, which the text leaves out.
    assert said is None or "the following arguments are required" in said


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 10
    assert "axiompay payments list --status failed" in COMMANDS


def test_every_variable_is_a_setting() -> None:
    assert no_settings(re.findall(r"AXIOM_[A-Z_]+", TEXT)) == []


def test_every_unit_and_service_is_one_that_is_shipped() -> None:
    units = {path.name.partition(".")[0] for path in (DEPLOY / "systemd").iterdir()}
    named = set(re.findall(r"\b(axiompay-(?:api|indexer|migrate)@?)", TEXT))
    composed = set(re.findall(r"`((?:api|indexer)-\d)`", TEXT))

    assert named == units
    assert composed | {"indexer-1"} <= set(products())
    for command in re.findall(
        r"docker compose (?:run --rm|up --detach --no-deps --wait) ([a-z0-9-]+)", TEXT
    ):
        assert command in services()


def test_every_secret_that_is_to_be_made_is_one_that_is_mounted() -> None:
    made = set(re.findall(r"> ?([a-z_]+)$", TEXT, re.MULTILINE)) - {"signed"}
    made |= set(re.findall(r"-pubout -out ([a-z_]+)$", TEXT, re.MULTILINE))
    mounted = {name for each in services().values() for name in each.get("secrets", [])}

    assert made == mounted


def test_the_numbers_are_those_of_the_code() -> None:
    assert "At most eight processes write" in TEXT
    assert WRITERS_MAX == 8
    assert "within five seconds and exits" in TEXT
    assert daemon.SHUTDOWN_LIMIT_S == 5.0
    assert "takes the API longer than four seconds" in " ".join(TEXT.split())
    assert SHUTDOWN_TIMEOUT_S == 4
