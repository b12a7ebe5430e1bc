"""An evaluation killed ten times, at any moment, and gone on with: the same rows, and nothing paid twice."""

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
from reason.evals.run_directory import ITEMS, STORE, read_manifest, read_rows

TESTS = Path(__file__).resolve().parents[1]


ITEMS_ASKED, SAMPLES, KILLS = 60, 4, 10


SCRIPT = textwrap.dedent(
    """
    import asyncio, os, random, signal, sys, threading, time
    from pathlib import Path
    import reason.agents.reasoner as reasoner_module
    from support.eval_tasks import SOURCE, adder, sums
    from reason.core.settings import Settings
    from reason.evals.runner import evaluate, make_plan
    from support.scripted_model import ScriptedModel

    out, log, items, samples, steps, delay = (*map(Path, sys.argv[1:3]), *map(float, sys.argv[3:]))
    reached, count = threading.Event(), 0

    def kill():
        reached.wait()
        time.sleep(delay)  # in the middle of whatever the other threads do then
        os.kill(os.getpid(), signal.SIGKILL)

    async def step():
        global count
        count += 1
        if steps and count >= steps:
            reached.set()
        await asyncio.sleep(0.0005)

    model = ScriptedModel(adder, step=step)
    generate = model.generate

    async def logged(requests, listener=None):
        with log.open("a") as file:
            for request in requests:
                for index in request.indices:
                    file.write(f"{model.render(request.prompt)!r} {index}\\n")
        return await generate(requests, listener)

    async def load_model(*_):
        return model

    model.generate = logged
    reasoner_module.load_model = load_model
    settings = Settings(
        model="scripted/adder", strategy="self-consistency", store=out / "x", cache_dir=out / "c", reuse="store"
    )
    task = sums(int(items))
    plan = make_plan(task, settings, parameters={"n": int(samples), "max_tokens": 40, "temperature": 1.0}, seeds=(0,))
    threading.Thread(target=kill, daemon=True).start()
    asyncio.run(evaluate(plan, task, SOURCE, out, settings, resume=True, concurrency=6))
    """
)


def run(out: Path, log: Path, steps: int = 0, delay: float = 0.0) -> int:
    """One process; with `steps` it kills itself that many characters after its start, and a moment later."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out), str(log), str(ITEMS_ASKED), str(SAMPLES), str(steps), str(delay)],
        cwd=TESTS,
        env={"PYTHONPATH": str(TESTS), "PATH": "/usr/bin:/bin", "HOME": str(out.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [20261124])
def test_a_run_killed_ten_times_gives_the_same_rows(seed, tmp_path):
    rng = random.Random(seed)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(whole, tmp_path / "whole.log") == 0
    paid_again = set()
    for attempt in range(KILLS):
        before, log = stored(out), tmp_path / f"{attempt}.log"
        assert run(out, log, steps=rng.randint(10, 90), delay=rng.random() * 0.03) == -signal.SIGKILL
        paid_again |= before & set(log.read_text().splitlines() if log.exists() else ())
    done, log = len(read_rows(out, torn_end=True)), tmp_path / "last.log"
    assert done < ITEMS_ASKED
    before = stored(out)
    assert run(out, log) == 0
    paid_again |= before & set(log.read_text().splitlines())

    assert paid_again == set()
    rows, expected = read_rows(out), read_rows(whole)
    assert len(rows) == ITEMS_ASKED
    assert [r.without_times() for r in rows] == [r.without_times() for r in expected]
    assert sum(r.ledger.paid_responses for r in rows) == ITEMS_ASKED * SAMPLES
    assert read_manifest(out).complete
    assert (out / ITEMS).read_bytes().count(b"\n") == ITEMS_ASKED


def stored(out: Path) -> set[str]:
    """Every stored sample as the model's log names it."""
    if not (out / STORE).exists():
        return set()
    with sqlite3.connect(out / STORE) as db:
        try:
            rows = db.execute("SELECT request FROM calls").fetchall()
        except sqlite3.OperationalError:  # killed before the tables were made
            return set()
    result = set()
    for (text,) in rows:
        asked = json.loads(text)
        messages = asked["request"]["prompt"]["messages"]
        prompt = "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant: "
        result.add(f"{prompt!r} {asked['index']}")
    return result
