"""Partners that may be called: their profiles, out of files, and their secrets, out of settings.

A profile is named by its path, or by the name of one that is shipped. What it is used with is read
from variables that are named after it: `AXIOM_UPSTREAM_<NAME>_…`, with `_` for `-`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Final

from indexer import parsers
from indexer.core import profile_checks, profile_reader
from indexer.core.profile import AuthKind, PartnerSecrets, Profile
from indexer.environment import PREFIX, Reader


#: The profiles that are shipped, beside the code that calls partners.
SHIPPED: Final = ("amadeus",)

_FILE_BYTES_MAX: Final = profile_reader.TEXT_BYTES_MAX

_SECRETS: Final[Mapping[AuthKind, tuple[str, ...]]] = {
    AuthKind.NONE: (),
    AuthKind.KEY: ("key",),
    AuthKind.OAUTH2: ("client_id", "client_secret"),
}
_BASE_URL: Final = "base_url"

#: Settings that belong to a partner, whichever there are.
OF_PARTNERS: Final = re.compile(
    r"upstream_[a-z][a-z0-9_]*_(?P<part>client_id|client_secret|key|base_url)", re.ASCII
)


def read(named: Iterable[str], reader: Reader) -> tuple[Profile, ...]:
    """The profiles that are named, each with the base URL that is set for it.

    What is wrong is noted in `reader`.
    """
    profiles: list[Profile] = []
    for name in named:
        profiles += _of_file(name, reader)
    for profile_name, count in Counter(profile.name for profile in profiles).items():
        if count > 1:
            reader.problems.append(f"{PREFIX}UPSTREAMS: {count} profiles are named {profile_name}")
    return tuple(_moved(profile, reader) for profile in profiles)


def secrets_of(profiles: Iterable[Profile], reader: Reader) -> dict[str, PartnerSecrets]:
    """What each of them is used with, by the profile's name. What is missing is noted."""
    found = {}
    for profile in profiles:
        values: dict[str, str] = {}
        for part in _SECRETS[profile.auth.kind]:
            field = _field(profile, part)
            parse = parsers.word if part == "client_id" else parsers.secret
            value = reader.take(field, parse, secret=True)
            if value is None and field not in reader.faulty:
                sentence = f"missing; the profile {profile.name} cannot be used without it"
                reader.problems.append(f"{PREFIX}{field.upper()}: {sentence}")
            values[part] = value or ""
        found[profile.name] = PartnerSecrets(**values)
    return found


def is_secret(field: str) -> bool:
    """Whether a setting is one of a partner, and must be kept from others."""
    found = OF_PARTNERS.fullmatch(field)
    return found is not None and found["part"] != _BASE_URL


def _field(profile: Profile, part: str) -> str:
    return f"upstream_{profile.name.replace('-', '_')}_{part}"


def _moved(profile: Profile, reader: Reader) -> Profile:
    def parsed(text: str) -> str:
        for sentence in profile_checks.url_problems(
            text, may_be_http=bool(profile.private_networks)
        ):
            raise ValueError(f"the URL {sentence}")
        return text.rstrip("/")

    url = reader.take(_field(profile, _BASE_URL), parsed)
    return profile if url is None else replace(profile, base_url=url)


def _of_file(name: str, reader: Reader) -> tuple[Profile, ...]:
    try:
        if name in SHIPPED:
            raw = files("indexer.partners").joinpath(f"{name}.toml").read_bytes()
        else:
            with Path(name).open("rb") as stream:
                raw = stream.read(_FILE_BYTES_MAX + 1)
        return profile_reader.read(raw.decode(), name)
    except OSError as error:
        reason = error.strerror or "it is not readable"
        hint = f"; shipped are {', '.join(SHIPPED)}" if "/" not in name else ""
        reader.problems.append(f"{PREFIX}UPSTREAMS: cannot read {name}: {reason}{hint}")
    except UnicodeDecodeError:
        reader.problems.append(f"{PREFIX}UPSTREAMS: {name} is not UTF-8 text")
    except ValueError:  # of a NUL
        reader.problems.append(f"{PREFIX}UPSTREAMS: {name!r} is no name of a file")
    except profile_reader.Faulty as error:
        reader.problems += [f"{PREFIX}UPSTREAMS: {problem}" for problem in error.problems]
    return ()
