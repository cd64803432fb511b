"""Every kind of transfer that the rule must judge, executed by the real programs."""

from typing import Any

import pytest
from solders.instruction import AccountMeta
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from indexer.core.solana_pay import TransferRequest, encode
from indexer.demo.cluster import Cluster
from indexer.demo.instructions import (
    MEMO_V1,
    SYSTEM,
    batch,
    memo,
    seeded,
    sol_transfer,
    sol_transfer_with_seed,
    unwrap_lamports,
    with_references,
    with_signer,
)
from indexer.demo.surfnet.install import SurfnetError
from indexer.demo.tokens import CLASSIC, TOKEN_2022, WRAPPED_SOL, Token, TransferFee
from indexer.demo.wallet import LAMPORTS_PER_SOL, Version, Wallet


def key() -> Pubkey:
    return Keypair().pubkey()


async def landed(cluster: Cluster, signature: str) -> dict[str, Any]:
    await cluster.landed([signature])
    answer: dict[str, Any] = await cluster.transaction(signature)
    return answer


def keys(transaction: dict[str, Any]) -> list[str]:
    loaded = transaction["meta"].get("loadedAddresses") or {"writable": [], "readonly": []}
    static: list[str] = transaction["transaction"]["message"]["accountKeys"]
    return [*static, *loaded["writable"], *loaded["readonly"]]


def accounts_of(transaction: dict[str, Any], position: int) -> list[str]:
    instruction = transaction["transaction"]["message"]["instructions"][position]
    return [keys(transaction)[index] for index in instruction["accounts"]]


def gained_lamports(transaction: dict[str, Any], account: Pubkey) -> int:
    index = keys(transaction).index(str(account))
    meta = transaction["meta"]
    return int(meta["postBalances"][index]) - int(meta["preBalances"][index])


def gained_tokens(transaction: dict[str, Any], token: Token, owner: Pubkey) -> int:
    def held(rows: list[dict[str, Any]]) -> int:
        return sum(
            int(row["uiTokenAmount"]["amount"])
            for row in rows
            if row["owner"] == str(owner) and row["mint"] == str(token.mint)
        )

    meta = transaction["meta"]
    return held(meta["postTokenBalances"]) - held(meta["preTokenBalances"])


@pytest.mark.parametrize("version", ["legacy", 0, 1])
async def test_sol_by_url_carries_references_and_memo(
    cluster: Cluster, wallet: Wallet, version: Version
) -> None:
    recipient, reference, watch_key = key(), key(), key()
    url = encode(
        TransferRequest(
            recipient=str(recipient),
            amount="0.25",
            references=(str(reference), str(watch_key)),
            memo="order 7",
        )
    )

    transaction = await landed(cluster, await wallet.pay(url, version=version))

    assert transaction["version"] == version
    assert transaction["meta"]["err"] is None
    assert gained_lamports(transaction, recipient) == LAMPORTS_PER_SOL // 4
    assert accounts_of(transaction, 0) == []
    assert accounts_of(transaction, 1) == [
        str(k) for k in (wallet.key, recipient, reference, watch_key)
    ]


@pytest.mark.parametrize("program", [CLASSIC, TOKEN_2022])
@pytest.mark.parametrize("version", ["legacy", 0, 1])
async def test_token_by_url_creates_the_recipients_account(
    cluster: Cluster, wallet: Wallet, program: Pubkey, version: Version
) -> None:
    token = await wallet.create_token(decimals=6, supply=10**9, program=program)
    recipient, reference = key(), key()
    url = encode(
        TransferRequest(
            recipient=str(recipient),
            amount="1.5",
            spl_token=str(token.mint),
            references=(str(reference),),
        )
    )

    transaction = await landed(cluster, await wallet.pay(url, token=token, version=version))

    assert transaction["meta"]["err"] is None
    assert gained_tokens(transaction, token, recipient) == 1_500_000
    assert accounts_of(transaction, 1)[4:] == [str(reference)]


async def test_sol_out_of_a_seeded_account(cluster: Cluster, wallet: Wallet) -> None:
    recipient, reference = key(), key()
    await cluster.fund_sol(seeded(wallet.key, "till"), LAMPORTS_PER_SOL)
    transfer = sol_transfer_with_seed(wallet.key, "till", recipient, 2_000_000)

    transaction = await landed(cluster, await wallet.send(with_references(transfer, [reference])))

    assert gained_lamports(transaction, recipient) == 2_000_000
    assert accounts_of(transaction, 0)[3:] == [str(reference)]


