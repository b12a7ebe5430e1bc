"""`reason runs show --tree` and `--trace`, on a stored run whose strategy searched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from reason.core.events import NodesSearched, RunFinished, RunStarted, SearchNode
from reason.core.run import RunConfig
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from support.html_page import carried
from support.scripted_model import ScriptedModel
from support.step_search_events import ferry_run

Cli = Callable[..., tuple[int, str, str]]
Scripted = Callable[..., ScriptedModel]


@pytest.fixture
def ferry(home: Path) -> str:
    """Name of a stored run that has searched."""

    async def write() -> str:
        events = ferry_run()
        started, ended = events[0], events[-1]
        assert isinstance(started, RunStarted)
        assert isinstance(ended, RunFinished)
        config = RunConfig(
            question=started.question, strategy="astar", parameters={}, models=started.models, seed=started.seed
        )
        store = await SqliteStore.open(load_settings().store)
        await store.create_run(started.run_id, config.model_dump(mode="json"))
        await store.add_events(started.run_id, events)
        await store.end_run(started.run_id, "finished", answer=ended.answer.model_dump(mode="json"))
        await store.aclose()
        return started.run_id

    return asyncio.run(write())


def test_the_tree_of_a_stored_run(cli: Cli, ferry: str) -> None:
    status, out, err = cli("runs", "show", ferry[:-2], "--tree")
    assert (status, err) == (0, "")
    assert out.startswith("search 1: best-first\nstopped: done, 24 nodes")
    assert sum(line.startswith("✓ ") for line in out.splitlines()) == 5 + 1  # and the legend
    assert "\x1b" not in out
    assert "left out" not in out
    few = cli("runs", "show", ferry, "--tree", "--max-nodes", "2")[1]
    assert "17 nodes left out" in few
    assert cli("runs", "show", ferry, "--tree", "--max-nodes", "2", "--all")[1] == out


def test_the_tree_as_json(cli: Cli, ferry: str) -> None:
    status, out, err = cli("runs", "show", ferry, "--tree", "--json", "--max-nodes", "0")
    assert (status, err) == (0, "")
    data = json.loads(out)
    assert data["run"] == ferry
    (search,) = data["searches"]
    assert set(search) == {
        *("search", "place", "stopped", "chosen", "chosen_path", "expanded", "discarded", "cost", "nodes", "notes"),
    }
    assert search["chosen_path"] == [0, 1, 5, 10, 21]
    assert [SearchNode.model_validate(node).id for node in search["nodes"]] == list(range(24))
    assert search["nodes"][21]["text"].endswith("The answer is 1272.")
    assert search["notes"] == {}


def test_infinite_values_are_json_too(cli: Cli, ferry: str) -> None:
    async def add() -> None:
        store = await SqliteStore.open(load_settings().store)
        node = SearchNode(id=0, parent=None, depth=0, values={"ucb": float("inf")})
        await store.claim_run(ferry)
        await store.add_events(ferry, [NodesSearched(number=900, search="mcts", nodes=(node,))])
        await store.aclose()

    asyncio.run(add())
    data = json.loads(
        cli("runs", "show", ferry, "--tree", "--json")[1], parse_constant=lambda _: pytest.fail("no JSON")
    )
    assert [s["search"] for s in data["searches"]] == ["best-first", "mcts"]
    assert SearchNode.model_validate(data["searches"][1]["nodes"][0]).values == {"ucb": float("inf")}


def test_a_run_without_a_search_says_so(cli: Cli, scripted: Scripted) -> None:
    scripted()
    run = json.loads(cli("ask", "What is 6 * 7?", "--json")[1])["run_id"]
    for flags in ([], ["--json"]):
        status, out, err = cli("runs", "show", run, "--tree", *flags)
        assert (status, out) == (2, "")
        assert f"the run {run} has searched no tree: its strategy is cot" in err


def test_the_page_of_a_stored_run_has_its_tree(cli: Cli, ferry: str, home: Path) -> None:
    assert cli("runs", "show", ferry, "--trace", "page.html") == (0, "", "")
    page = (home / "work" / "page.html").read_text(encoding="utf-8")
    carries = carried(page)
    assert carries["status"] == "finished"
    nodes = {n["id"] for e in carries["events"] if e["type"] == "search.nodes" for n in e["nodes"]}
    assert nodes == set(range(24))
    assert "script-src 'sha256-" in page
    status, out, err = cli("runs", "show", ferry, "--tree", "--trace", "again.html")
    assert (status, err) == (0, "")
    assert out.startswith("search 1")
    assert (home / "work" / "again.html").read_text(encoding="utf-8") == page
