"""Answers of nodes that are cut, overwritten, or hold anything anywhere."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

from indexer.core.types import SYSTEM_PROGRAM
from tests.chain import (
    ata,
    batch,
    call,
    checked_transfer,
    holding,
    key,
    token_transfer,
    transaction,
)
from tests.core.script import BUYER, ORDER, SHOP, USDC


PAID = token_transfer(BUYER, SHOP, 7, mint=USDC, references=[ORDER], memo_text="for order 1")
WITH_TABLE = token_transfer(
    BUYER,
    SHOP,
    7,
    mint=USDC,
    references=[ORDER],
    version=0,
    loaded_writable=[ata(SHOP, USDC)],
    loaded_readonly=[ORDER],
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**62, max_value=2**70)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([BUYER, SHOP, SYSTEM_PROGRAM, "9" * 30]),
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=5), inside, max_size=4)
    ),
    max_leaves=8,
)

SAMPLES: list[dict[str, Any]] = [
    PAID,
    WITH_TABLE,
    transaction(
        [call(key("program"))],
        inner={
            0: [
                batch(
                    checked_transfer(ata(BUYER, USDC), USDC, ata(SHOP, USDC), BUYER, 7, ORDER),
                )
            ]
        },
        tokens=[holding(BUYER, USDC), holding(SHOP, USDC)],
    ),
    {"parentSlot": 1, "blockTime": 5, "transactions": [PAID, WITH_TABLE]},
]


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value inside a JSON value."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    return [
        found for step, part in inside for found in ((*path, step), *places(part, (*path, step)))
    ]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """An answer in which some values are replaced or gone, then perhaps cut or overwritten."""
    landed = copy.deepcopy(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(min_value=0, max_value=3))):
        *steps, last = draw(st.sampled_from(places(landed)))
        inside: Any = landed
        for step in steps:
            inside = inside[step]
        if draw(st.booleans()) and isinstance(inside, dict):
            del inside[last]
        else:
            inside[last] = draw(_JSON)
    raw = json.dumps(landed).encode()
    if draw(st.integers(min_value=0, max_value=4)) == 0:
        raw = raw[: draw(st.integers(min_value=0, max_value=len(raw)))]
    if raw and draw(st.integers(min_value=0, max_value=4)) == 0:
        at = draw(st.integers(min_value=0, max_value=len(raw) - 1))
        raw = raw[:at] + draw(st.binary(min_size=1, max_size=3)) + raw[at + 1 :]
    return raw
