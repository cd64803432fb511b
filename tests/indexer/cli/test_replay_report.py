import pytest

from indexer.cli import replay_report
from indexer.core.outcome import Outcome, Preview
from indexer.core.ranges import Slots
from indexer.errors import SourceUnavailable
from indexer.undertaking import Report, Strategy
from tests.indexer.stage import forged


FAILURE = SourceUnavailable("gone")


def report(*outcomes: Outcome, run: int | None = 7, dry_run: bool = False) -> Report:
    made = Report(
        run=run, strategy=Strategy.BLOCKS, slots=Slots(5, 9), keys=("k",), dry_run=dry_run
    )
    previews = [
        Preview(signature=forged(str(n)), slot=5, outcome=outcome, credits={"pay_x": 3})
        for n, outcome in enumerate(outcomes)
    ]
    made.tally.note(previews)
    made.named += previews
    return made


def test_what_would_be_credited_was_credited_unless_it_was_dry() -> None:
    found = report(Outcome.WOULD_CREDIT, Outcome.ORPHAN)
    dry = report(Outcome.WOULD_CREDIT, dry_run=True, run=None)

    outcomes = replay_report.as_json(found, 1.0, None)["outcomes"]
    assert outcomes["credited"] == 1
    assert "would_credit" not in outcomes
    assert replay_report.as_json(dry, 1.0, None)["outcomes"]["would_credit"] == 1


def test_only_a_dry_run_names_what_it_found() -> None:
    dry = replay_report.as_json(report(Outcome.WOULD_CREDIT, dry_run=True), 1.0, None)

    assert dry["named"][0]["credits"] == [{"payment_id": "pay_x", "credit_base_units": "3"}]
    assert replay_report.as_json(report(Outcome.WOULD_CREDIT), 1.0, None)["named"] == []


@pytest.mark.parametrize(
    ("found", "failure", "is_complete"),
    [
        (report(Outcome.WOULD_CREDIT), None, True),
        (report(Outcome.UNREADABLE), None, False),
        (report(), FAILURE, False),
    ],
    ids=["done", "something unread", "failed"],
)
def test_only_a_run_with_nothing_left_is_complete(
    found: Report, failure: SourceUnavailable | None, is_complete: bool
) -> None:
    said = replay_report.as_json(found, 1.0, failure)

    assert said["complete"] is is_complete
    assert said["failure"] == (None if failure is None else "gone")


@pytest.mark.parametrize(
    ("found", "failure", "says"),
    [
        (report(Outcome.UNREADABLE), None, "1 transactions could not be read"),
        (report(Outcome.ORPHAN), FAILURE, "run 7 is incomplete; 1 transactions examined"),
        (report(Outcome.ORPHAN, run=None), FAILURE, "the same command begins anew"),
        (report(Outcome.UNREADABLE, dry_run=True), None, "nothing was written"),
    ],
)
def test_it_says_what_to_do_next(
    found: Report, failure: SourceUnavailable | None, says: str
) -> None:
    assert says in replay_report.what_is_left(found, failure)


def test_a_long_table_says_what_it_leaves_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay_report, "_SHOWN_MAX", 2)

    replay_report.show(report(*[Outcome.ORPHAN] * 5, dry_run=True), 1.0)

    shown = capsys.readouterr()
    assert shown.out.count("orphan") == 2 + 1  # and once in the counts
    assert "3 more are only counted" in shown.err
