"""Secrets never print: not in logs, the database, answers, figures or the API's description.

Every secret of a deployment is a canary. The whole product runs as a process of its own, at debug
level, against servers that repeat all that they are sent; it is asked everything, by those who may
and by those who may not, and whatever can fail does. Then everything that came out is searched.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.api.knocking import quicknode_headers
from tests.chain import key
from tests.scenario import canaries
from tests.scenario.canaries import PATIENCE_S, Cage, echo, echoes
from tests.servers import fake_amadeus, fake_helius
from tests.servers.fake_paymob import FakeCallback
from tests.servers.fake_rpc import FakeNode
from tests.servers.faults import hang_up, http, rpc_error
from tests.servers.receiver import Answer, hangs, hangs_up


ENDPOINTS = "/api/webhooks/endpoints"
SALE = {"amount": "50", "token": "EGP", "provider": "paymob", "customer": canaries.CUSTOMER}


@pytest.mark.timeout(300)  # a receiver that says nothing is waited for, by real seconds
async def test_no_canary_is_ever_heard(tmp_path: Path) -> None:
    async with Cage.over(tmp_path) as cage:
        spoil_the_chain(cage)
        cage.helius.fail(partial(echo, status=400), times=2)
        async with cage.process("up") as up:
            await cage.until_serving(up)
            endpoint = await merchants_register(cage)
            await customers_pay_by_card(cage)
            await providers_tell(cage)
            await strangers_knock(cage)
            await a_frontend_asks_a_partner(cage)
            await receivers_answer_in_every_way(cage, endpoint)
            await asyncio.gather(everything_has_ended(cage, endpoint), commands_fail(cage))
            await everything_is_shown(cage, endpoint)
            cage.keep_database("while it runs")
        assert up.returncode == 0, cage.log[-3_000:]
        await starts_fail(cage)
        cage.keep_database("at the end")

        assert_everybody_was_asked(cage)
        assert_the_log_is_complete(cage)
        assert list(cage.songs()) == []


# ------------------------------------------------------------------------------- what happens


def spoil_the_chain(cage: Cage) -> None:
    for fault in (echoes(500), echoes(403), echoes(400), http(429), hang_up()):
        for method in ("getSignaturesForAddress", "getSlot", "getGenesisHash", "getAccountInfo"):
            cage.node.fail(method, fault)
    urls = f"{cage.environment['AXIOM_RPC_URLS']} {canaries.RPC_IN_PATH}"
    cage.node.fail("getSignaturesForAddress", rpc_error(-32603, f"cannot serve {urls}"))


async def merchants_register(cage: Cage) -> str:
    """A receiver, which does not answer the first that it is told; returns its id."""
    cage.private |= {"canary-path", "canary-query"}
    cage.shop.once(hangs)
    status, made = await cage.ask("POST", ENDPOINTS, json={"url": cage.shop.url}, hides=("secret",))
    assert status == 201
    path = f"{ENDPOINTS}/{made['id']}"
    once = {**cage.merchant, "Idempotency-Key": "once"}
    for _ in range(2):
        status, _ = await cage.ask(
            "POST", f"{path}/rotate", json={}, headers=once, hides=("secret",)
        )
        assert status == 200
    userinfo = cage.shop.url.replace("://", f"://{canaries.STRANGE}@")
    for url in (userinfo, f"https://169.254.169.254/{canaries.STRANGE}", "ftp://x"):
        status, _ = await cage.ask("POST", ENDPOINTS, json={"url": url})
        assert status == 422
    assert (await cage.ask("POST", f"{path}/test"))[0] == 202
    return str(made["id"])


async def customers_pay_by_card(cage: Cage) -> None:
    paymob = cage.paymob
    for fault in (echoes(400), echoes(401), echoes(500), hang_up(), http(503)):
        paymob.fail("intention", fault)
    for name, fault in (
        ("token", echoes(403)),
        ("token", echoes(500)),
        ("inquiry", echoes(400)),
        ("inquiry", hang_up()),
        ("transaction", echoes(401)),
        ("transaction", echoes(500)),
    ):
        paymob.fail(name, fault)
    payment = await sell(cage, SALE)
    [client_secret] = parse_qs(urlsplit(payment["checkout_url"]).query)["clientSecret"]
    cage.private.add(client_secret)
    reference = paymob.order_at(payment["checkout_url"]).reference
    source = {"pan": canaries.PAN, "type": "card", "sub_type": "MasterCard"}
    data = {"card_num": canaries.GROUPED_PAN, "message": f"card {canaries.PAN} is good"}
    await paymob.begin(reference)
    charge = await paymob.pay(reference, source_data=source, data=data)
    await paymob.refund(charge, 1_000)
    await paymob.save_card(reference)
    await cage.ask("GET", f"/api/webhooks/paymob?{paymob.redirect_query(charge)}", headers={})
    assert set(paymob.answers) == {200}
    [saved] = [json.loads(each.body)["obj"] for each in paymob.sent if b'"TOKEN"' in each.body]
    cage.secrets.add(saved["token"])
    paymob.signing_secret = canaries.STRANGE
    await paymob.refund(charge)
    await paymob.send(FakeCallback(paymob.sent[-1].url, b'{"type": "TRANSACTION", "obj": {'))
    assert paymob.answers[-2:] == [401, 400]


async def sell(cage: Cage, sale: dict[str, Any]) -> dict[str, Any]:
    """A payment, once it can be made."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            headers = {**cage.merchant, "Idempotency-Key": f"sale-{len(cage.said)}"}
            status, payment = await cage.ask("POST", "/api/pay", json=sale, headers=headers)
            if status == 201:
                return dict(payment)
            await asyncio.sleep(0.05)


