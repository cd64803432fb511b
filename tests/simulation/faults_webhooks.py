"""Planted faults of webhooks and cards: what somebody might write there. See `faults`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from indexer.callbacks import Callbacks
from indexer.charging import Charging
from indexer.core import card, charge, delivery
from indexer.courier import Courier
from indexer.inbox import Inbox
from indexer.inquiries import Inquiries
from indexer.live import Live
from indexer.notices import Notices
from tests.simulation.planting import Edit, Fault, Kind
from tests.simulation.profile import Profile
from tests.simulation.provider import Manners
from tests.simulation.receivers import Habits
from tests.simulation.trade import Trade


# ------------------------------------------------ kinds of worlds


def _with_webhooks_alone(profile: Profile) -> Profile:
    """Nobody hears of anything by a WebSocket."""
    lines = [replace(line, is_dead=True) for line in profile.lines]
    return replace(profile, lines=lines, provider=Manners(doubles=0.5))


def _with_nulls(profile: Profile) -> Profile:
    tempers = [replace(temper, nulls=0.9, behind=20) for temper in profile.tempers]
    return replace(_with_webhooks_alone(profile), tempers=tempers)


def _any_shop(trade: Trade) -> Trade:
    return trade


def _with_callbacks(trade: Trade) -> Trade:
    moods = replace(trade.moods, loses=0.1, delays=0.5, forges=0.0, away=(0.0, 0.0))
    return replace(trade, payments=5, moods=moods)


def _with_forged_callbacks(trade: Trade) -> Trade:
    return replace(trade, payments=5, moods=replace(trade.moods, forges=0.7, loses=0.0))


def _without_callbacks(trade: Trade) -> Trade:
    moods = replace(trade.moods, loses=1.0, fails=0.3, away=(0.0, 0.0))
    return replace(trade, payments=5, moods=moods)


def _with_crashes(trade: Trade) -> Trade:
    return replace(_with_receivers(trade, Habits(latency_s=2.0)), crashes=3, payments=5)


def _with_receivers(trade: Trade, *habits: Habits) -> Trade:
    return replace(trade, payments=5, habits=habits)


def _with_failing_receivers(trade: Trade) -> Trade:
    return _with_receivers(trade, Habits(fails=0.5, refuses=0.2, hangs=0.2))


def _with_receivers_that_go(trade: Trade) -> Trade:
    return _with_receivers(trade, Habits(gone_at=20.0), Habits(gone_at=0.0))


def _with_receivers_that_come_and_go(trade: Trade) -> Trade:
    flapping = Habits(away=(0.0, 100_000.0), is_flapping=True)
    return _with_receivers(trade, flapping, flapping)


def _with_new_secrets(trade: Trade) -> Trade:
    return _with_receivers(trade, Habits(rotates_at=15.0), Habits(rotates_at=1.0))


def _one(
    name: str,
    *,
    where: Callable[..., Any] | str,
    old: str,
    new: str,
    world: Kind,
    shows_in: int = 0,
) -> Fault:
    edits = (Edit(where=where, old=old, new=new),)
    return Fault(name=name, edits=edits, world=world, shows_in=shows_in)


#: Found in worlds with a cluster.
INBOX_FAULTS: Final[Sequence[Fault]] = (
    _one(
        "a webhook is done before it was looked at",
        where=Inbox._process,
        old="outcome = await handler(event)",
        new="""await self._end(event, Outcome(verdict="done"))
            outcome = await handler(event)""",
        world=_with_webhooks_alone,
    ),
    _one(
        "a webhook settles what is only confirmed",
        where=Live._sight_again,
        old="""unread = await self._pipeline.sight(found)
        for""",
        new="""fetched = await self._pipeline._fetch(found, "confirmed")
        _, unread = await self._pipeline.keep(fetched, park=False)
        for""",
        world=_with_webhooks_alone,
    ),
    _one(
        "a webhook is done though no node knows what it names",
        where=Notices.handle,
        old="if unread:",
        new="if False:",
        world=_with_nulls,
    ),
    _one(
        "a webhook that came twice counts three times",
        where="webhook_event_receive",
        old="SET repeats = repeats + 1, updated_at",
        new="SET repeats = repeats + 2, updated_at",
        world=_with_webhooks_alone,
    ),
    _one(
        "a webhook that was put off is never looked at again",
        where=Inbox._serve,
        old="room.leave(event)",
        new="pass",
        world=_with_nulls,
    ),
    _one(
        "a webhook that was put off fails at once",
        where=Inbox._put_off,
        old="if attempts >= most:",
        new="if attempts >= 1:",
        world=_with_nulls,
    ),
)

#: Found in shops.
SHOP_FAULTS: Final[Sequence[Fault]] = (
    # ------------------------------------------------ what a callback is taken for
    _one(
        "a charge goes back",
        where=charge.learned,
        old="state=max(charge.state, news.state, key=_RANK.__getitem__)",
        new="state=news.state",
        world=_with_callbacks,
    ),
    Fault(
        name="the payment of a callback is the one that it names",
        edits=(
            Edit(
                where=Callbacks.handle,
                old="record = await cards.by_order(self._database, news.order_id)",
                new="""record = await cards.get(
            self._database, (news.reference or "").partition("-")[0]
        )""",
            ),
            Edit(where=Callbacks.handle, old="await self._check(record, news)", new="pass"),
        ),
        world=_with_forged_callbacks,
    ),
    _one(
        "parts that were refunded are added up",
        where=charge.learned,
        old="refunded=max(charge.refunded, _refunded(news))",
        new="refunded=min(charge.amount, charge.refunded + _refunded(news))",
        world=_without_callbacks,
    ),
    _one(
        "the news of a charge and what follows from it are writes of their own",
        where=Charging.learn,
        old="await self._database.write(batch)",
        new="[await self._database.write([statement]) for statement in batch]",
        world=_with_crashes,
    ),
    _one(
        "whoever was charged last was charged alone",
        where=Inquiries.check,
        old="told += await self._singly(record, {news.id for news in told})",
        new="",
        world=_with_callbacks,
    ),
    _one(
        "no answer is as good as none to tell of",
        where=Inquiries.check,
        old="answer = await self._acquirer.inquire(order_id=order.order_id)",
        new="""try:
                    answer = await self._acquirer.inquire(order_id=order.order_id)
                except SourceError:
                    answer = None""",
        world=_without_callbacks,
    ),
    _one(
        "an answer is complete up to when it came",
        where=Inquiries.check,
        old="complete_to=asked_at",
        new="complete_to=int(self._clock()) + 60",
        world=_without_callbacks,
    ),
    _one(
        "what was given back still counts",
        where=card._status,
        old="Status.SETTLED if _kept(facts.paid[: facts.in_grace]) else Status.REFUNDED",
        new="Status.SETTLED",
        world=_with_callbacks,
    ),
    # ------------------------------------------------ what receivers get
    _one(
        "any answer is success",
        where=Courier._deliver,
        old="if reply is not None and not 200 <= reply.status < 300:",
        new="if reply is not None and not 200 <= reply.status < 600:",
        world=_with_failing_receivers,
    ),
    _one(
        "the events of a payment go out in any order",
        where="webhook_deliveries_due",
        old="earlier.state = 'waiting'",
        new="earlier.state = 'nothing'",
        world=_with_failing_receivers,
    ),
    _one(
        "410 is a failure like any other",
        where=Courier._consequences,
        old="if attempt.status == _GONE:",
        new="if False:",
        world=_with_receivers_that_go,
    ),
    _one(
        "a delivery is noted before it leaves",
        where=Courier._deliver,
        old="reply = await self._post(due, secrets, began.at)",
        new="""await self._database.write([deliveries.delivered(due.id, began.at)])
            reply = await self._post(due, secrets, began.at)""",
        world=_with_crashes,
    ),
    _one(
        "what waits for a receiver outlives it",
        where="webhook_deliveries_drop",
        old="state = 'waiting'",
        new="state = 'nothing'",
        world=_with_receivers_that_go,
    ),
    _one(
        "the schedule is forgotten",
        shows_in=8,
        where=delivery.next_try_at,
        old="DELAYS_S[attempts - 1]",
        new="5",
        world=_with_failing_receivers,
    ),
    _one(
        "a receiver that comes and goes uses up its tries",
        shows_in=108,
        where="webhook_deliveries_hasten",
        old="attempts = max(attempts - 1, 0)",
        new="attempts = attempts",
        world=_with_receivers_that_come_and_go,
    ),
    _one(
        "only the new secret signs",
        where=Courier._secrets,
        old="signers = self.endpoint.signers(self._now())",
        new="signers = (self.endpoint.signer,)",
        world=_with_new_secrets,
    ),
    _one(
        "a webhook is signed for the time of its event",
        where=Courier._post,
        old="timestamp=at, body=body",
        new="timestamp=due.created_at, body=body",
        world=_with_failing_receivers,
    ),
    _one(
        "a merchant's own number is left out",
        where=delivery.payload,
        old='told["order_id"] = order_id',
        new='told["order_id"] = None',
        world=_any_shop,
    ),
)
