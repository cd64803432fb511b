"""Every way to pay, and every way to look as if one had paid, on the real runtime.

Executed by the real programs, then found, fetched, judged and stored by a whole daemon.
What the runtime cannot show is judged from made-up transactions in `tests.core.test_traps`:
confidential transfers, which need zero-knowledge proofs, and what only old or careless nodes
answer, such as no inner instructions. A payment whose keys *all* come from a lookup table is
not told here either: this runtime lists only what is in the message itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
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


ROOT = Path(__file__).resolve().parents[2]

STORIES = Stories(
    IN_SOL
    | IN_WRAPPED_SOL
    | IN_TOKENS
    | OF_TOKEN_ACCOUNTS
    | OF_PROGRAMS
    | OF_SEVERAL
    | OF_FOREIGN_REFERENCES
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traps")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(surfnet: Surfnet, folder: Path) -> Outcomes:
    return await tell(surfnet, folder, STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_on_chain(told: Outcomes, name: str) -> None:
    for outcome in outcomes(told, name):
        assert outcome.seen == outcome.expected
        assert outcome.faults == []


def audited(surfnet: Surfnet, folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and findings of `axiompay audit`."""
    inherited = {name: each for name, each in os.environ.items() if not name.startswith("AXIOM_")}
    settings = {
        "AXIOM_DATABASE_URL": f"sqlite:///{folder}/axiom.db",
        "AXIOM_RPC_URLS": surfnet.rpc_url,
        "AXIOM_RPC_RATE": "0",
        "PYTHONPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "indexer", "audit", "--json"],
        cwd=folder,
        env=inherited | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.stderr == ""
    return ended.returncode, json.loads(ended.stdout)


def test_an_audit_of_it_all_finds_nothing_until_a_row_is_changed_by_hand(
    surfnet: Surfnet, folder: Path, told: Outcomes
) -> None:
    told_of = [outcome for name in told for outcome in outcomes(told, name)]

    code, report = audited(surfnet, folder)

    assert report["differences"] == []
    assert (report["drift"], report["unproven"], report["behind"]) == (False, [], [])
    assert code == 0
    assert report["payments"] == len(told_of)
    assert {token["credits"] for token in report["tokens"]} != {"0"}
    assert all(token["credits"] == token["legs"] for token in report["tokens"])
    assert {each["payment_id"] for each in report["doubtful"]} == {
        outcome.record.payment.terms.id
        for outcome in told_of
        if any(verdict.credit and not verdict.clean for verdict in outcome.record.verdicts)
    }

    database = apsw.Connection(str(folder / "axiom.db"))
    [(payment_id, signature)] = database.execute(
        "UPDATE verdicts SET credit = '1' || credit WHERE signature = ("
        # One that speaks of one payment only: which is the last one is different in every run.
        "  SELECT signature FROM verdicts GROUP BY signature"
        "  HAVING count(*) = 1 AND min(credit <> '0' AND clean) ORDER BY signature DESC LIMIT 1"
        ") RETURNING payment_id, signature"
    ).fetchall()
    database.close()
    code, report = audited(surfnet, folder)

    assert code == 1
    assert ("verdict.credit", signature) in {
        (each["what"], each["where"]) for each in report["differences"]
    }
    assert {each["payment_id"] for each in report["differences"]} == {payment_id}
