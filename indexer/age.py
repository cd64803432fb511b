"""Files encrypted with age: read and written, by X25519 keys.

Source: the age file format (age-encryption.org/v1), by way of pyrage. Everything here takes and
gives text or bytes; who reads and writes files is elsewhere. What goes wrong is a ValueError with
a phrase that never repeats a key or what was decrypted.

Keys are text: an identity (`AGE-SECRET-KEY-1…`) opens what was encrypted to its recipient
(`age1…`). A file tells nobody to whom it is encrypted, only to how many; so that it can be
changed, the text itself says it, in a comment (`named_recipients`).
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Final

import pyrage


#: A `.env` file has a few thousand characters; a wrong file is not decrypted into memory.
TEXT_BYTES_MAX: Final = 256 * 1024
#: What that becomes, armored, with the most recipients, and room for foreign stanzas.
FILE_BYTES_MAX: Final = 512 * 1024
#: As many people and machines as keep one deployment.
RECIPIENTS_MAX: Final = 32

_ARMOR: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
_BINARY: Final = b"age-encryption.org/v1\n"
_RECIPIENT: Final = re.compile(r"age1[02-9ac-hj-np-z]{58}", re.ASCII)
_IDENTITY: Final = re.compile(r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}", re.ASCII)
_NAMED: Final = re.compile(r"^# recipients:(?P<named>[^\n]*)\n?", re.MULTILINE)


def is_encrypted(data: bytes) -> bool:
    """Whether it begins as a file of age does, armored or not."""
    return data.lstrip().startswith(_ARMOR) or data.startswith(_BINARY)


def new_identity() -> tuple[str, str]:
    """An identity and its recipient, from the operating system's randomness."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def read_recipient(text: str) -> str:
    """The recipient as it was given.

    Raises:
        ValueError: it is none; an identity in its place is not repeated.
    """
    if _RECIPIENT.fullmatch(text):
        try:
            return str(pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError:
            pass  # 58 characters, and a checksum that does not fit
    if text.upper().startswith("AGE-SECRET-KEY-"):
        raise ValueError("this is an identity, which is secret: a recipient begins with age1")
    raise ValueError(f"{text!r:.80} is no recipient: age1 and 58 characters, as keygen shows it")


def read_identities(text: str) -> tuple[str, ...]:
    """The identities of an identity file: one on each line, `#` begins a comment.

    Several are for rotation: what any of them opens is opened.

    Raises:
        ValueError: there is none, or a line is something else. No line is repeated.
    """
    if is_encrypted(text.encode()):
        raise ValueError("is itself encrypted: nobody is there to type its passphrase")
    found = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            _check_identity(line, number)
            found.append(line)
    if not found:
        raise ValueError("holds no identity: a line that begins with AGE-SECRET-KEY-1")
    if len(found) > RECIPIENTS_MAX:
        raise ValueError(f"holds {len(found)} identities; {RECIPIENTS_MAX} are the most")
    return tuple(found)


def _check_identity(line: str, number: int) -> None:
    problem = f"line {number} is no X25519 identity: AGE-SECRET-KEY-1 and 58 characters"
    if not _IDENTITY.fullmatch(line):
        raise ValueError(problem)
    try:
        pyrage.x25519.Identity.from_str(line)
    except pyrage.IdentityError:
        raise ValueError(f"{problem}, with the right checksum") from None


def recipient_of(identity: str) -> str:
    """Whom to encrypt to, so that this identity opens it."""
    return str(pyrage.x25519.Identity.from_str(identity).to_public())


def encrypt(text: str, recipients: Sequence[str]) -> bytes:
    """The text, which names its recipients in its first line from now on; armored.

    Raises:
        ValueError: too long, or nobody or too many to encrypt to.
    """
    if not 1 <= len(recipients) <= RECIPIENTS_MAX:
        raise ValueError(f"is for {len(recipients)} recipients; 1 to {RECIPIENTS_MAX} are right")
    data = naming(text, recipients).encode()
    if len(data) > TEXT_BYTES_MAX:
        raise ValueError(f"is longer than {TEXT_BYTES_MAX} bytes")
    keys = [pyrage.x25519.Recipient.from_str(recipient) for recipient in recipients]
    encrypted: bytes = pyrage.encrypt(data, keys, armored=True)
    return encrypted


def decrypt(data: bytes, identities: Iterable[str]) -> str:
    """What was encrypted.

    Raises:
        ValueError: it is no file of age, was damaged, none of the identities opens it, or what
            is in it is no text.
    """
    if not is_encrypted(data):
        raise ValueError("is not encrypted with age: `axiompay secrets encrypt` does it")
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"is larger than {FILE_BYTES_MAX} bytes")
    keys = [pyrage.x25519.Identity.from_str(identity) for identity in identities]
    try:
        # Armor is text: an editor or a mail may have ended its lines otherwise, or begun it later.
        found: bytes = pyrage.decrypt(data.lstrip() if _ARMOR in data else data, keys)
    except pyrage.DecryptError as error:
        raise ValueError(_why(str(error), data)) from error
    try:
        return found.decode()
    except UnicodeDecodeError:
        # Not chained: the error holds what was decrypted.
        raise ValueError("holds something that is no UTF-8 text") from None


def _why(reason: str, data: bytes) -> str:
    """What a person can do about it."""
    if "No matching keys" not in reason:
        return f"is damaged: {reason}"
    if b"\n-> scrypt " in _header(data):
        return "is encrypted with a passphrase: encrypt it to a recipient, age1…"
    return "is encrypted to others: none of the identities that are set opens it"


def recipient_count(data: bytes) -> int:
    """To how many X25519 recipients a file is encrypted; its header does not say to whom."""
    return _header(data).count(b"\n-> X25519 ")


def _header(data: bytes) -> bytes:
    """The lines that come before the payload; nothing where it cannot be read."""
    if _ARMOR in data:
        body = data.partition(_ARMOR)[2].partition(b"-----END")[0]
        try:
            data = base64.b64decode(b"".join(body.split()))
        except binascii.Error:
            return b""
    return data.partition(b"\n---")[0]


def named_recipients(text: str) -> tuple[str, ...]:
    """Whom the text says that it is for; nobody where it does not say.

    Raises:
        ValueError: one of them is no recipient.
    """
    found = _NAMED.search(text)
    return tuple(dict.fromkeys(map(read_recipient, found["named"].split()))) if found else ()


def naming(text: str, recipients: Sequence[str]) -> str:
    """The text with these recipients in its first line, and in no other."""
    return f"# recipients: {' '.join(recipients)}\n{_NAMED.sub('', text)}"
