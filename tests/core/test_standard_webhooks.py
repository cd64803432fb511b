"""Outgoing webhooks are what the published verifier of Standard Webhooks accepts, and no other."""

import base64
import re
import time

import pytest
from hypothesis import given, strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from indexer.core.standard_webhooks import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    SigningKey,
    event_id,
    secret_of,
    sign,
    signing_key,
    test_id as id_of_test,
)
from tests import vectors
from tests.builders import make_payment


KEY = signing_key("a signing key of 32 characters or more")
OTHER_KEY = signing_key("another signing key, as long as the first")
RECEIVER = "we_00000000000000000000000001"
SECRET = secret_of(KEY, RECEIVER, 1)
BODY = b'{"type":"payment.settled"}'


def headers(
    secrets: list[str], *, id: str = "evt_1", body: bytes = BODY, at: int | None = None
) -> dict[str, str]:
    at = int(time.time()) if at is None else at
    return {
        ID_HEADER: id,
        TIMESTAMP_HEADER: str(at),
        SIGNATURE_HEADER: sign(secrets, id=id, timestamp=at, body=body),
    }


def accepts(secret: str, body: bytes, sent: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, sent, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def test_the_published_vector_is_signed_as_published() -> None:
    vector = vectors.load("hmac.json")["standard_webhooks"]

    signature = sign(
        [vector["secret"]],
        id=vector["id"],
        timestamp=int(vector["ts"]),
        body=vector["body"].encode(),
    )

    assert signature == vector["sig"]


def test_the_headers_have_the_names_of_the_standard() -> None:
    assert (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) == (
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    )


@given(body=st.text().map(str.encode), id=st.from_regex(r"[a-z0-9_]{1,64}", fullmatch=True))
def test_the_published_verifier_accepts_whatever_is_signed(body: bytes, id: str) -> None:
    assert accepts(SECRET, body, headers([SECRET], id=id, body=body))


@pytest.mark.parametrize("changed", ["id", "timestamp", "body", "secret"])
def test_the_published_verifier_refuses_what_was_changed(changed: str) -> None:
    sent, body, secret = headers([SECRET]), BODY, SECRET
    assert accepts(secret, body, sent)

    match changed:
        case "id":
            sent[ID_HEADER] = "evt_2"
        case "timestamp":
            sent[TIMESTAMP_HEADER] = str(int(sent[TIMESTAMP_HEADER]) - 1)
        case "body":
            body += b" "
        case _:
            secret = secret_of(KEY, RECEIVER, 2)

    assert not accepts(secret, body, sent)


def test_between_two_secrets_both_are_good_and_the_newest_signs_first() -> None:
    new = secret_of(KEY, RECEIVER, 2)
    sent = headers([new, SECRET])

    assert accepts(new, BODY, sent)
    assert accepts(SECRET, BODY, sent)
    assert not accepts(secret_of(KEY, RECEIVER, 3), BODY, sent)
    first, second = sent[SIGNATURE_HEADER].split(" ")
    assert first == headers([new], at=int(sent[TIMESTAMP_HEADER]))[SIGNATURE_HEADER]
    assert second == headers([SECRET], at=int(sent[TIMESTAMP_HEADER]))[SIGNATURE_HEADER]


# ------------------------------------------------------------------------------- derivation


def test_a_secret_has_the_form_and_the_length_of_the_standard() -> None:
    prefix, _, encoded = SECRET.partition("_")

    assert prefix == "whsec"
    assert len(base64.b64decode(encoded, validate=True)) == 32


def test_a_secret_is_the_same_each_time_so_that_nobody_has_to_keep_it() -> None:
    assert secret_of(signing_key("a signing key of 32 characters or more"), RECEIVER, 1) == SECRET
    # What receivers were given once must stay good in every later release.
    assert SECRET == "whsec_dXCMVcMVff8sNmytnmOe+kyPONS7UPGmTN1qNObW39g="


def test_every_receiver_generation_and_key_has_a_secret_of_its_own() -> None:
    secrets = {
        secret_of(key, endpoint_id, generation)
        for key in (KEY, OTHER_KEY)
        for endpoint_id in (RECEIVER, RECEIVER[:-1], RECEIVER + "1", "we_1")
        for generation in (1, 11, 111, 2)
    }

    assert len(secrets) == 2 * 4 * 4


def test_a_key_is_told_by_an_id_that_says_nothing_of_it() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", KEY.id)
    assert KEY.id != OTHER_KEY.id
    assert "a signing key" not in repr(KEY)
    assert repr(KEY) == repr(SigningKey(KEY.id, b"something else"))


# -------------------------------------------------------------------------------------- ids


def test_each_event_has_an_id_of_its_own_that_is_the_same_each_time() -> None:
    first, second = (make_payment(n).terms.id for n in (1, 2))
    ids = [event_id(of, v, n) for of in (first, second) for v in (1, 11, 2) for n in (0, 1)]

    assert len(set(ids)) == len(ids)
    assert event_id(first, 2, 0) == f"evt_{first.removeprefix('pay_')}_2_0"


def test_no_id_holds_a_dot_which_parts_what_is_signed() -> None:
    assert "." not in event_id(make_payment().terms.id, 1, 0)
    assert "." not in id_of_test(7)
    assert id_of_test(7) != id_of_test(8)
