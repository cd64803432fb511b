import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction

from indexer.core.texts import (
    MEMO_BYTES_MAX,
    METADATA_BYTES_MAX,
    METADATA_KEY_CHARS_MAX,
    METADATA_KEYS_MAX,
    METADATA_VALUE_CHARS_MAX,
    NAME_CHARS_SHOWN,
    check_line,
    check_memo,
    check_metadata,
    shown_name,
)
from indexer.errors import InvalidInput


TRANSACTION_BYTES_MAX = 1_232


def refused_line(text: str, chars_max: int = 10) -> str:
    with pytest.raises(InvalidInput) as refused:
        check_line("label", text, chars_max=chars_max)
    assert refused.value.field == "label"
    return refused.value.message


@pytest.mark.parametrize(
    "text", [None, "a", "a b", "0123456789", "é" * 10, "\u200f", "☕🏽", "\ufeff"]
)
def test_a_line_of_any_script_is_accepted(text: str | None) -> None:
    check_line("label", text, chars_max=10)


@pytest.mark.parametrize(
    "text",
    [
        *("\0", "a\0b", "a\nb", "a\rb", "a\r\nb", "a\tb", "\x1b[2J", "\x7f", "\x85", "\u2028"),
        *("\u2029", "\ud800", "a\udfffb", "a\n"),
    ],
)
def test_what_a_reader_would_take_for_something_else_is_refused(text: str) -> None:
    message = refused_line(text)

    assert message.isprintable()  # the sentence that says so does no harm either


def test_an_empty_line_is_better_left_out() -> None:
    assert "leave it out" in refused_line("")


def test_a_line_that_is_too_long_is_refused_with_both_numbers() -> None:
    message = refused_line("x" * 11)

    assert "11" in message
    assert "10" in message


def test_a_memo_is_bounded_in_bytes_not_in_characters() -> None:
    check_memo(None)
    check_memo("é" * (MEMO_BYTES_MAX // 2))
    with pytest.raises(InvalidInput, match="257 bytes") as refused:
        check_memo("é" * (MEMO_BYTES_MAX // 2) + "e")
    assert refused.value.field == "memo"


def test_the_longest_memo_fits_into_a_transaction_beside_everything_that_wallets_add() -> None:
    """Budget, token account, memo, transfer with two references, two guards of a wallet."""
    payer = Keypair()
    me = payer.pubkey()
    keys = [Pubkey([number] * 32) for number in range(12)]
    budget, associated, memo, token, system, guard = keys[:6]
    source, destination, wallet, mint, reference, watch_key = keys[6:]

    def call(program: Pubkey, data: bytes, *accounts: Pubkey) -> Instruction:
        metas = [AccountMeta(key, is_signer=key == me, is_writable=False) for key in accounts]
        return Instruction(program, data, metas)

    message = Message.new_with_blockhash(
        [
            call(budget, bytes(5)),
            call(budget, bytes(9)),
            call(associated, bytes(1), me, destination, wallet, mint, system, token),
            call(memo, bytes(MEMO_BYTES_MAX), me),
            call(token, bytes(10), source, mint, destination, me, reference, watch_key),
            call(guard, bytes(60), source),
            call(guard, bytes(60), me),
        ],
        me,
        Hash.default(),
    )

    assert len(bytes(Transaction([payer], message, Hash.default()))) <= TRANSACTION_BYTES_MAX


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": "", "b": "one\ntwo\r\n\tthree"},
        {f"{n:040}": "v" * 280 for n in range(METADATA_KEYS_MAX)},
        {"k" * METADATA_KEY_CHARS_MAX: "é" * METADATA_VALUE_CHARS_MAX},
    ],
    ids=["none", "lines", "full", "long"],
)
def test_metadata_within_its_bounds_is_accepted(metadata: dict[str, str]) -> None:
    check_metadata(metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        {str(n): "" for n in range(METADATA_KEYS_MAX + 1)},
        {"": "v"},
        {"k" * (METADATA_KEY_CHARS_MAX + 1): "v"},
        {"k": "v" * (METADATA_VALUE_CHARS_MAX + 1)},
        {"k\n": "v"},
        {"k\0": "v"},
        {"k": "\0"},
        {"k": "a\0b"},
        {"k": "\ud800"},
        {"\udfff": "v"},
        {f"{n:02}": "v" * 408 for n in range(40)},
        {f"{n:02}": "é" * 204 for n in range(40)},
    ],
    ids=range(12),
)
def test_metadata_out_of_bounds_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_metadata(metadata)
    assert refused.value.field == "metadata"
    assert refused.value.message.isprintable()


def test_metadata_is_bounded_as_a_whole() -> None:
    metadata = {f"{n:02}": "v" * 407 for n in range(40)}
    spare = METADATA_BYTES_MAX - 40 * 409

    check_metadata({**metadata, "k": "v" * (spare - 1)})
    with pytest.raises(InvalidInput, match=f"has {METADATA_BYTES_MAX + 1} bytes"):
        check_metadata({**metadata, "k": "v" * spare})


def test_a_strangers_name_is_shown_short_and_plain() -> None:
    assert shown_name("amount") == "amount"
    assert shown_name("ü\n\ud800\x1b") == "\\xfc\\n\\ud800\\x1b"
    assert shown_name("x" * 10_000) == "x" * NAME_CHARS_SHOWN
