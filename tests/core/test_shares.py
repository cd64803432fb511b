import random

import pytest
from hypothesis import given, strategies as st

from indexer.core.shares import (
    SHARD_UNITS,
    SHARDS,
    Division,
    divide,
    key_unit,
    shard_unit,
    unit_of,
)


KEYS = tuple(key_unit(f"key {n}") for n in range(5))
KINDS = (KEYS, SHARD_UNITS)


def test_whoever_is_alone_takes_everything() -> None:
    division = divide(KINDS, {}, [], me="a")

    assert sorted(division.take) == sorted([*KEYS, *SHARD_UNITS])
    assert division.leave == ()


def test_what_is_divided_evenly_stays_where_it_is() -> None:
    holders = {unit: "ab"[n % 2] for n, unit in enumerate(SHARD_UNITS)}

    assert divide([SHARD_UNITS], holders, "ab", me="a") == Division()
    assert divide([SHARD_UNITS], holders, "ab", me="b") == Division()


def test_a_single_unit_does_not_move_to_whoever_comes() -> None:
    holders = {KEYS[0]: "m"}

    for newcomer in ("a", "z"):
        assert divide([KEYS[:1]], holders, ["m", newcomer], me="m") == Division()
        assert divide([KEYS[:1]], holders, ["m", newcomer], me=newcomer) == Division()


def test_whoever_comes_is_given_its_share() -> None:
    holders = dict.fromkeys(KEYS, "a")

    leaving = divide([KEYS], holders, "ab", me="a").leave
    assert len(leaving) == 2
    assert divide([KEYS], holders, "ab", me="b").take == ()

    holders |= dict.fromkeys(leaving, "")
    assert sorted(divide([KEYS], holders, "ab", me="b").take) == sorted(leaving)


def test_what_somebody_did_who_is_gone_is_taken() -> None:
    holders = dict.fromkeys(KEYS[:3], "gone") | dict.fromkeys(KEYS[3:], "b")

    first, second = (divide([KEYS], holders, "ab", me=me).take for me in "ab")

    assert set(first) | set(second) == set(KEYS[:3])
    assert (len(first), len(second)) == (2, 1)
    assert not set(first) & set(second)


def test_two_that_see_the_same_do_not_begin_with_the_same() -> None:
    first, second = (divide([SHARD_UNITS], {}, "ab", me=me).take for me in "ab")

    assert set(first) | set(second) == set(SHARD_UNITS)
    assert not set(first) & set(second)


@given(
    count=st.integers(0, 20),
    indexers=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_however_it_stands_each_comes_to_its_share(count: int, indexers: int, seed: int) -> None:
    """And then nothing moves any more; nobody takes what somebody has who is there."""
    chance = random.Random(seed)
    there = [f"i{n}" for n in range(indexers)]
    units = [f"unit {n}" for n in range(count)]
    holders = {unit: chance.choice([*there, "gone", ""]) for unit in units if chance.random() < 0.8}

    for _ in range(3 * (count + indexers)):
        me = chance.choice(there)
        division = divide([units], holders, there, me=me)
        assert {holders.get(unit) for unit in division.leave} <= {me}
        assert not {holders.get(unit) for unit in division.take} & set(there)
        holders |= dict.fromkeys(division.leave, "") | dict.fromkeys(division.take, me)
    for me in [*there, *there]:
        division = divide([units], holders, there, me=me)
        holders |= dict.fromkeys(division.leave, "") | dict.fromkeys(division.take, me)

    held = [list(holders.values()).count(me) for me in there]
    assert sum(held) == count
    assert max(held) - min(held) <= 1
    assert all(divide([units], holders, there, me=me) == Division() for me in there)


def test_a_name_belongs_to_the_same_shard_in_every_process() -> None:
    assert unit_of("retention") == "shard:12"
    assert {unit_of(f"name {n}") for n in range(400)} == set(SHARD_UNITS)


@pytest.mark.parametrize("shard", [0, SHARDS - 1])
def test_units_have_names_that_people_can_read(shard: int) -> None:
    assert shard_unit(shard) == f"shard:{shard:02}" == SHARD_UNITS[shard]
    assert key_unit("Axiom") == "key:Axiom"
