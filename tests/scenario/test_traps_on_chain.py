"""Every way to pay, and every way to look as if one had paid, on the real runtime.

Executed by the real programs, then found, fetched, judged and stored by a whole daemon.
What the runtime cannot execute is judged from made-up transactions in `tests.core.test_traps`:
confidential transfers (they need zero-knowledge proofs), transfer hooks (a program of its own),
and what only old or careless nodes answer (no `meta`, no inner instructions).
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from indexer import sweep
from indexer.core.types import EventType, Status
from indexer.demo.surfnet.launcher import Surfnet
from tests.scenario.market import Market
from tests.scenario.stories_in_sol import IN_SOL
from tests.scenario.stories_in_tokens import IN_TOKENS
from tests.scenario.stories_of_programs import OF_PROGRAMS
from tests.scenario.stories_of_several import OF_SEVERAL
from tests.scenario.story import Outcome, Stories, tell


STORIES = Stories({**IN_SOL, **IN_TOKENS, **OF_PROGRAMS, **OF_SEVERAL})

Outcomes = dict[str, list[Outcome] | Exception]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(
    surfnet: Surfnet, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Outcomes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "SWEEP_INTERVAL_S", 0.5)  # the last thing to be waited for
        async with Market.open(surfnet, tmp_path_factory.mktemp("traps")) as market:
            yield await tell(market, STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_on_chain(told: Outcomes, name: str) -> None:
    outcomes = told[name]
    if isinstance(outcomes, Exception):
        raise outcomes
    for outcome in outcomes:
        assert outcome.seen == outcome.expected
        _check_stored(outcome)


def _check_stored(outcome: Outcome) -> None:
    """What holds at the end of every story."""
    state, verdicts = outcome.record.payment.state, outcome.record.verdicts
    assert outcome.record.sightings == ()
    assert state.received == sum(verdict.credit for verdict in verdicts)
    assert all(v.credit <= sum(leg.net for leg in v.legs) for v in verdicts)
    assert (state.settled_at is None) == (state.status is not Status.SETTLED)
    assert state.settled_at in {None, *(v.block_time for v in verdicts if v.credit)}
    assert outcome.events[0] == EventType.CREATED
    assert outcome.events.count(EventType.DETECTED) <= len([v for v in verdicts if v.credit])