async def providers_tell(cage: Cage) -> None:
    body = json.dumps([{"signature": "5" * 88, "slot": 1, "transaction": {}}]).encode()
    good = [
        ("helius", {"Authorization": canaries.HELIUS_OLD}),
        ("helius", {"Authorization": canaries.HELIUS_NEW}),
    ]
    for nonce, secret in (("1", canaries.QUICKNODE_OLD), ("2", canaries.QUICKNODE_NEW)):
        signed = quicknode_headers(body, nonce=nonce, timestamp=int(time.time()), secret=secret)
        cage.secrets.add(signed["x-qn-signature"])
        good.append(("quicknode", signed))
    for source, headers in good:
        given = {"Content-Type": "application/json", **headers}
        path = f"/api/webhooks/{source}"
        status, _ = await cage.ask("POST", path, data=body, headers=given)
        assert status == 200
        status, _ = await cage.ask("POST", path, data=b'{"x": [', headers=given)
        assert status in {400, 401, 422}


async def strangers_knock(cage: Cage) -> None:
    strange = canaries.STRANGE
    for headers in (
        {"Authorization": strange},
        {"Authorization": f"Bearer {canaries.STRANGE_KEY}"},
        {"Authorization": f"Bearer {cage.merchant['Authorization'][7:-1]}x"},
        {"x-qn-signature": strange, "x-qn-nonce": strange, "x-qn-timestamp": strange},
        {"Cookie": strange, "X-API-Key": strange},
    ):
        for method, path in (
            ("POST", "/api/webhooks/helius"),
            ("POST", "/api/webhooks/quicknode"),
            ("POST", f"/api/webhooks/paymob?hmac={strange}"),
            ("GET", "/api/pay"),
            ("POST", "/api/pay"),
            ("GET", ENDPOINTS),
        ):
            given = {"Content-Type": "application/json", **headers}
            status, _ = await cage.ask(method, path, data=strange.encode(), headers=given)
            assert 400 <= status < 500
    for path in (f"/{strange}", f"/api/pay/{strange}?api-key={strange}", f"/livez?{strange}"):
        await cage.ask("GET", path)
    for raw in (b"GET /%b HTTP/9\r\n\r\n", b"%b\r\n\r\n", b"GET / HTTP/1.1\r\nX %b\r\n\r\n"):
        await say(cage, raw % strange.encode())


