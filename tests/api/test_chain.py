import asyncio

import pytest

from api.chain import Accounts
from api.limits import MINT_CACHE_S
from indexer.errors import SourceUnavailable
from tests.api.running import MERCHANT, RENT_LAMPORTS, USDC, ChainDouble, Clock, mint, wallet
from tests.instructions import key


def accounts() -> tuple[Accounts, ChainDouble, Clock]:
    chain, clock = ChainDouble({MERCHANT: wallet(), USDC: mint()}), Clock(0)
    return Accounts(chain, [USDC], clock), chain, clock


async def test_each_key_is_read() -> None:
    reader, _, _ = accounts()

    assert await reader.read([USDC, MERCHANT, key("nobody")]) == {
        USDC: mint(),
        MERCHANT: wallet(),
        key("nobody"): None,
    }
    assert await reader.rent_exempt_minimum() == RENT_LAMPORTS


async def test_only_mints_are_remembered() -> None:
    reader, chain, _ = accounts()

    for _ in range(3):
        await reader.read([USDC, MERCHANT])

    assert (chain.asked.count(USDC), chain.asked.count(MERCHANT)) == (1, 3)


async def test_a_mint_is_read_again_in_time() -> None:
    reader, chain, clock = accounts()
    await reader.read([USDC])

    clock.now = MINT_CACHE_S
    await reader.read([USDC])

    assert chain.asked.count(USDC) == 2


async def test_a_mint_that_is_not_there_is_asked_for_again() -> None:
    reader, chain, _ = accounts()
    del chain.accounts[USDC]
    assert await reader.read([USDC]) == {USDC: None}

    chain.accounts[USDC] = mint()
    assert await reader.read([USDC]) == {USDC: mint()}


async def test_a_chain_that_does_not_answer_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.chain.CHAIN_TIMEOUT_S", 0.01)
    reader, chain, _ = accounts()
    chain.gate = asyncio.Event()

    with pytest.raises(SourceUnavailable):
        await reader.read([MERCHANT])


async def test_the_rent_is_remembered() -> None:
    reader, chain, _ = accounts()
    await reader.rent_exempt_minimum()
    chain.error = SourceUnavailable("down")

    assert await reader.rent_exempt_minimum() == RENT_LAMPORTS
