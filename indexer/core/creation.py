"""What a merchant asks for becomes a payment here, or a sentence that says why not.

A payment that cannot be paid, or not be recognised when it is, must not come into being: the
customer would pay and nobody would know. So every field is checked against what the chain says
of its address before anything is stored. First come the checks that need no chain
(`keys_to_read`, which also says what to look up), then all of them (`create`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from solders.pubkey import Pubkey

from indexer.core import solana_pay
from indexer.core.account import (
    KNOWN_ADDRESSES,
    Account,
    Kind,
    associated_token_account,
    is_key,
    kind,
    token_account_parts,
)
from indexer.core.amounts import format_amount, parse_amount
from indexer.core.mint import parse_mint
from indexer.core.payment import Asset, Payment, Terms
from indexer.core.texts import (
    LABEL_CHARS_MAX,
    MESSAGE_CHARS_MAX,
    ORDER_ID_CHARS_MAX,
    check_line,
    check_memo,
    check_metadata,
)
from indexer.core.types import LAMPORTS_PER_SOL_DECIMALS, Currency
from indexer.errors import InvalidInput, InvariantError


EXPIRES_IN_S_MIN: Final = 1
#: A quote older than a week is no quote; a watched payment costs work for as long as it is open.
EXPIRES_IN_S_MAX: Final = 7 * 24 * 60 * 60

_KEY_BYTES: Final = 32
_SHOWN_CHARS_MAX: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """What the merchant asks for, as it was asked.

    Attributes:
        amount: decimal text in units of the token.
        token: a symbol of the allow list, or a mint that is in it; by card the currency.
        recipient: base58 of the wallet to be paid; None takes the deployment's.
        expires_in_s: seconds from now; None takes the deployment's.
        reference: base58 of a key that is in a URL made elsewhere; None draws a new one.
    """

    amount: str
    token: str
    recipient: str | None = None
    label: str | None = None
    message: str | None = None
    memo: str | None = None
    expires_in_s: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    order_id: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the deployment allows, and what it fills in.

    Attributes:
        recipient: base58 of the wallet that is paid when a request names none; None: each must.
        tokens: the allow list, symbol to mint; None stands for native SOL.
        expires_in_s: seconds in which a payment must be made when a request does not say.
        grace_s: seconds after that in which late money still settles by itself.
        watch_key: base58 of the key that stands beside the payment's reference.
        watch_keys: base58 of every one that there is; none of them is anything else.
        currency: what cards are charged in; None: no payments by card.
    """

    recipient: str | None
    tokens: Mapping[str, str | None]
    expires_in_s: int
    grace_s: int
    watch_key: str
    watch_keys: frozenset[str] = frozenset()
    currency: Currency | None = None

    def watches(self, key: str) -> bool:
        """Whether the key is one of the deployment's watch keys."""
        return key == self.watch_key or key in self.watch_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request with the deployment's defaults, after the checks that need no chain."""

    symbol: str
    mint: str | None
    recipient: str
    expires_in_s: int


def keys_to_read(request: NewPayment, policy: Policy) -> tuple[str, ...]:
    """The accounts that `create` must be told about, each once.

    Raises:
        InvalidInput: the request is wrong whatever the chain says.
    """
    asked = _examine(request, policy)
    keys = (asked.mint, asked.recipient, request.reference)
    return tuple(dict.fromkeys(key for key in keys if key is not None))


