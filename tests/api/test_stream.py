import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api import hub, stream as stream_module
from api.limits import KEY_CACHE_S, STREAM_ACCESS_CHECK_S, STREAM_PAGE_SIZE
from indexer.charging import Charging
from indexer.core.types import ChargeState
from store import keys
from tests.api.running import NOW, Api, make_key, running
from tests.api.sse import Message, Reader, stream
from tests.cards import make_news, stored_card


def path_of(payment: dict[str, Any]) -> str:
    return f"/api/sse/payments/{payment['id']}"


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def first(reader: Reader) -> Message:
    message = await reader.event()
    assert message is not None
    return message


async def status_of(api: Api, path: str, **headers: str) -> int:
    async with api.session.get(path, headers=headers) as response:
        return response.status


# ----------------------------------------------------------------------------- of one payment


async def test_a_stream_begins_with_the_whole_public_payment(api: Api) -> None:
    payment = await api.create()
    _, public = await api.get(f"/api/pay/{payment['id']}")

    async with stream(api.session, path_of(payment)) as reader:
        message = await first(reader)

        assert (message.event, message.id) == ("payment", "1")
        assert message.json == public
        assert int(message.retry or 0) > 0
        assert reader.response.headers["X-Accel-Buffering"] == "no"
        assert reader.response.headers["Cache-Control"] == "no-store"
        assert "Content-Encoding" not in reader.response.headers


async def test_each_event_is_one_message(api: Api) -> None:
    payment = await api.create()

    async with stream(api.session, path_of(payment)) as reader:
        await first(reader)
        await api.sight(payment["id"], 12_500_000)
        message = await first(reader)

        assert (message.id, message.event) == ("2", "payment.detected")
        assert message.json["payment"]["status"] == "processing"
        assert "order_id" not in message.json
        assert "metadata" not in message.json["payment"]


async def test_events_of_other_payments_are_not_sent(api: Api) -> None:
    mine, other = await api.create(order_id="mine"), await api.create(order_id="other")

    async with stream(api.session, path_of(mine)) as reader:
        await first(reader)
        await api.settle(other["id"], 12_500_000)
        await api.settle(mine["id"], 12_500_000)

        assert [message.json["payment"]["id"] for message in await reader.rest()] == [mine["id"]]


async def test_events_that_another_process_wrote_arrive_too(api: Api) -> None:
    payment = await api.create()

    async with stream(api.session, path_of(payment)) as reader:
        await first(reader)
        api.wakeups.wake = lambda: None  # type: ignore[method-assign] # nobody tells us
        await api.sight(payment["id"], 12_500_000)

        assert (await first(reader)).event == "payment.detected"


@pytest.mark.parametrize("ending", ["settled", "canceled"])
async def test_after_the_final_event_the_server_closes(api: Api, ending: str) -> None:
    payment = await api.create()

    async with stream(api.session, path_of(payment)) as reader:
        await first(reader)
        if ending == "settled":
            await api.settle(payment["id"], 12_500_000)
        else:
            await api.post(f"/api/pay/{payment['id']}/cancel", api.writer)

        assert [message.event for message in await reader.rest()] == [f"payment.{ending}"]


async def test_who_has_the_final_event_is_told_to_stay_away(api: Api) -> None:
    payment = await api.create()
    await api.settle(payment["id"], 12_500_000)

    assert await status_of(api, path_of(payment), **{"Last-Event-ID": "2"}) == 204
    assert await status_of(api, path_of(payment) + "?last_event_id=2") == 204


async def test_who_comes_after_the_end_gets_the_payment_and_the_end(api: Api) -> None:
    payment = await api.create()
    await api.settle(payment["id"], 12_500_000)

    async with stream(api.session, path_of(payment)) as reader:
        [message] = await reader.rest()

    assert (message.id, message.event, message.json["status"]) == ("2", "payment", "settled")


