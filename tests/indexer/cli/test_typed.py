from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest

from indexer.cli import typed
from indexer.core.rate import Rate
from tests.chain import key
from tests.indexer.stage import forged


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("007", 7), ("250", 250)])
def test_a_number_is_one_between_its_bounds(text: str, value: int) -> None:
    assert typed.number(1, 250)(text) == value


@pytest.mark.parametrize("text", ["", "0", "251", "-1", "+1", "1.0", "1_0", " 1", "٣", "9" * 5_000])
def test_what_is_no_such_number_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"is no number from 1 to 250$") as refusal:
        typed.number(1, 250)(text)

    assert len(str(refusal.value)) < 150


def test_a_slot_is_what_its_column_can_hold() -> None:
    assert typed.slot("0") == 0
    assert typed.slot(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(ArgumentTypeError, match="is no slot: a number from 0 to"):
        typed.slot(str(2**63))


@pytest.mark.parametrize(("text", "value"), [("0.01", 0.01), ("20", 20.0), ("1e5", 100_000.0)])
def test_a_rate_is_requests_a_second(text: str, value: float) -> None:
    assert typed.rate(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "0.009", "100001", "nan", "inf", "x"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="no number of requests"):
        typed.rate(text)


def test_a_quota_is_so_many_in_so_long() -> None:
    assert typed.quota("100/10s") == Rate(100, 10)
    with pytest.raises(ArgumentTypeError, match="is no rate"):
        typed.quota("100")
    with pytest.raises(ArgumentTypeError, match="must be 1 to"):
        typed.quota("999999/s")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m", 60), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600), ("3650d", 315_360_000)],
)
def test_a_duration_is_seconds(text: str, seconds: int) -> None:
    assert typed.duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "0d", "-1d", "1", "1s", "1y", "1.5d", " 1d", "1D", "٣d", "3651d", "9" * 5_000]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no time such as 90d") as refusal:
        typed.duration_s(text)

    assert len(str(refusal.value)) < 170


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-22T20:00:00Z", 1_795_377_600),
        ("2026-11-22T21:00:00+01:00", 1_795_377_600),
    ],
)
def test_a_time_is_unix_seconds(text: str, seconds: int) -> None:
    assert typed.unix_s(text) == seconds


@pytest.mark.parametrize("text", ["", "now", "2026-11-22", "2026-11-22T20:00:00", "1795377600"])
def test_a_time_without_a_zone_is_none(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no time such as"):
        typed.unix_s(text)


@pytest.mark.parametrize(
    ("parse", "right", "wrong"),
    [
        (typed.signature, forged("a"), key("a")),
        (typed.key, key("a"), forged("a")),
        (typed.key, key("a"), ""),
        (typed.key, key("a"), "0" * 32),
        (typed.signature, forged("a"), "1" * 100_000),
        (typed.signature, forged("a"), "é" * 88),
    ],
    ids=["a key", "a signature", "nothing", "no base58", "far too long", "no letters of it"],
)
def test_base58_has_the_size_of_what_it_is(
    parse: Callable[[str], str], right: str, wrong: str
) -> None:
    assert parse(right) == right
    with pytest.raises(ArgumentTypeError, match="base58 of") as refusal:
        parse(wrong)
    assert len(str(refusal.value)) < 250
