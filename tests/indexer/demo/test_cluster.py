"""What the local runtime can be bent to do; tests of the product build on these."""

import asyncio

import pytest
from solders.keypair import Keypair

from indexer.core.types import TOKEN_PROGRAM, Commitment
from indexer.demo.cluster import Cluster
from indexer.demo.instructions import sol_transfer
from indexer.demo.surfnet.install import SurfnetError
from indexer.demo.wallet import LAMPORTS_PER_SOL, Wallet


@pytest.mark.parametrize(
    "url",
    [
        "https://api.mainnet-beta.solana.com",
        "http://10.0.0.1:8899",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "nonsense",
    ],
)
def test_nothing_but_this_machine_is_spoken_to(url: str) -> None:
    with pytest.raises(SurfnetError, match="not on this machine"):
        Cluster(url)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.9.9.9:1", "http://[::1]:1"])
def test_this_machine_has_several_names(url: str) -> None:
    assert Cluster(url).rpc_url == url


async def test_a_refusal_is_an_error(cluster: Cluster) -> None:
    with pytest.raises(SurfnetError, match="refuses getNothing"):
        await cluster.call("getNothing")


async def test_what_is_confirmed_becomes_final_31_slots_later(wallet: Wallet) -> None:
    signature = await wallet.send(sol_transfer(wallet.key, wallet.key, 1))

    (confirmed,) = await wallet.cluster.landed([signature])
    (final,) = await wallet.cluster.landed([signature], Commitment.FINALIZED)

    assert confirmed == final
    assert await wallet.cluster.slot("finalized") >= final.slot


async def test_many_signatures_are_awaited_together(cluster: Cluster) -> None:
    wallets = await Wallet.many(cluster, 10)
    sends = [w.send(sol_transfer(w.key, w.key, n)) for w in wallets for n in range(30)]
    signatures = list(await asyncio.gather(*sends))

    landed = await cluster.landed(signatures)

    assert [one.signature for one in landed] == signatures


async def test_an_account_is_made_what_it_is_told(cluster: Cluster) -> None:
    key = Keypair().pubkey()

    await cluster.set_account(key, lamports=2**63 + 1, data=b"any", owner=TOKEN_PROGRAM)
    answer = await cluster.call("getAccountInfo", str(key), {"encoding": "base64"})
    await cluster.fund_sol(key, 7)

    assert answer["value"]["lamports"] == 2**63 + 1
    assert answer["value"]["owner"] == TOKEN_PROGRAM
    assert answer["value"]["data"] == ["YW55", "base64"]
    assert await cluster.lamports(key) == 7


async def test_a_token_balance_is_made_what_it_is_told(wallet: Wallet) -> None:
    token = await wallet.create_token(decimals=6)
    rich = Keypair().pubkey()

    await wallet.cluster.set_token_account(rich, token.mint, 2**64 - 1)

    answer = await wallet.cluster.call("getTokenAccountBalance", str(token.account(rich)))
    assert answer["value"]["amount"] == str(2**64 - 1)


async def test_a_jump_to_a_slot_makes_the_past_final(own_cluster: Cluster) -> None:
    wallet = await Wallet.funded(own_cluster)
    landed = await wallet.run(sol_transfer(wallet.key, wallet.key, 1))

    await own_cluster.travel_to_slot(landed.slot + 10_000)

    assert await own_cluster.slot("finalized") > landed.slot + 9_000
    assert await own_cluster.landed([landed.signature], Commitment.FINALIZED) == [landed]


async def test_a_jump_in_time_moves_block_time(own_cluster: Cluster) -> None:
    wallet = await Wallet.funded(own_cluster)
    later = await own_cluster.call("getBlockTime", await own_cluster.slot()) + 100_000

    await own_cluster.travel_to_time(later)
    landed = await wallet.run(sol_transfer(wallet.key, wallet.key, 1))

    block_time = await own_cluster.call("getBlockTime", landed.slot)
    assert later <= block_time < later + 100


async def test_a_paused_clock_lands_nothing_until_it_is_resumed(own_cluster: Cluster) -> None:
    wallet = await Wallet.funded(own_cluster)
    await own_cluster.pause_clock()
    stalled = await own_cluster.slot()

    signature = await wallet.send(sol_transfer(wallet.key, wallet.key, 1))
    await asyncio.sleep(0.5)  # ten slots, were there any
    meanwhile = await own_cluster.slot()
    statuses = await own_cluster.call("getSignatureStatuses", [signature])
    await own_cluster.resume_clock()

    assert meanwhile == stalled
    assert statuses["value"] == [None]
    assert (await own_cluster.landed([signature]))[0].error is None


async def test_a_reset_forgets_what_was_confirmed(own_cluster: Cluster) -> None:
    wallet = await Wallet.funded(own_cluster)
    genesis_hash = await own_cluster.call("getGenesisHash")
    landed = await wallet.run(sol_transfer(wallet.key, wallet.key, 1))

    await own_cluster.reset()

    assert await own_cluster.transaction(landed.signature) is None
    assert await own_cluster.call("getSignaturesForAddress", str(wallet.key)) == []
    assert await own_cluster.lamports(wallet.key) == 0
    assert await own_cluster.call("getGenesisHash") == genesis_hash
    await own_cluster.fund_sol(wallet.key, LAMPORTS_PER_SOL)
    await wallet.run(sol_transfer(wallet.key, wallet.key, 2))
