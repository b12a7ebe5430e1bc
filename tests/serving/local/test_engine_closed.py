"""What a closed engine keeps in memory while others still refer to it."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
import torch
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is freed that refers to itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> int:
    """Bytes of all tensors that Python knows."""
    actual = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    return sum(t.numel() * t.element_size() for t in actual)


@pytest.mark.parametrize("variant", ["llama", "gpt_neox"])
async def test_the_weights_are_freed_at_once(tiny_files, uncollected, variant):
    files = tiny_files(variant)
    before = held()
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    prompt = Prompt(text="The quick brown fox")
    await model.generate([Request(prompt=prompt, sampling=SamplingParams(max_tokens=8, seed=1, ignore_eos=True))])
    opened = held() - before
    assert opened > 100_000
    await model.aclose()
    assert held() - before < opened / 20
    await model.aclose()


@pytest.mark.nightly
def test_a_program_may_end_while_the_engine_computes():
    """A daemon thread that the interpreter ended within torch aborted the process, with exit status 134."""
    script = textwrap.dedent(
        """
        import threading, torch
        from reason.serving.local.engine_thread import EngineThread

        started = threading.Event()

        class Idle:
            has_work = False

            def fail_all(self, error):
                pass

        def computing():
            started.set()
            x = torch.rand(600, 600)
            for _ in range(50):
                x = (x @ x) / 600
            return 1

        EngineThread(Idle(), computing, lambda: None)
        started.wait()
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
