"""Ranges of slots, compared with plain sets."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from indexer.core.ranges import Slots, merged, missing


def slots(first_max: int = 30) -> st.SearchStrategy[Slots]:
    return st.builds(
        lambda first, more: Slots(first, first + more), st.integers(0, first_max), st.integers(0, 9)
    )


def members(*ranges: Slots) -> set[int]:
    return {slot for each in ranges for slot in range(each.first, each.last + 1)}


@pytest.mark.parametrize(("first", "last"), [(2, 1), (-1, 5), (-2, -1)])
def test_what_ends_before_it_begins_is_no_range(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="are no range"):
        Slots(first, last)


def test_both_ends_belong_to_it() -> None:
    one, some = Slots(7, 7), Slots(5, 9)

    assert (len(one), len(some)) == (1, 5)
    assert [slot in some for slot in (4, 5, 9, 10)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([(5, 9), (1, 3)], [(1, 3), (5, 9)]),
        ([(1, 3), (4, 9)], [(1, 9)]),
        ([(1, 9), (2, 3)], [(1, 9)]),
        ([(1, 3), (3, 5), (7, 7)], [(1, 5), (7, 7)]),
    ],
)
def test_ranges_that_touch_become_one(
    ranges: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    assert merged(Slots(*each) for each in ranges) == [Slots(*each) for each in expected]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], [(10, 20)]),
        ([(10, 20)], []),
        ([(0, 99)], []),
        ([(0, 9), (21, 30)], [(10, 20)]),
        ([(0, 10), (20, 30)], [(11, 19)]),
        ([(12, 13), (15, 15)], [(10, 11), (14, 14), (16, 20)]),
    ],
)
def test_what_is_missing_lies_between_them(
    ranges: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    found = missing(Slots(10, 20), [Slots(*each) for each in ranges])

    assert list(found) == [Slots(*each) for each in expected]


@given(st.lists(slots()))
def test_merging_changes_no_slot_and_leaves_holes_only(ranges: list[Slots]) -> None:
    whole = merged(ranges)

    assert members(*whole) == members(*ranges)
    assert all(a.last + 1 < b.first for a, b in pairwise(whole))


@given(slots(), st.lists(slots()))
def test_what_is_missing_is_exactly_the_rest(wanted: Slots, ranges: list[Slots]) -> None:
    holes = missing(wanted, ranges)

    assert members(*holes) == members(wanted) - members(*ranges)
    assert merged(holes) == list(holes)
