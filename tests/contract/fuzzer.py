"""The published description against what is served: cases made by `schemathesis`, without chance.

    with served(folder) as api:
        found = examine(api, folder, examples=10)

The API and the fuzzer are two processes beside this one. What the fuzzer must know and the
description cannot say stands in `hooks`.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.api.knocking import HELIUS_SECRETS


ROOT: Final = Path(__file__).resolve().parents[2]
START_TIMEOUT_S: Final = 60.0

#: What no schema can say of a request that keeps to it: whether an address can be paid and an
#: amount is in the token's decimals; whether a time is in the past, and not too long ago; whether
#: every text inside of any JSON is one that can be written.
BEYOND_SCHEMA: Final = (
    "createPayment",
    "redeliverEvents",
    "amadeus.flight-search",
    "amadeus.flight-orders",
)

#: Any call to any partner: whether there is one, and what it takes, stands beside it.
ANY_PARTNER: Final = (
    "getFromPartner",
    "postToPartner",
    "putToPartner",
    "patchAtPartner",
    "deleteAtPartner",
)

#: Where ids are found that lead to something, for the calls that take one.
IDS: Final = {
    "payment": ("getPayment", "getPaymentQr", "streamPayment"),
    "canceled": ("cancelPayment",),
    "receiver": ("rotateSecret", "enableEndpoint", "disableEndpoint"),
    "endpoint": ("getEndpoint", "listDeliveries", "testEndpoint", "redeliverEvents"),
    "delivery": ("getDelivery", "redeliver"),
    "event": ("getWebhookEvent", "retryWebhookEvent"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A running API, and what is known of what it holds.

    Attributes:
        known: `authorization` of a key that may do everything, and ids by what they name.
        log: file with all that it complained of.
    """

    url: str
    known: Mapping[str, str]
    log: Path

    def complaints(self) -> list[dict[str, Any]]:
        """Every warning and error that was logged so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a run of the fuzzer ended.

    Attributes:
        succeeded: everything was as described.
        output: what it said.
        report: the same for programs.
    """

    succeeded: bool
    output: str
    report: Mapping[str, Any]

    @property
    def cases(self) -> int:
        """How many requests were judged."""
        return int(self.report["test_cases"]["generated"])

    def unreached(self) -> list[str]:
        """Operations of which no request succeeded: what they answer then was not looked at."""
        return [
            operation
            for operation, phases in self.report["valid_rates"].items()
            if "{upstream}" not in operation
            and not any(outcome["accepted"] for outcome in phases.values())
        ]

    def failing(self) -> set[str]:
        """The operations that are not as described."""
        return {name for failure in self.report["failures"] for name in failure["operations"]}


@contextmanager
def served(folder: Path, *, lies: bool = False, rate: str = "") -> Iterator[Served]:
    """The API as a process of its own, until the block ends.

    Args:
        folder: of its database and its log.
        lies: its description is wrong in the ways that `served.LIES` lists.
        rate: of each caller, such as `10/10s`; empty: more than anybody asks for.
    """
    log = folder / "served.log"
    options = json.dumps({"lies": lies, "rate": rate})
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.served", folder, options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        try:
            known = _first_line(process, log)
            yield Served(url=known.pop("url"), known=known, log=log)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _first_line(process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
    line = process.stdout.readline() if readable else b""
    assert line, f"the API did not start:\n{log.read_text()}"
    known: dict[str, str] = json.loads(line)
    return known


def examine(
    api: Served,
    folder: Path,
    *,
    examples: int,
    seed: int | None = None,
    only: tuple[str, ...] = (),
    timeout_s: float,
    shown: bool = False,
) -> Found:
    """Sends what the description allows, and what it forbids, and judges each answer.

    Args:
        api: what to examine.
        folder: for the configuration and the report.
        examples: cases of each phase for each operation.
        seed: of other cases; None: the same ones each time.
        only: names of operations; none: all.
        timeout_s: after which it is killed.
        shown: what it says goes to standard output, instead of into `Found.output`.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    config, report = folder / "schemathesis.toml", folder / "report.json"
    config.write_text(_config(api, examples, seed))
    command: list[str | Path] = [sys.executable, "-m", "schemathesis.cli", "--config-file", config]
    command += ["run", f"{api.url}/api/openapi.json", "--url", api.url, "--continue-on-failure"]
    command += ["--report", "json", "--report-json-path", report]
    for name in only:
        command += ["--include-operation-id", name]
    ended = subprocess.run(
        command,
        cwd=folder,  # it keeps files beside where it is started
        env=_environment(api),
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        check=False,
        timeout=timeout_s,
        text=True,
    )
    found = json.loads(report.read_text()) if report.exists() else {}
    return Found(succeeded=ended.returncode == 0, output=ended.stdout or "", report=found)


def _environment(api: Served) -> dict[str, str]:
    key = api.known["authorization"].removeprefix("Bearer ")
    # Sets in another order would be other cases.
    ours = {"CONTRACT_KEY": key, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    return {**os.environ, **ours}


def _config(api: Served, examples: int, seed: int | None) -> str:
    key = api.known["authorization"].removeprefix("Bearer ")
    text = _CONFIG.format(
        examples=examples,
        seed=seed or 0,
        deterministic=json.dumps(seed is None),
        key=json.dumps(key),
        helius=json.dumps(HELIUS_SECRETS[0]),
        beyond=json.dumps(BEYOND_SCHEMA),
        any_partner=json.dumps(ANY_PARTNER),
    )
    for name, operations in IDS.items():
        text += f'[dictionaries.{name}]\nvalues = ["{api.known[name]}"]\n'
        text += f"[[operations]]\ninclude-operation-id = {json.dumps(operations)}\n"
        text += f'parameters."path.id" = {{ dictionary = "{name}", probability = 0.5 }}\n'
    return text


#: Health checks are off: they judge how fast a case is made, which is for a quiet machine. So are
#: warnings about the share of requests that succeed: `Found.unreached` says what matters of it.
_CONFIG: Final = """\
color = false
seed = {seed}
suppress-health-check = ["all"]
hooks = "tests.contract.hooks"
request-timeout = 60
max-stream-events = 1
[generation]
max-examples = {examples}
deterministic = {deterministic}
database = "none"
[cache]
enabled = false
[warnings]
display = ["missing_auth", "missing_deserializer", "unused_openapi_auth", "unsupported_regex",
           "method_not_allowed", "unmatched_filter", "unresolvable_reference", "rate_limited",
           "dictionary_mismatch"]
fail-on = true
[auth.openapi.apiKey]
bearer = {key}
[auth.openapi.heliusSecret]
api_key = {helius}
[auth.openapi.quickNodeSignature]
api_key = "signed in hooks"
[auth.openapi.paymobHmac]
api_key = "signed in hooks"
[[operations]]
include-operation-id = {beyond}
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
[[operations]]
include-operation-id = {any_partner}
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "405", "422"]
# A call that is allowed has a path of its own, which says its own methods.
checks.allow_header_conformance.enabled = false
warnings = false
"""
