"""Accuracy at counted tokens: every peer answers the same questions over the same model server, behind one proxy.

Each cell (a peer, a method, a size) is a file of answers and a file of the calls that the proxy counted meanwhile; a
cell whose files are there is not run again, so the whole can be stopped at any time. `peers_accuracy_table` makes
tables of them, with `reason`'s own extraction and equality for everybody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers_methods import CHAIN, OURS, PEERS, STEPS, SYSTEM, Cell, peer_named
from peers_proxy import MARK
from reason.evals.items import Item
from sidecar_processes import Failed, Process, fetch, free_port

sys.path.append(str(PEERS))
from peer_job import Asked, Job, as_json

MODEL = "model"
"""How the server calls the model."""
TEMPERATURE, TOP_K = 1.0, 5
"""OptiLLM samples at temperature 1, whatever is said; so all do, and among the likeliest tokens, as the server has it.

A nucleus would have the server sort its vocabulary for every token, which on a processor takes most of a step.
"""
STARTS_S = 900.0
RUNNERS = {"(direct)": "run_direct.py"}
"""Runners of what is no peer; they run in this environment."""


def model_server(folder: Path, python: Path, weights: Path) -> tuple[Process, str]:
    """A vLLM server over the weights, on a CPU (see docs/vllm-server.md), without plug-ins; gives its address too.

    Where a request says nothing of them, temperature and likeliest tokens are `TEMPERATURE` and `TOP_K`; nobody sends
    the latter, so that all sample alike.
    """
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--generation-config", "vllm"]
    command += ["--override-generation-config", json.dumps({"temperature": TEMPERATURE, "top_k": TOP_K})]
    command += ["--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(1 << 30)]
    command += ["--no-enable-chunked-prefill", "--max-model-len", "4096", "--max-num-batched-tokens", "4096"]
    command += ["--max-num-seqs", "64", "--enable-prompt-tokens-details", "--max-logprobs", "20"]
    process = Process(command, folder, "model", {"VLLM_PLUGINS": "none", "VLLM_NO_USAGE_STATS": "1"})
    root = f"http://127.0.0.1:{port}"
    try:
        process.wait_for(f"{root}/health", STARTS_S)
    except BaseException:
        process.kill()
        raise
    return process, root


def proxy(folder: Path, upstream: str) -> tuple[Process, str]:
    """The counting proxy as a process, and its address."""
    port = free_port()
    script = Path(__file__).with_name("peers_proxy.py")
    process = Process([sys.executable, str(script), upstream, "--port", str(port)], folder, "proxy")
    root = f"http://127.0.0.1:{port}"
    process.wait_for(f"{root}/ledger")
    return process, root


def optillm_server(folder: Path, base_url: str, model: str, venv: Path, best_of: int) -> tuple[Process, str]:
    """OptiLLM's proxy before a model, and its address."""
    port = free_port()
    command = [str(venv / "bin" / "optillm"), "--port", str(port), "--base-url", base_url, "--model", model]
    command += ["--approach", "none", "--best-of-n", str(best_of), "--log", "error"]
    process = Process(command, folder, "optillm", {"OPENAI_API_KEY": "none", "OPTILLM_API_KEY": ""})
    root = f"http://127.0.0.1:{port}"
    try:
        process.wait_for(f"{root}/health")
    except BaseException:
        process.kill()
        raise
    return process, root


def asked(items: Sequence[Item]) -> tuple[Asked, ...]:
    """Questions as runners get them."""
    marks = [MARK.format(name=item.id) for item in items]
    return tuple(Asked(i.id, i.question.text, m + i.question.text, m) for i, m in zip(items, marks, strict=True))


def job_of(cell: Cell, base_url: str, model: str, questions: tuple[Asked, ...], **more: Any) -> Job:
    """A cell as a job."""
    return Job(base_url, model, cell.method, cell.size, questions, SYSTEM, CHAIN, STEPS, **more)


def run_job(job: Job, peer: str, peers: Path | None, folder: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Have a runner do a job; gives the lines that it wrote, the last one about the whole.

    Args:
        job: The job.
        peer: Whose runner.
        peers: Folder of the virtual environments; ours is this one.
        folder: Where the runner runs, and where what it says goes.
        environment: Variables beside those of this process.

    Raises:
        Failed: It ended otherwise than well.
    """
    runner = RUNNERS.get(peer) or peer_named(peer).runner
    log_file = folder / f"{runner.removesuffix('.py')}.log"
    with log_file.open("ab") as log:
        done = subprocess.run(
            [str(python_of(peer, peers)), str(PEERS / runner)],
            input=as_json(job) + "\n",
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=folder,
            env={**os.environ, **environment},
            check=False,
        )
    if done.returncode:
        raise Failed(f"{runner} ended with {done.returncode}:\n{log_file.read_text(errors='replace')[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def python_of(peer: str, peers: Path | None) -> Path:
    """The interpreter in which a peer is installed."""
    if peers is None or peer in (OURS, *RUNNERS):
        return Path(sys.executable)
    return peers.resolve() / peer_named(peer).venv / "bin" / "python"


def measure(
    cell: Cell, items: Sequence[Item], proxy_root: str, peers: Path, folder: Path, out: Path, **more: Any
) -> None:
    """Run a cell, unless it has been, and write its two files."""
    answers = out / cell.file
    if answers.exists():
        return
    fetch(f"{proxy_root}/ledger", {})  # forget what was before
    base_url = f"{proxy_root}/v1"
    with ExitStack() as stack:
        if cell.peer == "OptiLLM":
            process, root = optillm_server(folder, base_url, MODEL, peers.resolve() / "optillm", cell.size)
            stack.callback(process.kill)
            base_url = f"{root}/v1"
        job = job_of(cell, base_url, MODEL, asked(items), temperature=TEMPERATURE, **more)
        keys = {"HOSTED_VLLM_API_KEY": "none", "OPENAI_API_KEY": "none"}
        lines = run_job(job, cell.peer, peers, folder, keys)
    calls = fetch(f"{proxy_root}/ledger", {})
    calls_file(answers).write_text("".join(json.dumps(call) + "\n" for call in calls), encoding="utf-8")
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def calls_file(answers: Path) -> Path:
    """The file of the calls beside the file of the answers."""
    return answers.with_suffix(".calls.jsonl")
