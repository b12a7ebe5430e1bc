"""Gemini's streams that end in order, and those that do not."""

import pytest
from reason.core.errors import BackendError, InvalidResponse
from reason.core.messages import Prompt, Request, SamplingParams
from support.litellm_models import served
from support.wires.kinds import OTHER_KINDS
from support.wires.server import WireServer
from support.wires.stream import SHAPES, Shape

pytestmark = pytest.mark.usefixtures("keys")

GEMINI = next(kind for kind in OTHER_KINDS if kind.name == "Gemini 2.5")
ASK = Request(prompt=Prompt.user("How many?"), sampling=SamplingParams(max_tokens=300))


@pytest.mark.parametrize("breaks", ["error", "reset", "end"])
@pytest.mark.parametrize("after", [0, 2])
async def test_a_stream_that_breaks_off_is_not_complete(breaks, after):
    server = WireServer(GEMINI, shape=Shape(breaks=breaks, after=after))
    async with served(server, GEMINI.model, max_retries=0) as model:
        with pytest.raises(InvalidResponse if breaks == "end" else BackendError):
            await model.generate([ASK])
        assert len(server.generations) == 1


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_a_stream_with_a_finish_is_complete(shape):
    server = WireServer(GEMINI, shape=shape)
    async with served(server, GEMINI.model, max_retries=0) as model:
        [[made]] = await model.generate([ASK])
    assert made.text.endswith("The answer is 12.")
