"""Measuring, on a model whose every probability is known, on one that lies, and on the embedded engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import CapabilityMissing
from reason.core.messages import Completion, NextTokenDistribution, Prompt, Request, ScoredContinuation
from reason.serving.capability_checks import CapabilityResult, check_capabilities, continues, worst_cost_usd
from reason.serving.model import Capabilities, Listener
from reason.serving.profiles.profile import ModelProfile
from reason.serving.throughput import measure_throughput, resident_bytes
from support.scripted_model import ALWAYS_THINKS, THINKS, ScriptedModel, replies, thinking
from support.thinking_templates import DEEPSEEK, with_template

TEXTS = replies("one, two, three, four, five", "uno, dos, tres, cuatro", "eins, zwei, drei, vier", weights=[4, 3, 3])


async def findings(model: Any, **options: Any) -> dict[str, CapabilityResult]:
    return {f.feature: f async for f in check_capabilities(model, **options)}


class Honest(ScriptedModel):
    """The scripted model, which does not look at processors, so it refuses them."""

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        for request in requests:
            if request.sampling.logits_processors:
                raise CapabilityMissing("logits_processors", self.name)
        return await super().generate(requests, listener)


class Liar(ScriptedModel):
    """Declares all there is; hides log-probabilities, ignores prefixes, seeds, processors and the context's length."""

    calls = 0

    @property
    def capabilities(self) -> Capabilities:
        processors = frozenset({"only_tokens", "steer", "contrast", "entropy_probe", "theirs"})
        return super().capabilities.model_copy(
            update={
                "logits_processors": processors,
                "json_schema": True,
                "tools": True,
                "forks": True,
                "context_tokens": 50,
            }
        )

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        type(self).calls += 1
        plain = [
            r.model_copy(
                update={
                    "prompt": r.prompt.with_prefix(""),
                    "sampling": r.sampling.model_copy(
                        update={"seed": (r.sampling.seed or 0) + 100 * self.calls, "top_logprobs": 0}
                    ),
                }
            )
            for r in requests
        ]
        made = await super().generate(plain, listener)
        return [[c.model_copy(update={"logprobs": None}) for c in reply] for reply in made]

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        return [t.model_copy(update={"support": "top_k"}) for t in await super().next_token(prompts, top)]

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        return [ScoredContinuation(token_ids=(1,), logprobs=(-1.0,), is_greedy=True) for _ in continuations]


async def test_honest_model_passes_all_checks() -> None:
    found = await findings(Honest(TEXTS))
    assert {f: found[f].state for f in found if found[f].state == "differs"} == {}
    for feature in ("logprobs", "full_vocabulary", "scoring", "prefix", "seed"):
        assert (found[feature].measured, found[feature].state) == (True, "ok")
    assert found["context_tokens"].measured == 100_000
    assert (found["logits_processors"].declared, found["logits_processors"].state) == (False, "ok")
    assert not found["forks"].measured


@pytest.mark.parametrize("profile", [THINKS, ALWAYS_THINKS])
async def test_a_model_that_thinks_is_measured_by_its_answers(profile: ModelProfile) -> None:
    model = Honest(thinking("Numbers, in English or not.", TEXTS), profile=profile)
    found = await findings(model)
    assert {f: x.note for f, x in found.items() if x.state == "differs"} == {}
    assert found["logprobs"].measured is True
    efforts = {r.sampling.effort for call in model.generate_calls for r in call}
    assert efforts == {"none" if profile.can_skip_thinking else profile.lowest_effort}


async def test_false_declarations_are_detected() -> None:
    found = await findings(Liar(TEXTS))
    differing = {f for f, finding in found.items() if finding.state == "differs"}
    assert differing == {
        "logprobs",
        "top_logprobs",
        "full_vocabulary",
        "scoring",
        "prefix",
        "seed",
        "json_schema",
        "tools",
        "forks",
        "context_tokens",
        "logits processor only_tokens",
        "logits processor steer",
        "logits processor contrast",
        "logits processor entropy_probe",
    }
    assert found["logits processor theirs"].state == "declared"
    assert found["prices"].state == "ok"


async def test_silently_ignored_processors_are_a_difference() -> None:
    found = await findings(ScriptedModel(TEXTS))
    assert found["logits_processors"].state == "differs"
    assert "not refused" in found["logits_processors"].note


async def test_undeclared_features_are_no_difference() -> None:
    class Modest(Honest):
        @property
        def capabilities(self) -> Capabilities:
            return Capabilities(context_tokens=100_000)

    found = await findings(Modest(TEXTS))
    more = {f for f, finding in found.items() if finding.state == "more"}
    assert more == {"logprobs", "top_logprobs", "scoring", "seed"}
    assert not any(f.state == "differs" for f in found.values())


