import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from indexer.core.card_secrets import HIDDEN, SECRET_NAMES, masked, without_secrets


PAN = "4111111111111111"
TOKEN = "f6305b97f7c40f3fffffb699f5452b50881b36b1"


def stored(value: Any) -> Any:
    return json.loads(without_secrets(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (PAN, "************1111"),
        ("5123456789012346", "************2346"),
        ("378282246310005", "***********0005"),
        ("4222222222222", "*********2222"),
        ("6304000000000000000", "***************0000"),
        ("4111 1111 1111 1111", "************1111"),
        ("4111-1111-1111-1111", "************1111"),
        (f"card {PAN}, then 5123456789012346.", "card ************1111, then ************2346."),
        (f"x{PAN}y", "x************1111y"),
    ],
)
def test_of_a_card_number_the_last_four_digits_are_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2346",
        "xxxx-xxxx-xxxx-2346",
        "4111111111111112",  # the check digit is wrong
        "411111111111",  # too short
        "41111111111111111111",  # too long
        "2024-06-13T11:33:44.592345",
        "2021-08-02 15:45:26.988117",
    ],
)
def test_what_is_no_card_number_stays(text: str) -> None:
    assert masked(text) == text


def test_of_ten_check_digits_one_is_right() -> None:
    for pan in (PAN, "378282246310005", "6304000000000000000"):
        shown = [masked(f"{pan[:-1]}{digit}") for digit in range(10)]
        assert [text.startswith("*") for text in shown].count(True) == 1


def test_a_callback_without_secrets_stays_as_it_came() -> None:
    body = (
        b'{ "type":"TRANSACTION",\n"obj":{"id":192036465,"amount_cents":1e5,"a":1.50,'
        b'"order":{"id": 4111111111111111},"created_at":"2024-06-13T11:33:44.592345",'
        b'"name":"caf\\u00e9 \\"x\\" \\\\","source_data":{"pan":"2346","type":"token"}}}'
    )

    assert without_secrets(body) == body


def test_the_token_of_a_card_is_hidden_wherever_it_stands() -> None:
    body = {
        "type": "TOKEN",
        "obj": {"token": TOKEN, "copy": TOKEN, "url": f"https://x/?t={TOKEN}&a", "id": 7},
        TOKEN: "as a name it is no value",
    }

    found = stored(body)

    assert found["obj"] == {
        "token": HIDDEN,
        "copy": HIDDEN,
        "url": f"https://x/?t={HIDDEN}&a",
        "id": 7,
    }


def test_a_short_secret_does_not_tear_holes_into_other_words() -> None:
    assert stored({"otp": "1", "a": "21", "b": "1"}) == {"otp": HIDDEN, "a": "21", "b": HIDDEN}


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_what_stands_for_a_card_is_hidden(name: str) -> None:
    assert stored({"obj": {"data": [{name: "s3cr3t-value"}]}}) == {
        "obj": {"data": [{name: HIDDEN}]}
    }


def test_an_empty_or_missing_secret_stays() -> None:
    body = b'{"token":"","hmac":null,"a":"","cvv":[]}'

    assert without_secrets(body) == body


@pytest.mark.parametrize(
    "body",
    [
        f'{{"a":"{PAN}"}}',
        f'{{"a":["{PAN}"]}}',
        f'{{"a":"\\u0034{PAN[1:]}"}}',
        f'{{"a":"{{\\"pan\\":\\"{PAN}\\"}}"}}',
        f'{{"card_num":{PAN}}}',
        f'{{"pan" : {PAN}}}',
        f'{{"\\u0074oken":"x{PAN}"}}',
        f'"{PAN}"',
    ],
)
def test_a_card_number_is_found_however_it_is_written(body: str) -> None:
    found = without_secrets(body.encode())

    json.loads(found)
    assert PAN not in found.decode()
    assert PAN not in json.dumps(json.loads(found))


def test_a_number_elsewhere_is_an_id() -> None:
    body = f'{{"id":{PAN},"pan":41111111111111110000}}'.encode()

    assert without_secrets(body) == body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(PAN) | st.just(TOKEN),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["token", "pan"]), inner, max_size=4)
    ),
)


@given(json_values, st.booleans())
def test_what_is_left_is_json_of_the_same_shape(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    if "\\ud8" in text or any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(value)

    def shape(value: Any) -> Any:
        match value:
            case dict():
                return [shape(each) for each in value.values()]
            case list():
                return [shape(each) for each in value]
            case _:
                return isinstance(value, str)

    found = without_secrets(text.encode())

    assert shape(json.loads(found)) == shape(json.loads(text))
