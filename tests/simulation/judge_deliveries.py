"""What receivers of webhooks got, held against the event log."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from tests.simulation.case import Case, Row, Rule
from tests.simulation.outcome import Post, Reached


#: Seconds from one try to the next, at the least. A receiver has three days to come back.
PAUSES_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
TRIES_MAX: Final = len(PAUSES_S) + 1
#: Nothing is given up before that, in seconds.
PATIENCE_S: Final = 70 * 3_600
#: Seconds for which something may still leave after its receiver was disabled.
LEAVING_S: Final = 8.0
#: Seconds that the time of an attempt may differ from the one at which it leaves.
SKEW_S: Final = 5.0


class Mail:
    """What went to one receiver."""

    def __init__(self, case: Case, receiver: Reached) -> None:
        self.receiver = receiver
        self.posts = receiver.posts
        self._case = case

    @cached_property
    def events(self) -> Mapping[str, Row]:
        """`webhook-id` -> event, of the whole log."""
        return {_id(event): event for event in self._case.outcome.events}

    @cached_property
    def wanted(self) -> Mapping[str, Row]:
        """The events of its types that happened while it was enabled."""
        return {id_: event for id_, event in self.events.items() if self._wants(event)}

    @cached_property
    def rows(self) -> Mapping[str, Row]:
        """`webhook-id` -> its delivery as it is stored."""
        by_seq = {event["seq"]: id_ for id_, event in self.events.items()}
        return {
            by_seq[row["event_seq"]]: row
            for row in self._case.outcome.rows["webhook_deliveries"]
            if row["endpoint_id"] == self.receiver.id and row["event_seq"] is not None
        }

    @property
    def is_steady(self) -> bool:
        """It was enabled all the time."""
        return [turn.state for turn in self.receiver.turns] == ["enabled"]

    def of(self, webhook_id: str) -> list[Post]:
        """Everything that was sent of one event, in order."""
        return [post for post in self.posts if post.headers["webhook-id"] == webhook_id]

    def first_arrivals(self) -> dict[str, float]:
        """`webhook-id` -> when it was first received."""
        first: dict[str, float] = {}
        for post in self.posts:
            if post.received_at is not None:
                id_ = post.headers["webhook-id"]
                first[id_] = min(first.get(id_, post.received_at), post.received_at)
        return first

    def is_taken(self, webhook_id: str) -> bool:
        """It said at least once that it has it."""
        return any(_is_good(post) for post in self.of(webhook_id))

    def _wants(self, event: Row) -> bool:
        types = self.receiver.event_types
        before = [turn for turn in self.receiver.turns if turn.last_seq < event["seq"]]
        is_enabled = bool(before) and before[-1].state == "enabled"
        return is_enabled and (not types or event["type"] in types)


def mails(case: Case) -> Iterator[Mail]:
    """Of each receiver."""
    for receiver in case.outcome.reached:
        yield Mail(case, receiver)


def every_event_arrives(case: Case) -> Iterator[str]:
    """A receiver that is there, or comes back, gets all of its events.

    One that is disabled need not get what was waiting, unless its merchant asks for it.
    """
    for mail in mails(case):
        receiver = mail.receiver
        if receiver.is_away_for_good or not (mail.is_steady or receiver.asked_again):
            continue
        if receiver.turns[-1].state != "enabled":
            continue
        for id_, event in mail.wanted.items():
            if not mail.is_taken(id_):
                yield f"{receiver.id} never got {id_}, {event['type']}: {_row(mail, id_)}"


def nothing_is_given_up_early(case: Case) -> Iterator[str]:
    """A receiver has days to come back; what it got at last was not given up."""
    for mail in mails(case):
        for id_, row in mail.rows.items():
            if row["state"] == "failed" and row["ended_at"] - row["asked_at"] < PATIENCE_S:
                yield f"{mail.receiver.id}: {id_} was given up early: {_row(mail, id_)}"


def what_is_delivered_arrived(case: Case) -> Iterator[str]:
    """A delivery is done when the receiver said so, and not before."""
    for mail in mails(case):
        for id_, row in mail.rows.items():
            if row["state"] == "delivered" and not mail.is_taken(id_):
                said = [post.status for post in mail.of(id_)]
                yield f"{mail.receiver.id}: {id_} is delivered, and was answered {said}"


def events_arrive_in_order(case: Case) -> Iterator[str]:
    """The events of a payment reach a receiver for the first time in the order of the log."""
    for mail in mails(case):
        if not mail.is_steady or mail.receiver.is_away_for_good:
            continue
        first, by_payment = mail.first_arrivals(), dict[str, list[tuple[float, str]]]()
        for id_, event in mail.events.items():
            if id_ in first:
                by_payment.setdefault(event["payment_id"], []).append((first[id_], id_))
        for arrivals in by_payment.values():
            for before, after in pairwise(arrivals):
                if after[0] < before[0]:
                    yield f"{mail.receiver.id} got {after[1]} before {before[1]}"


def nothing_else_is_sent(case: Case) -> Iterator[str]:
    """Only what is in the log, of its types, while it was enabled; later only on demand."""
    for mail in mails(case):
        receiver = mail.receiver
        for post in mail.posts:
            id_ = post.headers["webhook-id"]
            event = mail.events.get(id_)
            if event is None:
                yield f"{receiver.id} was sent {id_}, which nobody knows"
            elif receiver.event_types and event["type"] not in receiver.event_types:
                yield f"{receiver.id} was sent {id_}, a {event['type']}"
            elif id_ not in mail.wanted and not receiver.asked_again:
                yield f"{receiver.id} was sent {id_} of a time when it was not enabled"


def bodies_are_the_log(case: Case) -> Iterator[str]:
    """Each webhook says what the event says, and what the merchant calls the payment."""
    for mail in mails(case):
        for post in mail.posts:
            event = mail.events.get(post.headers["webhook-id"])
            if event is None:
                continue
            payment = case.payments.get(event["payment_id"])
            at = datetime.fromtimestamp(event["created_at"], UTC)
            expected: dict[str, Any] = {
                "type": event["type"],
                "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "data": json.loads(event["data"]) | {"order_id": payment and payment["order_id"]},
            }
            if json.loads(post.body) != expected:
                yield f"{post.headers['webhook-id']} said {post.body!r}, the log {expected}"


def signatures_verify(case: Case) -> Iterator[str]:
    """Each webhook is signed for the secret that its receiver has then, and for that time."""
    for mail in mails(case):
        for post in mail.posts:
            id_, stamp = post.headers["webhook-id"], post.headers["webhook-timestamp"]
            if abs(int(stamp) - post.at) > SKEW_S:
                yield f"{mail.receiver.id}: {id_} of {stamp} left at {post.at:.0f}"
            secret = [secret for since, secret in mail.receiver.secrets if since <= post.at][-1]
            signed = f"v1,{_signed(secret, f'{id_}.{stamp}.'.encode() + post.body)}"
            if signed not in post.headers["webhook-signature"].split():
                yield f"{mail.receiver.id}: the signature of {id_} at {post.at:.0f} does not verify"


def nothing_is_sent_to_the_disabled(case: Case) -> Iterator[str]:
    """Once a receiver is disabled, by whomever, nothing leaves for it; and 410 disables it."""
    for mail in mails(case):
        receiver, turns = mail.receiver, mail.receiver.turns
        for post in mail.posts:
            state = [turn for turn in turns if turn.at <= post.at - LEAVING_S]
            now = [turn for turn in turns if turn.at <= post.at]
            if state and state[-1].state != "enabled" and now[-1].state != "enabled":
                yield f"{receiver.id} was sent something at {post.at:.0f}: {state[-1]}"
        answered = [post for post in mail.posts if post.status is not None]
        if answered and answered[-1].status == 410 and turns[-1].state == "enabled":
            yield f"{receiver.id} wants nothing more, and is enabled"
        if turns[-1].state != "enabled" and any(
            row["state"] == "waiting" for row in mail.rows.values()
        ):
            yield f"{receiver.id} is {turns[-1].state}, and something waits for it"


def tries_are_on_schedule(case: Case) -> Iterator[str]:
    """Nothing is tried more often than planned, nor sooner, unless the receiver answers again.

    A process that dies may not have noted what it sent last; and two that run at once know
    nothing of each other, and send everything twice.
    """
    if case.outcome.profile.get("daemons", 1) > 1:
        return
    crashes = len(case.outcome.crashes)
    for mail in mails(case):
        if mail.receiver.asked_again:
            continue
        good = [post.at for post in mail.posts if _is_good(post)]
        for id_ in mail.rows:
            posts = mail.of(id_)
            planned = 0  # tries by the schedule, at the least
            for number, (one, other) in enumerate(pairwise(posts)):
                is_back = any(one.at <= at <= other.at for at in good)
                planned += not is_back
                if is_back or crashes or planned > len(PAUSES_S):
                    continue
                if other.at - one.at < PAUSES_S[planned - 1] - 1:  # stored in whole seconds
                    yield (
                        f"{mail.receiver.id} was sent {id_} at {one.at:.0f} and {other.at:.0f}, "
                        f"try {number + 2}"
                    )
            if planned >= TRIES_MAX + crashes:
                yield f"{mail.receiver.id} was sent {id_} {len(posts)} times"


def no_delivery_waits(case: Case) -> Iterator[str]:
    """In the end of a long world every delivery has its end."""
    for row in case.outcome.rows["webhook_deliveries"]:
        if row["state"] == "waiting":
            yield f"delivery {row['id']} to {row['endpoint_id']} still waits: {row}"


def _id(event: Row) -> str:
    name = event["payment_id"].removeprefix("pay_")
    return f"evt_{name}_{event['version']}_{event['ordinal']}"


def _is_good(post: Post) -> bool:
    return post.status is not None and 200 <= post.status < 300


def _row(mail: Mail, webhook_id: str) -> str:
    row = mail.rows.get(webhook_id)
    if row is None:
        return "there is no delivery"
    return f"{row['state']} after {row['attempts']} attempts of {len(mail.of(webhook_id))}"


def _signed(secret: str, message: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


#: Those that hold at every moment, and those that only hold once everything has come to its end.
SAFETY: Final[Sequence[Rule]] = (
    what_is_delivered_arrived,
    nothing_is_given_up_early,
    events_arrive_in_order,
    nothing_else_is_sent,
    bodies_are_the_log,
    signatures_verify,
    tries_are_on_schedule,
)
IN_THE_END: Final[Sequence[Rule]] = (
    every_event_arrives,
    nothing_is_sent_to_the_disabled,
    no_delivery_waits,
)
