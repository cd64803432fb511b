"""Every way to pay, and every way to look as if one had paid, on the real runtime.

Executed by the real programs, then found, fetched, judged and stored by a whole daemon.
What the runtime cannot execute is judged from made-up transactions in `tests.core.test_traps`:
confidential transfers (they need zero-knowledge proofs), transfer hooks (a program of its own),
and what only old or careless nodes answer (no `meta`, no inner instructions).
"""

import pytest
import pytest_asyncio

from indexer.demo.surfnet.launcher import Surfnet
from tests.scenario.stories_in_sol import IN_SOL
from tests.scenario.stories_in_tokens import IN_TOKENS
from tests.scenario.stories_of_foreign_references import OF_FOREIGN_REFERENCES
from tests.scenario.stories_of_programs import OF_PROGRAMS
from tests.scenario.stories_of_several import OF_SEVERAL
from tests.scenario.story import Outcomes, Stories, outcomes, tell


STORIES = Stories(IN_SOL | IN_TOKENS | OF_PROGRAMS | OF_SEVERAL | OF_FOREIGN_REFERENCES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(surfnet: Surfnet, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return await tell(surfnet, tmp_path_factory.mktemp("traps"), STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_on_chain(told: Outcomes, name: str) -> None:
    for outcome in outcomes(told, name):
        assert outcome.seen == outcome.expected
        assert outcome.faults == []
