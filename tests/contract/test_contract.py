"""Whatever is sent to the API, the answer is one that its description names.

The same as `./run contract`, which goes as deep as wanted.
"""

import json
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from openapi_schema_validator import OAS31Validator, validate as validate_value

from api.calls import Call
from api.limits import STREAM_OVERLOAD_RETRY_MS
from api.rates import Limit
from api.routes import CALLS
from tests.contract.fuzzer import examine, served
from tests.contract.served import LIES
from tests.indexer.partners.calling import shipped


#: Cases of each phase for each operation.
EXAMPLES: Final = 10
TIMEOUT_S: Final = 500.0


@pytest.mark.timeout(TIMEOUT_S + 100)
def test_every_answer_is_as_described(tmp_path: Path) -> None:
    with served(tmp_path) as api:
        found = examine(api, tmp_path, examples=EXAMPLES, timeout_s=TIMEOUT_S)
        complaints = {line["event"] for line in api.complaints()}

    assert found.succeeded, found.output[-20_000:]
    of_partners = shipped("https://partner.example").routes
    # All but the description itself, and each call to a partner by its own path.
    assert found.report["operations"]["tested"] == len(CALLS) - 1 + len(of_partners)
    assert found.cases > len(CALLS) * EXAMPLES
    assert found.unreached() == []
    # That is asyncio, of a client that leaves a stream while it is written to.
    assert complaints <= {"socket.send() raised exception."}


@pytest.mark.timeout(TIMEOUT_S + 100)
def test_a_wrong_description_is_found(tmp_path: Path) -> None:
    with served(tmp_path, lies=True) as api:
        only = tuple(LIES)
        found = examine(api, tmp_path, examples=3, only=only, timeout_s=TIMEOUT_S)

    lied = {f"{call.method} {call.path}" for call in CALLS if call.name in LIES}
    assert not found.succeeded
    assert lied <= found.failing(), found.output[-20_000:]


async def asked(session: aiohttp.ClientSession, call: Call) -> tuple[int, Any, bytes]:
    """Status, headers and body of an answer to the least that may be asked."""
    async with session.request(call.method, call.path.replace("{id}", "none")) as response:
        return response.status, response.headers, await response.read()


async def test_who_asks_too_often_is_told_so_as_described(tmp_path: Path) -> None:
    """Every call that shares the rate refuses, once any of them has used it up."""
    with served(tmp_path, rate="1/1h") as api:
        key = {"Authorization": api.known["authorization"]}
        async with aiohttp.ClientSession(api.url, headers=key) as session:
            async with session.get("/api/openapi.json") as response:
                document = await response.json()
            answers = {call.name: await asked(session, call) for call in CALLS}
            # By now the key has had its one request, in whichever call came first.
            answers |= {call.name: await asked(session, call) for call in CALLS}

    for call in CALLS:
        status, headers, body = answers[call.name]
        described = document["paths"][call.path][call.method.lower()]["responses"]
        if call.limit in {Limit.DEFAULT, Limit.HANDLER}:
            name = described["429"]["$ref"].rpartition("/")[2]
            refusal = document["components"]["responses"][name]
            assert (call.name, status) == (call.name, 429)
            schema = refusal["content"][headers["Content-Type"]]["schema"]
            whole = {**schema, "components": document["components"]}
            validate_value(json.loads(body), whole, cls=OAS31Validator)
            assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(refusal["headers"])
            assert [name for name in refusal["headers"] if name not in headers] == []
            assert 0 < int(headers["Retry-After"]) <= 3_600
        elif call.limit is Limit.STREAM:
            assert (status, headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
            assert int(body.removeprefix(b"retry: ")) >= STREAM_OVERLOAD_RETRY_MS
        else:
            assert status != 429
        assert ("429" in described) == (call.limit not in {Limit.EXEMPT, Limit.STREAM})
