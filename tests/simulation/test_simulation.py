"""Simulated worlds end as they should, and every run of one seed is the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.faults import FAULTS
from tests.simulation.planting import planted
from tests.simulation.seeds import examine, examine_shop
from tests.simulation.shop import Shop
from tests.simulation.world import World


ROOT = Path(__file__).resolve().parents[2]

SEEDS = 300
SEEDS_OF_A_CASE = 25


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """As many as there are cores; each has another hash seed: what depends on it shows."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_OF_A_CASE))
def test_every_world_ends_as_it_should(first: int, processes: ProcessPoolExecutor) -> None:
    seeds = range(first, first + SEEDS_OF_A_CASE)
    failed = [result for result in processes.map(examine, seeds) if result.objections]

    assert not failed, "\n".join(result.story for result in failed)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_OF_A_CASE))
def test_every_shop_ends_as_it_should(first: int, processes: ProcessPoolExecutor) -> None:
    seeds = range(first, first + SEEDS_OF_A_CASE)
    failed = [result for result in processes.map(examine_shop, seeds) if result.objections]

    assert not failed, "\n".join(result.story for result in failed)


@pytest.mark.parametrize("seed", [2, 11])
def test_two_runs_of_one_shop_are_the_same(seed: int) -> None:
    code = f"from tests.simulation.shop import Shop; print(Shop({seed}).run().digest)"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "3"},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    ).stdout.strip()

    assert {Shop(seed).run().digest, Shop(seed).run().digest} == {elsewhere}


@pytest.mark.parametrize("seed", [3, 17, 40])
def test_two_runs_of_one_seed_are_the_same(seed: int) -> None:
    """In one process and in others, whatever the order of their sets."""
    code = f"from tests.simulation.world import World; print(World({seed}).run().digest)"
    elsewhere = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    ]

    assert {World(seed).run().digest, World(seed).run().digest, *elsewhere} == {elsewhere[0]}


def test_different_seeds_are_different_worlds() -> None:
    assert len({World(seed).run().digest for seed in range(5)}) == 5


def test_a_seed_that_fails_tells_its_story(capsys: pytest.CaptureFixture[str]) -> None:
    [fault] = [fault for fault in FAULTS if fault.name == "there is no end to the grace time"]
    with planted(fault):
        seed = next(seed for seed in range(200) if examine(seed).objections)
        code = main(["--seed", str(seed)])
    result, told = examine(seed), capsys.readouterr().out

    assert code == 1
    assert f"seed {seed} FAILED" in told
    assert "in truth" in told
    assert "frontier" in told or "daemon" in told
    assert f"again: ./run simulate --seed {seed} --trace" in told
    assert not result.objections
