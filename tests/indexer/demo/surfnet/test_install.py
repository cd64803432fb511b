import json
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest

from indexer.demo.surfnet.install import SurfnetError, install, node


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "axiompay"


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_two_at_once_install_one(cache: Path) -> None:
    with ThreadPoolExecutor(2) as both:
        places = list(both.map(lambda _: install(), range(2)))

    assert places[0] == places[1]
    assert (places[0] / "node_modules/@solana/surfpool-linux-x64-gnu").is_dir()
    assert list(cache.iterdir()) == [places[0]]


def test_what_is_there_is_taken_as_it_is(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = install()
    monkeypatch.setenv("PATH", str(cache))  # no npm to be found

    assert install() == place


def test_a_missing_program_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))

    with pytest.raises(SurfnetError, match="node is missing"):
        node()
    with pytest.raises(SurfnetError, match="npm is missing"):
        install()


def test_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")

    with pytest.raises(SurfnetError, match="Linux on aarch64"):
        node()


def test_what_npm_says_is_passed_on_and_nothing_is_left(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path / "bin", "npm", "echo 'npm warn old' >&2; echo 'npm error offline' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(SurfnetError, match=r"runtime: npm error offline$"):
        install()

    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(SurfnetError, match="cannot install the local Solana runtime into"):
        install()


def test_the_pin_names_no_registry() -> None:
    lock = json.loads(
        resources.files("indexer.demo.surfnet").joinpath("package-lock.json").read_text()
    )

    packages = [package for name, package in lock["packages"].items() if name]
    assert [package["version"] for package in packages] == ["1.5.0"]
    assert all("resolved" not in package and "integrity" in package for package in packages)
