"""Receivers and deliveries as they are shown, where the other tests do not lead."""

from dataclasses import replace

import pytest

from api.webhook_presentation import delivery_body, shown, shown_with_secret
from indexer.errors import InvariantError
from store.deliveries import Delivery, DeliveryState
from store.webhook_endpoints import EndpointState, Signer, WebhookEndpoint
from tests.api.running import NOW, SIGNING_KEYS, Api


ENDPOINT = WebhookEndpoint(
    id="we_" + "0" * 26,
    url="https://shop.example/",
    event_types=(),
    description=None,
    state=EndpointState.ENABLED,
    state_reason=None,
    signer=Signer(key_id=SIGNING_KEYS[0].id, generation=3),
    old_signer=Signer(key_id="gone", generation=2, until=NOW + 1),
    created_at=NOW,
    updated_at=NOW,
)
DELIVERY = Delivery(
    id=7,
    endpoint_id=ENDPOINT.id,
    event_seq=9,
    payment_id="pay_" + "0" * 26,
    type="payment.settled",
    version=4,
    ordinal=1,
    state=DeliveryState.WAITING,
    attempts=0,
    next_try_at=NOW,
    created_at=NOW,
    ended_at=None,
)


async def test_a_secret_is_only_shown_with_the_key_it_is_derived_from(api: Api) -> None:
    assert await shown_with_secret(api.database, ENDPOINT, SIGNING_KEYS, NOW) is not None
    assert await shown_with_secret(api.database, ENDPOINT, SIGNING_KEYS[1:], NOW) is None
    assert await shown_with_secret(api.database, ENDPOINT, (), NOW) is None


async def test_an_old_secret_is_shown_until_its_time_is_over(api: Api) -> None:
    [before] = await shown(api.database, [ENDPOINT], NOW)
    [after] = await shown(api.database, [ENDPOINT], NOW + 1)

    assert before.old_secret_until == "2026-11-22T20:00:01Z"
    assert after.old_secret_until is None


async def test_what_was_deleted_is_never_shown(api: Api) -> None:
    deleted = replace(ENDPOINT, state=EndpointState.DELETED, state_reason="deleted")
    with pytest.raises(InvariantError):
        await shown(api.database, [deleted], NOW)


def test_an_event_has_the_id_that_it_is_sent_with() -> None:
    assert delivery_body(DELIVERY).event_id == f"evt_{'0' * 26}_4_1"
    with pytest.raises(InvariantError):
        delivery_body(replace(DELIVERY, version=None))


def test_only_what_waits_has_a_next_time() -> None:
    ended = replace(DELIVERY, state=DeliveryState.FAILED, ended_at=NOW)

    assert delivery_body(DELIVERY).next_try_at == "2026-11-22T20:00:00Z"
    assert delivery_body(ended).next_try_at is None
