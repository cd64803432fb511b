"""A tiny bank: people, accounts, and random transactions whose balances always add up.

Every move knows what it does to balances (`Ix.lamports`, `Ix.tokens`), so `tests.chain` can keep
the books, and what it means (`Leg`), so that a test can work out by itself what was paid, without
decoding anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from indexer.core.payment import Terms
from indexer.core.types import NATIVE_MINT, TOKEN_2022_PROGRAM, TOKEN_PROGRAM
from tests.chain import (
    Ix,
    TokenAccount,
    ata,
    batch,
    burn,
    call,
    checked_transfer,
    checked_transfer_with_fee,
    close_account,
    create_account,
    key,
    memo,
    mint_to,
    plain_transfer,
    sync_native,
    system_transfer,
    system_transfer_with_seed,
    transaction,
    unwrap_lamports,
    withdraw_excess_lamports,
)
from tests.core.script import BUYER, SHOP, STRANGER, USDC, in_sol, in_tokens


OTHER_SHOP = key("other shop")
PEOPLE = (SHOP, OTHER_SHOP, BUYER, STRANGER)
TAXED = key("mint with a transfer fee")
PROGRAMS = {USDC: TOKEN_PROGRAM, TAXED: TOKEN_2022_PROGRAM, NATIVE_MINT: TOKEN_PROGRAM}
#: Only the move that unwraps everything touches it, so that everything is always as much.
PURSE = TokenAccount(account=key("purse"), mint=NATIVE_MINT, owner=BUYER, amount=777)

ACCOUNTS = [
    *(
        TokenAccount(
            account=ata(who, mint, program), mint=mint, owner=who, amount=10**9, program=program
        )
        for who in PEOPLE
        for mint, program in PROGRAMS.items()
    ),
    *(
        TokenAccount(
            account=key(f"{name} auxiliary {mint}"),
            mint=mint,
            owner=who,
            amount=10**9,
            program=program,
        )
        for name, who in (("shop's", SHOP), ("stranger's", STRANGER))
        for mint, program in PROGRAMS.items()
    ),
]
OWNER_OF = {row.account: row.owner for row in (*ACCOUNTS, PURSE)}
REFERENCES = [key(f"reference {n}") for n in range(5)]
NOISE = [key("noise"), BUYER, key("watch key")]

amounts = st.integers(min_value=0, max_value=5_000)


@dataclass(frozen=True)
class Leg:
    """What a move really brought from one account to another.

    Attributes:
        source: None where it came into being.
        destination: None where it ceased to be.
        taken: what left the source.
        brought: what arrived.
        payer: who owns what was taken.
        references: empty for what is no transfer.
        told: the decoder can know of it.
    """

    mint: str | None
    source: str | None
    destination: str | None
    taken: int
    brought: int
    payer: str
    references: tuple[str, ...] = ()
    told: bool = True


@dataclass(frozen=True)
class Move:
    """An instruction, and what it did."""

    ix: Ix
    legs: tuple[Leg, ...] = ()


@dataclass(frozen=True)
class Scene:
    """One transaction, and the payments it may speak of."""

    landed: dict[str, Any]
    moves: tuple[Move, ...]
    payments: tuple[Terms, ...]
    owner_after: dict[str, str]
    fee_bps: int
    fee_payer: str

    @property
    def legs(self) -> list[Leg]:
        return [leg for move in self.moves for leg in move.legs]


# --------------------------------------------------------------------------------- one move


def _references(named: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from([*named, *NOISE]), max_size=3).map(tuple)


@st.composite
def lamport_moves(draw: st.DrawFn, named: Sequence[str]) -> Move:
    """SOL moves: transfers with references, and all that is none."""
    source, to = draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(PEOPLE))
    amount, refs = draw(amounts), draw(_references(named))
    derived, vault = key(f"derived from {source}"), key("vault")
    purse = Leg(NATIVE_MINT, PURSE.account, None, 777, 777, BUYER)
    made: dict[str, Callable[[], Move]] = {
        "transfer": lambda: Move(
            system_transfer(source, to, amount, *refs),
            (Leg(None, source, to, amount, amount, source, refs),),
        ),
        "seed": lambda: Move(
            system_transfer_with_seed(derived, source, to, amount, *refs),
            (Leg(None, derived, to, amount, amount, source, refs),),
        ),
        "create": lambda: Move(
            create_account(source, to, amount, *refs),
            (Leg(None, source, to, amount, amount, source),),
        ),
        "close": lambda: Move(
            close_account(key("empty"), to, source, lamports=amount),
            (Leg(None, key("empty"), to, amount, amount, source, told=False),),
        ),
        "excess": lambda: Move(
            withdraw_excess_lamports(vault, to, source, amount),
            (Leg(None, vault, to, amount, amount, source, told=False),),
        ),
        "program": lambda: Move(
            replace(call(key("program"), to, *refs), lamports=((vault, -amount), (to, amount))),
            (Leg(None, vault, to, amount, amount, source, told=False),),
        ),
        "purse": lambda: Move(
            replace(unwrap_lamports(PURSE.account, to, BUYER, 777, *refs), data=b"\x2d\x00"),
            (Leg(None, PURSE.account, to, 777, 777, BUYER, refs), purse),
        ),
        "memo": lambda: Move(memo("for", *dict.fromkeys(refs))),
    }
    return made[draw(st.sampled_from(sorted(made)))]()


@st.composite
def token_moves(draw: st.DrawFn, named: Sequence[str], fee_bps: int, program: str) -> Move:
    """Moves of one token program: transfers with references, and all that is none."""
    mint = draw(st.sampled_from([m for m, its in PROGRAMS.items() if its == program]))
    accounts = [row for row in ACCOUNTS if row.mint == mint]
    source, to = draw(st.sampled_from(accounts)), draw(st.sampled_from(accounts))
    amount, refs = draw(amounts), draw(_references(named))
    fee = -(-amount * fee_bps // 10_000) if mint == TAXED and source is not to else 0
    leg = Leg(mint, source.account, to.account, amount, amount - fee, source.owner, refs)
    said = (source.account, mint, to.account, source.owner, amount)
    made: dict[str, Callable[[], Move]] = {
        "checked": lambda: Move(
            checked_transfer(*said, *refs, withheld=fee, program=program), (leg,)
        ),
        "mint": lambda: Move(
            mint_to(mint, to.account, STRANGER, amount, program=program),
            (replace(leg, source=None, brought=amount, references=()),),
        ),
        "burn": lambda: Move(
            burn(source.account, mint, source.owner, amount, program=program),
            (replace(leg, destination=None, references=()),),
        ),
        "opaque": lambda: Move(
            Ix(
                program=program,
                accounts=(mint, to.account),
                data=b"\x1a\x03\x00" if program == TOKEN_2022_PROGRAM else b"\x11",
                tokens=((to.account, amount),),
            ),
            (replace(leg, source=None, brought=amount, references=(), told=False),),
        ),
    }
    if mint == TAXED:
        made["with fee"] = lambda: Move(checked_transfer_with_fee(*said, fee, *refs), (leg,))
    else:
        made["plain"] = lambda: Move(
            plain_transfer(source.account, to.account, source.owner, amount, *refs), (leg,)
        )
    if mint == NATIVE_MINT:
        who = draw(st.sampled_from(PEOPLE))
        made["sync"] = lambda: Move(
            sync_native(to.account, amount),
            (replace(leg, source=None, references=(), told=False),),
        )
        made["unwrap"] = lambda: Move(
            unwrap_lamports(source.account, who, source.owner, amount, *refs),
            (
                Leg(None, source.account, who, amount, amount, source.owner, refs),
                replace(leg, destination=None, references=()),
            ),
        )
    return made[draw(st.sampled_from(sorted(made)))]()


@st.composite
def batches(draw: st.DrawFn, named: Sequence[str], fee_bps: int) -> Move:
    """Several moves of one token program in one instruction."""
    program = draw(st.sampled_from([TOKEN_PROGRAM, TOKEN_2022_PROGRAM]))
    moves = draw(st.lists(token_moves(named, fee_bps, program), min_size=1, max_size=3))
    return Move(
        batch(*(move.ix for move in moves), program=program),
        tuple(leg for move in moves for leg in move.legs),
    )


def moves(named: Sequence[str], fee_bps: int) -> st.SearchStrategy[Move]:
    """Any move; `named` are the references that it may carry."""
    return st.one_of(
        lamport_moves(named),
        token_moves(named, fee_bps, TOKEN_PROGRAM),
        token_moves(named, fee_bps, TOKEN_2022_PROGRAM),
        batches(named, fee_bps),
    )


@st.composite
def paying(draw: st.DrawFn, payments: Sequence[Terms], fee_bps: int) -> Move:
    """A transfer that pays one of the payments, mostly: sometimes it is the shop's own money."""
    terms = draw(st.sampled_from(payments))
    payer = draw(st.sampled_from([BUYER, BUYER, BUYER, STRANGER, terms.recipient]))
    before, after = draw(_references([])), draw(_references([each.reference for each in payments]))
    refs, amount = (*before, terms.reference, *after), draw(st.sampled_from([1_000, 1, 40, 999]))
    mint, to = terms.asset.mint, terms.token_account
    if mint is None or to is None:
        leg = Leg(None, payer, terms.recipient, amount, amount, payer, refs)
        return Move(system_transfer(payer, terms.recipient, amount, *refs), (leg,))
    source = ata(payer, mint, PROGRAMS[mint])
    fee = -(-amount * fee_bps // 10_000) if mint == TAXED and source != to else 0
    leg = Leg(mint, source, to, amount, amount - fee, payer, refs)
    said = (source, mint, to, payer, amount)
    if mint == TAXED and draw(st.booleans()):
        return Move(checked_transfer_with_fee(*said, fee, *refs), (leg,))
    program = PROGRAMS[mint]
    return Move(checked_transfer(*said, *refs, withheld=fee, program=program), (leg,))


# ------------------------------------------------------------------------ one transaction


def payment(reference: str, recipient: str, mint: str | None) -> Terms:
    """A payment of 1,000 base units."""
    if mint is None:
        return in_sol(1_000, reference=reference, recipient=recipient)
    return in_tokens(
        1_000, mint=mint, program=PROGRAMS[mint], reference=reference, recipient=recipient
    )


def landed(
    made: Sequence[Move],
    *,
    called: Sequence[bool] = (),
    owner_after: dict[str, str] | None = None,
    **rest: Any,
) -> dict[str, Any]:
    """The transaction; moves that are `called` are inner instructions of some program's."""
    top: list[Ix] = []
    inner: dict[int, list[Ix]] = {}
    for n, move in enumerate(made):
        if n < len(called) and called[n]:
            inner[len(top)] = [move.ix]
            top.append(call(key("caller")))
        else:
            top.append(move.ix)
    rows = [replace(row, owner_after=(owner_after or {}).get(row.account)) for row in ACCOUNTS]
    return transaction([*top, memo("all", *REFERENCES)], inner=inner, tokens=[*rows, PURSE], **rest)


@st.composite
def scenes(draw: st.DrawFn, *, owners_change: bool = False) -> Scene:
    """A transaction of some moves, and some payments whose references it carries."""
    fee_bps = draw(st.sampled_from([0, 1, 250, 5_000, 10_000]))
    payments = [
        payment(
            reference,
            draw(st.sampled_from([SHOP, OTHER_SHOP])),
            draw(st.sampled_from([None, *PROGRAMS])),
        )
        for reference in REFERENCES[: draw(st.sampled_from([1, 2, 3, 5]))]
    ]
    pays = paying(payments, fee_bps)
    made = draw(st.lists(st.one_of(pays, pays, moves(REFERENCES, fee_bps)), min_size=2, max_size=6))
    once = [move for n, move in enumerate(made) if not (empties_purse(move) and _any(made[:n]))]
    changes = st.dictionaries(
        st.sampled_from(ACCOUNTS).map(lambda row: row.account), st.sampled_from(PEOPLE), max_size=2
    )
    owner_after = draw(changes) if owners_change else {}
    fee_payer = draw(st.sampled_from(PEOPLE))
    answer = landed(
        once,
        called=draw(st.lists(st.booleans(), max_size=7)),
        owner_after=owner_after,
        fee_payer=fee_payer,
    )
    return Scene(answer, tuple(once), tuple(payments), owner_after, fee_bps, fee_payer)


def empties_purse(move: Move) -> bool:
    return any(leg.source == PURSE.account for leg in move.legs)


def _any(made: Sequence[Move]) -> bool:
    return any(empties_purse(move) for move in made)
