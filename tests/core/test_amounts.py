import re
from decimal import Decimal

import pytest
from hypothesis import example, given, strategies as st

from indexer.core.amounts import format_amount, parse_amount
from indexer.core.types import AMOUNT_MAX
from indexer.errors import InvalidInput, InvariantError


AMOUNTS = st.integers(min_value=1, max_value=AMOUNT_MAX)
DECIMALS = st.integers(min_value=0, max_value=255)


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [
        ("1", 0, 1),
        ("1", 9, 10**9),
        ("0.5", 9, 500_000_000),
        ("0.000000001", 9, 1),
        ("1.10", 2, 110),
        ("1.000000", 6, 1_000_000),
        ("10", 6, 10_000_000),
        ("18446744073709551615", 0, AMOUNT_MAX),
        ("18446744073.709551615", 9, AMOUNT_MAX),
        ("0." + "0" * 254 + "1", 255, 1),
    ],
)
def test_decimal_text_is_read_exactly(text: str, decimals: int, amount: int) -> None:
    assert parse_amount(text, decimals) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "1.", ".5", "..", "1..2", "1.2.3", "1,5", "1 000", "1_000"),
        *("+1", "-1", "-0", "+0.5", "1e3", "1E3", "1e-3", "0x10", "0b1", "1j", "NaN", "inf"),
        *("Infinity", "one", "1\n", "\n1", "1\r\n", "1\t", " 1", "1 ", "1\0", "\x001", "1.5\n"),
        *("١", "١.٥", "1.٥", "１", "①", "²", "½", "1٫5", "𝟏", "१"),  # noqa: RUF001 - the point
        *("00", "01", "00.1", "007", "0000000001"),
        *("0", "0.0", "0.000000000", "\ud800", "$1", "1 SOL", "1%"),
    ],
)
def test_text_that_is_no_plain_positive_decimal_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_amount(text, 9)
    assert refused.value.field == "amount"


@pytest.mark.parametrize(
    ("text", "decimals"), [("1.0", 0), ("1.0000000000", 9), ("0.1234567", 6), ("1.230", 2)]
)
def test_more_decimals_than_the_token_has_are_refused_even_when_they_are_zero(
    text: str, decimals: int
) -> None:
    with pytest.raises(InvalidInput, match=f"the token has {decimals}"):
        parse_amount(text, decimals)


@pytest.mark.parametrize(
    ("text", "decimals"),
    [("18446744073709551616", 0), ("18446744073.709551616", 9), ("99999999999", 9), ("1", 20)],
)
def test_more_than_a_u64_holds_is_refused(text: str, decimals: int) -> None:
    with pytest.raises(InvalidInput, match="can be moved"):
        parse_amount(text, decimals)


def test_an_endless_text_is_refused_before_it_is_read_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_amount("9" * 10_000_000, 9)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize(
    ("amount", "decimals", "text"),
    [
        (0, 0, "0"),
        (0, 9, "0"),
        (1, 0, "1"),
        (1, 9, "0.000000001"),
        (10, 1, "1"),
        (1_500_000, 6, "1.5"),
        (100, 0, "100"),
        (AMOUNT_MAX, 9, "18446744073.709551615"),
        (3 * AMOUNT_MAX, 0, "55340232221128654845"),
    ],
)
def test_an_amount_is_written_as_short_as_it_can_be(amount: int, decimals: int, text: str) -> None:
    assert format_amount(amount, decimals) == text


def test_a_negative_amount_cannot_be_written() -> None:
    with pytest.raises(InvariantError):
        format_amount(-1, 9)


@given(amount=AMOUNTS, decimals=DECIMALS)
def test_what_is_written_reads_back_as_the_same_amount(amount: int, decimals: int) -> None:
    assert parse_amount(format_amount(amount, decimals), decimals) == amount


@given(amount=st.integers(min_value=0, max_value=2**80), decimals=st.integers(0, 30))
def test_what_is_written_is_the_exact_number(amount: int, decimals: int) -> None:
    text = format_amount(amount, decimals)

    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    assert (sign, int("".join(map(str, digits)))) == (0, amount * 10**-exponent // 10**decimals)
    assert re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", text)


@given(text=st.text(max_size=24) | st.text("0123456789.-+e_ \n٣", max_size=24), decimals=DECIMALS)
@example("0.5\n", 9)
def test_any_text_is_either_refused_or_is_exactly_what_its_digits_say(
    text: str, decimals: int
) -> None:
    fraction_pattern = rf"(\.[0-9]{{1,{decimals}}})?" if decimals else ""
    conforms = re.fullmatch(r"(0|[1-9][0-9]*)" + fraction_pattern, text)
    try:
        amount = parse_amount(text, decimals)
    except InvalidInput:
        if conforms:
            scaled = int(text.replace(".", "")) * 10 ** (decimals - len(text.partition(".")[2]))
            assert scaled == 0 or scaled > AMOUNT_MAX
        return
    assert conforms
    assert 1 <= amount <= AMOUNT_MAX
    whole, _, fraction = text.partition(".")
    assert amount == int(whole + fraction) * 10 ** (decimals - len(fraction))
