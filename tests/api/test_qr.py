import asyncio
from xml.etree import ElementTree as ET

import pytest

from api import qr
from api.qr import QrCodes, draw
from indexer.core.solana_pay import URL_CHARS_MAX


def test_a_code_is_one_picture_without_anything_to_fetch_or_run() -> None:
    root = ET.fromstring(draw("solana:abc?amount=1"))  # noqa: S314 - made by ourselves

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {child.tag for child in root} == {"{http://www.w3.org/2000/svg}path"}
    assert b"href" not in draw("solana:abc?amount=1")


def test_the_longest_url_fits() -> None:
    assert draw("solana:" + "%F0" * ((URL_CHARS_MAX - 7) // 3)).startswith(b"<svg")


async def test_a_code_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def note(url: str) -> bytes:
        drawn.append(url)
        return url.encode()

    monkeypatch.setattr(qr, "draw", note)
    monkeypatch.setattr(qr, "QR_CACHE_ENTRIES_MAX", 2)
    codes = QrCodes()

    for url in ("a", "b", "a", "c", "a", "b"):
        assert await codes.svg(url) == url.encode()

    assert drawn == ["a", "b", "c", "b"]


async def test_many_codes_at_once_are_all_right() -> None:
    codes = QrCodes()
    urls = [f"solana:{number}" for number in range(6)]

    assert await asyncio.gather(*(codes.svg(url) for url in urls)) == [draw(url) for url in urls]
