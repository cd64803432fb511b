"""What is hidden in text, and what is left as it is."""

import json

import pytest
from hypothesis import given, strategies as st

from indexer.redact import HIDDEN, VALUE_CHARS_MIN, Redactor, keys_in, redact, secrets_of


MINT = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
SIGNATURE = (
    "5UfDuX7hXbGjGFGoiiMZhELiA8A9bmVwqnLbGPSaSzk1dKWLDSFYhdPTB2WEr1GYfKWjY5wYbKmdDyRCzTgHYTMU"
)
CARD = "5123456789012346"

CASES = [
    ("https://a.example", "https://a.example"),
    ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
    ("https://a.example/v2/KEY", "https://a.example/***"),
    ("https://a.example?api-key=KEY", "https://a.example/***"),
    ("https://a.example#KEY", "https://a.example/***"),
    ("https://KEY@a.example:9", "https://***@a.example:9"),
    ("https://user:KEY@a.example/KEY", "https://***@a.example/***"),
    ("wss://[::1]:8900/KEY", "wss://[::1]:8900/***"),
    ("WSS://A.example/KEY", "WSS://A.example/***"),
    ("('http://a/KEY', 'http://b/KEY')", "('http://a/***', 'http://b/***')"),
    ('{"url":"https://a/KEY?b=%20&c"}', '{"url":"https://a/***"}'),
    ("redis://:KEY@cache:6379/0", "redis://***@cache:6379/***"),
    ("sqlite:////var/lib/axiom.db", "sqlite:////var/lib/axiom.db"),
    ("key axk_AbC-1_2 is wrong", "key axk_*** is wrong"),
    ("Authorization: Bearer KEYKEYKEY", "Authorization: Bearer ***"),
    ("authorization: basic S0VZOktFWQ==", "authorization: basic ***"),
    ("Authorization: KEY KEY", "Authorization: ***"),
    ("{'Authorization': 'KEY KEY', 'x': 1}", "{'Authorization': '***', 'x': 1}"),
    ('{"authorization":"KEY","x":1}', '{"authorization":"***","x":1}'),
    (r"{\"authorization\": \"KEY\", \"x\": 1}", r"{\"authorization\": \"***\", \"x\": 1}"),
    ("[(b'authorization', b'KEY'), (b'x', b'1')]", "[(b'authorization', b'***'), (b'x', b'1')]"),
    ("Proxy-Authorization: Token KEY\r\nX: 1", "Proxy-Authorization: Token ***\r\nX: 1"),
    ("sent Token egy_sk_test_0123KEY", "sent Token egy_sk_***"),
    ("sent Token 0123456789abcdef-KEY", "sent Token ***"),
    ("with Bearer 0123456789abcdef-KEY", "with Bearer ***"),
    ("secret whsec_S0VZ+/S0VZ==, again", "secret whsec_***, again"),
    ("identity AGE-SECRET-KEY-1KEY, again", "identity AGE-SECRET-KEY-***, again"),
    ("egy_pk_live_KEY are_csk_test_KEY", "egy_pk_*** are_csk_***"),
    ("/api/webhooks/paymob?hmac=0123abcdKEY&id=7", "/api/webhooks/paymob?hmac=***&id=7"),
    ('{"hmac": "0123abcdKEY", "id": 7}', '{"hmac": "***", "id": 7}'),
    ("clientSecret=0123abcdKEY&x", "clientSecret=***&x"),
    ('"client_secret":"0123abcdKEY"', '"client_secret":"***"'),
    ("?api-key=0123abcdKEY", "?api-key=***"),
    ("api_key='0123abcdKEY')", "api_key='***')"),
    ("X-API-Key: 0123abcdKEY", "X-API-Key: ***"),
    ("card_token=0123abcdKEY", "card_token=***"),
    ("X-QN-Signature: 0123abcdKEY", "X-QN-Signature: ***"),
]

UNTOUCHED = [
    "no secret: a/b, c?d, e://",
    f"token={MINT}",
    f"unknown Token {MINT}.",
    f'{{"token":{{"symbol":"USDC","mint":"{MINT}"}}}}',
    f"settled by {SIGNATURE}",
    "the hmac, which is missing, was asked for",
    "hmac: no text",
    "Token USDC",
    "egypt_pk is a word",
    "pay_01hzy3v8k2m9q4r7s5t6w8x0yz evt_01hzy3v8k2m9q4r7s5t6w8x0yz_3_0",
    '{"authorization":null,"x":1}'.replace("authorization", "authorized"),
]


@pytest.mark.parametrize(("text", "shown"), CASES)
def test_urls_end_after_the_port_and_secrets_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize("text", UNTOUCHED)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert Redactor().text(text) == text


@given(st.text() | st.lists(st.sampled_from([text for text, _ in CASES])).map(" ".join))
def test_no_text_breaks_it_and_a_line_of_json_stays_one(text: str) -> None:
    line = json.dumps({"event": text, "amount": 4_111_111_111_111_111})

    assert json.loads(redact(line))["amount"] == 4_111_111_111_111_111


