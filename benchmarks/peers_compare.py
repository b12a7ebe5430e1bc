r"""`reason` next to its peers on this machine: the tables of docs/comparison.md.

    benchmarks/peers/install /tmp/peers
    python benchmarks/peers_compare.py footprint overhead serving --peers /tmp/peers --out runs/peers
    python benchmarks/peers_compare.py accuracy --peers /tmp/peers --out runs/peers --data DATA \
        --vllm-python VLLM/bin/python --weights DIRECTORY [--sizes 4,8] [--limit 40]
    python benchmarks/peers_compare.py tables --out runs/peers

Each part writes `PART.md` and its data into `--out` and prints the table; `all` is every part, and `tables` prints
those that are there. A table lists what could not be measured. `--server URL` uses a running model server.

accuracy: every peer answers the same questions over the same model server through one proxy that counts tokens. A cell
(peer, method, size) is a file of answers and a file of calls; finished cells are not run again. Answers are extracted
and compared by `reason` for all peers.

footprint: the size of `site-packages`, less that of an empty environment and without compiled files; and the time of an
import. The first of the interleaved rounds is not counted.

overhead: the peer's own cost of a vote of n samples, with a model that answers at once. Libraries are measured by their
process without its start, OptiLLM by server and client. `(direct)` sends n calls without a peer. Rounds are
interleaved. its-hub and `(direct)` make n calls for a question; `reason` and OptiLLM make one call for n samples.

serving: time to the first event with text, and how long the model still works after the client has left. The client
leaves `LEAVES` of a response's time after the model began; `idle` is how long after that a request stays open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from load_tables import ratio_text, spread, write_report
from peer_job import Job, MarkedQuestion, as_json
from peers_proxy import MARK
from reason.core.types import Question
from reason.evals.datasets.items import Item, MathGold
from reason.evals.datasets.loading import load_dataset
from reason.evals.scoring import compare_with_gold, is_same
from reason.evals.statistics.equal_tokens import TokenCurve, accuracy_at, difference_at, shared_tokens
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired, holm
from reason.reasoning.answers.equivalence import Equivalence
from reason.reasoning.answers.extraction import extract_answer
from reporting import made_here, paired_points, share, short_p, table
from sidecar_backend import Pace
from sidecar_servers import PEERS, QUESTION, Backend, Process, Server, ServerFailed, fetch, free_port, start_all

LIBRARIES = Path(__file__).resolve().parent / "peers"
METHODS = ("self-consistency", "best-of-n", "beam", "particle-filter", "mcts", "ab-mcts")
SYSTEM = "You are a careful assistant."
CHAIN = "Let's work this out step by step and put the final answer within \\boxed{}."
STEPS = (
    "Solve this in short numbered steps, with a blank line between one step and the next. "
    "End with a last step that gives the final answer within \\boxed{}."
)


@dataclass(frozen=True)
class Peer:
    """A peer.

    Attributes:
        name: How tables call it.
        venv: Name of its virtual environment (`peers/install`).
        package: Its distribution.
        imported: The statement by which its users import it.
        runner: Script that has it answer questions.
        offers: Its name for each method that it offers.
    """

    name: str
    venv: str
    package: str
    imported: str
    runner: str
    offers: dict[str, str]


OURS = "reason"
ALL = (
    Peer(
        OURS,
        "reason",
        "reason-orchestrator",
        "from reason import Reasoner",
        "run_reason.py",
        {
            "self-consistency": "`self-consistency`",
            "best-of-n": "`best-of-n`",
            "beam": "`beam`",
            "particle-filter": "`particle-filter`",
            "mcts": "`mcts`",
        },
    ),
    Peer(
        "its-hub",
        "its_hub",
        "its_hub",
        "import its_hub",
        "run_its_hub.py",
        {
            "self-consistency": "`SelfConsistency`",
            "best-of-n": "`BestOfN`",
            "beam": "`BeamStrategy`",
            "particle-filter": "`ParticleFilterStrategy`",
        },
    ),
    Peer(
        "OptiLLM",
        "optillm",
        "optillm",
        "import optillm",
        "run_optillm.py",
        {"self-consistency": "`majority_voting`", "best-of-n": "`bon`", "mcts": "`mcts`"},
    ),
    Peer(
        "treequest",
        "treequest",
        "treequest",
        "import treequest",
        "run_treequest.py",
        {"mcts": "`StandardMCTS`", "ab-mcts": "`ABMCTSA`"},
    ),
)
"""All peers, ours first."""


@dataclass(frozen=True)
class Cell:
    """One peer with one method at one size; the size is the approximate number of generated solutions."""

    peer: str
    method: str
    size: int

    @property
    def file(self) -> str:
        """Name of the file of its answers."""
        return f"{self.peer}-{self.method}-{self.size}.jsonl"


def cells(sizes: list[int], only: str = "", methods: str = "") -> list[Cell]:
    """Everything that is to be run, ours first of each method."""
    peers = [peer for peer in ALL if not only or peer.name in only.split(",")]
    expected = [method for method in METHODS if not methods or method in methods.split(",")]
    return [
        Cell(peer.name, method, size)
        for size in sizes
        for method in expected
        for peer in peers
        if method in peer.offers
    ]


def peer_named(name: str) -> Peer:
    """A peer by its name."""
    return next(peer for peer in ALL if peer.name == name)


sys.path.append(str(LIBRARIES))

MODEL = "model"
"""How the server calls the model."""
TEMPERATURE, TOP_K = 1.0, 5
"""OptiLLM always samples at temperature 1; so do all, and among the most likely tokens, as the server has
it.

