"""Bad input and cancelling, the same for every backend: the embedded engine, vLLM, a real server, a scripted one."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

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
from support.tiny_llama import write_tiny_llama
from support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
CONTEXT = 1024
ASK = Prompt.user("colour?")


class BackendUnderTest(NamedTuple):
    """A backend that is open; `name` is the model string by which it was opened with `settings`."""

    name: str
    settings: Settings
    model: Any

    @property
    def provider(self) -> str:
        return self.name.partition("/")[0]


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        "local",
        "fault server",
        pytest.param("vllm", marks=pytest.mark.real),
        pytest.param("hosted_vllm", marks=pytest.mark.real),
    ],
)
async def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[BackendUnderTest]:
    if request.param == "local":
        folder = tmp_path_factory.mktemp("local") / "tiny"
        write_tiny_llama(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}))
        name = f"local/{folder}"
        settings = Settings(
            cache_dir=folder.parent, local=LocalSettings(weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
        )
    elif request.param == "fault server":
        script = ScriptedModel(replies("blue sky", "red rose"), context_tokens=CONTEXT)
        async with FaultServer(script, key="right").run() as base:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HOSTED_VLLM_API_KEY", "right")
                settings = Settings(providers={"hosted_vllm": ProviderSettings(api_base=base, max_retries=0)})
                model = await load_model("hosted_vllm/small", settings)
                yield BackendUnderTest("hosted_vllm/small", settings, model)
                await model.aclose()
        return
    elif request.param == "vllm":
        pytest.importorskip("vllm", reason="vLLM is not installed")
        request.getfixturevalue("smollm2_files")
        name = "vllm/smollm2-135m"
        engine = {"kv_cache_memory_bytes": 256 << 20, "dtype": "float32", "max_num_seqs": 16}
        settings = Settings(
            cache_dir=load_settings().cache_dir, vllm=VllmSettings(engine=engine | {"max_model_len": CONTEXT})
        )
    else:
        name, settings = "hosted_vllm/small", request.getfixturevalue("settings_for")(max_retries=0)
    model = await load_model(name, settings)
    yield BackendUnderTest(name, settings, model)
    await model.aclose()


def ask(prompt: Prompt = ASK, **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(**{"temperature": 0.0, "max_tokens": 4} | sampling))


def processed(name: str) -> Request:
    return ask(logits_processors=(LogitsProcessorSpec(name=name),))


def long(model: Any) -> Prompt:
    return Prompt.user("word " * model.capabilities.context_tokens)


REFUSED: dict[str, tuple[Callable[[Any], Any], type[ReasonError]]] = {
    "prompt": (lambda m: m.generate([ask(long(m))]), ContextTooLong),
    "prompt and max_tokens": (lambda m: m.generate([ask(max_tokens=m.capabilities.context_tokens)]), ContextTooLong),
    "raw text": (lambda m: m.generate([ask(Prompt(text="a " * CONTEXT * 8))]), ContextTooLong),
    "continuation": (lambda m: m.score(ASK, ["word " * m.capabilities.context_tokens]), ContextTooLong),
    "an unknown processor": (lambda m: m.generate([processed("no_such_hook")]), CapabilityMissing),
    "a processor without its arguments": (lambda m: m.generate([processed("steer")]), UserError),
    "no alternatives": (lambda m: m.next_token([ASK], top=0), UserError),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_done_has_its_error_and_the_model_goes_on(backend, what):
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


async def test_a_request_that_does_not_fit_starts_nothing(backend):
    # our engines refuse the batch before any work; a server gets request by request
    try:
        [[failed], [fine]] = await backend.model.generate([ask(long(backend.model)), ask()])
    except ContextTooLong:
        assert backend.provider != "hosted_vllm"
    else:
        assert failed.failure.code == "context_too_long"
        assert fine.ok


async def test_a_model_that_is_not_there_is_unknown(backend):
    with pytest.raises(UnknownName, match="no-such-model") as caught:
        await load_model(f"{backend.provider}/no-such-model", backend.settings)
    assert caught.value.hint


async def test_what_cannot_be_reached_is_unavailable(backend, tmp_path, monkeypatch):
    if backend.provider == "hosted_vllm":
        nobody = ProviderSettings(api_base="http://127.0.0.1:9/v1", max_retries=0)
        name, settings = backend.name, Settings(providers={"hosted_vllm": nobody})
    else:  # the files cannot be fetched
        for variable in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HF_ENDPOINT"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        name = f"{backend.provider}/smollm2-135m"
        settings = backend.settings.model_copy(update={"cache_dir": tmp_path})
    with pytest.raises(BackendUnavailable) as caught:
        await load_model(name, settings)
    assert caught.value.hint


async def test_a_wrong_key_names_its_variable(backend, monkeypatch):
    if backend.provider != "hosted_vllm":
        pytest.skip(f"{backend.name} needs no key")
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "wrong")
    with pytest.raises(UserError, match="HOSTED_VLLM_API_KEY") as caught:
        await load_model(backend.name, backend.settings)
    assert type(caught.value) is BackendMisconfigured


async def test_fifty_cancellations_leave_no_unfinished_request(backend):
    if backend.provider == "hosted_vllm":
        pytest.skip("on a server: test_vllm_server_cancel.py")
    draw = random.Random(6)
    for i in range(50):
        chunks_left = draw.randint(0, 6)  # 0: before the first
        ready = asyncio.Event()

        def listen(chunk: Chunk, ready: asyncio.Event = ready) -> None:
            nonlocal chunks_left
            chunks_left -= 1
            if chunks_left <= 0:
                ready.set()

        sampling = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.0, "seed": i, "n": 1 + i % 3}
        requests = [ask(Prompt.user(f"{i} {k}"), **sampling) for k in range(1 + i % 2)]
        task = asyncio.create_task(backend.model.generate(requests, listen))
        if chunks_left:
            await ready.wait()
        else:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_until(lambda: not backend.model.num_running)
    [[made]] = await backend.model.generate([ask()])
    assert made.ok