@pytest.mark.parametrize("program", [CLASSIC, TOKEN_2022])
async def test_the_older_token_transfer(cluster: Cluster, wallet: Wallet, program: Pubkey) -> None:
    token = await wallet.create_token(decimals=2, supply=1_000, program=program)
    recipient, reference = key(), key()
    transfer = with_references(token.transfer_unchecked(wallet.key, recipient, 7), [reference])

    transaction = await landed(
        cluster, await wallet.send(token.create_account(wallet.key, recipient), transfer)
    )

    assert gained_tokens(transaction, token, recipient) == 7
    assert accounts_of(transaction, 1)[3:] == [str(reference)]


@pytest.mark.parametrize("named", [True, False])
async def test_a_fee_is_withheld_from_what_arrives(
    cluster: Cluster, wallet: Wallet, *, named: bool
) -> None:
    fee = TransferFee(basis_points=150, maximum=10**9)
    token = await wallet.create_token(decimals=6, supply=10**9, program=TOKEN_2022, fee=fee)
    recipient = key()
    transfer = token.transfer_with_fee if named else token.transfer

    transaction = await landed(
        cluster,
        await wallet.send(
            token.create_account(wallet.key, recipient),
            transfer(wallet.key, recipient, 1_000_001),
        ),
    )

    assert transaction["meta"]["err"] is None
    assert fee.of(1_000_001) == 15_001
    assert gained_tokens(transaction, token, recipient) == 1_000_001 - 15_001


async def test_a_wrong_fee_fails(cluster: Cluster, wallet: Wallet) -> None:
    fee = TransferFee(basis_points=150, maximum=10**9)
    token = await wallet.create_token(decimals=6, supply=10**9, program=TOKEN_2022, fee=fee)
    believed = Token(
        mint=token.mint,
        decimals=6,
        program=TOKEN_2022,
        fee=TransferFee(basis_points=1, maximum=10**9),
    )

    transaction = await landed(
        cluster,
        await wallet.send(believed.transfer_with_fee(wallet.key, wallet.key, 1_000)),
    )

    assert transaction["meta"]["err"] is not None


async def test_a_token_without_a_fee_has_no_transfer_with_one(wallet: Wallet) -> None:
    with pytest.raises(ValueError, match="takes no fee"):
        WRAPPED_SOL.transfer_with_fee(wallet.key, wallet.key, 1)


@pytest.mark.parametrize("program", [CLASSIC, TOKEN_2022])
async def test_a_batch_moves_several_at_once(
    cluster: Cluster, wallet: Wallet, program: Pubkey
) -> None:
    token = await wallet.create_token(decimals=6, supply=1_000, program=program)
    first, second, reference = key(), key(), key()
    together = batch(
        [
            with_references(token.transfer(wallet.key, first, 10), [reference]),
            token.transfer_unchecked(wallet.key, second, 20),
        ]
    )

    transaction = await landed(
        cluster,
        await wallet.send(
            token.create_account(wallet.key, first),
            token.create_account(wallet.key, second),
            together,
        ),
    )

    assert transaction["meta"]["err"] is None
    assert gained_tokens(transaction, token, first) == 10
    assert gained_tokens(transaction, token, second) == 20


@pytest.mark.parametrize(("lamports", "arrives"), [(400_000_000, 400_000_000), (None, 10**9)])
async def test_unwrapped_lamports_arrive_without_a_system_instruction(
    cluster: Cluster, wallet: Wallet, lamports: int | None, arrives: int
) -> None:
    recipient, reference = key(), key()
    await wallet.run(*WRAPPED_SOL.wrap(wallet.key, 10**9))
    unwrap = unwrap_lamports(
        program=CLASSIC,
        source=WRAPPED_SOL.account(wallet.key),
        destination=recipient,
        owner=wallet.key,
        lamports=lamports,
    )

    transaction = await landed(cluster, await wallet.send(with_references(unwrap, [reference])))

    assert transaction["meta"]["err"] is None
    assert gained_lamports(transaction, recipient) == arrives


async def test_keys_may_come_from_a_lookup_table(cluster: Cluster, wallet: Wallet) -> None:
    recipient, reference = key(), key()
    table = await wallet.create_lookup_table([recipient, reference])
    transfer = with_references(sol_transfer(wallet.key, recipient, 1_000_000), [reference])

    transaction = await landed(cluster, await wallet.send(transfer, lookup_tables=[table]))

    assert transaction["meta"]["err"] is None
    assert str(reference) not in transaction["transaction"]["message"]["accountKeys"]
    assert accounts_of(transaction, 0) == [str(k) for k in (wallet.key, recipient, reference)]
    assert gained_lamports(transaction, recipient) == 1_000_000


async def test_a_failing_transfer_lands_with_its_reference(
    cluster: Cluster, wallet: Wallet
) -> None:
    recipient, reference = key(), key()
    too_much = sol_transfer(wallet.key, recipient, 10**6 * LAMPORTS_PER_SOL)

    signature = await wallet.send(with_references(too_much, [reference]))

    transaction = await landed(cluster, signature)
    found = await cluster.call("getSignaturesForAddress", str(reference))
    assert transaction["meta"]["err"] is not None
    assert gained_lamports(transaction, recipient) == 0
    assert [row["signature"] for row in found] == [signature]


