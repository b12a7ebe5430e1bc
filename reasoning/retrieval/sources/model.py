"""`ModelSource`: a language model as a knowledge source, prompted for facts, one a line."""

from __future__ import annotations

import asyncio
import re

from ....core.errors import BackendError, InvalidResponse
from ....core.messages import Completion, Prompt, Request
from ....core.run import Run
from ....serving.metered.model import MeteredModel
from ....serving.model import LanguageModel
from ....serving.quick_calls import quick_params
from ...knowledge import KnowledgeSource, Snippet
from ...quoting import quote_line

ROLE = "knowledge"
"""Role of the model in budget, run store and trace."""

TEMPERATURE = 0.3
_TOKENS_PER_FACT = 48
_MAX_FACTS = 20
_MAX_CONTEXT_CHARS = 2000

_INSTRUCTION = (
    "List up to {k} short facts that help answer the question below, one per line. Write each fact as a complete "
    "sentence that makes sense on its own. State only facts you are sure of. If you know none, write: none"
)
_LIST_MARKER = re.compile(r"^(?:[-*\u2022\u2013]+|\(?\d{1,3}[.):])\s+")
_NO_FACTS = frozenset({"none", "none.", "nothing", "nothing.", "n/a"})


class ModelSource:
    """A language model that is prompted for facts, which are no more certain than its other output.

    Args:
        model: The model.
        owned: Whether it is closed with the source.
    """

    kind = "model"
    records_calls = True

    def __init__(self, model: LanguageModel, *, owned: bool = False) -> None:
        self.model = model
        self.name = f"model:{model.name}"
        self.identity = f"model:{model.identity}:1"
        self._owned = owned

    def metered(self, run: Run, timeout_s: float) -> KnowledgeSource:
        """The source with its tokens charged to a run, and its responses in the run store (see `MeteredSource`)."""
        model = self.model if isinstance(self.model, MeteredModel) else MeteredModel(self.model, ROLE, run)
        return _MeteredModelSource(self, model, timeout_s)

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """Up to `k` facts, at most 20 (see `KnowledgeSource`).

        Raises:
            BackendError: The model failed.
        """
        ((completion,),) = await self.model.generate([facts_request(self.model, text, k, context)])
        return self.parse(completion, k)

    def parse(self, completion: Completion, k: int) -> list[Snippet]:
        """Up to `k` facts of a completion; of an incomplete one the last line is dropped, as it may be cut.

        Raises:
            BackendError: The sample failed.
            InvalidResponse: It was cut while the model thought.
        """
        if completion.failure is not None:
            raise BackendError(f"{self.name}: {completion.failure.message}")
        if completion.finish_reason == "thinking":
            raise InvalidResponse(
                f"{self.name} was cut while it thought, before it stated a fact",
                hint="use a model that can answer without thinking as the knowledge source",
            )
        lines = completion.text.strip().splitlines()
        facts: dict[str, None] = {}
        for line in lines if completion.finish_reason == "stop" else lines[:-1]:
            fact = _LIST_MARKER.sub("", line.strip()).strip()
            if fact and fact.lower() not in _NO_FACTS and not fact.endswith(":"):
                facts[fact] = None
        return [Snippet(text=fact, source_id=f"model {self.model.name}") for fact in list(facts)[:k]]

    async def aclose(self) -> None:
        """Close the model if the source owns it; idempotent."""
        if self._owned:
            await self.model.aclose()


class _MeteredModelSource:
    """A model as one run queries it."""

    kind = ModelSource.kind

    def __init__(self, source: ModelSource, model: MeteredModel, timeout_s: float) -> None:
        self.name, self.identity = source.name, source.identity
        self._source, self._model, self._timeout_s = source, model, timeout_s

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """See `ModelSource.query`.

        Raises:
            TimeoutError: The timeout is over. The tokens generated so far are charged and in the run store, so that a
                replay ends the same way.
            BackendError: The model failed.
        """
        expired = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(self._timeout_s, expired.set)
        try:
            request = facts_request(self._model, text, k, context)
            ((completion,),) = await self._model.generate([request], enough=expired)
        finally:
            timer.cancel()
        if completion.finish_reason == "cancelled":
            raise TimeoutError
        return self._source.parse(completion, k)

    async def aclose(self) -> None:
        """Do nothing: the model is closed by its owner."""


def facts_request(model: LanguageModel, text: str, k: int, context: str) -> Request:
    """The request for facts; the question and its context are quoted as data."""
    max_facts = min(k, _MAX_FACTS)
    parts = [_INSTRUCTION.format(k=max_facts)]
    if context.strip():
        parts.append(f"Work so far: {quote_line(context, _MAX_CONTEXT_CHARS)}")
    parts.append(f"Question: {quote_line(text, _MAX_CONTEXT_CHARS)}")
    sampling = quick_params(model, default_temperature=TEMPERATURE, max_tokens=max_facts * _TOKENS_PER_FACT)
    return Request(prompt=Prompt.user("\n\n".join(parts)), sampling=sampling)
