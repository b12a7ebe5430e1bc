"""A training killed at any moment, and run again: the same weights bit for bit, and the same log."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from reason.reasoning.rlot.navigator import load_navigator

TESTS = Path(__file__).resolve().parents[2]
KILLS = 3

SCRIPT = textwrap.dedent(
    """
    import asyncio, os, signal, sys, threading, time
    from pathlib import Path
    from support.navigation_model import SumsModel, SumsWorld, Workshop

    directory, log, steps, delay = (*map(Path, sys.argv[1:3]), *map(float, sys.argv[3:]))
    reached, count = threading.Event(), 0

    def kill():
        reached.wait()
        time.sleep(delay)  # in the middle of whatever the other threads do then
        os.kill(os.getpid(), signal.SIGKILL)

    def step():
        global count
        count += 1
        if steps and count >= steps:
            reached.set()

    class Setting:
        def setattr(self, target, name, value):
            setattr(target, name, value)

    model = SumsModel(SumsWorld(), step=step)
    generate = model.generate

    async def logged(requests, listener=None):
        with log.open("a") as file:
            for request in requests:
                file.write(f"{model.render(request.prompt)!r}\\n")
        return await generate(requests, listener)

    model.generate = logged
    shop = Workshop(Setting(), directory, model=model)
    threading.Thread(target=kill, daemon=True).start()
    asyncio.run(shop.train(episodes=22, problems="hard", validate_every=9))
    """
)


def run(directory: Path, log: Path, steps: int = 0, delay: float = 0.0) -> int:
    """One process; with `steps` it kills itself that many characters after its start, and a moment later."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(directory), str(log), str(steps), str(delay)],
        cwd=TESTS,
        env={"PYTHONPATH": str(TESTS), "PATH": "/usr/bin:/bin", "HOME": str(directory), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def stored(directory: Path) -> set[str]:
    """Every stored reply as the model's log names it."""
    if not (directory / "work" / "store.sqlite3").exists():
        return set()
    with sqlite3.connect(directory / "work" / "store.sqlite3") as db:
        try:
            rows = db.execute("SELECT request FROM calls").fetchall()
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()
    result = set()
    for (text,) in rows:
        prompt = json.loads(text)["request"]["prompt"]
        said = "".join(f"{m['role']}: {m['content']}\n" for m in prompt["messages"])
        result.add(repr(f"{said}assistant: {prompt['prefix']}"))
    return result


@pytest.mark.nightly
def test_a_training_killed_repeatedly_gives_the_same_navigator(tmp_path: Path) -> None:
    rng = random.Random(20261125)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for directory in (whole, cut):
        directory.mkdir()
    assert run(whole, tmp_path / "whole.log") == 0
    for attempt in range(KILLS + 1):
        before, log = stored(cut), tmp_path / f"{attempt}.log"
        last = attempt == KILLS
        steps, delay = (0, 0.0) if last else (rng.randint(200, 2000), rng.random() * 0.05)
        assert run(cut, log, steps, delay) == (0 if last else -signal.SIGKILL)
        assert before & set(log.read_text().splitlines() if log.exists() else ()) == set()  # nothing is paid again

    for name in ("episodes.jsonl", "validations.jsonl", "held_out.jsonl"):
        assert (cut / "work" / name).read_bytes() == (whole / "work" / name).read_bytes(), name
    digests = {load_navigator(directory / "work" / "navigator.safetensors").digest for directory in (whole, cut)}
    assert len(digests) == 1