async def test_an_event_beside_the_final_one_is_sent_before_the_end(api: Api) -> None:
    payment = await api.create()
    await api.settle(payment["id"], 12_500_000)
    await api.settle(payment["id"], 12_500_000, name="again")  # for review: paid twice

    async with stream(api.session, path_of(payment), {"Last-Event-ID": "1"}) as reader:
        messages = await reader.rest()

    assert [(m.id, m.event) for m in messages] == [
        ("1", "payment"),
        ("2", "payment.settled"),
        ("3", "payment.review"),
    ]


async def test_an_expired_payment_is_followed_until_its_grace_time_is_over(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STREAM_HEARTBEAT_S", 0.05)
    payment = await api.create()

    async with stream(api.session, path_of(payment)) as reader:
        await first(reader)
        await api.expire(payment["id"])
        assert (await first(reader)).event == "payment.expired"
        api.clock.now = NOW + 900 + 86_400
        assert await reader.next() == Message(comment="heartbeat")

        api.clock.now += 1
        assert await reader.rest() == []

    assert await status_of(api, path_of(payment), **{"Last-Event-ID": "2"}) == 204


async def test_a_card_that_was_declined_is_not_the_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another card may still settle the payment, as late money may."""
    monkeypatch.setattr(stream_module, "STREAM_HEARTBEAT_S", 0.05)
    payment = (await stored_card(api.database)).payment
    path = f"/api/sse/payments/{payment.terms.id}"
    charging = Charging(api.database, clock=api.clock, wake=api.wakeups.wake)

    async with stream(api.session, path) as reader:
        assert (await first(reader)).json["provider"] == "paymob"
        await charging.learn(payment.terms.id, [make_news(1, ChargeState.DECLINED)], NOW)
        assert (await first(reader)).event == "payment.failed"
        assert await reader.next() == Message(comment="heartbeat")
        async with stream(api.session, path, {"Last-Event-ID": "2"}) as late:
            assert (await first(late)).json["status"] == "failed"
            await charging.learn(payment.terms.id, [make_news(2)], NOW)
            for each in (reader, late):
                assert (await first(each)).event == "payment.settled"
                assert await each.rest() == []


async def test_what_failed_is_over_with_its_grace_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STREAM_HEARTBEAT_S", 0.05)
    payment = (await stored_card(api.database)).payment
    charging = Charging(api.database, clock=api.clock, wake=api.wakeups.wake)
    await charging.learn(payment.terms.id, [make_news(1, ChargeState.DECLINED)], NOW)
    path = f"/api/sse/payments/{payment.terms.id}"

    async with stream(api.session, path) as reader:
        await first(reader)
        api.clock.now = payment.terms.expires_at + payment.terms.grace_s + 1
        assert await reader.rest() == []

    assert await status_of(api, path, **{"Last-Event-ID": "2"}) == 204


async def test_an_unknown_payment_has_no_stream(api: Api) -> None:
    for payment_id in ("pay_" + "0" * 26, "x"):
        async with api.session.get(f"/api/sse/payments/{payment_id}") as response:
            assert response.status == 404
            assert response.content_type == "application/problem+json"


# ------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("given", ["header", "query"])
async def test_a_stream_resumes_after_the_given_event(api: Api, given: str) -> None:
    payment = await api.create()
    await api.publish(payment["id"], 5)
    headers = {"Last-Event-ID": "3"} if given == "header" else {}
    query = "" if given == "header" else "?last_event_id=3"

    async with stream(api.session, path_of(payment) + query, headers) as reader:
        messages = [await first(reader) for _ in range(4)]

    assert [message.id for message in messages] == ["3", "4", "5", "6"]
    assert messages[0].json["version"] == 1


@pytest.mark.parametrize("bad", ["", "x", "-1", "1.5", "9" * 30, "999", "1 OR 1"])
async def test_a_bad_event_id_is_as_good_as_none(api: Api, bad: str) -> None:
    payment = await api.create()

    async with stream(api.session, path_of(payment), {"Last-Event-ID": bad}) as reader:
        assert (await first(reader)).id == "1"


async def test_more_events_than_a_page_are_all_sent(api: Api) -> None:
    payment = await api.create()
    count = STREAM_PAGE_SIZE * 2 + 3
    await api.publish(payment["id"], count)

    async with stream(api.session, path_of(payment), {"Last-Event-ID": "1"}) as reader:
        messages = [await first(reader) for _ in range(count + 1)]

    assert [message.id for message in messages] == ["1", *map(str, range(2, count + 2))]


async def test_a_client_that_reconnects_again_and_again_misses_nothing(api: Api) -> None:
    """Events keep coming while the connection breaks after every second message."""
    payment = await api.create()
    count = 60

    async def publish() -> None:
        for number in range(count):
            await api.publish(payment["id"], 1, first=100 + number)
            await asyncio.sleep(0.005)

    publishing = asyncio.create_task(publish())
    seen: list[int] = []
    position = "1"
    while len(seen) < count:
        async with stream(api.session, path_of(payment), {"Last-Event-ID": position}) as reader:
            snapshot = await first(reader)
            assert snapshot.id == position
            for _ in range(2):
                if len(seen) < count:
                    message = await first(reader)
                    position = message.id or ""
                    seen.append(int(position))
    await publishing

    assert seen == list(range(2, count + 2))


async def test_a_slow_client_gets_every_event_once(tmp_path: Path) -> None:
    """While it does not read its buffers fill; what did not fit is read from the database."""
    async with running(tmp_path, send_buffer=4_096) as api:
        payment = await api.create()
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(
                f"http://127.0.0.1:{api.port}", connector=connector, read_bufsize=1_024
            ) as session,
            stream(session, path_of(payment)) as reader,
        ):
            await first(reader)
            for part in range(10):
                await api.publish(payment["id"], 200, first=1_000 + part * 200)
            [follower] = api.app.state.context.hub._of_payment[payment["id"]]
            await eventually(lambda: not follower.live)
            messages = [await first(reader) for _ in range(2_000)]

        assert [message.id for message in messages] == [str(n) for n in range(2, 2_002)]


async def test_an_event_that_is_committed_during_a_read_is_not_lost(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is too late for the read and too early for the hub: the read is done again."""
    payment = await api.create()
    served_by: hub.Hub = api.app.state.context.hub
    read = served_by.read
    reads = 0

    async def read_and_then_commit(follower: hub.Follower) -> Any:
        nonlocal reads
        reads += 1
        page = await read(follower)
        if reads == 1:
            await api.publish(payment["id"], 1)
            await eventually(lambda: follower.behind)
        return page

    async def is_over(follower: hub.Follower) -> bool:
        await api.publish(payment["id"], 1, first=2_000)
        await eventually(lambda: follower.last_seq == 3)
        return True

    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    monkeypatch.setattr(served_by, "read", read_and_then_commit)
    made = stream_module.Stream(
        served_by, first=b"", payment_id=payment["id"], last_seq=1, is_over=is_over
    )
    async with asyncio.timeout(30):
        await made({}, asyncio.Event().wait, send)  # type: ignore[arg-type] # says nothing, ever

    assert [frame.split(b"\n")[0] for frame in sent if b"data" in frame] == [b"id: 2", b"id: 3"]


async def test_a_ring_before_the_wait_is_not_slept_through(api: Api) -> None:
    """What rings while the stream looks whether it is over is found right before the wait."""
    looks = 0

    async def is_over(follower: hub.Follower) -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            follower.fall_behind()
        return looks > 1

    async def send(_message: Any) -> None:
        pass

    made = stream_module.Stream(
        api.app.state.context.hub, first=b"", payment_id=None, last_seq=0, is_over=is_over
    )
    async with asyncio.timeout(30):
        await made({}, asyncio.Event().wait, send)  # type: ignore[arg-type] # says nothing, ever

    assert looks == 2


async def test_a_number_that_was_never_given_out_ends_nothing(api: Api) -> None:
    """Such as after a database was restored: the client is told how things stand."""
    payment = await api.create()
    await api.settle(payment["id"], 12_500_000)

    async with stream(api.session, path_of(payment), {"Last-Event-ID": "999"}) as reader:
        assert [message.event for message in await reader.rest()] == ["payment"]
    headers = {**api.reader, "Last-Event-ID": "999"}
    async with stream(api.session, "/api/sse/events", headers) as reader:
        await api.create(order_id="next")
        assert (await first(reader)).id == "3"


# ------------------------------------------------------------------------------- of a merchant


async def test_a_merchant_follows_all_payments_with_their_orders(api: Api) -> None:
    await api.create(order_id="before")

    async with stream(api.session, "/api/sse/events", api.reader) as reader:
        opening = await reader.next()
        payment = await api.create(order_id="after")
        message = await first(reader)

    assert opening is not None
    assert (opening.id, opening.data) == ("1", None)
    assert (message.id, message.event) == ("2", "payment.created")
    assert message.json["order_id"] == "after"
    assert message.json["payment"]["id"] == payment["id"]


async def test_a_merchant_resumes_where_it_was(api: Api) -> None:
    for number in range(3):
        await api.create(order_id=str(number))

    headers = {**api.reader, "Last-Event-ID": "1"}
    async with stream(api.session, "/api/sse/events", headers) as reader:
        messages = [await first(reader) for _ in range(2)]

    assert [(m.id, m.json["order_id"]) for m in messages] == [("2", "1"), ("3", "2")]


async def test_the_merchants_stream_does_not_end_with_a_payment(api: Api) -> None:
    payment = await api.create()

    async with stream(api.session, "/api/sse/events", api.reader) as reader:
        await api.settle(payment["id"], 12_500_000)
        assert (await first(reader)).event == "payment.settled"
        await api.create(order_id="next")
        assert (await first(reader)).event == "payment.created"


async def test_the_merchants_stream_needs_a_key(api: Api) -> None:
    assert await status_of(api, "/api/sse/events") == 401
    assert (
        await status_of(api, "/api/sse/events", **await make_key(api.database, "o", "ops")) == 403
    )


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked at all the time, long before the next heartbeat."""
    monkeypatch.setattr(stream_module, "STREAM_ACCESS_CHECK_S", 0.05)
    monkeypatch.setattr("api.auth.KEY_CACHE_S", 0.0)


@pytest.mark.usefixtures("_impatient")
async def test_a_revoked_key_ends_its_stream_before_a_heartbeat(api: Api) -> None:
    async with stream(api.session, "/api/sse/events", api.reader) as reader:
        await reader.next()
        assert await keys.revoke(api.database, "reader", NOW)
        while (message := await reader.next()) is not None:
            assert message.comment is None, "a heartbeat"

    assert await status_of(api, "/api/sse/events", **api.reader) == 401


@pytest.mark.usefixtures("_impatient")
async def test_an_expired_key_ends_its_stream(api: Api) -> None:
    ending = await make_key(api.database, "ending", "payments:read", expires_at=NOW + 60)

    async with stream(api.session, "/api/sse/events", ending) as reader:
        await reader.next()
        api.clock.now = NOW + 60
        assert await reader.rest() == []

    assert await status_of(api, "/api/sse/events", **ending) == 401


@pytest.mark.usefixtures("_impatient")
async def test_only_the_stream_of_the_revoked_key_ends(api: Api) -> None:
    other = await make_key(api.database, "other", "payments:read")
    async with (
        stream(api.session, "/api/sse/events", api.reader) as revoked,
        stream(api.session, "/api/sse/events", other) as reader,
    ):
        await revoked.next()
        await reader.next()
        assert await keys.revoke(api.database, "reader", NOW)
        await revoked.rest()

        payment = await api.create()

        assert (await first(reader)).json["payment"]["id"] == payment["id"]


def test_a_revoked_key_hears_nothing_after_five_seconds() -> None:
    assert KEY_CACHE_S + STREAM_ACCESS_CHECK_S < 5


async def test_a_key_revoked_while_the_past_is_sent_hears_no_more_of_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.KEY_CACHE_S", 0.0)
    monkeypatch.setattr(hub, "STREAM_PAGE_SIZE", 2)
    for number in range(7):
        await api.create(order_id=str(number))
    served_by: hub.Hub = api.app.state.context.hub
    read = served_by.read

    async def read_and_revoke(follower: hub.Follower) -> Any:
        page = await read(follower)
        await keys.revoke(api.database, "reader", NOW)
        return page

    monkeypatch.setattr(served_by, "read", read_and_revoke)
    async with stream(
        api.session, "/api/sse/events", {**api.reader, "Last-Event-ID": "0"}
    ) as reader:
        assert [message.id for message in await reader.rest() if message.event] == ["1", "2"]


# ---------------------------------------------------------------------- heartbeats, bounds, end


async def test_an_idle_stream_has_heartbeats(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STREAM_HEARTBEAT_S", 0.05)
    payment = await api.create()

    async with stream(api.session, path_of(payment)) as reader:
        await first(reader)
        for _ in range(3):
            message = await reader.next()
            assert message == Message(comment="heartbeat")


async def test_after_a_heartbeat_the_next_one_is_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "STREAM_HEARTBEAT_S", 0.0)
    waits: list[float] = []

    async def left(_follower: Any, _receive: Any, wait_s: float) -> bool:
        waits.append(wait_s)
        return wait_s > 100 or len(waits) > 10

    async def send(message: Any) -> None:
        if message.get("body") == b": heartbeat\n\n":
            monkeypatch.setattr(stream_module, "STREAM_HEARTBEAT_S", 1_000.0)

    async def is_over(_follower: Any) -> bool:
        return False

    monkeypatch.setattr(stream_module, "_left", left)
    context = api.app.state.context
    payment = await api.create()
    made = stream_module.Stream(
        context.hub, first=b"", payment_id=payment["id"], last_seq=1, is_over=is_over
    )
    async with asyncio.timeout(30):
        await made({}, asyncio.Event().wait, send)  # type: ignore[arg-type] # says nothing, ever

    assert len(waits) <= 2
    assert waits[-1] > 100


async def test_over_the_bound_a_client_is_sent_away_for_longer(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await api.create()
    served_by: hub.Hub = api.app.state.context.hub
    monkeypatch.setattr(served_by, "_clients_max", 1)

    async with stream(api.session, path_of(payment)) as reader:
        usual = (await first(reader)).retry
        async with stream(api.session, path_of(payment)) as other:
            [message] = [message async for message in all_of(other)]

    assert int(message.retry or 0) >= 5 * int(usual or 0)
    assert message.data is None


async def all_of(reader: Reader) -> Any:
    while (message := await reader.next()) is not None:
        yield message


async def test_a_client_that_left_frees_its_place(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await api.create()
    served_by: hub.Hub = api.app.state.context.hub
    monkeypatch.setattr(served_by, "_clients_max", 1)

    for _ in range(5):
        async with stream(api.session, path_of(payment)) as reader:
            assert (await first(reader)).event == "payment"
            reader.response.close()
        await eventually(lambda: not served_by.full)


async def test_a_shutdown_ends_all_streams(api: Api) -> None:
    payment = await api.create()
    paths = [path_of(payment), path_of(payment), "/api/sse/events"]

    async with (
        stream(api.session, paths[0]) as a,
        stream(api.session, paths[1]) as b,
        stream(api.session, paths[2], api.reader) as c,
    ):
        for reader in (a, b, c):
            await reader.next()
        api.stop.set()
        for reader in (a, b, c):
            [message] = [message async for message in all_of(reader)]
            assert int(message.retry or 0) > 0
        async with asyncio.timeout(30):
            await api.served
