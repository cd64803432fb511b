import pytest

from indexer.errors import Conflict
from store import webhook_endpoints
from store.database import Database
from store.deliveries import DeliveryState
from store.webhook_endpoints import EndpointState, Signer, WebhookEndpoint
from tests.builders import NOW
from tests.store.sending import KEY, URL, endpoint_id, listed, receiver, register, tell


async def test_a_receiver_is_stored_as_it_was_registered(database: Database) -> None:
    statement = webhook_endpoints.create(
        id=endpoint_id(1),
        url=URL,
        event_types=["payment.settled", "payment.expired"],
        description="the shop",
        key_id=KEY.id,
        now=NOW,
        at_most=1,
    )
    [rows] = await database.write([statement])

    assert rows == [(endpoint_id(1),)]
    assert await receiver(database, endpoint_id(1)) == WebhookEndpoint(
        id=endpoint_id(1),
        url=URL,
        event_types=("payment.settled", "payment.expired"),
        description="the shop",
        state=EndpointState.ENABLED,
        state_reason=None,
        signer=Signer(key_id=KEY.id, generation=1),
        old_signer=None,
        created_at=NOW,
        updated_at=NOW,
    )


async def test_one_too_many_is_refused_and_deleted_ones_do_not_count(database: Database) -> None:
    for number in (1, 2):
        await register(database, number, at_most=2)
    with pytest.raises(Conflict):
        await register(database, 3, at_most=2)

    await database.write(webhook_endpoints.delete(endpoint_id(1), NOW))
    await register(database, 3, at_most=2)

    ids = [each.id for each in await webhook_endpoints.listing(database)]
    assert ids == [endpoint_id(2), endpoint_id(3)]


async def test_an_id_is_given_out_once_even_after_its_receiver_was_deleted(
    database: Database,
) -> None:
    await register(database, 1)
    await database.write(webhook_endpoints.delete(endpoint_id(1), NOW))

    with pytest.raises(Conflict):
        await register(database, 1)


async def test_nothing_of_a_secret_is_in_a_row(database: Database) -> None:
    await register(database)

    assert KEY.secret.decode() not in repr(await receiver(database, endpoint_id(1)))


# ------------------------------------------------------------------------------- rotation


async def test_after_a_rotation_both_secrets_sign_until_the_old_one_ends(
    database: Database,
) -> None:
    before = await receiver(database, await register(database))
    await database.write(
        [webhook_endpoints.rotate(before, key_id="new key", overlap_s=60, now=NOW + 1)]
    )

    after = await receiver(database, before.id)
    new = Signer(key_id="new key", generation=2)
    old = Signer(key_id=KEY.id, generation=1, until=NOW + 61)
    assert (after.signer, after.old_signer, after.updated_at) == (new, old, NOW + 1)
    assert after.signers(NOW + 1) == after.signers(NOW + 60) == (new, old)
    assert after.signers(NOW + 61) == after.signers(NOW + 1_000) == (new,)


async def test_a_rotation_without_overlap_ends_the_old_secret_at_once(database: Database) -> None:
    before = await receiver(database, await register(database))
    await database.write([webhook_endpoints.rotate(before, key_id=KEY.id, overlap_s=0, now=NOW)])

    after = await receiver(database, before.id)
    assert after.signers(NOW) == (Signer(key_id=KEY.id, generation=2),)


async def test_two_rotations_at_once_make_one_and_the_other_is_refused(
    database: Database,
) -> None:
    before = await receiver(database, await register(database))
    statement = webhook_endpoints.rotate(before, key_id=KEY.id, overlap_s=60, now=NOW)
    await database.write([statement])

    with pytest.raises(Conflict):
        await database.write([statement])

    assert (await receiver(database, before.id)).signer.generation == 2


async def test_what_was_deleted_has_no_next_secret(database: Database) -> None:
    before = await receiver(database, await register(database))
    await database.write(webhook_endpoints.delete(before.id, NOW))

    [rows] = await database.write(
        [webhook_endpoints.rotate(before, key_id=KEY.id, overlap_s=60, now=NOW)]
    )

    assert rows == []


# ------------------------------------------------------------------ disable, enable, delete


async def test_who_is_disabled_is_sent_nothing_not_what_waits_either(database: Database) -> None:
    one, other = await register(database, 1), await register(database, 2)
    await tell(database, 1, 2)

    found, _ = await database.write(webhook_endpoints.disable(one, "said why", NOW + 5))
    await tell(database, 3)

    assert found == [(one,)]
    endpoint = await receiver(database, one)
    assert (endpoint.state, endpoint.state_reason) == (EndpointState.DISABLED, "said why")
    assert (endpoint.waiting, endpoint.updated_at) == (0, NOW + 5)
    dropped = await listed(database, one)
    assert [(each.state, each.ended_at) for each in dropped] == [
        (DeliveryState.DROPPED, NOW + 5)
    ] * 2
    assert (await receiver(database, other)).waiting == 3
    assert [each.id for each in await webhook_endpoints.enabled(database)] == [other]


async def test_who_is_enabled_again_is_told_of_what_happens_from_then_on(
    database: Database,
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    await database.write(webhook_endpoints.disable(id_, "said why", NOW))
    await tell(database, 2)

    [rows] = await database.write([webhook_endpoints.enable(id_, NOW + 9)])
    await tell(database, 3)

    assert rows == [(id_,)]
    endpoint = await receiver(database, id_)
    assert (endpoint.state, endpoint.state_reason) == (EndpointState.ENABLED, None)
    assert (endpoint.updated_at, endpoint.waiting) == (NOW + 9, 1)


async def test_to_disable_what_is_disabled_keeps_the_first_reason(database: Database) -> None:
    id_ = await register(database)
    await database.write(webhook_endpoints.disable(id_, "first", NOW))

    found, _ = await database.write(webhook_endpoints.disable(id_, "second", NOW + 1))

    assert found == []
    assert (await receiver(database, id_)).state_reason == "first"


async def test_to_enable_what_is_enabled_changes_nothing(database: Database) -> None:
    id_ = await register(database)
    before = await receiver(database, id_)

    await database.write([webhook_endpoints.enable(id_, NOW + 1)])

    assert await receiver(database, id_) == before


async def test_what_was_deleted_is_gone_for_good(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1)

    found, _ = await database.write(webhook_endpoints.delete(id_, NOW))

    assert found == [(id_,)]
    assert await webhook_endpoints.get(database, id_) is None
    assert await webhook_endpoints.listing(database) == []
    [delivery] = await listed(database, id_)
    assert delivery.state is DeliveryState.DROPPED, "what was to be sent stays on record"
    for batch in (
        [webhook_endpoints.enable(id_, NOW)],
        webhook_endpoints.disable(id_, "again", NOW),
        webhook_endpoints.delete(id_, NOW),
    ):
        assert (await database.write(batch))[0] == []


async def test_who_never_was_is_nobody(database: Database) -> None:
    assert await webhook_endpoints.get(database, endpoint_id(1)) is None
    assert await database.write([webhook_endpoints.enable(endpoint_id(1), NOW)]) == [[]]
