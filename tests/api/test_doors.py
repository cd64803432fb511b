import gzip
import zlib

import pytest
from hypothesis import given, strategies as st
from starlette.datastructures import Headers

from api.doors import (
    TurnedAway,
    check_helius,
    check_quicknode,
    doors_of,
    quicknode_claim,
    unpacked,
)
from api.errors import Problem
from api.limits import WEBHOOK_TOLERANCE_S
from indexer.errors import ConfigError
from indexer.settings import Settings
from tests import vectors
from tests.api.knocking import (
    HELIUS_SECRETS,
    PAYMOB_SECRETS,
    PINS,
    QUICKNODE_SECRETS,
    SETTINGS,
    quicknode_headers,
)
from tests.api.running import NOW


BODY = b'{"data":[]}'


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in pairs])


# ---------------------------------------------------------------------------------------- Helius


@pytest.mark.parametrize("secret", HELIUS_SECRETS)
def test_helius_sends_one_of_two_secrets(secret: str) -> None:
    check_helius(headers(("authorization", secret)), HELIUS_SECRETS)


def test_a_secret_may_have_any_characters() -> None:
    check_helius(
        Headers(raw=[(b"authorization", "Schlüssel".encode())]), ("Schlüssel",)
    )  # as bytes, whatever they mean


@pytest.mark.parametrize(
    "given_headers",
    [
        [],
        [("authorization", "")],
        [("authorization", HELIUS_SECRETS[0][:-1])],
        [("authorization", HELIUS_SECRETS[0] + "x")],
        [("authorization", HELIUS_SECRETS[0].upper())],
        [("authorization", f"Bearer {HELIUS_SECRETS[0]}")],
        [("authorization", HELIUS_SECRETS[1].removeprefix("Bearer "))],
        [("authorization", HELIUS_SECRETS[0])] * 2,
        [("authorization", HELIUS_SECRETS[0]), ("authorization", "x")],
        [("authorization", "é\xff")],
        [("x-authorization", HELIUS_SECRETS[0])],
    ],
)
def test_whoever_sends_something_else_is_not_helius(given_headers: list[tuple[str, str]]) -> None:
    with pytest.raises(TurnedAway):
        check_helius(headers(*given_headers), HELIUS_SECRETS)


# ------------------------------------------------------------------------------------- QuickNode


def check(given: dict[str, str], body: bytes = BODY, now: int = NOW) -> None:
    claim = quicknode_claim(headers(*given.items()), now)
    check_quicknode(claim, body, QUICKNODE_SECRETS)


@pytest.mark.parametrize("secret", QUICKNODE_SECRETS)
@pytest.mark.parametrize("skew_s", [0, WEBHOOK_TOLERANCE_S, -WEBHOOK_TOLERANCE_S])
def test_quicknode_signs_with_one_of_two_secrets(secret: str, skew_s: int) -> None:
    check(quicknode_headers(BODY, secret=secret, timestamp=NOW + skew_s))


def test_a_signature_may_have_its_prefix_and_any_case() -> None:
    given = quicknode_headers(BODY)
    for written in (f"sha256={given['x-qn-signature']}", given["x-qn-signature"].upper()):
        check(given | {"x-qn-signature": written})


def test_the_collected_signature_is_right() -> None:
    vector = vectors.load("hmac.json")["quicknode_computed"]
    given = headers(
        ("x-qn-nonce", vector["nonce"]),
        ("x-qn-timestamp", vector["ts"]),
        ("x-qn-signature", vector["sig"]),
    )

    claim = quicknode_claim(given, int(vector["ts"]))

    check_quicknode(claim, vector["body"].encode(), (vector["secret"],))
    with pytest.raises(TurnedAway):
        check_quicknode(claim, vector["body"].encode() + b" ", (vector["secret"],))


@pytest.mark.parametrize("name", ["x-qn-nonce", "x-qn-timestamp", "x-qn-signature"])
def test_a_missing_or_doubled_header_is_no_ping(name: str) -> None:
    given = quicknode_headers(BODY)
    rest = [pair for pair in given.items() if pair[0] != name]

    for wrong in (rest, [*given.items(), (name, given[name])]):
        with pytest.raises(TurnedAway):
            quicknode_claim(headers(*wrong), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"x-qn-signature": "0" * 64},
        {"x-qn-signature": ""},
        {"x-qn-signature": "0" * 63},
        {"x-qn-signature": "sha512=" + "0" * 64},
        {"x-qn-signature": "é" * 64},
        {"x-qn-nonce": "another"},
        {"x-qn-nonce": ""},
        {"x-qn-nonce": "n" * 129},
        {"x-qn-nonce": "a b"},
        {"x-qn-timestamp": str(NOW + 1)},
        {"x-qn-timestamp": f"{NOW}.0"},
        {"x-qn-timestamp": f"+{NOW}"},
        {"x-qn-timestamp": f" {NOW}"},
        {"x-qn-timestamp": f"0{NOW}"},
        {"x-qn-timestamp": "1.8e9"},
        {"x-qn-timestamp": "\xb2" * 10},
        {"x-qn-timestamp": "9" * 5_000},
        {"x-qn-timestamp": ""},
    ],
)
def test_what_is_not_as_it_was_signed_is_turned_away(changes: dict[str, str]) -> None:
    with pytest.raises(TurnedAway):
        check(quicknode_headers(BODY) | changes)


