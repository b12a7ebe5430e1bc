"""LangGraph is imported by runs that verify something, and by nothing else: importing it takes most of a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
SCRIPT = """
import asyncio, sys
sys.path.insert(0, {tests!r})
import reason.agents.reasoner as module
import reason.cli.main
from support.eval_tasks import adder
from reason import Reasoner
from reason.core.settings import Settings
from support.scripted_model import ScriptedModel


async def load_model(*_):
    return ScriptedModel(adder)


def imported():
    return [name for name in ("langgraph", "langchain_core") if name in sys.modules]


module.load_model = load_model
settings = Settings(model="scripted/adder", store={store!r}, cache_dir={cache!r})
with Reasoner(strategy="cot", settings=settings) as reasoner:
    answer = reasoner.ask("What is 2 + 3?", run_id="unverified")
    print(answer.stopped, imported())
    replayed = reasoner.replay("unverified")
    print(replayed.text == answer.text, imported())
judged = {{"davinci": {{"judge": "lexical"}}}}
with Reasoner(strategy="cot", verify=["davinci"], verify_parameters=judged, settings=settings) as reasoner:
    verified = reasoner.ask("What is 2 + 3?")
    print(verified.verification is not None, imported())
"""


@pytest.mark.nightly
def test_a_run_does_not_import_langgraph(tmp_path) -> None:
    script = SCRIPT.format(tests=str(TESTS), store=str(tmp_path / "runs.sqlite3"), cache=str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "done []",
        "True []",
        "True []",
    ]
