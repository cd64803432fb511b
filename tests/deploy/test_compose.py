"""deploy/compose.yml is in order, as far as that can be told without Docker."""

import re
from pathlib import Path
from typing import Any

import pytest

from indexer import daemon
from indexer.redact import keys_in
from indexer.settings import Settings, may_hold_secret
from tests.deploy.commands import has_registry, no_settings, refusal
from tests.deploy.composition import (
    DEPLOY,
    ROOT,
    SAID,
    composition,
    in_order,
    products,
    services,
    strings,
)


SERVICES = services()
PRODUCTS = products()
SECRETS = "/run/secrets/"


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None, text
    return int(found[1])


def test_everything_that_more_than_one_machine_needs_is_there() -> None:
    assert set(SERVICES) == {
        "sqld-primary",
        "sqld-replica",
        "redis",
        "migrate",
        "indexer-1",
        "indexer-2",
        "api-1",
        "api-2",
    }
    assert set(in_order(SERVICES)) == set(SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_bounded_and_may_do_no_more_than_it_has_to(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 1024
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert seconds(service["stop_grace_period"]) > 0
    assert "privileged" not in service
    assert service.get("user", "10001:10001").split(":")[0] not in {"", "0", "root"}
    assert not has_registry(service["image"])
    assert ":" in service["image"] or "build" in service, "an image of others names its version"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_a_service_names_is_declared(name: str) -> None:
    whole, service = composition(), SERVICES[name]
    mounted = [each.partition(":")[0] for each in service.get("volumes", [])]

    assert set(service["networks"]) <= set(whole["networks"])
    assert set(mounted) <= set(whole["volumes"])
    assert set(service.get("secrets", [])) <= set(whole["secrets"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    named = re.findall(rf"{SECRETS}(\w+)", " ".join(strings(service)))
    assert set(named) == set(service.get("secrets", [])), "each is mounted, and read"


def test_whatever_is_declared_is_used() -> None:
    whole = composition()
    for kind in ("networks", "secrets"):
        used = {name for each in SERVICES.values() for name in each.get(kind, [])}
        assert used == set(whole[kind])
    mounted = [each for service in SERVICES.values() for each in service.get("volumes", [])]
    assert sorted(each.partition(":")[0] for each in mounted) == sorted(whole["volumes"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_who_is_waited_for_can_be_waited_for(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        if wanted["condition"] == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"]
        else:
            assert wanted["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_the_product_is_run_with_commands_and_settings_that_exist(name: str) -> None:
    service = PRODUCTS[name]

    assert refusal(service["command"]) is None
    assert no_settings(service["environment"]) == []
    if name == "migrate":
        assert service["healthcheck"] == {"disable": True}
        return
    kind, program, *arguments = service["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "axiompay")
    assert refusal(arguments) is None
    assert arguments[-1] == name.partition("-")[0], "it asks the process that runs there"


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_no_secret_stands_in_the_file(name: str) -> None:
    held = {
        variable: value
        for variable, value in PRODUCTS[name]["environment"].items()
        if may_hold_secret(variable) and list(keys_in(value))
    }

    assert held == {}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_the_settings_are_accepted(name: str, tmp_path: Path) -> None:
    for secret, text in {
        "database_token": "eyJ0.eyJh.c2ln",
        "rpc_urls": "https://one.example/?api-key=k3yOfOne,https://two.example",
        "webhook_signing_keys": "0123456789abcdef0123456789ABCDEF",
    }.items():
        (tmp_path / secret).write_text(text)
    environment = {
        variable: str(value).replace(SECRETS, f"{tmp_path}/")
        for variable, value in PRODUCTS[name]["environment"].items()
    }

    settings = Settings.from_env(environment)

    assert settings.public_url == SAID["AXIOM_PUBLIC_URL"]
    assert settings.database_replica_urls == ("http://sqld-replica:8080",)
    assert len(settings.rpc_urls) == 2


def test_a_process_has_the_time_to_end_what_is_under_way() -> None:
    for service in PRODUCTS.values():
        assert seconds(service["stop_grace_period"]) > daemon.SHUTDOWN_LIMIT_S * 2


def test_only_the_apis_are_reached_from_outside_and_only_from_this_machine() -> None:
    networks: dict[str, Any] = composition()["networks"]
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}

    assert published == {"api-1": ["127.0.0.1:8001:8000"], "api-2": ["127.0.0.1:8002:8000"]}
    assert networks["data"]["internal"] is True
    for name in ("sqld-primary", "sqld-replica", "redis"):
        assert SERVICES[name]["networks"] == ["data"]


def test_who_comes_through_a_published_port_is_told_apart_by_what_the_proxy_says() -> None:
    [config] = composition()["networks"]["outside"]["ipam"]["config"]
    for service in PRODUCTS.values():
        assert service["environment"]["AXIOM_TRUSTED_PROXIES"] == f"{config['gateway']}/32"


def test_the_image_that_is_built_is_there_and_secrets_are_kept_out_of_it() -> None:
    whole = composition()
    for service in PRODUCTS.values():
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for secret in whole["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "deploy/secrets/" in ignored
