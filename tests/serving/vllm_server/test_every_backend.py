"""Bad input and cancelling, the same for every backend: local engine, vLLM in process, a real server, a faulty one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from reason.core.errors import (
    BackendMisconfigured,
    BackendUnavailable,
    CapabilityMissing,
    ContextTooLong,
    ReasonError,
    UnknownName,
    UserError,
)
from reason.core.messages import Chunk, LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.settings import LocalSettings, ProviderSettings, Settings, VllmSettings, load_settings
from reason.serving.factory import load_model
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]
CONTEXT = 1024
ASK = Prompt.user("colour?")


@dataclass
class BackendUnderTest:
    """A backend that is open.

    Attributes:
        name: Its model string.
        settings: By which it was opened.
        model: The model.
        key_env: Variable of its key; None if it has none.
    """

    name: str
    settings: Settings
    model: Any
    key_env: str | None


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["vllm", "local", "hosted_vllm", "fault server"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[BackendUnderTest]:
    async with AsyncExitStack() as stack:
        kind = request.param
        files = {"cache_dir": load_settings().cache_dir}
        if kind == "local":
            request.getfixturevalue("smollm2_files")
            name, key_env = "local/smollm2-135m", None
            settings = Settings(**files, local=LocalSettings(weight_format="fp32", threads=1, kv_cache_bytes=512 << 20))
        elif kind == "vllm":
            pytest.importorskip("vllm", reason="vLLM is not installed")
            request.getfixturevalue("smollm2_files")
            name, key_env = "vllm/smollm2-135m", None
            settings = Settings(
                **files,
                vllm=VllmSettings(
                    engine={
                        "max_model_len": CONTEXT,
                        "kv_cache_memory_bytes": 256 << 20,
                        "dtype": "float32",
                        "max_num_seqs": 16,
                    }
                ),
            )
        elif kind == "hosted_vllm":
            settings = request.getfixturevalue("settings_for")(max_retries=0)
            name, key_env = "hosted_vllm/small", "HOSTED_VLLM_API_KEY"
        else:
            script = ScriptedModel(replies("blue sky", "red rose"), context_tokens=CONTEXT)
            base = await stack.enter_async_context(FaultServer(script, key="right").run())
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv("SCRIPTED_KEY", "right")
            provider = ProviderSettings(api_base=base, api_key_env="SCRIPTED_KEY", max_retries=0)
            settings = Settings(providers={"hosted_vllm": provider})
            name, key_env = "hosted_vllm/small", "SCRIPTED_KEY"
        model = await load_model(name, settings)
        stack.push_async_callback(model.aclose)
        yield BackendUnderTest(name, settings, model, key_env)


def ask(prompt: Prompt = ASK, **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(**{"temperature": 0.0, "max_tokens": 4} | sampling))


def hook(name: str, **args: Any) -> tuple[LogitsProcessorSpec, ...]:
    return (LogitsProcessorSpec(name=name, args=args),)


def long(model: Any) -> Prompt:
    return Prompt.user("word " * model.capabilities.context_tokens)


REFUSED: dict[str, tuple[Callable[[Any], Any], type[ReasonError]]] = {
    "the prompt is longer than the context": (lambda m: m.generate([ask(long(m))]), ContextTooLong),
    "prompt and max_tokens are": (
        lambda m: m.generate([ask(max_tokens=m.capabilities.context_tokens)]),
        ContextTooLong,
    ),
    "the same as raw text": (lambda m: m.generate([ask(Prompt(text="a " * CONTEXT * 8))]), ContextTooLong),
    "a continuation is": (lambda m: m.score(ASK, ["word " * m.capabilities.context_tokens]), ContextTooLong),
    "a logits processor that does not exist": (
        lambda m: m.generate([ask(logits_processors=hook("no_such_hook"))]),
        CapabilityMissing,
    ),
    "a logits processor without its arguments": (
        lambda m: m.generate([ask(logits_processors=hook("steer"))]),
        UserError,
    ),
    "no alternatives at all": (lambda m: m.next_token([ASK], top=0), UserError),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_done_has_its_error_and_the_model_goes_on(backend: BackendUnderTest, what: str) -> None:
    call, error = REFUSED[what]
    context = backend.model.capabilities.context_tokens
    with pytest.raises(error) as caught:
        await call(backend.model)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    if isinstance(caught.value, ContextTooLong):
        assert caught.value.tokens > caught.value.limit == context
    else:
        assert caught.value.hint or "must be" in caught.value.message
    [[made]] = await backend.model.generate([ask()])
    assert made.ok


async def test_a_request_that_does_not_fit_starts_nothing(backend: BackendUnderTest) -> None:
    # our engines refuse the batch before any work; a server gets request by request
    try:
        [[failed], [fine]] = await backend.model.generate([ask(long(backend.model)), ask()])
    except ContextTooLong:
        assert not backend.name.startswith("hosted_vllm/")
    else:
        assert failed.failure.code == "context_too_long"
        assert fine.ok


async def test_a_model_that_is_not_there_is_unknown(backend: BackendUnderTest) -> None:
    with pytest.raises(UnknownName, match="no-such-model") as caught:
        await load_model(backend.name.partition("/")[0] + "/no-such-model", backend.settings)
    assert caught.value.hint


async def test_what_cannot_be_reached_is_unavailable(
    backend: BackendUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend.key_env is None:  # its files cannot be fetched
        for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HF_ENDPOINT"):
            monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        settings = backend.settings.model_copy(update={"cache_dir": tmp_path})
    else:
        nobody = ProviderSettings(api_base="http://127.0.0.1:9/v1", max_retries=0)
        settings = Settings(providers={"hosted_vllm": nobody})
    with pytest.raises(BackendUnavailable) as caught:
        await load_model(backend.name, settings)
    assert caught.value.hint


async def test_a_wrong_key_names_its_variable(backend: BackendUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.key_env is None:
        pytest.skip(f"{backend.name} needs no key")
    monkeypatch.setenv(backend.key_env, "wrong")
    with pytest.raises(UserError, match=backend.key_env) as caught:
        await load_model(backend.name, backend.settings)
    assert type(caught.value) is BackendMisconfigured


async def test_fifty_cancellations_leave_no_unfinished_request(backend: BackendUnderTest) -> None:
    if backend.name.startswith("hosted_vllm/"):
        pytest.skip("on a server: test_vllm_server_cancel.py")
    draw = random.Random(6)
    for i in range(50):
        expected = draw.randint(0, 6)  # chunks to wait for; 0: before the first
        ready = asyncio.Event()
        heard = 0

        def listen(chunk: Chunk, expected: int = expected, ready: asyncio.Event = ready) -> None:
            nonlocal heard
            heard += 1
            if heard >= expected:
                ready.set()

        sampling = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.0, "seed": i, "n": 1 + i % 3}
        requests = [ask(Prompt.user(f"{i} {k}"), **sampling) for k in range(1 + i % 2)]
        task = asyncio.create_task(backend.model.generate(requests, listen))
        if expected:
            await asyncio.wait_for(ready.wait(), 60)
        else:
            await asyncio.sleep(0.002 * (i % 10))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if backend.name.startswith("vllm/"):
            async with asyncio.timeout(60):
                while backend.model.num_running:
                    await asyncio.sleep(0.005)
    [[made]] = await backend.model.generate([ask()])
    assert made.ok
