"""Every way to pay, and every way to look as if one had paid, on the real runtime.

Executed by the real programs, then found, fetched, judged and stored by a whole daemon.
What the runtime cannot show is judged from made-up transactions in `tests.core.test_traps`:
confidential transfers, which need zero-knowledge proofs, and what only old or careless nodes
answer, such as no inner instructions. A payment whose keys *all* come from a lookup table is
not told here either: this runtime lists only what is in the message itself.
"""

import pytest
import pytest_asyncio

from indexer.demo.surfnet.launcher import Surfnet
from tests.scenario.stories_in_sol import IN_SOL
from tests.scenario.stories_in_tokens import IN_TOKENS
from tests.scenario.stories_in_wrapped_sol import IN_WRAPPED_SOL
from tests.scenario.stories_of_foreign_references import OF_FOREIGN_REFERENCES
from tests.scenario.stories_of_programs import OF_PROGRAMS
from tests.scenario.stories_of_several import OF_SEVERAL
from tests.scenario.stories_of_token_accounts import OF_TOKEN_ACCOUNTS
from tests.scenario.story import Outcomes, Stories, outcomes, tell


STORIES = Stories(
    IN_SOL
    | IN_WRAPPED_SOL
    | IN_TOKENS
    | OF_TOKEN_ACCOUNTS
    | OF_PROGRAMS
    | OF_SEVERAL
    | OF_FOREIGN_REFERENCES
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(surfnet: Surfnet, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return await tell(surfnet, tmp_path_factory.mktemp("traps"), STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_on_chain(told: Outcomes, name: str) -> None:
    for outcome in outcomes(told, name):
        assert outcome.seen == outcome.expected
        assert outcome.faults == []