A nucleus would have the server sort its vocabulary for every token, which takes most of a step on a CPU.
"""
STARTS_S = 900.0
RUNNERS = {"(direct)": "run_direct.py"}
"""Runners of what is no peer; they run in this environment."""


def model_server(directory: Path, python: Path, weights: Path) -> tuple[Process, str]:
    """A vLLM server over the weights, on a CPU (see docs/vllm-server.md), without plug-ins; gives its address too.

    Where a request states nothing of them, temperature and most likely tokens are `TEMPERATURE` and `TOP_K`; no
    component sends the latter, so that all sample alike.
    """
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--generation-config", "vllm"]
    command += ["--override-generation-config", json.dumps({"temperature": TEMPERATURE, "top_k": TOP_K})]
    command += ["--enforce-eager", "--block-size", "32", "--kv-cache-memory-bytes", str(1 << 30)]
    command += ["--no-enable-chunked-prefill", "--max-model-len", "4096", "--max-num-batched-tokens", "4096"]
    command += ["--max-num-seqs", "64", "--enable-prompt-tokens-details", "--max-logprobs", "20"]
    process = Process(command, directory, "model", {"VLLM_PLUGINS": "none", "VLLM_NO_USAGE_STATS": "1"})
    root = f"http://127.0.0.1:{port}"
    try:
        process.wait_for(f"{root}/health", STARTS_S)
    except BaseException:
        process.kill()
        raise
    return process, root


def proxy(directory: Path, upstream: str) -> tuple[Process, str]:
    """The counting proxy as a process, and its address."""
    port = free_port()
    script = Path(__file__).with_name("peers_proxy.py")
    process = Process([sys.executable, str(script), upstream, "--port", str(port)], directory, "proxy")
    root = f"http://127.0.0.1:{port}"
    process.wait_for(f"{root}/ledger")
    return process, root


def optillm_server(directory: Path, base_url: str, model: str, venv: Path, best_of: int) -> tuple[Process, str]:
    """OptiLLM's proxy before a model, and its address."""
    port = free_port()
    command = [str(venv / "bin" / "optillm"), "--port", str(port), "--base-url", base_url, "--model", model]
    command += ["--approach", "none", "--best-of-n", str(best_of), "--log", "error"]
    process = Process(command, directory, "optillm", {"OPENAI_API_KEY": "none", "OPTILLM_API_KEY": ""})
    root = f"http://127.0.0.1:{port}"
    try:
        process.wait_for(f"{root}/health")
    except BaseException:
        process.kill()
        raise
    return process, root


def mark_questions(items: Sequence[Item]) -> tuple[MarkedQuestion, ...]:
    """Questions as runners get them."""
    marks = [MARK.format(name=item.id) for item in items]
    return tuple(
        MarkedQuestion(i.id, i.question.text, m + i.question.text, m) for i, m in zip(items, marks, strict=True)
    )


def job_of(cell: Cell, base_url: str, model: str, questions: tuple[MarkedQuestion, ...], **more: Any) -> Job:
    """A cell as a job."""
    return Job(base_url, model, cell.method, cell.size, questions, SYSTEM, CHAIN, STEPS, **more)


