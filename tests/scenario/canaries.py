"""A process in which every secret is a canary, and everything that it lets out.

async with Cage.over(tmp_path) as cage:
    async with cage.process("up") as up: ...     # its log is kept at debug level
    await cage.ask("GET", "/metrics")            # what is answered is kept
    cage.assert_nothing_sang()
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
from aiohttp import web

from store import keys as api_keys, migrate
from store.database import open_database
from tests.chain import key
from tests.ports import free_port
from tests.rates import UNLIMITED
from tests.servers import fake_paymob
from tests.servers.fake_amadeus import FakeAmadeus
from tests.servers.fake_helius import FakeHelius
from tests.servers.fake_paymob import FakePaymob
from tests.servers.fake_rpc import FakeNode
from tests.servers.faults import Call, Fault
from tests.servers.receiver import Receiver


ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 30.0

RPC_IN_PATH, RPC_IN_QUERY, RPC_USER = "canary4rpc-path", "canary4rpc-query", "canary4rpc-user"
WS_KEY = "canary4ws-query"
HELIUS_OLD, HELIUS_NEW = "canary4helius-echo-old", "Bearer/canary4helius-echo-new"
QUICKNODE_OLD, QUICKNODE_NEW = "canary4quicknode-old", "canary4quicknode-new"
HELIUS_API_KEY = "canary4helius-api-key"
REDIS_PASSWORD = "canary4redis-password"
PARTNER_ID, PARTNER_SECRET = "canary4partner-id", "canary4partner-secret"
SIGNING_KEY = "canary4signing-key-of-32-characters-and-more"
PAN = "5123456789012346"
GROUPED_PAN = "4111 1111 1111 1111"
CUSTOMER = {
    "first_name": "Canaryfirst",
    "last_name": "Canarylast",
    "email": "canary4customer@example.com",
    "phone_number": "+201009998887",
}
#: What strangers call with: others' secrets, maybe, with a mistake in them.
STRANGE_KEY = "axk_canary4stranger"
STRANGE = "canary4stranger-of-all-doors"

PROFILE: Final = """
[partner]
base_url = "PARTNER"
private_networks = ["127.0.0.0/8"]
auth = { kind = "oauth2", token_path = "/v1/security/oauth2/token" }
[partner.routes.location]
path = "/v1/reference-data/locations/{id}"
fields.id = { where = "path" }
response = ["data"]
"""

#: Of these not even a part may be seen anywhere.
CONFIGURED: Final = (
    RPC_IN_PATH, RPC_IN_QUERY, RPC_USER, WS_KEY, HELIUS_OLD, HELIUS_NEW, QUICKNODE_OLD,
    QUICKNODE_NEW, HELIUS_API_KEY, SIGNING_KEY, fake_paymob.SECRET_KEY, fake_paymob.API_KEY,
    fake_paymob.HMAC_SECRET, REDIS_PASSWORD, PARTNER_ID, PARTNER_SECRET,
)  # fmt: skip


@dataclass
class Cage:
    """The deployment, those it talks to, and what it said.

    Attributes:
        secrets: canaries that came to be while it ran.
        said: everything that came out, by where it came from.
        private: what may be in the database and in answers to whom it belongs, and nowhere else.
    """

    folder: Path
    node: FakeNode
    helius: FakeHelius
    paymob: FakePaymob
    partner: FakeAmadeus
    shop: Receiver
    session: aiohttp.ClientSession
    environment: Mapping[str, str]
    merchant: Mapping[str, str]
    secrets: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    said: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def over(cls, folder: Path) -> AsyncIterator[Self]:
        """A migrated database with a key of a merchant; nothing runs yet."""
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            node, helius = await enter(FakeNode()), await enter(FakeHelius(HELIUS_API_KEY))
            paymob, shop = await enter(FakePaymob()), await enter(Receiver())
            partner = await enter(FakeAmadeus())
            partner.client_id, partner.client_secret = PARTNER_ID, PARTNER_SECRET
            profile = folder / "partner.toml"
            profile.write_text(PROFILE.replace("PARTNER", partner.url))
            helius.add("hook", [key("nobody")], authHeader=HELIUS_OLD)
            port = free_port()
            environment = {
                **paymob.environment(),
                "AXIOM_DATABASE_URL": f"sqlite:///{folder}/axiom.db",
                "AXIOM_RPC_URLS": f"http://{RPC_USER}@127.0.0.1:{node.port}/v2/{RPC_IN_PATH}"
                f"?api-key={RPC_IN_QUERY}",
                "AXIOM_WS_URLS": f"{node.ws_url}/?api-key={WS_KEY}",
                "AXIOM_RPC_RATE": "0",
                "AXIOM_WATCH_KEY": key("watch key"),
                "AXIOM_RECIPIENT": key("shop"),
                "AXIOM_HELIUS_WEBHOOK_SECRETS": f"{HELIUS_OLD},{HELIUS_NEW}",
                "AXIOM_QUICKNODE_WEBHOOK_SECRETS": f"{QUICKNODE_OLD},{QUICKNODE_NEW}",
                "AXIOM_HELIUS_API_KEY": HELIUS_API_KEY,
                "AXIOM_HELIUS_WEBHOOK_ID": "hook",
                "AXIOM_HELIUS_API_URL": helius.url,
                "AXIOM_WEBHOOK_SIGNING_KEYS": SIGNING_KEY,
                "AXIOM_WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
                "AXIOM_REDIS_URL": f"redis://:{REDIS_PASSWORD}@127.0.0.1:{free_port()}/0",
                "AXIOM_UPSTREAMS": str(profile),
                "AXIOM_UPSTREAM_PARTNER_CLIENT_ID": PARTNER_ID,
                "AXIOM_UPSTREAM_PARTNER_CLIENT_SECRET": PARTNER_SECRET,
                "AXIOM_LOG_LEVEL": "debug",
                "AXIOM_LOG_FORMAT": "json",
                "AXIOM_PORT": str(port),
                "AXIOM_RATE_LIMIT": str(UNLIMITED),
            }
            api_key = api_keys.new_key(b"canary".ljust(32, b"."))
            database = await open_database(environment["AXIOM_DATABASE_URL"])
            try:
                await migrate.migrate(database)
                scopes = frozenset({"payments:read", "payments:write", "webhooks", "ops", "proxy"})
                await api_keys.create(
                    database, "merchant", scopes, key=api_key, id="key_1", now=1_790_000_000
                )
            finally:
                await database.close()
            session = await enter(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))
            merchant = {"Authorization": f"Bearer {api_key}"}
            cage = cls(folder, node, helius, paymob, partner, shop, session, environment, merchant)
            cage.secrets |= {*CONFIGURED, api_key, STRANGE_KEY, STRANGE, PAN, GROUPED_PAN}
            cage.secrets |= set(CUSTOMER.values())
            yield cage

    # ------------------------------------------------------------------------------ processes

    @asynccontextmanager
    async def process(
        self, *arguments: str, **changes: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """`axiompay …`; ended in order with the block. Its log and its answer are kept."""
        name = f"{'-'.join(arguments)}-{len(self.said)}"
        log, answer = self.folder / f"{name}.log", self.folder / f"{name}.out"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **changes}
        with log.open("wb") as errors, answer.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "indexer", *arguments,
                cwd=self.folder, env=environment, stdout=output, stderr=errors,
            )  # fmt: skip
            try:
                yield child
            finally:
                if child.returncode is None:
                    child.send_signal(signal.SIGTERM)
                async with asyncio.timeout(PATIENCE_S):
                    await child.wait()
                self.said[f"log of {name}"] = log.read_bytes()
                self.said[f"answer of {name}"] = answer.read_bytes()

    async def run(self, *arguments: str, **changes: str) -> int:
        """A command to its end; returns its exit code."""
        async with self.process(*arguments, **changes) as child, asyncio.timeout(PATIENCE_S):
            return await child.wait()

    async def until_serving(self, child: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while child.returncode is None:
                try:
                    async with self.session.get("/livez") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        raise AssertionError("it ended before it served")

    # -------------------------------------------------------------------------------- answers

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        hides: tuple[str, ...] = (),
        **sent: Any,
    ) -> tuple[int, Any]:
        """Status and JSON of an answer, which is kept, but for what it is there to tell.

        Args:
            method: of HTTP.
            path: with its query.
            headers: the merchant's key unless given.
            hides: members whose value this answer, and no other, may tell.
            sent: `json` or `data`.
        """
        given = self.merchant if headers is None else headers
        async with self.session.request(method, path, headers=given, **sent) as response:
            body, status = await response.read(), response.status
            head = repr(response.headers).encode()
            answer: Any = await response.json(content_type=None) if body[:1] in (b"{", b"[") else {}
        for name in hides:
            self.secrets.add(answer[name])
            body = body.replace(answer[name].encode(), b"")
        self.said[f"{len(self.said)}: {method} {path[:40]} {status}"] = head + body
        return status, answer

    # --------------------------------------------------------------------------------- verdict

    def keep_database(self, when: str) -> None:
        """The bytes of every file of the database as they are now."""
        for path in self.folder.glob("axiom.db*"):
            self.said[f"{path.name} {when}"] = path.read_bytes()

    @property
    def log(self) -> str:
        return b"\n".join(v for k, v in self.said.items() if k.startswith("log")).decode()

    def songs(self) -> Iterator[str]:
        """Which canary was heard, and where."""
        for place, content in self.said.items():
            hidden = self.secrets
            if place.startswith("log") or "/metrics" in place or "openapi" in place:
                hidden = hidden | self.private
            for secret in hidden:
                if any(form.encode() in content for form in {secret, quote(secret, safe="")}):
                    at = content.find(secret.encode())
                    yield f"{secret} in {place}: {content[max(0, at - 200) : at + 100]!r}"


# ------------------------------------------------------------------------------------- faults


def echoes(status: int) -> Fault:
    """Says what it was asked, headers and all, as a helpful server does."""

    async def fault(call: Call) -> web.StreamResponse:
        assert call.request is not None
        return await echo(call.request, status)

    return fault


async def echo(request: web.BaseRequest, status: int) -> web.StreamResponse:
    """The same for one request."""
    body = await request.text()
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    asked = f"{request.method} {request.url} {request.raw_path}"
    texts = {"detail": asked, "message": f"{lines} {body}", "error": body, "body": body}
    return web.json_response({**texts, "headers": lines}, status=status)