def test_a_long_text_takes_no_longer_than_it_is_long() -> None:
    """Each of these once more for every character before it would take hours."""
    for piece in ("authorization", "hmac=", "\\", "1 ", "1-", "a://", "Bearer ", '"', "api-key:"):
        Redactor(["secret-of-ours"]).text(piece * 100_000)


# ---------------------------------------------------------------------------------------- cards


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (CARD, "************2346"),
        ("card 4111 1111 1111 1111!", "card ************1111!"),
        ("pan=4111-1111-1111-1111", "pan=************1111"),
        ('{"pan": "378282246310005"}', '{"pan": "***********0005"}'),
        ("4222222222222", "*********2222"),
        ("6304000000000000000", "***************0000"),
    ],
)
def test_a_card_number_is_hidden_but_for_its_end(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # the check digit is wrong
        "411111111111",  # 12 digits
        "41111111111111111111",  # 20 digits
        "1732332968000",  # a time
        "0.4111111111111111",
        f"x{CARD}",
        f"{CARD}a",
        f"id_{CARD}",
        f"{CARD}.5",
    ],
)
def test_other_numbers_stay(text: str) -> None:
    assert Redactor().text(text) == text


def test_a_number_that_is_one_stays_whatever_it_looks_like() -> None:
    """Amounts, slots and identifiers are numbers; a card number is text."""
    event = {"amount": int(CARD), "slots": [int(CARD)], "nested": {"amount": int(CARD)}}

    assert Redactor().value(event) == event


# ------------------------------------------------------------------------------- certain values


SECRET = 'a+b/c"d\\e=%f'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"x{SECRET}x",
        json.dumps({"x": SECRET}),
        repr([SECRET]),
        "a%2Bb%2Fc%22d%5Ce%3D%25f",
        "a%2Bb/c%22d%5Ce%3D%25f",
    ],
)
def test_a_value_is_hidden_however_it_is_written(text: str) -> None:
    shown = Redactor([SECRET]).text(text)

    assert HIDDEN in shown
    assert "b/c" not in shown
    assert "%2F" not in shown


def test_the_longest_of_several_values_is_hidden() -> None:
    redactor = Redactor(["secret-of-ours"])
    redactor.add(["secret-of-ours-and-more", "another-one"])

    assert redactor.text("secret-of-ours-and-more, secret-of-ours, another-one") == "***, ***, ***"


def test_what_is_remembered_of_a_word_ends_when_it_becomes_a_secret() -> None:
    redactor = Redactor()
    assert redactor.text("a-secret") == "a-secret"

    redactor.add(["a-secret"])

    assert redactor.text("a-secret") == "***"
    assert [redactor.text(str(number)) for number in range(5_000)] == list(map(str, range(5_000)))
    assert redactor.text("a-secret") == "***"


def test_a_short_value_would_hide_words() -> None:
    assert Redactor(["x" * (VALUE_CHARS_MIN - 1), ""]).text("xxxxxxx settled") == "xxxxxxx settled"


def test_a_value_is_hidden_in_whatever_holds_it() -> None:
    class Holder:
        def __repr__(self) -> str:
            return f"Holder({SECRET})"

    deep: object = "deep"
    for _ in range(20):
        deep = [deep]
    shown = Redactor([SECRET]).value(
        {SECRET: (SECRET, [Holder()]), "n": None, "ok": True, "b": SECRET.encode(), "d": deep}
    )

    assert shown["n"] is None
    assert shown["ok"] is True
    assert shown["***"] == ["***", ["Holder(***)"]]
    assert "b/c" not in json.dumps(shown)
    assert "deep" not in json.dumps(shown)


# ------------------------------------------------------------------------------------- of a URL


def test_the_parts_of_a_url_that_a_server_may_echo() -> None:
    url = "https://us%40er:pass@a.example/v2/0123456789abcdef/?api-key=k%2Fey1&b"

    found = secrets_of(url)

    assert sorted(found, key=len, reverse=True) == list(found)
    assert set(found) == {
        "api-key=k%2Fey1&b",
        "0123456789abcdef",
        "api-key=k/ey1&b",
        "us%40er",
        "k%2Fey1",
        "k/ey1",
        "us@er",
        "pass",
    }


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("https://a.example/mainnet-beta/solana", ()),
        ("https://a.example/v2/0123456789ab", ("0123456789ab",)),
        ("https://user:correcthorse@a.example/mainnet-beta", ("correcthorse",)),
        ("redis://:correct%40horse@cache", ("correct%40horse", "correct@horse")),
        ("https://a.example/?api-key=01234567-89ab-cdef", None),
    ],
)
def test_of_a_configured_url_only_keys_are_hidden_everywhere(
    url: str, keys: tuple[str, ...] | None
) -> None:
    found = keys_in(url)

    if keys is None:
        assert "01234567-89ab-cdef" in found
    else:
        assert found == keys