def run_job(
    job: Job, peer: str, peers: Path | None, directory: Path, environment: dict[str, str]
) -> list[dict[str, Any]]:
    """Run a job; returns the lines that the runner wrote, the last one about the job.

    Raises:
        Failed: It ended otherwise than well.
    """
    runner = RUNNERS.get(peer) or peer_named(peer).runner
    log_file = directory / f"{runner.removesuffix('.py')}.log"
    with log_file.open("ab") as log:
        done = subprocess.run(
            [str(python_of(peer, peers)), str(LIBRARIES / runner)],
            input=as_json(job) + "\n",
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=directory,
            env={**os.environ, **environment},
            check=False,
        )
    if done.returncode:
        raise ServerFailed(f"{runner} ended with {done.returncode}:\n{log_file.read_text(errors='replace')[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def python_of(peer: str, peers: Path | None) -> Path:
    """The interpreter in which a peer is installed."""
    if peers is None or peer in (OURS, *RUNNERS):
        return Path(sys.executable)
    return peers.resolve() / peer_named(peer).venv / "bin" / "python"


def measure_accuracy(
    cell: Cell, items: Sequence[Item], proxy_root: str, peers: Path, directory: Path, out: Path, **more: Any
) -> None:
    """Run a cell, unless it has been, and write its two files."""
    answers = out / cell.file
    if answers.exists():
        return
    fetch(f"{proxy_root}/ledger", {})  # forget what was before
    base_url = f"{proxy_root}/v1"
    with ExitStack() as stack:
        if cell.peer == "OptiLLM":
            process, root = optillm_server(directory, base_url, MODEL, peers.resolve() / "optillm", cell.size)
            stack.callback(process.kill)
            base_url = f"{root}/v1"
        job = job_of(cell, base_url, MODEL, mark_questions(items), temperature=TEMPERATURE, **more)
        keys = {"HOSTED_VLLM_API_KEY": "none", "OPENAI_API_KEY": "none"}
        lines = run_job(job, cell.peer, peers, directory, keys)
    calls = fetch(f"{proxy_root}/ledger", {})
    calls_file(answers).write_text("".join(json.dumps(call) + "\n" for call in calls), encoding="utf-8")
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def calls_file(answers: Path) -> Path:
    """The file of the calls next to the file of the answers."""
    return answers.with_suffix(".calls.jsonl")


@dataclass(frozen=True)
class Row:
    """One question of a cell.

    Attributes:
        id: Its name.
        right: Whether the answer is.
        failed: Whether there is none because the peer raised an error.
        tokens: Generated tokens, those of judges included.
        prompt: Tokens of prompts.
        calls: Calls of the model; an even share of calls without a known question.
        seconds: From question to answer, next to the other questions in flight.
    """

    id: str
    right: bool
    failed: bool
    tokens: float
    prompt: float
    calls: float
    seconds: float


Measured = Mapping[Cell, Sequence[Row]]


def costs(calls: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """By question the generated tokens, the prompts' and the number of calls.

    Under the name "" is what no question is named in once the first one is in flight: prompts that are sent as
    numbers of tokens. What a client asks when it is opened, before that, is no question's.
    """
    spent: dict[str, tuple[int, int, int]] = {}
    for call in calls:
        if call["item"] or spent:
            a, b, c = spent.get(call["item"], (0, 0, 0))
            spent[call["item"]] = (a + call["completion"], b + call["prompt"], c + 1)
    return spent


async def rows_of(
    items: Sequence[Item], answers: Sequence[Mapping[str, Any]], calls: Sequence[Mapping[str, Any]], same: Equivalence
) -> list[Row]:
    """Score a cell's answers: ours reads the number out of every text, and compares."""
    spent, values = costs(calls), {line["id"]: line for line in answers if "id" in line}
    rows = []
    for item in items:
        if item.id not in values or not isinstance(item.gold, MathGold):
            continue
        line = values[item.id]
        result = extract_answer(line["text"], Question(text=item.question.text, kind=item.gold.kind))
        right = is_same(await compare_with_gold(None if result is None else result.value, item.gold, same))
        own, shared = spent.get(item.id, (0, 0, 0)), spent.get("", (0, 0, 0))
        tokens, prompt, count = (mine + ours / len(items) for mine, ours in zip(own, shared, strict=True))
        rows.append(Row(item.id, right, bool(line["error"]), tokens, prompt, count, line["seconds"]))
    return rows


async def read_cell(directory: Path, cell: Cell, items: Sequence[Item], same: Equivalence) -> list[Row] | None:
    """A cell's rows; None if it was not run."""
    answers = directory / cell.file
    if not answers.exists():
        return None
    return await rows_of(items, _lines(answers), _lines(calls_file(answers)), same)


def accuracy_table(measured: Measured) -> str:
    """A row for each cell; a peer's is compared, question by question, with ours of the same method and size.

    The p-values of all comparisons are also given as adjusted together by Holm's method.
    """
    head = ["method", "by", "its name for it", "size", "accuracy % [95 %]", "generated tokens a question"]
    head += ["prompt tokens", "calls", "median s", "failed", "less ours, points [95 %]", "won, lost", "p", "p (Holm)"]
    lines = []
    against = {
        cell: compare_paired(_outcomes(rows), _outcomes(ours))
        for cell, rows in measured.items()
        if cell.peer != OURS and (ours := measured.get(beside(cell))) is not None
    }
    adjusted = dict(zip(against, holm([result.p for result in against.values()]), strict=True))
    for cell, rows in measured.items():
        line = [cell.method, cell.peer, peer_named(cell.peer).offers[cell.method], str(cell.size)]
        line += [share([float(row.right) for row in rows])]
        line += [f"{np.mean([row.tokens for row in rows]):,.0f}", f"{np.mean([row.prompt for row in rows]):,.0f}"]
        line += [f"{np.mean([row.calls for row in rows]):.1f}", f"{np.median([row.seconds for row in rows]):.1f}"]
        line += [str(sum(row.failed for row in rows))]
        if (result := against.get(cell)) is None:
            line += [""] * 4
        else:
            line += [paired_points(result), f"{result.wins}, {result.losses}"]
            line += [short_p(result.p), short_p(adjusted[cell])]
        lines.append(line)
    return table(head, lines)


def beside(cell: Cell) -> Cell:
    """The cell of ours that a peer's is compared with: the same method, or `mcts` where we have no other tree."""
    ours = next(peer for peer in ALL if peer.name == OURS)
    return Cell(OURS, cell.method if cell.method in ours.offers else "mcts", cell.size)


def _outcomes(rows: Sequence[Row]) -> Outcomes:
    return Outcomes.of({row.id: {0: float(row.right)} for row in rows})


def equal_tokens_table(measured: Measured) -> str:
    """By method each peer's accuracy at the same generated tokens, between measured sizes; empty with one size."""
    head = ["method", "by", "generated tokens a question", "accuracy % [95 %]", "less ours, points [95 %]"]
    lines = []
    for method in METHODS:
        curves = _curves(measured, method)
        at = shared_tokens(list(curves.values()), 3) if len(curves) > 1 else []
        if not at:
            continue
        clusters = np.arange(len(next(iter(curves.values())).accuracy), dtype=np.intp)
        made = accuracy_at(list(curves.values()), clusters, at)
        for (name, curve), result in zip(curves.items(), made, strict=True):
            for tokens, here in zip(at, result, strict=True):
                line = [method, name, f"{tokens:,.0f}"]
                line += [
                    "" if here is None else f"{100 * here.value:.1f} [{100 * here.low:.0f}, {100 * here.high:.0f}]"
                ]
                less = difference_at(curve, curves[OURS], clusters, tokens) if name != OURS and OURS in curves else None
                span = "" if less is None else f" [{100 * less.low:+.1f}, {100 * less.high:+.1f}]"
                lines.append([*line, "" if less is None else f"{100 * less.value:+.1f}{span}"])
    return table(head, lines) if lines else ""


def _curves(measured: Measured, method: str) -> dict[str, TokenCurve]:
    """By peer the curve over its sizes of a method, where there are at least two, on the questions that all have."""
    runs: dict[str, list[Sequence[Row]]] = {}
    for cell, rows in measured.items():
        if cell.method == method:
            runs.setdefault(cell.peer, []).append(rows)
    runs = {name: sizes for name, sizes in runs.items() if len(sizes) > 1}
    if not runs:
        return {}
    shared = set.intersection(*({row.id for row in rows} for sizes in runs.values() for rows in sizes))
    results = {}
    for name, sizes in runs.items():
        kept = [sorted((row for row in rows if row.id in shared), key=lambda row: row.id) for rows in sizes]
        accuracy = np.array([[float(row.right) for row in rows] for rows in kept]).T
        tokens = np.array([[float(row.tokens) for row in rows] for rows in kept]).T
        results[name] = TokenCurve(name, accuracy, tokens)
    return results


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


BARE = "(an empty environment)"
EXTRA = (
    Peer("reason, the package itself", "reason", "reason-orchestrator", "import reason", "", {}),
    Peer("LiteLLM", "litellm", "litellm", "import litellm", "", {}),
)
_TELL = "from importlib.metadata import distributions, version; print(version('{0}'), len(list(distributions())))"


@dataclass(frozen=True)
class Footprint:
    """What a peer weighs.

    Attributes:
        version: Of its package.
        packages: Distributions next to it and those of an empty environment.
        size: Bytes on disk beyond an empty environment.
        imports: Seconds of `import`, with the interpreter's own start, one a round.
    """

    version: str
    packages: int
    size: int
    imports: list[float]


def site_packages(venv: Path) -> Path:
    """The directory of an environment's packages."""
    return next((venv / "lib").glob("python3*")) / "site-packages"


def bytes_of(directory: Path) -> int:
    """Bytes of all files below a directory but compiled caches; links are not followed."""
    return sum(
        path.lstat().st_size
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    )


def measure_footprint(peers: Path, rounds: int) -> tuple[dict[str, Footprint], list[str]]:
    """All peers that are installed, and what could not be measured."""
    results: dict[str, Footprint] = {}
    missing: list[str] = []
    bare = peers / "bare"
    nothing = bytes_of(site_packages(bare))
    empty = len(list(site_packages(bare).glob("*.dist-info")))
    there: list[tuple[str, Path, str]] = [(BARE, bare, "pass")]
    results[BARE] = Footprint("", 0, 0, [])
    for peer in (*ALL, *EXTRA):
        venv = peers / peer.venv
        if not (venv / "bin" / "python").exists():
            missing.append(f"{peer.name}, which is not installed (benchmarks/peers/install)")
            continue
        version, packages = _python(venv, _TELL.format(peer.package)).split()
        size = bytes_of(site_packages(venv)) - nothing
        results[peer.name] = Footprint(version, int(packages) - empty - 1, size, [])
        there.append((peer.name, venv, peer.imported))
    for number in range(rounds + 1):
        for name, venv, imported in there:
            began = time.perf_counter()
            _python(venv, imported)
            if number:
                results[name].imports.append(time.perf_counter() - began)
        there.append(there.pop(0))
    return results, missing


def _python(venv: Path, code: str) -> str:
    done = subprocess.run([venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout


def footprint_table(result: dict[str, Footprint]) -> str:
    """A row for each peer; times are medians over the rounds with their range."""
    head = ["", "version", "other packages", "MiB on disk", "imported, s", "range"]
    lines = []
    for name, one in result.items():
        size = "" if name == BARE else f"{one.size / 2**20:.0f}"
        line = [name, one.version, "" if name == BARE else str(one.packages), size]
        lines.append([*line, *spread(one.imports, 2)])
    return table(head, lines)


DIRECT = "(direct)"
MEASURED = (DIRECT, OURS, "its-hub", "OptiLLM")
WARM = 5


@dataclass(frozen=True)
class OverheadCost:
    """What one round of a peer took, a question: wall and processor time in seconds, calls and samples."""

    wall: float
    cpu: float
    calls: float


def measure_overhead(
    peers: Path, directory: Path, size: int, questions: int, rounds: int
) -> tuple[dict[str, list[OverheadCost]], list[str]]:
    """All rounds of all peers, and what could not be measured."""
    results: dict[str, list[OverheadCost]] = {}
    missing: list[str] = []
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(directory, Pace(tokens=8)))
        base_url = f"{backend.root}/v1"
        there = [name for name in MEASURED if name in (DIRECT, OURS) or _installed(peers, name, missing)]
        server: Process | None = None
        address = ""
        if "OptiLLM" in there:
            try:
                server, address = optillm_server(directory, base_url, "fake", peers.resolve() / "optillm", size)
                stack.callback(server.kill)
            except ServerFailed as e:
                there.remove("OptiLLM")
                missing.append(f"OptiLLM, which did not start: {e}")
        for _ in range(rounds):
            for name in there:
                through = server if name == "OptiLLM" else None
                url = f"{address}/v1" if through is not None else base_url
                try:
                    spent = _overhead_round(name, url, peers, directory, size, questions, backend, through)
                except ServerFailed as e:
                    missing.append(f"{name}: {e}")
                    continue
                results.setdefault(name, []).append(spent)
            there.append(there.pop(0))
    return results, missing


def _overhead_round(
    name: str,
    url: str,
    peers: Path,
    directory: Path,
    size: int,
    questions: int,
    backend: Backend,
    server: Process | None,
) -> OverheadCost:
    requests = tuple(_marked_question(number) for number in range(WARM + questions))
    job = job_of(Cell(name, "self-consistency", size), url, "fake", requests, concurrency=1, warm=WARM, max_tokens=64)
    before = server.cpu_seconds() if server is not None else 0.0
    calls = _calls(backend)
    values = run_job(job, name, peers, directory, {"REASON_MODEL": "openai/fake", "OPENAI_API_KEY": "none"})
    calls = _calls(backend) - calls
    end = values[-1]
    failed = [line["error"] for line in values[:-1] if line["error"]]
    if failed:
        raise ServerFailed(f"{len(failed)} of {questions} questions failed: {failed[0]}")
    cpu = end["cpu"] / questions
    if server is not None:  # its server worked for the first questions too
        cpu += (server.cpu_seconds() - before) / (WARM + questions)
    return OverheadCost(end["seconds"] / questions, cpu, calls / (WARM + questions))


def _calls(backend: Backend) -> int:
    """Calls that belong to a question; what a client asks when it is opened does not."""
    return sum(backend.stats()["started"].values())


def _marked_question(number: int) -> MarkedQuestion:
    text = f"What is {number} times 7? (tag-q{number})"  # by the tag the model counts; no proxy takes a mark away here
    return MarkedQuestion(f"q{number}", text, text, "")


def _installed(peers: Path, name: str, missing: list[str]) -> bool:
    if (peers / peer_named(name).venv / "bin" / "python").exists():
        return True
    missing.append(f"{name}, which is not installed (benchmarks/peers/install)")
    return False


def overhead_table(result: dict[str, list[OverheadCost]], size: int) -> str:
    """A row for each peer: medians over the rounds with their range, and ratios of rounds side by side."""
    head = ["", f"ms a question (vote of {size})", "range", "CPU ms a question", "range", "calls of the model"]
    head += [f"time, as a multiple of {OURS}'s [95 %]"]
    lines = []
    for name, rounds in result.items():
        walls, cpus = [r.wall * 1e3 for r in rounds], [r.cpu * 1e3 for r in rounds]
        line = [name, *spread(walls, 1), *spread(cpus, 1)]
        line += [f"{statistics.median(r.calls for r in rounds):.1f}"]
        beside = name not in (DIRECT, OURS) and len(result.get(OURS, ())) == len(rounds)
        lines.append([*line, ratio_text(walls, [r.wall * 1e3 for r in result[OURS]]) if beside else ""])
    return table(head, lines)


VOTE = 4
LEAVES = 0.3
QUIET_S = 1.0
"""So long the model must have nothing to do before it counts as idle."""
MOST_S = 60.0
_TEXT = re.compile(rb'"(?:content|reasoning|reasoning_content)" *: *"[^"]')

Body = Callable[[str, int], dict[str, Any]]


def _reason(model: str, samples: int) -> dict[str, Any]:
    strategy = "cot" if samples == 1 else "self-consistency"
    return {"model": f"reason/{strategy}"} | (
        {} if samples == 1 else {"reason": {"parameters": {"n": samples, "max_tokens": 64}}}
    )


def _optillm(model: str, samples: int) -> dict[str, Any]:
    return {"model": model} | ({} if samples == 1 else {"optillm_approach": "majority_voting", "k": samples})


BODIES: Mapping[str, Body] = {
    "reason": _reason,
    "optillm": _optillm,
    "its_hub": lambda model, samples: {"model": model, "budget": samples},
    "litellm": lambda model, samples: {"model": model, "n": samples},
}
"""What a request states next to question and stream, by server; LiteLLM has no vote and passes `n` on."""


@dataclass(frozen=True)
class ServedRequest:
    """One request. Times are in seconds.

    Attributes:
        first: To the first text; NaN if none came.
        complete: To the end.
    """

    first: float
    complete: float


@dataclass(frozen=True)
class LeftRequest:
    """One request that its client left.

    Attributes:
        idle: Seconds from closing to the last moment at which the model had a request open; up to `MOST_S`.
        completed: Requests that the model answered to their end after that.
        begun: Requests that it was sent after that.
    """

    idle: float
    completed: int
    begun: int


async def ask(server: Server, body: Mapping[str, Any]) -> ServedRequest:
    """Send a request and read its stream to the end."""
    async with aiohttp.ClientSession(headers=dict(server.headers)) as session:
        began, first, read = time.perf_counter(), math.nan, b""
        async with session.post(server.url, data=json.dumps(body), headers=_JSON) as reply:
            async for piece in reply.content.iter_any():
                read += piece
                if math.isnan(first) and _TEXT.search(read):
                    first = time.perf_counter() - began
            if reply.status != 200:
                raise ServerFailed(f"{server.name} answered {reply.status}: {read[:300]!r}")
        return ServedRequest(first, time.perf_counter() - began)


async def leave(server: Server, body: Mapping[str, Any], after_s: float, backend: Backend) -> LeftRequest:
    """Send a request, close the connection a while after the model has begun, and watch the model until it is idle.

    Raises:
        ServerFailed: The model received no request.
    """
    session = aiohttp.ClientSession(headers=dict(server.headers))
    requests = asyncio.create_task(_read_connection(session, server.url, body))
    ends = time.perf_counter() + MOST_S
    while not (await asyncio.to_thread(backend.stats))["open"]:
        if requests.done() or time.perf_counter() > ends:
            requests.cancel()
            await session.close()
            raise ServerFailed(f"{server.name} did not ask the model")
        await asyncio.sleep(0.005)
    await asyncio.sleep(after_s)
    requests.cancel()
    await asyncio.gather(requests, return_exceptions=True)
    await session.close()
    closed = last = time.perf_counter()
    before = await asyncio.to_thread(backend.stats)
    while True:
        values = await asyncio.to_thread(backend.stats)
        now = time.perf_counter()
        if values["open"]:
            last = now
        if now - last > QUIET_S or now - closed > MOST_S:
            break
        await asyncio.sleep(0.005)
    return LeftRequest(
        last - closed, values["completed"] - before["completed"], values["received"] - before["received"]
    )


async def _read_connection(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> None:
    async with session.post(url, data=json.dumps(body), headers=_JSON) as reply:
        async for _ in reply.content.iter_any():
            pass


_JSON = {"Content-Type": "application/json"}
Round = tuple[ServedRequest, LeftRequest, LeftRequest]
"""A streamed request read to its end, a streamed request that the client left, and one without streaming."""
ServingResults = dict[tuple[str, int], list[Round]]
"""By server and samples, an entry a round."""


def measure_serving(
    peers: Path, directory: Path, pace: Pace, rounds: int, only: str = ""
) -> tuple[ServingResults, list[str]]:
    """All rounds, in turns, and what could not be measured."""
    result: ServingResults = {}
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(directory, pace))
        names = [name for name in ("reason", *PEERS) if not only or name in only.split(",")]
        running, missing = start_all(directory, backend, peers, names, stack)
        servers = list(running.items())
        for number in range(rounds + 1):  # the first is for warming up
            for name, server in servers:
                for samples in (1, VOTE):
                    try:
                        made = asyncio.run(_serving_round(name, server, samples, pace, backend))
                    except (ServerFailed, aiohttp.ClientError) as e:
                        missing.append(f"{server.name}, {samples} samples: {e}")
                        continue
                    if number:
                        result.setdefault((server.name, samples), []).append(made)
            servers.append(servers.pop(0))
    return result, missing


async def _serving_round(name: str, server: Server, samples: int, pace: Pace, backend: Backend) -> Round:
    messages = [{"role": "user", "content": QUESTION}]
    body = {**BODIES[name](server.model, samples), "messages": messages}
    streamed, after = {**body, "stream": True}, LEAVES * pace.seconds
    requests = await ask(server, streamed)
    return requests, await leave(server, streamed, after, backend), await leave(server, body, after, backend)


def serving_table(result: ServingResults) -> str:
    """A row for each server and number of samples: medians over the rounds, and the range."""
    head = ["server", "samples", "first text, s", "range", "complete response, s"]
    head += ["idle after leaving a stream, s", "range", "completed, started after the client left"]
    head += ["idle after leaving a complete response, s", "range", "completed, started after the client left"]
    lines = []
    for (name, samples), rounds in result.items():
        line = [name, str(samples), *spread([requests.first for requests, _, _ in rounds], 3)]
        line += [f"{statistics.median(requests.complete for requests, _, _ in rounds):.2f}"]
        for left in ([stream for _, stream, _ in rounds], [full for _, _, full in rounds]):
            line += spread([one.idle for one in left], 3)
            counts = (statistics.mean(one.completed for one in left), statistics.mean(one.begun for one in left))
            line += [f"{counts[0]:.1f}, {counts[1]:.1f}"]
        lines.append(line)
    return table(head, lines)


PARTS = ("footprint", "overhead", "serving", "accuracy")


def main() -> int:
    """Do the parts that are posed for."""
    args = arguments().parse_args()
    chosen = PARTS if "all" in args.parts else tuple(part for part in PARTS if part in args.parts)
    parts: dict[str, Callable[[argparse.Namespace, Path], tuple[str, Any]]] = {
        "footprint": footprint,
        "overhead": overhead,
        "serving": serving,
        "accuracy": accuracy,
    }
    for part in chosen:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            body, record = parts[part](args, Path(scratch))
        head = f"{made_here()} {datetime.now(UTC):%H:%M} UTC, load {load:.1f} before."
        write_report(f"## {part}\n\n{head}\n\n{body}", record, args.out, part)
    if "tables" in args.parts:
        print("\n\n".join((args.out / f"{p}.md").read_text() for p in PARTS if (args.out / f"{p}.md").exists()))
    return 0


def arguments() -> argparse.ArgumentParser:
    """What can be requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=(*PARTS, "all", "tables"))
    parser.add_argument(
        "--peers", type=Path, help="directory with their virtual environments (benchmarks/peers/install)"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of footprint, overhead and serving")
    parser.add_argument("--questions", type=int, default=50, help="questions of a round of overhead")
    parser.add_argument("--size", type=int, default=8, help="samples of the vote of overhead")
    parser.add_argument("--reply-s", type=float, default=2.0, help="seconds of a reply of the model of serving")
    parser.add_argument("--reply-tokens", type=int, default=40, help="tokens of one")
    parser.add_argument("--servers", default="", help="for serving: of reason,optillm,its_hub,litellm")
    parser.add_argument("--data", type=Path, help="directory that holds gsm8k/dev.jsonl, or that file")
    parser.add_argument("--limit", type=int, default=40, help="questions of accuracy, the first ones")
    parser.add_argument("--sizes", default="4,8", help="sizes: approximate number of solutions for a question")
    parser.add_argument("--only", default="", help="names of peers for accuracy, with commas; empty is all")
    parser.add_argument("--methods", default="", help="names of methods likewise")
    parser.add_argument("--skip", default="", help="cells of accuracy that are left out: PEER:METHOD, with commas")
    parser.add_argument("--concurrency", type=int, default=8, help="questions of accuracy in flight")
    parser.add_argument("--server", help="address of a running model server, without /v1; its model is called `model`")
    parser.add_argument("--vllm-python", type=Path, help="interpreter of the environment that vLLM is in")
    parser.add_argument("--weights", type=Path, help="directory of the model")
    return parser


def footprint(options: argparse.Namespace, directory: Path) -> tuple[str, Any]:
    """Size and import time."""
    result, missing = measure_footprint(options.peers, options.rounds)
    return _with_missing(footprint_table(result), missing), {n: asdict(one) for n, one in result.items()}


def overhead(options: argparse.Namespace, directory: Path) -> tuple[str, Any]:
    """Own work of a question."""
    result, missing = measure_overhead(options.peers, directory, options.size, options.questions, options.rounds)
    record = {name: [asdict(spent) for spent in rounds] for name, rounds in result.items()}
    head = f"{options.questions} questions a round, {options.rounds} rounds in turns; medians over the rounds.\n\n"
    return _with_missing(head + overhead_table(result, options.size), missing), record


def serving(options: argparse.Namespace, directory: Path) -> tuple[str, Any]:
    """First text, and what continues for a client that left."""
    each = options.reply_s / options.reply_tokens
    pace = Pace(tokens=options.reply_tokens, first_s=each, token_s=each)
    result, missing = measure_serving(options.peers, directory, pace, options.rounds, options.servers)
    record = [
        {"server": name, "samples": samples, "rounds": [[asdict(one) for one in made] for made in rounds]}
        for (name, samples), rounds in result.items()
    ]
    head = f"A reply is {pace.tokens} tokens in {pace.seconds:.2f} s; {options.rounds} rounds in turns, medians.\n\n"
    return _with_missing(head + serving_table(result), missing), record


def accuracy(options: argparse.Namespace, directory: Path) -> tuple[str, Any]:
    """Accuracy at counted tokens."""
    items = load_dataset("gsm8k", data=options.data).items[: options.limit]
    skipped = options.skip.split(",") if options.skip else []
    chosen = cells(sorted(map(int, options.sizes.split(","))), options.only, options.methods)
    expected = [cell for cell in chosen if f"{cell.peer}:{cell.method}" not in skipped]
    position = options.out / "answers"
    position.mkdir(parents=True, exist_ok=True)
    missing = run_cells(
        [cell for cell in expected if not (position / cell.file).exists()], items, options, directory, position
    )
    measured = asyncio.run(_read(position, expected, items))
    weights = options.weights.name if options.weights else "the model of the server that was given"
    parts = [f"gsm8k, {len(items)} questions, {weights} on vLLM, {options.concurrency} questions at once."]
    parts += [accuracy_table(measured)]
    if equal := equal_tokens_table(measured):
        parts += ["### At equal tokens, between the sizes", equal]
    record = [{**asdict(cell), "rows": [asdict(row) for row in rows]} for cell, rows in measured.items()]
    return _with_missing("\n\n".join(parts), [*missing, *(f"{name} (left out)" for name in skipped)]), record


def run_cells(
    missing_cells: list[Cell], items: tuple[Item, ...], options: argparse.Namespace, directory: Path, answers: Path
) -> list[str]:
    """Run what is not there yet; gives what could not be run."""
    missing: list[str] = []
    if not missing_cells:
        return missing
    with ExitStack() as stack:
        upstream = options.server
        if upstream is None:
            model, upstream = model_server(directory, options.vllm_python, options.weights)
            stack.callback(model.kill)
        process, root = proxy(directory, upstream)
        stack.callback(process.kill)
        for number, cell in enumerate(missing_cells):
            began = datetime.now(UTC)
            try:
                measure_accuracy(cell, items, root, options.peers, directory, answers, concurrency=options.concurrency)
            except (ServerFailed, OSError) as e:
                missing.append(f"{cell.peer}, {cell.method}, size {cell.size}: {e}")
            took = (datetime.now(UTC) - began).total_seconds()
            print(f"{number + 1} of {len(missing_cells)}: {cell.file}, {took:.0f} s", file=sys.stderr, flush=True)
    return missing


async def _read(position: Path, expected: list[Cell], items: tuple[Item, ...]) -> dict[Cell, list[Any]]:
    async with Equivalence() as same:
        results = {cell: await read_cell(position, cell, items, same) for cell in expected}
    return {cell: rows for cell, rows in results.items() if rows}


def _with_missing(body: str, missing: list[str]) -> str:
    return "\n\n".join([body, *(f"Not measured: {line}" for line in missing)])


if __name__ == "__main__":
    raise SystemExit(main())
