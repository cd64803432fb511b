"""Secrets are changed for others, one step at a time: what was valid before a step is after it."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.scenario.deployment import PATIENCE_S
from tests.scenario.serving import AXIOMPAY, axiompay, serving


FIRST, SECOND = "what-helius-sends-1", "what-helius-sends-2"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of processes in a folder with an encrypted file: nothing is set but what opens it."""
    monkeypatch.chdir(tmp_path)
    found = {name: text for name, text in os.environ.items() if not name.startswith("AXIOM_")}
    found |= {"AXIOM_AGE_IDENTITY_FILE": "identity", "XDG_RUNTIME_DIR": str(tmp_path), "VISUAL": ""}
    recipient = axiompay(found, "secrets", "keygen", "-o", "identity")
    plain = tmp_path / ".env"
    plain.write_text(f"AXIOM_RPC_URLS=http://127.0.0.1:9\nAXIOM_HELIUS_WEBHOOK_SECRETS={FIRST}\n")
    axiompay(found, "secrets", "encrypt", "--to", recipient)
    plain.unlink()
    axiompay(found, "migrate")
    return found


def edit(environment: Mapping[str, str], editor: str, *options: str) -> None:
    axiompay({**environment, "EDITOR": editor}, "secrets", "edit", *options)


async def answers(environment: Mapping[str, str]) -> list[int]:
    """What a process that starts now says to a webhook with the first secret, and the second."""
    found = []
    async with serving(environment) as server:
        await server.until_alive()
        for secret in (FIRST, SECOND):
            headers = {"Authorization": secret, "Content-Type": "application/json"}
            path = "/api/webhooks/helius"
            async with server.session.post(path, data=b"[]", headers=headers) as answer:
                found.append(answer.status)
    return found


async def test_a_secret_of_webhooks_is_changed_while_both_are_valid(
    environment: dict[str, str],
) -> None:
    assert await answers(environment) == [200, 401]

    edit(environment, f"sed -i s/{FIRST}/{FIRST},{SECOND}/")
    assert await answers(environment) == [200, 200]

    edit(environment, f"sed -i s/{FIRST},//")
    assert await answers(environment) == [401, 200]


async def test_the_identity_is_changed_while_both_open_the_file(
    environment: dict[str, str],
) -> None:
    later = environment | {"AXIOM_AGE_IDENTITY_FILE": "later"}
    recipient = axiompay(later, "secrets", "keygen", "-o", "later")
    here = Path("identity").read_text().split()[3]  # "# public key: age1…"

    edit(environment, "true", "--to", here, "--to", recipient)
    for each in (environment, later):
        assert "encrypted to 2" in axiompay(each, "secrets", "check")

    edit(later, "true", "--to", recipient)
    assert await answers(later) == [200, 401]
    shut_out = subprocess.run(
        [AXIOMPAY, "api"], env=environment, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert shut_out.returncode == 2
    assert b".env.age is encrypted to others" in shut_out.stderr
