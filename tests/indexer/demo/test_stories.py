"""What each story does, seen by a payer that only writes it down."""

import pytest

from indexer.core.amounts import parse_amount
from indexer.core.types import Paid, Status
from indexer.demo.stories import Story, stories


class Diary:
    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.sent: list[int] = []
        self.waited: list[Status | Paid | None] = []
        self.failed = 0

    async def pay(self, amount: int | None = None) -> None:
        self.sent.append(self.amount if amount is None else amount)

    async def fail(self) -> None:
        self.failed += 1

    async def until(self, *, status: Status | None = None, paid: Paid | None = None) -> None:
        self.waited.append(status or paid)


@pytest.mark.parametrize("story", stories("T"), ids=lambda story: story.name)
async def test_what_is_sent_is_what_must_be_received(story: Story) -> None:
    decimals = 9 if story.symbol == "SOL" else 6
    asked = parse_amount(story.amount, decimals)
    diary = Diary(asked)

    await story.happens(diary)

    assert sum(diary.sent) == parse_amount(story.received, decimals)
    assert story.paid is (Paid.OVER if sum(diary.sent) > asked else Paid.EXACT)
    assert story.late == (Status.EXPIRED in diary.waited)


def test_each_trouble_has_its_story() -> None:
    told = stories("T")

    assert len({story.name for story in told}) == len(told) == 7
    assert {story.symbol for story in told} == {"SOL", "T"}
    assert sum(story.paid is Paid.OVER for story in told) == 2
    assert sum(story.late for story in told) == 1
