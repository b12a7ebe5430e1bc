"""A server that runs `reason` commands in forked processes, which start at once since all modules are already imported.

`main(SOCKET, TINY)` is the program. It receives a command's arguments, environment and standard streams over the socket
and returns the exit status. With the argument `python` instead of a command, it receives blocks of Python and executes
them in one namespace, as a notebook does.

Models and hub datasets are replaced: every model generates up to 16 tokens (`DOCS_MODEL` selects a "tiny" Llama, a
"scripted" model that is sometimes right, an "agent" that calls tools, or the "real" `local/smollm2-135m`), and hub
datasets have a few synthetic records.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import io
import json
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from reason.core.messages import Message

from support.agent_model import AgentModel, Turn, call
from support.scripted_model import Distribution, Script, ScriptedModel, replies

MAX_TOKENS = 16
HUB = {
    "openai/gsm8k": [
        {"question": f"Ann has {n} apples and buys 2. How many has she?", "answer": f"{n} + 2 = {n + 2}\n#### {n + 2}"}
        for n in range(3, 48)
    ],
    "HuggingFaceH4/MATH-500": [
        {"problem": f"What is ${n}^2$?", "answer": str(n * n), "unique_id": f"t/{n}", "level": 1, "subject": "Algebra"}
        for n in range(2, 4)
    ],
    "truthfulqa/truthful_qa": [
        {
            "question": f"Can {animal} fly?",
            "best_answer": f"No, {animal} cannot fly.",
            "correct_answers": [f"No, {animal} cannot fly."],
            "incorrect_answers": [f"Yes, {animal} can fly."],
            "mc1_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]},
            "mc2_targets": {"choices": ["No.", "Yes.", "They cannot."], "labels": [1, 0, 1]},
        }
        for animal in ("pigs", "cows")
    ],
}


def install_replacements(tiny: Path) -> None:
    """Replace models and hub datasets."""
    import fitting
    import reason.agents.reasoner
    import reason.serving.factory
    import reason.serving.rewards.factory
    from reason.evals.datasets import loading
    from reason.evals.datasets.records import Record

    load = reason.serving.factory.load_model

    async def load_model(name: str, settings: Any, *more: Any) -> Any:
        if name.startswith("recorded/"):
            return await load(name, settings)
        kind = os.environ["DOCS_MODEL"]
        shown_name = name.replace("FOLDER", "Qwen3-8B")
        if kind == "agent":
            agent = AgentModel(forecast)
            agent.name = shown_name
            return agent
        if kind == "scripted":
            return ScriptedModel(adder(name), name=shown_name)
        model: Any = await load(name if kind == "real" else f"local/{tiny}", settings, *more[:1])
        model.name = shown_name
        generate = model.generate

        async def generate_short(requests: Any, *rest: Any, **named: Any) -> Any:
            return await generate([_short(r) for r in requests], *rest, **named)

        model.generate = generate_short
        return model

    def read_hub(source: Any) -> tuple[Iterator[Record], str]:
        records = HUB[source.repo][: int(os.environ["DOCS_ITEMS"])]
        return (Record(r, f"{source.repo} row {i}", i, source.repo) for i, r in enumerate(records, 1)), "0" * 40

    for module in (
        reason.agents.reasoner,
        fitting,
        reason.serving.factory,
        reason.serving.rewards.factory,
    ):
        module.load_model = load_model
    loading.read_hub = read_hub


def forecast(messages: Sequence[Message]) -> Turn:
    """Calls a tool and repeats its result."""
    if messages[-1].role == "tool":
        return f"The answer is {messages[-1].content}."
    return [call("lookup", query="moon") if "moon" in messages[-1].content else call("weather", city="Rome")]


def adder(name: str) -> Script:
    """A script that is sometimes right in additions, the LARGE model more often, with arbitrary self-evaluations."""

    def script(text: str) -> Distribution:
        prompt, _, _ = text.rpartition("assistant: ")
        if "Yes or No" in prompt[-60:]:
            yes = 0.3 + 0.1 * (sum(map(ord, prompt)) % 5)
            return {"Y": yes, "N": 1 - yes}
        numbers = re.findall(r"Ann has (\d+)", prompt)
        number = int(numbers[-1]) if numbers else 4
        right = 3.0 if (number % 3 or "LARGE" in name) else 0.3
        return replies(f"The answer is {number + 2}.", f"The answer is {number}.", weights=[right, 1.0])(text)

    return script


def _short(request: Any) -> Any:
    sampling = request.sampling
    short = sampling.model_copy(update={"max_tokens": min(sampling.max_tokens, MAX_TOKENS)})
    return request.model_copy(update={"sampling": short})


LOADED = (
    "bm25s",
    "faiss",
    "langchain_core.runnables",
    "sentence_transformers",
    "transformers.models.auto",
    "reason.agents.verification",
    "reason.cli.main",
    "reason.cli.serve",
    "reason.evals.runner",
    "reason.evals.sweep",
    "reason.reasoning.retrieval.sources.factory",
    "reason.serving.encoders.protocols",
    "reason.serving.local.engine",
    "reason.sidecar.server",
    "reason.verify.entailment.embedded",
)


def load_everything() -> None:
    """Import the modules of the commands, as far as they start no threads."""
    from reason.reasoning.strategy import STRATEGIES
    from reason.serving.litellm.providers import load_litellm

    for name in LOADED:
        importlib.import_module(name)
    load_litellm()
    for name in STRATEGIES.names():
        STRATEGIES.load(name)
    assert threading.active_count() == 1, threading.enumerate()


def newest(*listing: str) -> str:
    """The ID of the newest entry of a `list` command."""
    from reason.cli.main import main

    with redirect_stdout(io.StringIO()) as output:
        main([*listing, "--json"])
    entries = json.loads(output.getvalue())
    return str((entries if isinstance(entries, list) else entries["keys"])[0]["id"])


def run_command(arguments: list[str]) -> int:
    """Run a command; its placeholders RUN, KEY and STRATEGY are replaced by the newest run, the newest key and coat."""
    from reason.cli.main import main

    placeholders = {"RUN": ("runs", "list"), "KEY": ("keys", "list")}
    arguments = [newest(*placeholders[a]) if a in placeholders else a for a in arguments]
    sys.argv = ["reason", *("coat" if a == "STRATEGY" else a for a in arguments)]
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def run_blocks(connection: socket.socket) -> None:
    """Execute blocks in order; the response to each is its traceback, or null."""
    space: dict[str, Any] = {"__name__": "__main__"}
    with connection.makefile("rw", encoding="utf-8") as lines, asyncio.Runner() as runner:
        for line in lines:
            request = json.loads(line)
            failure = None
            try:
                code = compile(
                    request["code"], request["location"], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
                )
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, space))
                else:
                    exec(code, space)
            except BaseException:  # noqa: BLE001 (reported to the test)
                failure = traceback.format_exc()
            sys.stdout.flush()
            lines.write(json.dumps(failure) + "\n")
            lines.flush()


def take(connection: socket.socket) -> None:
    """Execute one request, in a forked process."""
    data, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    request = json.loads(data)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (the streams stay open)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    with Path(os.environ["DOCS_PIDS"]).open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    if request["arguments"] == ["python"]:
        run_blocks(connection)
        return
    status = 70
    with suppress(SystemExit):
        status = run_command(request["arguments"])
    connection.sendall(str(status).encode())


def main(address: str, tiny: str) -> None:
    load_everything()
    install_replacements(Path(tiny))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                try:
                    take(connection)
                except BaseException:  # noqa: BLE001 (to the command's own error stream)
                    traceback.print_exc()
                    sys.stderr.flush()
                os._exit(0)
            connection.close()
