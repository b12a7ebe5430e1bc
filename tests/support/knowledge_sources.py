"""Scripted knowledge sources that can fail, and runs that query them."""

import asyncio
import re
import zlib

from reason.core.errors import BackendError
from reason.core.events import MemorySink
from reason.core.messages import Usage
from reason.reasoning.knowledge import Snippet
from reason.reasoning.retrieval.sources.client import KnowledgeClient

from support.stored_runs import RunHarness


class ScriptedKnowledgeSource:
    """Answers a query with what the script says: snippets, texts, or an error to raise.

    Args:
        script: What a text is answered with; a mapping, or a function of (text, k, context).
        step: Awaited before each answer.
    """

    def __init__(self, script, *, name="scripted", identity="", step=None):
        self.name, self.kind, self.identity = name, "python", identity or f"{name}@1"
        self._script, self._step = script, step
        self.asked = []
        """(text, k, context) of every query begun."""
        self.running = self.most_running = 0
        self.closed = False

    async def query(self, text, k, context=""):
        self.asked.append((text, k, context))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(0)
            if self._step is not None:
                await self._step()
            found = self._script(text, k, context) if callable(self._script) else self._script.get(text, [])
            if isinstance(found, BaseException):
                raise found
            return found if not isinstance(found, list) else [_snippet(s, i) for i, s in enumerate(found)]
        finally:
            self.running -= 1

    async def aclose(self):
        self.closed = True

    @property
    def texts(self):
        return [text for text, _, _ in self.asked]


def _snippet(found, i):
    return Snippet(text=found, source_id=f"s{i}") if isinstance(found, str) else found


async def hang():
    """Never goes on by itself."""
    await asyncio.Event().wait()


class KnowledgeRuns(RunHarness):
    """Runs on one store; a run whose name is given again is resumed."""

    async def run(self, name="r", *, reuse="run", replay=False, seed=7, **budget):
        self.sink = MemorySink()
        return await self.start(name, budget=budget, replay=replay, strategy="coat", seed=seed, reuse=reuse)

    async def client(self, *sources, name="r", **options):
        """A client of these sources in a run that is begun or resumed."""
        return KnowledgeClient(sources, await self.run(name, **options))

    def notes(self, name):
        return [e.data for e in self.sink.of_type("strategy.note") if e.name == name]


class WordEmbedding:
    """An embedding model whose vectors are bags of words, a number each; words of `meanings` share one with another."""

    price_known, max_tokens = True, None

    def __init__(self, meanings=None, *, name="words", dimension=256, failing=False, step=None):
        self.name, self.identity, self.dimension = name, f"{name}@1", dimension
        self.meanings, self.failing, self.step = meanings or {}, failing, step
        self.embedded = []
        """(text, kind) of every text embedded."""
        self.closed = False

    async def embed(self, texts, *, kind="text", unit=True, charged=None):
        import numpy as np

        if self.step is not None:
            await self.step()
        if self.failing:
            raise BackendError("the embedding model is gone")
        self.embedded += [(text, kind) for text in texts]
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[zlib.crc32(self.meanings.get(word, word).encode()) % self.dimension] += 1
        if charged is not None:
            charged(Usage(prompt_tokens=sum(len(t.split()) for t in texts)))
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    async def count_tokens(self, texts):
        return [len(t.split()) for t in texts]

    def max_usd(self, texts):
        return 0.0

    async def aclose(self):
        self.closed = True