async def say(cage: Cage, raw: bytes) -> None:
    """Sends bytes that may be no request; what is answered is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(cage.environment["AXIOM_PORT"]))
    writer.write(raw)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        cage.said[f"answer {len(cage.said)} to no request"] = await reader.read()
    writer.close()


async def a_frontend_asks_a_partner(cage: Cage) -> None:
    """Who answers well, and who repeats in every way what he was sent."""
    path = "/api/proxy/partner/location?id="
    assert (await cage.ask("GET", f"{path}CAI"))[0] == 200
    for status in (400, 401, 404, 429, 500):
        said = f"{canaries.PARTNER_ID} {canaries.PARTNER_SECRET} {cage.partner.tokens[-1]}"
        repeats = fake_amadeus.problem(status, said, said, X_Said=said)
        cage.partner.fail("location", repeats, times=3)
        assert (await cage.ask("GET", f"{path}N{status}"))[0] >= 400
        cage.partner.heal()
    cage.secrets |= set(cage.partner.tokens)


async def receivers_answer_in_every_way(cage: Cage, endpoint: str) -> None:
    shop, count = cage.shop, len(cage.shop.posts)
    location = Answer(status=302, headers={"Location": f"http://169.254.169.254/{shop.url}"})
    repeats: Any = partial(echo, status=500)
    shop.once(hangs_up, Answer(status=500), location, lambda request, _: repeats(request))
    for _ in range(5):
        assert (await cage.ask("POST", f"{ENDPOINTS}/{endpoint}/test"))[0] == 202
    await until(lambda: len(shop.posts) >= count + 5)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.05)


async def everything_has_ended(cage: Cage, endpoint: str) -> None:
    """Nothing of Paymob waits, and the receiver that did not answer is given up for now."""
    events, sent = "/api/webhooks/events?source=paymob&limit=100", f"{ENDPOINTS}/{endpoint}"
    async with asyncio.timeout(2 * PATIENCE_S):
        while True:
            _, page = await cage.ask("GET", events)
            _, shown = await cage.ask("GET", f"{sent}/deliveries?limit=100")
            details = [
                (await cage.ask("GET", f"/api/webhooks/deliveries/{each['id']}"))[1]
                for each in shown["data"]
                if each["attempts"]
            ]
            waits = any(each["verdict"] == "waiting" for each in page["data"])
            if not waits and "no answer within" in json.dumps(details):
                return
            await asyncio.sleep(0.5)


async def everything_is_shown(cage: Cage, endpoint: str) -> None:
    _, events = await cage.ask("GET", "/api/webhooks/events?limit=100")
    assert {each["source"] for each in events["data"]} == {"helius", "quicknode", "paymob"}
    assert {"done", "unauthenticated"} <= {each["verdict"] for each in events["data"]}
    for each in events["data"]:
        await cage.ask("GET", f"/api/webhooks/events/{each['id']}")
    _, sent = await cage.ask("GET", f"{ENDPOINTS}/{endpoint}/deliveries?limit=100")
    for each in sent["data"]:
        await cage.ask("GET", f"/api/webhooks/deliveries/{each['id']}")
    await cage.ask("GET", ENDPOINTS)
    await cage.ask("GET", f"{ENDPOINTS}/{endpoint}")
    await sell(cage, {"amount": "1", "token": "SOL", "order_id": "1"})
    _, payments = await cage.ask("GET", "/api/pay?limit=100")
    for each in payments["data"]:
        await cage.ask("GET", f"/api/pay/{each['id']}")
        await cage.ask("GET", f"/api/pay/{each['id']}", headers={})
    for path in ("/metrics", "/readyz", "/api/openapi.json"):
        await cage.ask("GET", path, headers={})


async def commands_fail(cage: Cage) -> None:
    """What is told on a terminal, by commands that cannot do what they are asked."""
    async with FakeNode() as node:  # the daemon, which runs, must not rest because of it
        node.fail("getGenesisHash", echoes(500), times=None)
        urls = {
            name: cage.environment[name].replace(str(cage.node.port), str(node.port))
            for name in ("AXIOM_RPC_URLS", "AXIOM_WS_URLS")
        }
        await cage.run("doctor", **urls)
    cage.helius.fail(partial(echo, status=403))
    assert await cage.run("webhooks", "sync") == 1
    cage.helius.fail(fake_helius.hangs_up)
    assert await cage.run("webhooks", "sync", "--dry-run") == 1
    await cage.run("webhooks", "list", "--json")
    await cage.run("payments", "list", "--json")


async def starts_fail(cage: Cage) -> None:
    """What is said of settings that are wrong, without the settings."""
    bad = {
        "AXIOM_RPC_URLS": f"http://{canaries.RPC_USER}@host:x/{canaries.RPC_IN_PATH}",
        "AXIOM_WS_URLS": f"ws://{canaries.WS_KEY}'",
        "AXIOM_HELIUS_WEBHOOK_SECRETS": f"{canaries.HELIUS_OLD},{canaries.HELIUS_OLD}",
        "AXIOM_QUICKNODE_WEBHOOK_SECRETS": f"{canaries.QUICKNODE_OLD} x",
        "AXIOM_WEBHOOK_SIGNING_KEYS": canaries.STRANGE,
        "AXIOM_WEBHOOK_PRIVATE_NETWORKS": "10.0.0.0/99",
    }
    assert await cage.run("up", **bad) == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert await cage.run("up", AXIOM_PORT=str(taken.getsockname()[1])) in {1, 2}


# ------------------------------------------------------------------- that it proves something


def assert_everybody_was_asked(cage: Cage) -> None:
    """A canary that was never let out could not be heard."""
    requests = [call.request for call in cage.node.calls if call.request is not None]
    assert any(canaries.RPC_IN_PATH in str(request.rel_url) for request in requests)
    assert any(canaries.RPC_IN_QUERY in str(request.rel_url) for request in requests)
    assert cage.partner.count("token") >= 1
    assert any(canaries.HELIUS_API_KEY in call.query for call in cage.helius.calls)
    names = {call.method for call in cage.paymob.calls}
    assert names == {"intention", "token", "inquiry", "transaction"}
    cage.secrets |= cage.paymob._tokens
    cage.secrets |= {parse_qs(urlsplit(each.url).query)["hmac"][0] for each in cage.paymob.sent}
    assert any(canaries.PAN.encode() in each.body for each in cage.paymob.sent)
    assert all(word in cage.shop.url for word in ("canary-path", "canary-query"))


def assert_the_log_is_complete(cage: Cage) -> None:
    """What was to go wrong did, and a line was written about it at every level."""
    lines = [json.loads(line) for line in cage.log.splitlines() if line.startswith('{"timestamp"')]
    names = {line["event"] for line in lines}
    assert {"webhook.received", "webhook.not_delivered", "webhook.delivered"} <= names
    assert "endpoint.down" in names
    assert {line["level"] for line in lines} >= {"info", "warning"}
    assert key("shop") in cage.said["axiom.db at the end"].decode("latin-1")