def create(
    request: NewPayment,
    policy: Policy,
    accounts: Mapping[str, Account | None],
    *,
    rent_exempt_minimum: int,
    id: str,
    fresh_reference: str,
    now: int,
) -> tuple[Payment, tuple[str, ...]]:
    """The payment that was asked for, and sentences that its merchant should read.

    Args:
        request: what the merchant asks for.
        policy: what the deployment allows.
        accounts: what the chain says of each of `keys_to_read`; None: there is no account.
        rent_exempt_minimum: lamports that an account without data must hold.
        id: a new one, of `ids.payment_id`.
        fresh_reference: a new `reference`, for a request that brings none.
        now: unix seconds.

    Raises:
        InvalidInput: names the field.
    """
    asked = _examine(request, policy)
    asset, warnings = _asset(asked, accounts)
    amount = parse_amount(request.amount, asset.decimals)
    recipient = _read(accounts, asked.recipient)
    warnings += _check_recipient(asked.recipient, recipient, asset)
    if asset.mint is None and recipient is None and amount < rent_exempt_minimum:
        raise _below_rent(asked.recipient, amount, rent_exempt_minimum)
    token_account = _token_account(asked.recipient, asset)
    if request.reference is not None:
        if request.reference == token_account:
            raise InvalidInput("reference", "is the recipient's token account")
        warnings += _check_used_reference(_read(accounts, request.reference))
    elif fresh_reference in {asked.recipient, asked.mint, token_account, policy.watch_key}:
        raise InvariantError("a reference that was drawn at random is in use: is it random?")
    payment = Payment(
        terms=Terms(
            id=id,
            asset=asset,
            recipient=asked.recipient,
            token_account=token_account,
            amount=amount,
            reference=request.reference or fresh_reference,
            # Nobody can say whether a URL that was made elsewhere carries the watch key.
            watch_key=policy.watch_key if request.reference is None else None,
            created_at=now,
            expires_at=now + asked.expires_in_s,
            grace_s=policy.grace_s,
        ),
        order_id=request.order_id,
        label=request.label,
        message=request.message,
        memo=request.memo,
        metadata=dict(request.metadata),
    )
    solana_pay_url(payment)  # refuses what would be too long
    return payment, warnings


def solana_pay_url(payment: Payment) -> str:
    """The URL to show to the payer: the payment's reference first, then the watch key.

    Raises:
        InvalidInput: it is too long, which `create` has ruled out.
    """
    terms = payment.terms
    keys = (terms.reference, terms.watch_key)
    return solana_pay.encode(
        solana_pay.TransferRequest(
            recipient=terms.recipient,
            amount=format_amount(terms.amount, terms.asset.decimals),
            spl_token=terms.asset.mint,
            references=tuple(key for key in keys if key is not None),
            label=payment.label,
            message=payment.message,
            memo=payment.memo,
        )
    )


def reference(random_bytes: bytes) -> str:
    """A key that stands for one payment: base58 of 32 random bytes, on the curve or not."""
    if len(random_bytes) != _KEY_BYTES:
        raise InvariantError(f"a reference takes {_KEY_BYTES} bytes, not {len(random_bytes)}")
    return str(Pubkey(random_bytes))


def check_words(request: NewPayment) -> None:
    """The merchant's words that any payment may have.

    Raises:
        InvalidInput: names the field.
    """
    check_line("label", request.label, chars_max=LABEL_CHARS_MAX)
    check_line("message", request.message, chars_max=MESSAGE_CHARS_MAX)
    check_line("order_id", request.order_id, chars_max=ORDER_ID_CHARS_MAX)
    check_metadata(request.metadata)


def expires_in(request: NewPayment, policy: Policy) -> int:
    """Seconds until the payment expires: as asked, else as the deployment has it.

    Raises:
        InvalidInput: field `expires_in_s`.
    """
    expires_in_s = policy.expires_in_s if request.expires_in_s is None else request.expires_in_s
    if not EXPIRES_IN_S_MIN <= expires_in_s <= EXPIRES_IN_S_MAX:
        raise InvalidInput(
            "expires_in_s",
            f"is {expires_in_s}, must be {EXPIRES_IN_S_MIN} to {EXPIRES_IN_S_MAX} seconds",
        )
    return expires_in_s


def _examine(request: NewPayment, policy: Policy) -> _Asked:
    """Every check that needs no chain."""
    check_words(request)
    check_memo(request.memo)
    symbol, mint = _token(request.token, policy)
    recipient = _recipient(request.recipient, policy)
    if request.reference is not None:
        _check_reference(request.reference, recipient, policy)
    expires_in_s = expires_in(request, policy)
    return _Asked(symbol=symbol, mint=mint, recipient=recipient, expires_in_s=expires_in_s)


def _token(token: str, policy: Policy) -> tuple[str, str | None]:
    """Symbol and mint, by symbol or by mint."""
    for symbol, mint in policy.tokens.items():
        if token in (symbol, mint):
            return symbol, mint
    accepted = ", ".join(
        f"{symbol} ({mint})" if mint else symbol for symbol, mint in policy.tokens.items()
    )
    raise InvalidInput("token", f"{_shown(token)} is not accepted here; accepted: {accepted}")


