"""What deploy/compose.yml starts works together: its commands run here, without containers."""

import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from solders.keypair import Keypair

from indexer.demo.surfnet.launcher import Surfnet
from tests.deploy.composition import composition, products
from tests.deploy.processes import Processes
from tests.deploy.test_dockerfile import rest_of
from tests.servers.tokens import public_key, token


@pytest.fixture
def processes(surfnet: Surfnet, tmp_path: Path) -> Iterator[Processes]:
    key = Keypair()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "database_public_key").write_text(public_key(key))
    (secrets / "database_token").write_text(token(key))
    (secrets / "rpc_urls").write_text(surfnet.rpc_url)
    (secrets / "webhook_signing_keys").write_text("0123456789abcdef0123456789ABCDEF")
    [image] = rest_of("ENV")
    started = Processes(
        composition()["services"],
        tmp_path,
        image=dict(each.split("=", 1) for each in shlex.split(image) if each.startswith("AXIOM_")),
        more={"AXIOM_WS_URLS": surfnet.ws_url, "AXIOM_RPC_RATE": "0"},
    )
    yield started
    started.kill()


async def test_all_become_healthy_and_share_what_they_know(processes: Processes) -> None:
    await processes.start()
    create = ("axiompay", "keys", "create", "shop", "--scopes", "payments:read,payments:write")
    key = processes.run("api-1", *create)
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "order-1"}
    one, other = (
        f"http://127.0.0.1:{processes.port(name, '8000')}/api/pay" for name in ("api-1", "api-2")
    )
    # As the proxy in front does: the API answers under its public name alone.
    async with aiohttp.ClientSession(headers={**headers, "Host": "pay.example"}) as session:
        async with session.post(one, json={"amount": "1", "token": "SOL"}) as answer:
            assert answer.status == 201, await answer.text()
            made = await answer.json()
        async with session.get(f"{other}/{made['id']}") as answer:
            assert answer.status == 200
            assert await answer.json() == made

    daemons = [name for name, each in products().items() if each["command"] != ["migrate"]]
    for name in daemons:
        processes.signal(name, signal.SIGTERM)
    assert {name: processes.ended(name) for name in daemons} == dict.fromkeys(daemons, 0)
    assert not processes.is_healthy("api-1")
