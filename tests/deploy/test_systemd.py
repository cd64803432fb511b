"""The units in deploy/systemd start commands that exist, bounded, with no more rights than needed.

`systemd-analyze verify` says more where it is there; nothing here needs it.
"""

import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest

from api.limits import BACKLOG, OPEN_FILES
from indexer import daemon
from indexer.settings import Settings
from tests.deploy.commands import no_settings, refusal
from tests.deploy.composition import DEPLOY


Unit = dict[str, list[str]]

UNITS = {path.name: path for path in sorted((DEPLOY / "systemd").iterdir())}
SERVICES = [name for name in UNITS if name.endswith(".service")]
DAEMONS = ["axiompay-api@.service", "axiompay-indexer@.service"]

SECTIONS = {"Unit", "Service", "Socket", "Install"}

#: What each service is not allowed to do, and what would be weaker than that.
HARDENED = {
    "User": "axiompay",
    "UMask": "0077",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "LoadCredential": "axiom:/etc/axiompay/credentials",
    "EnvironmentFile": "/etc/axiompay/axiompay.env",
    "StateDirectory": "axiompay",
    "WorkingDirectory": "/var/lib/axiompay",
}


def read(path: Path) -> Unit:
    """The values of each key; a section that is none, or a line that is none, fails the test."""
    found: Unit = defaultdict(list)
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if section := re.fullmatch(r"\[(\w+)\]", line):
            assert section[1] in SECTIONS
            continue
        setting = re.fullmatch(r"([A-Z]\w+)=(.*)", line)
        assert setting is not None, line
        found[setting[1]].append(setting[2])
    return found


def test_these_are_the_units() -> None:
    assert list(UNITS) == [
        "axiompay-api@.service",
        "axiompay-api@.socket",
        "axiompay-indexer@.service",
        "axiompay-migrate.service",
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_a_command_that_exists(name: str) -> None:
    unit = read(UNITS[name])
    [line] = unit["ExecStart"]
    program, *arguments = shlex.split(line)
    variables = [each.partition("=")[0] for each in shlex.split(" ".join(unit["Environment"]))]

    assert program == "/opt/axiompay/bin/axiompay"
    assert refusal(arguments) is None
    assert no_settings(variables) == []
    assert arguments[0] == name.removeprefix("axiompay-").partition("@")[0].removesuffix(".service")


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("key", HARDENED)
def test_a_service_may_do_what_it_needs_and_nothing_else(name: str, key: str) -> None:
    assert read(UNITS[name])[key] == [HARDENED[key]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_sees_the_processes_beside_it(name: str) -> None:
    """An indexer looks into /proc whether another one is gone: hidden ones would seem so."""
    unit = read(UNITS[name])

    assert "ProtectProc" not in unit
    assert "ProcSubset" not in unit
    assert "DynamicUser" not in unit


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_is_started_again_whenever_it_ends_and_has_time_to_end(name: str) -> None:
    unit = read(UNITS[name])

    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert int(unit["TimeoutStopSec"][0]) > daemon.SHUTDOWN_LIMIT_S * 2
    assert int(unit["LimitNOFILE"][0]) == OPEN_FILES
    assert unit["MemoryMax"] == ["512M"]
    assert "axiompay-migrate.service" in unit["After"][0]


@pytest.mark.parametrize("name", DAEMONS)
def test_a_restart_migrates_nothing(name: str) -> None:
    """What takes something away from those who still run is for a person to start."""
    unit = read(UNITS[name])

    assert unit["ExecStartPre"] == []
    assert "migrate" not in " ".join([*unit["Requires"], *unit["Wants"]])


def test_the_socket_is_one_that_the_api_takes() -> None:
    socket = read(UNITS["axiompay-api@.socket"])
    service = read(UNITS["axiompay-api@.service"])

    assert socket["ListenStream"] == ["127.0.0.1:%i"]
    assert socket["Accept"] == ["no"]
    assert socket["Backlog"] == [str(BACKLOG)]
    assert service["Requires"] == ["axiompay-api@%i.socket"]
    assert "AXIOM_PORT=%i" in service["Environment"][0]


def test_a_secret_in_the_folder_gets_to_its_setting(tmp_path: Path) -> None:
    """Each file of a folder is named by the credential, `_`, and its own name: systemd.exec(5)."""
    [loaded] = read(UNITS["axiompay-api@.service"])["LoadCredential"]
    prefix, _, _ = loaded.partition(":")
    secrets = {
        "database_token": "eyJ0.eyJh.c2ln",
        "rpc_urls": "https://one.example/?api-key=k3yOfOne",
        "webhook_signing_keys": "0123456789abcdef0123456789ABCDEF",
        "redis_url": "redis://:s3cretOfRedis@redis:6379/0",
    }
    for name, text in secrets.items():
        (tmp_path / f"{prefix}_{name}").write_text(text)

    settings = Settings.from_env(
        {"CREDENTIALS_DIRECTORY": str(tmp_path), "AXIOM_DATABASE_URL": "http://db:8080"}
    )

    assert settings.database_token == secrets["database_token"]
    assert settings.rpc_urls == (secrets["rpc_urls"],)
    assert settings.webhook_signing_keys == (secrets["webhook_signing_keys"],)
    assert settings.redis_url == secrets["redis_url"]
