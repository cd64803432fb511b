import asyncio
import time
from pathlib import Path

import pytest

from indexer.demo.cluster import Cluster
from indexer.demo.part import DemoFailed
from indexer.demo.shop import ShopError
from indexer.demo.stage import SYMBOL, stage
from indexer.demo.surfnet.install import SurfnetError
from indexer.errors import ConfigError


async def test_everything_is_up_inside_and_down_outside(tmp_path: Path) -> None:
    said: list[str] = []
    async with stage(tmp_path, clock=time.time, say=said.append) as up:
        payment = await up.shop.create(amount="12.5", token=SYMBOL)
        rpc_url = up.cluster.rpc_url
        assert payment["token"]["mint"] == str(up.token.mint)
        assert payment["recipient"] == up.settings.recipient
        assert not up.product.done()
        with pytest.raises(ShopError, match="404"):
            await up.shop.get("pay_nobody")

    assert up.product.done()
    assert len(said) == 2
    async with Cluster(rpc_url) as cluster:
        with pytest.raises(SurfnetError):
            await cluster.slot()


async def test_a_product_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise ConfigError(("AXIOM_PORT: taken",))

    monkeypatch.setattr("indexer.daemon.run", fails)

    with pytest.raises(ConfigError, match="taken"):
        async with stage(tmp_path, clock=time.time, say=lambda _: None):
            raise AssertionError("nothing is up")


async def test_a_product_that_is_never_ready_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dawdles(*_: object, stop: asyncio.Event, **__: object) -> None:
        await stop.wait()

    monkeypatch.setattr("indexer.daemon.run", dawdles)
    monkeypatch.setattr("indexer.demo.stage._READY_TIMEOUT_S", 0.1)

    with pytest.raises(DemoFailed, match="not ready"):
        async with stage(tmp_path, clock=time.time, say=lambda _: None):
            raise AssertionError("nothing is up")
