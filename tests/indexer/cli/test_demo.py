import pytest

from indexer.demo import scenario
from tests.indexer.cli.conftest import Run


@pytest.mark.parametrize(("arguments", "keep"), [((), False), (("--keep",), True)])
def test_it_passes_on_whether_to_stay_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], keep: bool
) -> None:
    kept = []

    async def played(*, clock: object, keep: bool) -> int:
        kept.append(keep)
        return 0

    monkeypatch.setattr(scenario, "run", played)

    assert run("demo", *arguments).code == 0
    assert kept == [keep]


def test_settings_of_a_deployment_do_not_touch_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def played(**_: object) -> int:
        return 0

    monkeypatch.setattr(scenario, "run", played)

    assert run("demo", RPC_URLS="nonsense").code == 0


def test_without_node_it_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    result = run("demo")

    assert result.code == 1
    assert result.err.startswith("axiompay: node is missing")
    assert result.err.count("\n") == 1
