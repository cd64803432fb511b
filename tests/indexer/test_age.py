"""What age encrypts is opened by its identities, and by nothing and nobody else."""

import base64

import pyrage
import pytest
from hypothesis import given, settings, strategies as st

from indexer import age


MINE, TO_ME = age.new_identity()
YOURS, TO_YOU = age.new_identity()
STRANGER, TO_STRANGER = age.new_identity()

TEXT = "AXIOM_PORT=9000\nAXIOM_HELIUS_API_KEY=canary-canary\n"

#: Written by age 1.1.1, the implementation in Go: an identity, and two files for it.
GO_IDENTITY = "AGE-SECRET-KEY-1L96KP4RKJQZMQCKZ2U4E28UA720D2WHVGJF76DQWRVVVMJ20PQ9S56ZQLW"
GO_ARMORED = b"""\
-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBtV0R3Q2NLK0UzbElrK2Uw
OFk5MzVVOVpUZWVvMDNFVTNJZUJIcElaVXp3Ckl2ZzQ3TTd5VkRsN0YrUDkycHNt
bEN5SzFEZ2pjMUJHbmE2Wkc4NENPZVUKLS0tIFc2REh2N2VzemI2WHdkeVA1Z2pN
YVlsdkpaaUVHK3M3dEV4dDJFRHUrWlkKpowWu+IByOQA+CLfMSfYTekrVJybj1Jm
IwClgrIf9JgYAbtDB1rwZ+8clHl0cTuiVCnXb+qZnz8SxfZvcvz7gq+NQSoTzQAd
beWWpBcPgP6PB3w=
-----END AGE ENCRYPTED FILE-----
"""
GO_BINARY = base64.b64decode(
    "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBOZjR4SE5oSC9XZ0RSQVhqOTVPRUV4ZWov"
    "QUNrSExJem1UZFc4V1N3eUI4CnkwWVlnQWpmZVdDcExOM2pjMGcxd1o2RDdpaUVvUkhTUkxiOGRp"
    "eXp0VUUKLS0tIDdNeTRUM3prTk5EcXg4UTVhWFVvSVNaYTZXOStwYUxVd3hvTjU3Unp1K28KGojD"
    "S9S8JIAZ/7Rl1mi70p1NaEIKzDe0zkt+zySTtk5dzyi4cnZBw0dcJVyv1prEnG4IW+6+NrbFh9pq"
    "aoZzlXlxiS9O4gzHCX+ibpWd6vB9Jpo="
)

ARMORED = age.encrypt(TEXT, [TO_ME])


def test_each_recipient_opens_it_and_nobody_else() -> None:
    data = age.encrypt(TEXT, [TO_ME, TO_YOU])

    assert age.decrypt(data, [MINE]) == age.decrypt(data, [STRANGER, YOURS])
    assert age.decrypt(data, [MINE]).endswith(TEXT)
    assert b"canary" not in data
    with pytest.raises(ValueError, match="encrypted to others"):
        age.decrypt(data, [STRANGER])


def test_the_text_names_whom_it_is_for_once() -> None:
    first = age.decrypt(age.encrypt(TEXT, [TO_ME]), [MINE])
    second = age.decrypt(age.encrypt(first, [TO_ME, TO_YOU]), [MINE])

    assert age.named_recipients(TEXT) == ()
    assert age.named_recipients(first) == (TO_ME,)
    assert age.named_recipients(second) == (TO_ME, TO_YOU)
    assert second.count("recipients") == 1


def test_the_header_says_to_how_many() -> None:
    binary = pyrage.encrypt(b"", [pyrage.x25519.Recipient.from_str(TO_ME)] * 3)

    assert age.recipient_count(age.encrypt(TEXT, [TO_ME, TO_YOU])) == 2
    assert age.recipient_count(binary) == 3
    assert age.recipient_count(b"-----BEGIN AGE ENCRYPTED FILE-----\nno base64!") == 0


def test_an_identity_and_its_recipient_belong_together() -> None:
    assert age.recipient_of(MINE) == TO_ME
    assert age.recipient_of(age.new_identity()[0]) not in {TO_ME, TO_YOU}