async def test_dust_to_a_new_account_fails_and_to_an_old_one_arrives(
    cluster: Cluster, wallet: Wallet
) -> None:
    old, new = key(), key()
    await cluster.fund_sol(old, LAMPORTS_PER_SOL)

    arrived = await landed(cluster, await wallet.send(sol_transfer(wallet.key, old, 1)))
    failed = await landed(cluster, await wallet.send(sol_transfer(wallet.key, new, 1)))

    assert gained_lamports(arrived, old) == 1
    assert failed["meta"]["err"] == {"InsufficientFundsForRent": {"account_index": 1}}


async def test_a_transfer_to_oneself_costs_the_fee(cluster: Cluster, wallet: Wallet) -> None:
    transaction = await landed(
        cluster, await wallet.send(sol_transfer(wallet.key, wallet.key, 5_000_000))
    )

    assert gained_lamports(transaction, wallet.key) == -transaction["meta"]["fee"]


async def test_two_transfers_with_two_references_each(cluster: Cluster, wallet: Wallet) -> None:
    recipient, first, second = key(), key(), key()
    one = with_references(sol_transfer(wallet.key, recipient, 1_000_000), [first])
    both = with_references(sol_transfer(wallet.key, recipient, 2_000_000), [first, second])

    transaction = await landed(cluster, await wallet.send(one, both))

    assert gained_lamports(transaction, recipient) == 3_000_000
    assert accounts_of(transaction, 0)[2:] == [str(first)]
    assert accounts_of(transaction, 1)[2:] == [str(first), str(second)]


async def test_a_reference_may_stand_on_the_memo_alone(cluster: Cluster, wallet: Wallet) -> None:
    recipient, reference, signing = key(), key(), Keypair()
    unsigned = with_references(memo("for you", program=MEMO_V1), [reference])
    meta = AccountMeta(signing.pubkey(), is_signer=True, is_writable=False)
    signed = memo("for you", [meta])
    transfer = sol_transfer(wallet.key, recipient, 1_000_000)

    transaction = await landed(
        cluster, await wallet.send(unsigned, signed, transfer, signers=[signing])
    )

    assert transaction["meta"]["err"] is None
    assert accounts_of(transaction, 0) == [str(reference)]
    assert accounts_of(transaction, 1) == [str(signing.pubkey())]
    assert accounts_of(transaction, 2) == [str(wallet.key), str(recipient)]


async def test_a_signer_may_stand_before_the_reference(cluster: Cluster, wallet: Wallet) -> None:
    token = await wallet.create_token(decimals=6, supply=1_000)
    recipient, reference, co_signer = key(), key(), Keypair()
    transfer = with_signer(token.transfer(wallet.key, recipient, 10), co_signer.pubkey())

    transaction = await landed(
        cluster,
        await wallet.send(
            token.create_account(wallet.key, recipient),
            with_references(transfer, [reference]),
            signers=[co_signer],
        ),
    )

    assert gained_tokens(transaction, token, recipient) == 10
    assert accounts_of(transaction, 1)[4:] == [str(co_signer.pubkey()), str(reference)]


async def test_creating_the_recipient_credits_it(cluster: Cluster, wallet: Wallet) -> None:
    recipient, reference = Keypair(), key()
    create = create_account(
        CreateAccountParams(
            from_pubkey=wallet.key,
            to_pubkey=recipient.pubkey(),
            lamports=3_000_000,
            space=0,
            owner=SYSTEM,
        )
    )

    transaction = await landed(
        cluster,
        await wallet.send(with_references(create, [reference]), signers=[recipient]),
    )

    assert gained_lamports(transaction, recipient.pubkey()) == 3_000_000


async def test_the_same_transfer_twice_lands_twice(cluster: Cluster, wallet: Wallet) -> None:
    recipient = key()
    again = sol_transfer(wallet.key, recipient, 1_000_000)

    other = sol_transfer(wallet.key, recipient, 3_000_000)

    signatures = [await wallet.send(each) for each in (again, again, other, again)]

    await cluster.landed(signatures)
    assert len(set(signatures)) == 4
    assert await cluster.lamports(recipient) == 6_000_000


async def test_many_wallets_are_funded(cluster: Cluster) -> None:
    wallets = await Wallet.many(cluster, 120, 7_000_000)

    assert len({wallet.key for wallet in wallets}) == 120
    assert await cluster.lamports(wallets[-1].key) == 7_000_000


async def test_what_must_succeed_is_said_when_it_fails(wallet: Wallet) -> None:
    with pytest.raises(SurfnetError, match="failed on the chain"):
        await wallet.run(sol_transfer(wallet.key, key(), 10**6 * LAMPORTS_PER_SOL))
