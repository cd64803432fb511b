"""deploy/compose.yml as whoever runs it reads it: merged, with its variables put in."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

#: What somebody who runs it has to say.
SAID = {
    "AXIOM_RECIPIENT": "7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU",
    "AXIOM_PUBLIC_URL": "https://pay.example",
}

_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")


def composition(said: Mapping[str, str] = SAID) -> dict[str, Any]:
    """The whole file."""
    found = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    assert isinstance(found, dict)
    filled = _filled(found, said)
    assert isinstance(filled, dict)
    return filled


def services() -> dict[str, dict[str, Any]]:
    """Every service, by its name."""
    found: dict[str, dict[str, Any]] = composition()["services"]
    return found


def products() -> dict[str, dict[str, Any]]:
    """Those that run `axiompay`."""
    return {name: each for name, each in services().items() if "build" in each}


def in_order(wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Their names, each after those that it waits for."""
    ordered: list[str] = []
    while len(ordered) < len(wanted):
        ready = [
            name
            for name, service in wanted.items()
            if name not in ordered and set(service.get("depends_on", {})) <= set(ordered)
        ]
        assert ready, "they wait for each other"
        ordered += ready
    return ordered


def strings(value: Any) -> Iterator[str]:
    """Every text in it."""
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from strings(each)
        case list():
            for each in value:
                yield from strings(each)


def _filled(value: Any, said: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _value(found, said), value)
        case dict():
            return {name: _filled(each, said) for name, each in value.items()}
        case list():
            return [_filled(each, said) for each in value]
        case _:
            return value


def _value(found: re.Match[str], said: Mapping[str, str]) -> str:
    name, kind, rest = found.groups()
    if name in said:
        return said[name]
    assert kind == "-", f"{name} must be said: {rest}"
    return str(rest)