async def test_only_declared_makes_no_request() -> None:
    model = Liar(TEXTS)
    found = await findings(model, only_declared=True)
    assert model.generate_calls == []
    assert {f.state for f in found.values()} == {"declared"}
    assert found["top_logprobs"].declared == 20


async def test_identical_texts_for_all_seeds_prove_nothing() -> None:
    found = await findings(Honest(replies("one, two, three, four")))
    assert found["seed"].state == "declared"
    assert "proves nothing" in found["seed"].note


@pytest.mark.parametrize(("charged", "state"), [(1e-6, "ok"), (2e-6, "differs"), (0.0, "differs")])
async def test_prices_are_compared_with_what_was_charged(charged: float, state: str) -> None:
    class Priced(Honest):
        @property
        def capabilities(self) -> Capabilities:
            update = {"usd_per_prompt_token": 1e-6, "usd_per_completion_token": 1e-6}
            return super().capabilities.model_copy(update=update)

    found = await findings(Priced(TEXTS, price=charged))
    assert found["prices"].state == state
    assert worst_cost_usd(Priced(TEXTS).capabilities) == pytest.approx(9e-3)
    assert worst_cost_usd(Capabilities(usd_per_prompt_token=None)) is None


async def test_after_the_time_limit_the_rest_stays_declared() -> None:
    requests = 0

    def step() -> object:
        return asyncio.sleep(3600) if requests else None

    class Stuck(Honest):
        async def generate(self, requests_: Sequence[Request], listener: Any = None) -> list[list[Completion]]:
            nonlocal requests
            made = await super().generate(requests_, listener)
            requests += 1
            return made

    found = await findings(Stuck(TEXTS, step=step), seconds=2)
    assert found["top_logprobs"].note == found["logits_processors"].note == "out of time"
    assert found["logprobs"].state == "ok"


async def test_cancelling_stops_the_request_in_flight() -> None:
    model = Honest(TEXTS, step=lambda: asyncio.sleep(3600))
    task = asyncio.ensure_future(findings(model))
    while not model.running:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.running == 0


def test_near_tie_ends_a_comparison_only_later() -> None:
    def said(ids: tuple[int, ...], *logprobs: float) -> Completion:
        return Completion(text="", token_ids=ids, logprobs=logprobs, finish_reason="length")

    whole = said((1, 2, 3, 4), -1.0, -1.0, -1.0, -1.0)
    assert continues(whole, said((3, 4), -1.0, -1.0), 2)
    assert continues(whole, said((3, 9), -1.0, -1.1), 2)
    assert not continues(whole, said((3, 9), -1.0, -3.0), 2)
    assert not continues(whole, said((9, 4), -1.1, -1.0), 2)
    assert not continues(whole, said(()), 2)


async def test_speed_is_measured() -> None:
    speed = await measure_throughput(Honest(TEXTS))
    assert speed.batch == 8
    assert speed.prompt_tokens_per_s is not None
    assert speed.prompt_tokens_per_s > 0
    assert speed.decode_tokens_per_s is not None
    assert speed.batch_tokens_per_s is not None


def test_memory_includes_child_processes() -> None:
    import subprocess
    import sys

    before = resident_bytes()
    assert before is not None
    code = "x = bytearray(100_000_000); x[::4096] = b'1' * len(x[::4096]); print('held', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline()
        with_child = resident_bytes()
        assert with_child is not None
        if sys.platform == "linux":
            assert with_child - before > 100_000_000
    finally:
        child.communicate(b"\n")


async def test_embedded_engine_that_thinks_passes_all_checks(measured_folder: Path, tmp_path: Path) -> None:
    from reason.serving.local.engine import LocalModel
    from reason.serving.model_files.find import ModelFiles

    files = with_template(ModelFiles("local/tiny", measured_folder, "tiny", ""), tmp_path / "thinks", DEEPSEEK)
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    found = await findings(model)
    await model.aclose()
    assert model.capabilities.profile.thinks == "opt-in"
    assert {f: x.note for f, x in found.items() if x.state == "differs"} == {}
    assert all(found[f"logits processor {name}"].measured for name in model.capabilities.logits_processors)


async def test_embedded_engine_passes_all_checks(tiny: Any) -> None:
    found = await findings(tiny)
    assert {f: x.note for f, x in found.items() if x.state == "differs"} == {}
    assert all(found[f"logits processor {name}"].measured for name in tiny.capabilities.logits_processors)
    assert found["forks"].measured is True
    assert found["json_schema"].measured is True
