"""What the fuzzer must know and no description can say: secrets, and what the server gives out.

Loaded by `schemathesis` (see `fuzzer`). A case that is meant to be accepted is changed here so
that it can be: a webhook is signed, a cursor is one that was given out, a payment asks for
something that this deployment sells. What is meant to be refused is left as it is.
"""

import json
import os
from typing import Any, Final
from urllib.parse import parse_qsl

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, HookContext, Response
from solders.pubkey import Pubkey

from tests.api.knocking import (
    HELIUS_SECRETS,
    paymob_hmac,
    quicknode_headers,
    redirect_query,
    transaction,
)


#: The key that every request is sent with: it must never come back.
KEY: Final = os.environ["CONTRACT_KEY"]
#: Descriptions of what a program reads, not of what it is sent: the only ones that may be loose.
READ: Final = {"CallbackBody"}
#: Headers that every answer has, for browsers.
SAFE: Final = {
    "cache-control", "content-security-policy", "cross-origin-opener-policy",
    "cross-origin-resource-policy", "permissions-policy", "referrer-policy",
    "strict-transport-security", "x-content-type-options",
}  # fmt: skip
#: Those that any answer may have, for whoever carries it.
ANY: Final = {
    "connection", "content-length", "content-type", "date", "server", "transfer-encoding", "vary",
    "x-accel-buffering",
}  # fmt: skip
#: Where each list left off last, by its operation.
CURSORS: Final[dict[str, str]] = {}
#: Idempotency keys that were used: with another body, each is refused.
KEYS: Final[set[str | None]] = set()

schemathesis.openapi.format(
    "solana-key", st.binary(min_size=32, max_size=32).map(lambda raw: str(Pubkey(raw)))
)


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Has no member of an object answered but those that are described."""
    for name, schema in raw_schema["components"]["schemas"].items():
        if "properties" in schema and name not in READ:
            schema.setdefault("additionalProperties", False)


@schemathesis.hook
def filter_headers(context: HookContext, headers: dict[str, Any]) -> bool:
    """How a message is framed is below the API: 501, which is tested over raw sockets."""
    return "transfer-encoding" not in {name.lower() for name in headers or ()}


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Makes a case that is meant to be accepted one that can be."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    match case.operation.definition.raw.get("operationId"):
        case "receiveFromHelius":
            case.headers["Authorization"] = HELIUS_SECRETS[0]
        case "receiveFromQuickNode":
            case.body = case.body if isinstance(case.body, (list, dict)) else []
            raw = json.dumps(case.body).encode()
            case.headers.update(quicknode_headers(raw, nonce=case.id))
        case "receiveFromPaymob":
            case.body = transaction()
            case.query["hmac"] = paymob_hmac(case.body)
        case "returnFromPaymob":
            case.query = dict(parse_qsl(redirect_query(transaction())))
        case "redeliverEvents" if isinstance(case.body, dict):
            case.body = case.body | {"since": "2026-11-22T19:59:59Z"}
        case "createPayment" if isinstance(case.body, dict):
            case.body = payable(case.body)
        case _:
            pass
    key = case.headers.get("Idempotency-Key")
    if key is not None and (key in KEYS or key != key.strip('"')):
        case.headers["Idempotency-Key"] = key = f"{key[:200].strip(chr(34))}{len(KEYS)}"
    KEYS.add(key)
    if "cursor" in case.query:
        known = CURSORS.get(case.operation.label)
        case.query = {**case.query, "cursor": known} if known else without(case.query, "cursor")


def payable(body: dict[str, Any]) -> dict[str, Any]:
    """The same payment in something that this deployment takes, and with what goes with that."""
    if body.get("provider") == "paymob":
        body = without(body, "recipient", "memo", "reference") | {"token": "EGP"}
        customer = body.get("customer")
        if isinstance(customer, dict) and "email" in customer:
            body["customer"] = customer | {"email": "canary@example.com"}
    else:
        body = without(body, "customer") | {"token": "USDC"}
    amount = str(body.get("amount", ""))
    return body | {"amount": amount if is_small(amount) else "12.5"}


def is_small(amount: str) -> bool:
    whole, _, cents = amount.partition(".")
    return len(whole) < 10 and len(cents) < 3 and set(amount) - set("0.") != set()


def without(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Keeps the cursors that are given out."""
    if response.status_code == 200 and b'"next_cursor":"' in response.content:
        CURSORS[case.operation.label] = response.json()["next_cursor"]


@schemathesis.check
def headers_are_described(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """No header comes that is not described, and those that every answer has are there."""
    missing = SAFE - set(response.headers)
    assert not missing, f"missing: {', '.join(sorted(missing))}"
    described = case.operation.responses.find_by_status_code(response.status_code)
    if described is None:
        return  # which is a failure of its own
    named = {name.lower() for name, _ in described.headers.items()}
    unknown = set(response.headers) - named - SAFE - ANY
    assert not unknown, f"not described for {response.status_code}: {', '.join(sorted(unknown))}"


@schemathesis.check
def a_problem_says_its_status(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Every status from 400 up is a problem, and repeats the status that it came with."""
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        assert response.json()["status"] == response.status_code


@schemathesis.check
def the_key_stays_secret(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The caller's own key is in no answer, not even in one that repeats what is wrong."""
    assert KEY.encode() not in response.content
    assert all(KEY not in value for values in response.headers.values() for value in values)
