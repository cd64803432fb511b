"""Solana Pay transfer requests: the `solana:` URL that a wallet is shown, as QR code or link.

    solana:<recipient>?amount=…&spl-token=…&reference=…&reference=…&label=…&message=…&memo=…

What we write is one narrow form: parameters in the order above, text percent-encoded as UTF-8
with `%20` for a space, which every reader of URLs understands. What we read is all that the
specification allows, `+` for a space included, and nothing that it calls malformed.

Source: Solana Pay specification, "Transfer Request".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_plus

from indexer.core.account import is_key
from indexer.core.types import LAMPORTS_PER_SOL_DECIMALS
from indexer.errors import InvalidInput


#: Longer URLs are refused by the reference implementation, and make a QR code nobody can scan.
URL_CHARS_MAX: Final = 2048

#: Printable ASCII without `#`: a fragment would silently cut off the parameters after it.
_URL: Final = re.compile(r"[!-\"$-~]+")
_MALFORMED_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
#: Wider than `amounts.parse_amount`: zero and leading zeros are legal in someone else's URL.
_AMOUNT: Final = re.compile(r"[0-9]+(?:\.([0-9]+))?")
_SINGLE: Final = frozenset({"amount", "spl-token", "label", "message", "memo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """The fields of a transfer request, decoded.

    Attributes:
        recipient: base58 of the wallet to be paid.
        amount: decimal text in units of the token, as a person reads it; None lets the payer
            choose.
        spl_token: base58 of the mint; None for native SOL.
        references: base58 keys that the wallet places in the transfer, in this order.
        label: who asks; shown by the wallet.
        message: what for; shown by the wallet.
        memo: text that goes on the chain with the transfer, for everyone to read.
    """

    recipient: str
    amount: str | None = None
    spl_token: str | None = None
    references: tuple[str, ...] = ()
    label: str | None = None
    message: str | None = None
    memo: str | None = None


def encode(request: TransferRequest) -> str:
    """The URL of a request whose fields are valid.

    Raises:
        InvalidInput: the URL is too long; label, message and memo are what can be shortened.
    """
    parameters = [
        ("amount", request.amount),
        ("spl-token", request.spl_token),
        *(("reference", reference) for reference in request.references),
        ("label", request.label),
        ("message", request.message),
        ("memo", request.memo),
    ]
    query = "&".join(
        f"{name}={quote(value, safe='')}" for name, value in parameters if value is not None
    )
    url = f"solana:{request.recipient}?{query}" if query else f"solana:{request.recipient}"
    if len(url) > URL_CHARS_MAX:
        raise InvalidInput(
            "",
            f"the Solana Pay URL would be {len(url)} characters long, at most {URL_CHARS_MAX} "
            "are allowed: shorten label, message or memo",
        )
    return url


def parse(url: str) -> TransferRequest:
    """The transfer request that a URL says.

    Unknown parameters are skipped, as wallets do. An empty text is as good as none.

    Raises:
        InvalidInput: field `url`; also for transaction requests (`solana:https…`).
    """
    if len(url) > URL_CHARS_MAX:
        raise _malformed(f"is {len(url)} characters long, at most {URL_CHARS_MAX} are allowed")
    if _URL.fullmatch(url) is None:
        raise _malformed("has a space, a '#' or another character that must be percent-encoded")
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "solana":
        raise _malformed("does not begin with 'solana:'")
    recipient, _, query = rest.partition("?")
    if ":" in recipient or "%" in recipient:
        raise _malformed(
            "is a transaction request: it names a server to ask, not a transfer to make"
        )
    single, references = _parameters(query)
    amount, spl_token = single.get("amount"), single.get("spl-token")
    _check_key("recipient", recipient)
    for reference in references:
        _check_key("reference", reference)
    if spl_token is not None:
        _check_key("spl-token", spl_token)
    if amount is not None:
        _check_amount(amount, native=spl_token is None)
    return TransferRequest(
        recipient=recipient,
        amount=amount,
        spl_token=spl_token,
        references=references,
        label=single.get("label") or None,
        message=single.get("message") or None,
        memo=single.get("memo") or None,
    )


def _parameters(query: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The parameters that may stand once, and the references."""
    single: dict[str, str] = {}
    references: list[str] = []
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name == "reference":
            references.append(_decode(name, value))
        elif name in single:
            raise _malformed(f"has more than one {name}")
        elif name in _SINGLE:
            single[name] = _decode(name, value)
    return single, tuple(references)


def _decode(name: str, value: str) -> str:
    if _MALFORMED_ESCAPE.search(value):
        raise _malformed(f"has a '%' in {name} that encodes nothing")
    try:
        return unquote_plus(value, errors="strict")
    except UnicodeDecodeError as error:
        raise _malformed(f"has a {name} that is not UTF-8") from error


def _check_key(name: str, value: str) -> None:
    if not is_key(value):
        raise _malformed(f"has {value[:60]!r} as {name}, which is not base58 of 32 bytes")


def _check_amount(amount: str, *, native: bool) -> None:
    match = _AMOUNT.fullmatch(amount)
    if match is None:
        raise _malformed(f"has {amount[:60]!r} as amount, which is not a plain decimal number")
    if native and len(match[1] or "") > LAMPORTS_PER_SOL_DECIMALS:
        raise _malformed(f"has an amount with more than {LAMPORTS_PER_SOL_DECIMALS} decimals")


def _malformed(why: str) -> InvalidInput:
    return InvalidInput("url", why)
