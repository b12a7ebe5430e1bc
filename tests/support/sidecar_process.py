"""`reason serve` as a process of its own, with a scripted model whose samples are logged as they begin.

A question with the word in the environment variable POISON ends the process. With INSTANT, the model writes steps at
once, without end and all of them different. With TOOL, it calls the tool of this name once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

TESTS = Path(__file__).resolve().parents[1]
CODE = """
import asyncio, json, os, sys
sys.path.insert(0, {tests!r})
import reason.agents.reasoner as reasoner
from reason.cli.main import main
from support.scripted_model import ScriptedModel, replies

step_s = float(os.environ["STEP_S"])

async def step():
    await asyncio.sleep(step_s)

class Logged(ScriptedModel):
    async def generate(self, requests, listener=None):
        with open(os.environ["BEGUN"], "a") as log:
            for request in requests:
                asked = request.prompt.messages[-1].content
                poison = os.environ.get("POISON")
                if poison and poison in asked:
                    os._exit(9)
                for index in request.indices:
                    log.write(json.dumps([os.getpid(), asked, index]) + "\\n")
        return await super().generate(requests, listener)

texts = ["The answer is 42." + " Sure." * n for n in range(0, 24, 3)]
model = Logged(replies(*texts), step=step)

if "INSTANT" in os.environ:
    from support.instant_model import InstantModel
    model = InstantModel(lambda prompt, index: f"Consider case {{index}} of it.", stop_reason="\\n\\n")

if "TOOL" in os.environ:
    from support.agent_model import AgentModel, call
    model = AgentModel([[call(os.environ["TOOL"])]])

async def load_model(name, settings, *_):
    return model

reasoner.load_model = load_model
sys.exit(main())
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """One server process."""

    def __init__(self, folder: Path, port: int, *flags: str, step_s: float = 0.01, **environment: str) -> None:
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"
        self.said = folder / f"said-{time.monotonic_ns()}.txt"
        arguments = ["serve", "--no-auth", "--port", str(port), "--store", str(folder / "runs.sqlite3"), *flags]
        with self.said.open("w") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-c", CODE.format(tests=str(TESTS)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder,
                env={
                    **{k: v for k, v in os.environ.items() if not k.startswith("REASON_")},
                    "XDG_CONFIG_HOME": str(folder / "config"),
                    "XDG_CACHE_HOME": str(folder / "cache"),
                    "REASON_MODEL": "scripted",
                    "BEGUN": str(folder / "begun.jsonl"),
                    "STEP_S": str(step_s),
                    "OMP_NUM_THREADS": "1",
                    **environment,
                },
            )

    def wait_until_ready(self) -> Process:
        while True:
            assert self.child.poll() is None, self.said.read_text()
            try:
                if httpx.get(f"{self.url}/readyz", timeout=60).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def begun(self) -> Counter[str]:
        """Samples that this process has begun, by question."""
        path = self.folder / "begun.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines if line]
        return Counter(asked for pid, asked, _ in found if pid == self.child.pid)

    def begun_of(self, question: str) -> int:
        """Samples that this process has begun for one question."""
        return sum(n for asked, n in self.begun().items() if question in asked)
