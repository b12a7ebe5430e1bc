"""Tab completes the names that this machine has; the shell runs the command with the words typed so far."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from reason.core.settings import load_settings
from reason.core.store import open_store
from support.stored_runs import run_config


def complete(*words: str, **environment: str) -> list[str]:
    """The completions of the last word, as bash asks for them; also that nothing heavy was imported for them."""
    program = (
        "import atexit, os, sys\n"
        "heavy = {'torch', 'litellm', 'numpy', 'transformers', 'langgraph', 'httpx'}\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(heavy & set(sys.modules))))\n"
        "from reason.cli.main import main\nsys.exit(main())"
    )
    variables = {
        "_REASON_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("reason", *words)),
        "COMP_CWORD": str(len(words)),
    }
    kept = {n: v for n, v in os.environ.items() if not n.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**kept, **variables, **environment}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(("ask", "q", "--verify", "dav"), ["davinci"], marks=pytest.mark.nightly),
        pytest.param(("eval", "gsm"), ["gsm8k"], marks=pytest.mark.nightly),
        (("strategies", "show", "co"), ["coat", "cot"]),
    ],
)
def test_names_of_plugins(home, words, expected):
    assert complete(*words) == expected


@pytest.mark.nightly
def test_models_are_those_here_those_known_and_those_of_providers_with_a_key(home):
    kept = home / "cache" / "reason" / "encoders" / "all-minilm-l6-v2"
    kept.mkdir(parents=True)
    (home / "work" / "reason.toml").write_text('small_model = "hosted_vllm/mine"\n')
    assert complete("ask", "q", "--model", "local/smol") == ["local/smollm2-135m"]
    assert complete("ask", "q", "--small-model", "hosted") == ["hosted_vllm/mine"]
    assert complete("ask", "q", "-m", "anthropic") == []
    assert complete("ask", "q", "-m", "anthropic", ANTHROPIC_API_KEY="key") == ["anthropic/claude-haiku-4-5"]
    assert complete("models", "rm", "") == ["local/all-minilm-l6-v2"]
    assert complete("models", "pull", "rec") == ["recommended"]
    assert "local/all-minilm-l6-v2" not in complete("models", "pull", "local/")
    (home / "work" / "reason.toml").write_text("not toml")
    assert complete("ask", "q", "--model", "local/") == []


@pytest.mark.nightly
def test_runs_are_those_of_the_store(home):
    assert complete("runs", "show", "") == []
    assert not load_settings().store.exists()  # completing makes no store

    async def record() -> None:
        store = await open_store(load_settings().store)
        for name in ("20260101-120000-aaaaaa", "20260102-120000-bbbbbb"):
            await store.create_run(name, run_config())
        await store.aclose()

    asyncio.run(record())
    assert complete("runs", "show", "") == ["20260102-120000-bbbbbb", "20260101-120000-aaaaaa"]
    assert complete("runs", "replay", "20260101") == ["20260101-120000-aaaaaa"]
    assert complete("runs", "rm", "20260101") == ["20260101-120000-aaaaaa"]
