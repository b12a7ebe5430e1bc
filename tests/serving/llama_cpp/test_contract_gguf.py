"""The backend contract on the default model's GGUF file in llama.cpp, and its tokenizer against llama.cpp's."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.messages import Prompt
from reason.core.settings import LocalSettings, load_settings
from reason.serving.factory import load_model
from reason.serving.llama_cpp import LlamaCppModel
from reason.serving.local.engine import LocalModel
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def backend(llama_cpp: Any) -> Iterator[LocalModel]:
    settings = load_settings().model_copy(update={"local": LocalSettings(threads=1)})
    try:
        model = asyncio.run(load_model("gguf/smollm2-135m", settings))
    except BackendUnavailable as e:
        pytest.skip(f"gguf/smollm2-135m cannot be had: {e}")
    assert isinstance(model, LocalModel)
    yield model
    asyncio.run(model.aclose())


@pytest.fixture
def probe(backend: LocalModel) -> Probe:
    context = backend.capabilities.context_tokens
    assert context is not None
    return Probe(
        # greedy texts whose tokens have no rival within 0.1 nats, which a batch's last bits would exchange
        prompt=Prompt.user("Count from one to ten."),
        others=(Prompt.user("Who wrote Hamlet?"), Prompt.user("What is 2 + 3?")),
        too_long=Prompt.user("word " * (context + 1)),
        under_way=lambda: backend.num_running,
        tolerance=0.05,  # keys and values are in half precision, and a batch's products are summed in another order
    )


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is Paris, isn't it?",
        "x = 3.14159 * 2024\n\n\tif x > 10:\n        print('ja')",
        "Ünïcödé 漢字 🙂 a\u0301",
        "<|im_start|>user\nHi<|im_end|>\n",
    ],
)
def test_a_text_has_the_tokens_that_llama_cpp_gives_it(backend, text, llama_cpp):
    model = backend._model
    assert isinstance(model, LlamaCppModel)
    vocabulary = llama_cpp.llama_model_get_vocab(model._model)
    tokens = (ctypes.c_int32 * 256)()
    data = text.encode()
    count = llama_cpp.llama_tokenize(vocabulary, data, len(data), tokens, 256, False, True)
    assert backend._tokenizer.encode(text) == list(tokens[:count])