@pytest.mark.parametrize("skew_s", [WEBHOOK_TOLERANCE_S + 1, -WEBHOOK_TOLERANCE_S - 1, 10**9])
def test_what_was_signed_at_another_time_is_turned_away(skew_s: int) -> None:
    with pytest.raises(TurnedAway):
        check(quicknode_headers(BODY, timestamp=NOW + skew_s))


def test_a_wrong_secret_and_none_at_all_open_nothing() -> None:
    claim = quicknode_claim(headers(*quicknode_headers(BODY, secret="guess").items()), NOW)
    for secrets in (QUICKNODE_SECRETS, ()):
        with pytest.raises(TurnedAway):
            check_quicknode(claim, BODY, secrets)


@given(
    nonce=st.text("0123456789abcdef-", min_size=1, max_size=20),
    first=st.integers(0, 40),
    second=st.integers(0, 40),
)
def test_what_was_signed_can_be_split_in_one_way_only(nonce: str, first: int, second: int) -> None:
    """Nonce, timestamp and body are signed without anything between them."""
    signed = quicknode_headers(BODY, nonce=nonce)
    whole = f"{nonce}{NOW}{BODY.decode()}"
    cuts = sorted((min(first, len(whole)), min(second, len(whole))))
    shifted = (whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :])
    given = signed | {"x-qn-nonce": shifted[0], "x-qn-timestamp": shifted[1]}

    try:
        check(given, shifted[2].encode())
    except TurnedAway:
        return
    # What begins with a digit is no body: it is refused before it is stored.
    assert shifted == (nonce, str(NOW), BODY.decode()) or shifted[2][0].isdigit()


@pytest.mark.parametrize(("nonce", "moved"), [("n0", "0"), ("n1", "1"), ("n00", "00")])
def test_no_digit_can_be_moved_from_the_nonce_to_the_time(nonce: str, moved: str) -> None:
    signed = quicknode_headers(BODY, nonce=nonce)

    with pytest.raises(TurnedAway):
        check(signed | {"x-qn-nonce": nonce.removesuffix(moved), "x-qn-timestamp": f"{moved}{NOW}"})


# ---------------------------------------------------------------------------------- compression


def test_a_compressed_body_is_unpacked() -> None:
    assert unpacked(gzip.compress(BODY)) == BODY


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        BODY,
        zlib.compress(BODY),
        gzip.compress(BODY)[:-1],
        gzip.compress(BODY) + b"x",
        gzip.compress(BODY) * 2,
        gzip.compress(BODY)[:-8] + bytes(8),
    ],
    ids=range(7),  # the packed bytes hold the time
)
def test_what_is_not_one_whole_gzip_is_refused(packed: bytes) -> None:
    with pytest.raises(Problem) as caught:
        unpacked(packed)

    assert caught.value.status == 400


def test_a_bomb_does_not_go_off() -> None:
    bomb = gzip.compress(bytes(1_000_001))

    with pytest.raises(Problem) as caught:
        unpacked(bomb, bytes_max=1_000_000)

    assert caught.value.status == 413
    assert unpacked(bomb, bytes_max=1_000_001) == bytes(1_000_001)


# --------------------------------------------------------------------------------------- settings


def test_a_door_opens_with_what_is_configured() -> None:
    doors = doors_of(Settings(**SETTINGS))

    assert (doors.helius, doors.quicknode) == (HELIUS_SECRETS, QUICKNODE_SECRETS)
    assert (doors.paymob, doors.pins) == (PAYMOB_SECRETS, PINS)


def test_without_secrets_every_door_is_closed() -> None:
    doors = doors_of(Settings())

    assert (doors.helius, doors.quicknode, doors.paymob, doors.pins) == ((), (), (), None)


def test_the_secrets_do_not_print() -> None:
    shown = repr(doors_of(Settings(**SETTINGS)))

    assert not [s for s in (*HELIUS_SECRETS, *QUICKNODE_SECRETS, *PAYMOB_SECRETS) if s in shown]


def test_integrations_that_could_be_mistaken_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError):
        doors_of(Settings(**(SETTINGS | {"paymob_integration_ids": (123, 23)})))
