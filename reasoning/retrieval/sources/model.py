"""`ModelSource`: another language model as a brain: it is asked for facts, one a line."""

from __future__ import annotations

import asyncio
import re

from ....core.errors import BackendError
from ....core.messages import Prompt, Request, SamplingParams
from ....core.run import Run
from ....serving.metered.model import MeteredModel
from ....serving.model import LanguageModel
from ..quoting import quote_line
from .protocol import KnowledgeSource, Snippet

ROLE = "brain"
"""The role of the model in budget, run store and trace."""

TEMPERATURE = 0.3
_TOKENS_EACH = 48
_MOST_FACTS = 20
_MOST_CONTEXT_CHARS = 2000

_INSTRUCTION = (
    "You are a reference work. List up to {k} short facts that help with the question. One fact a line, each a whole "
    "sentence that can be understood alone. State only what you are sure of. If you know nothing about it, write: none"
)
_MARK = re.compile(r"^(?:[-*\u2022\u2013]+|\(?\d{1,3}[.):])\s+")
_NOTHING = frozenset({"none", "none.", "nothing", "nothing.", "n/a"})


class ModelSource:
    """A language model that is asked for facts. What it says is no more certain than what any model says.

    Args:
        model: The model.
        owned: Whether it is closed with the brain.

    Attributes:
        name: `model:` and the model's name.
        kind: "model".
        identity: Of the model and of how it is asked.
    """

    kind = "model"
    keeps_replies = True

    def __init__(self, model: LanguageModel, *, owned: bool = False) -> None:
        self.model = model
        self.name = f"model:{model.name}"
        self.identity = f"model:{model.identity}:1"
        self._owned = owned

    def in_run(self, run: Run, deadline_s: float) -> KnowledgeSource:
        """The brain with its tokens charged to a run, and its replies in the run's store (see `MeteredSource`)."""
        model = self.model if isinstance(self.model, MeteredModel) else MeteredModel(self.model, ROLE, run)
        return _InRun(self, model, deadline_s)

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """Up to `k` facts, at most 20 (see `KnowledgeSource`).

        Raises:
            BackendError: The model failed.
        """
        ((completion,),) = await self.model.generate([facts_request(text, k, context)])
        if completion.failure is not None:
            raise BackendError(f"{self.name}: {completion.failure.message}")
        return self.read(completion.text, k, whole=completion.finish_reason == "stop")

    def read(self, reply: str, k: int, *, whole: bool = True) -> list[Snippet]:
        """The facts in a reply.

        Args:
            reply: What the model wrote.
            k: Most facts.
            whole: Whether the model came to its end; if not, the last line may be half a fact and is left out.
        """
        lines = reply.strip().splitlines()
        facts: dict[str, None] = {}
        for line in lines if whole else lines[:-1]:
            fact = _MARK.sub("", line.strip()).strip()
            if fact and fact.lower() not in _NOTHING and not fact.endswith(":"):
                facts[fact] = None
        return [Snippet(text=fact, source_id=f"model {self.model.name}") for fact in list(facts)[:k]]

    async def aclose(self) -> None:
        """Close the model if it is the brain's own; idempotent."""
        if self._owned:
            await self.model.aclose()


class _InRun:
    """A model as one run asks it."""

    kind = ModelSource.kind

    def __init__(self, brain: ModelSource, model: MeteredModel, deadline_s: float) -> None:
        self.name, self.identity = brain.name, brain.identity
        self._brain, self._model, self._deadline_s = brain, model, deadline_s

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `ModelSource.query`.

        Raises:
            TimeoutError: The deadline is over. What was generated up to then is charged and in the run store, so a
                replay ends the same way.
            BackendError: The model failed.
        """
        late = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(self._deadline_s, late.set)
        try:
            ((completion,),) = await self._model.generate([facts_request(text, k, context)], enough=late)
        finally:
            timer.cancel()
        if completion.failure is not None:
            raise BackendError(f"{self.name}: {completion.failure.message}")
        if completion.finish_reason == "cancelled":
            raise TimeoutError
        return self._brain.read(completion.text, k, whole=completion.finish_reason == "stop")

    async def aclose(self) -> None:
        """Do nothing: the model belongs to whoever opened it."""


def facts_request(text: str, k: int, context: str) -> Request:
    """How a model is asked for facts. The question and its context are data, and cannot speak for the user."""
    wanted = min(k, _MOST_FACTS)
    parts = [_INSTRUCTION.format(k=wanted)]
    if context.strip():
        parts.append(f"What is being worked on: {quote_line(context, _MOST_CONTEXT_CHARS)}")
    parts.append(f"Question: {quote_line(text, _MOST_CONTEXT_CHARS)}")
    sampling = SamplingParams(temperature=TEMPERATURE, max_tokens=wanted * _TOKENS_EACH, logprobs=False)
    return Request(prompt=Prompt.user("\n\n".join(parts)), sampling=sampling)
