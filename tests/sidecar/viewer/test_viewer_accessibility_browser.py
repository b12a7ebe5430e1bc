"""axe-core finds no fault in the pages, light and dark: labels, roles, contrast, landmarks, order of headings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reason.core.events import NodesSearched, RunFinished, RunStarted, SearchEnded, SearchNode
from reason.core.types import Question
from reason.sidecar.viewer.page import trace_html, verification_html
from support.openai_server import scripted_server
from support.scripted_model import ScriptedModel, replies
from support.verified_text import verified
from support.viewer_runs import answer_of, evil_run, numbered

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
WEB = Path(__file__).resolve().parents[3] / "sidecar" / "viewer" / "web"
TEXT = "## Head\n\nSo $x^2$ is **4**.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n```py\nx = 1\n```"
RULES = {"label-content-name-mismatch": {"enabled": False}}
"""The label of a node says in words what its figures mean, and does not repeat them."""
RUN_AXE = "(rules) => axe.run(document, {resultTypes: ['violations'], rules})"


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, of the version in the viewer's lock file."""
    installed = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not installed.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm here: axe-core was not run")
        folder = tmp_path_factory.mktemp("axe")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(WEB / name, folder)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, env={**os.environ, "CI": "true"}, capture_output=True, timeout=280)
        if done.returncode != 0:
            pytest.skip("npm's registry cannot be reached: axe-core was not run")
        installed = folder / "node_modules" / "axe-core" / "axe.min.js"
    return installed.read_text(encoding="utf-8")


def faults(tab: Any, axe: str) -> list[str]:
    """The rules that the page breaks, each with its first element."""
    for _ in range(4):  # opened elements contain further ones
        tab.js("document.querySelectorAll('details:not([open])').forEach((d) => { d.open = true; })")
        tab.page.wait_for_timeout(50)
    tab.page.evaluate(axe)
    found = tab.page.evaluate(RUN_AXE, RULES)["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def searched() -> list[Any]:
    nodes = [SearchNode(id=i, parent=(i - 1) // 3 if i else None, depth=0, text=TEXT, score=0.5) for i in range(400)]
    return numbered(
        [
            RunStarted(question=Question(text="Why $x$?"), strategy="mcts", models={"main": "m"}, seed=1),
            NodesSearched(search="mcts", nodes=tuple(nodes), expanded=(0, 1)),
            SearchEnded(search="mcts", chosen=399, stopped="done"),
            RunFinished(answer=answer_of(TEXT, "4", stopped="budget")),
        ]
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_from_disk(look: Look, tmp_path: Path, axe: str, scheme: str) -> None:
    tab = look(color_scheme=scheme, bypass_csp=True)
    pages = {
        "run": trace_html(evil_run("plain words")),
        "search": trace_html(searched()),
        "verification": verification_html(verified()),
    }
    found = {}
    for name, page in pages.items():
        tab.show(page, tmp_path)
        found[name] = faults(tab, axe)
    assert found == {name: [] for name in pages}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_live_pages(look: Look, tmp_path: Path, axe: str, scheme: str) -> None:
    with scripted_server(tmp_path, {"says": ScriptedModel(replies(TEXT), name="says")}) as server:
        tab = look(color_scheme=scheme, bypass_csp=True)
        tab.page.goto(f"{server.url}/ui")
        tab.page.wait_for_selector("text=Nothing was asked yet.")
        found = {"empty": faults(tab, axe)}
        for number in range(2):
            tab.page.goto(f"{server.url}/ui/ask")
            tab.page.wait_for_selector("[name=question]")
            tab.page.select_option("[name=strategy]", "self-consistency")
            if number == 0:
                found["ask"] = faults(tab, axe)
            tab.page.fill("[name=question]", "Why?")
            tab.page.fill("[name=tags]", "set: a") if number == 0 else None
            tab.page.click("button[type=submit]")
            tab.page.wait_for_selector(".chip.good")
        found["run"] = faults(tab, axe)
        tab.page.goto(f"{server.url}/ui")
        for i in (0, 1):
            tab.page.locator(".choose input").nth(i).check()
        tab.page.click("#charts summary")
        tab.page.wait_for_selector(".charts")
        found["runs"] = faults(tab, axe)
        tab.page.click("button[value=compare]")
        tab.page.click("button[value=all]")
        tab.page.wait_for_selector(".differences")
        found["compare"] = faults(tab, axe)
    assert found == {name: [] for name in found}