def _recipient(asked: str | None, policy: Policy) -> str:
    recipient = policy.recipient if asked is None else asked
    if recipient is None:
        raise InvalidInput("recipient", "is required: this deployment has no recipient of its own")
    if not is_key(recipient):
        raise InvalidInput(
            "recipient", f"{_shown(recipient)} is no Solana address: base58 of 32 bytes"
        )
    if recipient in KNOWN_ADDRESSES:
        raise InvalidInput("recipient", f"{recipient} is a program or sysvar: money would be lost")
    if recipient in policy.tokens.values():
        raise InvalidInput("recipient", f"{recipient} is a mint: give the wallet to be paid")
    if policy.watches(recipient):
        raise InvalidInput(
            "recipient", "is a watch key of the deployment, which nobody can spend from"
        )
    return recipient


def _check_reference(key: str, recipient: str, policy: Policy) -> None:
    if not is_key(key):
        raise InvalidInput("reference", f"{_shown(key)} is no key: base58 of 32 bytes")
    if key in KNOWN_ADDRESSES or key in policy.tokens.values():
        raise InvalidInput("reference", "is a program, sysvar or mint, which others use as well")
    if key == recipient:
        raise InvalidInput("reference", "is the recipient: every transfer to it would match")
    if policy.watches(key):
        raise InvalidInput("reference", "is a watch key, which many payments here share")


def _read(accounts: Mapping[str, Account | None], key: str) -> Account | None:
    """What the chain says of a key; an account without lamports is no account."""
    if key not in accounts:
        raise InvariantError(f"{key} was not looked up")
    account = accounts[key]
    return None if account is None or account.lamports == 0 else account


def _asset(asked: _Asked, accounts: Mapping[str, Account | None]) -> tuple[Asset, tuple[str, ...]]:
    if asked.mint is None:
        native = Asset(
            symbol=asked.symbol,
            mint=None,
            decimals=LAMPORTS_PER_SOL_DECIMALS,
            token_program=None,
        )
        return native, ()
    terms = parse_mint(asked.mint, _read(accounts, asked.mint))
    asset = Asset(
        symbol=asked.symbol,
        mint=asked.mint,
        decimals=terms.decimals,
        token_program=terms.token_program,
    )
    return asset, terms.warnings


def _token_account(recipient: str, asset: Asset) -> str | None:
    if asset.mint is None or asset.token_program is None:
        return None
    return associated_token_account(recipient, asset.mint, asset.token_program)


def _check_recipient(recipient: str, account: Account | None, asset: Asset) -> tuple[str, ...]:
    """Refuses what cannot own money, warns of what may not be able to spend it."""
    if account is None:
        if asset.mint is not None:
            return ()
        return ("the recipient has no account yet: some wallets refuse to pay such an address",)
    match kind(account):
        case Kind.WALLET:
            return ()
        case Kind.DATA:
            program = account.owner
            return (f"the recipient belongs to program {program}: make sure that it can spend it",)
        case Kind.TOKEN_ACCOUNT:
            _, owner = token_account_parts(account)
            why = f"is a token account: give the wallet that owns it, which is {owner}"
        case Kind.PROGRAM:
            why = "is a program: money would be lost"
        case other:
            why = f"is no wallet: {other}"
    raise InvalidInput("recipient", f"{recipient} {why}")


def _check_used_reference(account: Account | None) -> tuple[str, ...]:
    """A reference is a mere name; one that is an account as well is found in other business."""
    if account is None:
        return ()
    match kind(account):
        case Kind.WALLET | Kind.DATA:
            return ("the reference is an account: all else that it takes part in is examined too",)
        case other:
            raise InvalidInput("reference", f"is a {other} on the chain: draw 32 random bytes")


def _below_rent(recipient: str, amount: int, minimum: int) -> InvalidInput:
    """A transfer that leaves a new account below the minimum fails on the chain."""
    asked, needed = (format_amount(n, LAMPORTS_PER_SOL_DECIMALS) for n in (amount, minimum))
    return InvalidInput(
        "amount",
        f"{asked} SOL cannot be paid: {recipient} has no account yet, and a new account must hold "
        f"at least {needed} SOL ({minimum} lamports); ask for more, or fund the recipient first",
    )


def _shown(text: str) -> str:
    """A caller's text, safe and short enough for a message."""
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "…")