def test_an_identity_file_holds_several_among_comments() -> None:
    text = f"# created: today\r\n# public key: {TO_ME}\n\n  {MINE}  \n{YOURS}"

    assert age.read_identities(text) == (MINE, YOURS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no identity"),
        ("# nothing\n", "holds no identity"),
        (f"{MINE}\n{MINE[:-1]}", "line 2 is no X25519"),
        (MINE.lower(), "line 1 is no X25519"),
        (f"{MINE[:-1]}{'Q' if MINE[-1] != 'Q' else 'P'}", "right checksum"),
        ("AGE-SECRET-KEY-PQ-1CANARY", "line 1 is no X25519"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "line 1 is no X25519"),
        ("-----BEGIN AGE ENCRYPTED FILE-----", "passphrase"),
        ("\n".join([MINE] * 33), "32 are the most"),
    ],
    ids=range(9),  # identities differ in every run
)
def test_what_is_no_identity_is_refused_and_not_repeated(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        age.read_identities(text)

    assert "CANARY" not in str(caught.value)
    assert MINE[20:40] not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "age1", TO_ME.upper(), TO_ME + "\n", TO_ME[:-1], TO_ME[:-1] + "b", "age1" + "q" * 10**6],
    ids=range(7),
)
def test_what_is_no_recipient_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no recipient: age1") as caught:
        age.read_recipient(text)

    assert len(str(caught.value)) < 200


def test_an_identity_in_place_of_a_recipient_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="which is secret") as caught:
        age.read_recipient(MINE)

    assert MINE[20:] not in str(caught.value)


def test_nobody_too_many_or_too_much_is_refused() -> None:
    for text, recipients in [(TEXT, []), (TEXT, [TO_ME] * 33), ("x" * age.TEXT_BYTES_MAX, [TO_ME])]:
        with pytest.raises(ValueError, match=r"recipients; 1 to 32|longer than"):
            age.encrypt(text, recipients)


def test_the_longest_text_for_the_most_recipients_is_opened_again() -> None:
    recipients = [TO_ME] * age.RECIPIENTS_MAX
    room = age.TEXT_BYTES_MAX - len(age.naming("", recipients))

    data = age.encrypt("x" * room, recipients)

    assert len(data) <= age.FILE_BYTES_MAX
    assert age.decrypt(data, [MINE]).endswith("x" * room)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not encrypted"),
        (TEXT.encode(), "not encrypted"),
        (b"age-encryption.org/v1\n", "damaged"),
        (b"age-encryption.org/v2\n", "not encrypted"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\n-----END AGE ENCRYPTED FILE-----\n", "damaged"),
        (b"age-encryption.org/v1\n" * 100_000, "larger than"),
        (pyrage.passphrase.encrypt(b"canary", "word"), "encrypted with a passphrase"),
        (ARMORED[:-60], "damaged"),
        (pyrage.encrypt(b"\xffcanary", [pyrage.x25519.Recipient.from_str(TO_ME)]), "no UTF-8"),
    ],
)
def test_what_cannot_be_opened_is_said_without_what_is_in_it(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        age.decrypt(data, [MINE])

    assert "canary" not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("data", [b"\n  ", b""], ids=["indented", "as it is"])
def test_armor_survives_what_editors_and_mails_do_to_it(data: bytes) -> None:
    armored = data + ARMORED.replace(b"\n", b"\r\n") + b"\r\n\r\n"

    assert age.decrypt(armored, [MINE]).endswith(TEXT)


@settings(deadline=None)
@given(st.data())
def test_one_changed_byte_is_never_read_as_text(data: st.DataObject) -> None:
    """Neither in the armor nor beneath it, and nothing but ValueError comes of it."""
    body = base64.b64decode(b"".join(ARMORED.splitlines()[1:-1]))
    changed = bytearray(body if data.draw(st.booleans()) else ARMORED)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))

    try:
        found = age.decrypt(bytes(changed), [MINE])
    except ValueError as error:
        found = str(error)

    # What says the same as before, such as another blank at the end of armor, is let through.
    assert found.endswith(TEXT) or "canary" not in found


@pytest.mark.parametrize("data", [GO_ARMORED, GO_BINARY])
def test_files_of_the_original_implementation_are_opened(data: bytes) -> None:
    assert age.decrypt(data, [GO_IDENTITY]) == TEXT
    assert age.recipient_count(data) == 1
