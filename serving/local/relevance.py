"""`RelevanceTask`: what a continuation rests on, computed on the engine's thread; and where a prompt's parts stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...core.errors import ReasonError, UserError
from ...core.messages import Prompt, Usage
from ..relevance import Relevance
from .families import ModelShape
from .gradient_pass import Dropped, GradientPass
from .prefixes import Prefixes
from .text import Tokenizer
from .weights import Checkpoint


@dataclass(frozen=True)
class PlacedParts:
    """A sequence and whose its tokens are.

    Attributes:
        ids: Tokens of prompt and continuation.
        count: Tokens of the continuation.
        owner: For each token the part it belongs to; -1 for none.
        parts: Number of parts.
    """

    ids: Sequence[int]
    count: int
    owner: Sequence[int]
    parts: int


def place_parts(tokenizer: Tokenizer, prompt: Prompt, parts: Sequence[str], continuation: str) -> PlacedParts:
    """Find the tokens of a prompt's parts (see `ExplainsTokens.relevance`).

    Raises:
        UserError: A part is not there, the prefix is no text, or there is nothing to score.
    """
    if not isinstance(prompt.prefix, str):
        raise UserError("the relevance of a prompt's parts needs a prompt whose prefix is text")
    before, after = tokenizer.continuation(prompt, continuation)
    text = tokenizer.render(prompt) + prompt.prefix
    ids, places = tokenizer.places(text + continuation, special=prompt.text is not None)
    if not after or not before or ids != [*before, *after]:
        raise UserError(f"the continuation {continuation[:40]!r} has no tokens of its own behind this prompt")
    spans: list[tuple[int, int]] = []
    at = 0
    for part in parts:
        wanted = part.strip()  # chat templates strip what they are given
        start = text.find(wanted, at)
        if not wanted or start < 0:
            raise UserError(
                f"the part {part[:40]!r} does not stand in the prompt behind the part before it",
                hint="give the parts word for word and in the prompt's order",
            )
        at = start + len(wanted)
        spans.append((start, at))
    return PlacedParts(ids, len(after), _owners(places[: len(before)], spans) + [-1] * len(after), len(parts))


def _owners(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the span that has most of it, of equals the later; both are in order of the text."""
    owners: list[int] = []
    first = 0
    for start, end in places:
        while first < len(spans) and spans[first][1] <= start:
            first += 1
        best, most = -1, 0
        for i in range(first, len(spans)):
            if spans[i][0] >= end:
                break
            shared = min(end, spans[i][1]) - max(start, spans[i][0])
            if shared > 0 and shared >= most:
                best, most = i, shared
        owners.append(best)
    return owners


@dataclass(eq=False)
class RelevanceTask:
    """Passes forward and back: a step of its own, during which the engine does nothing else.

    Attributes:
        shape: Sizes of the model.
        folder: Where its weights lie.
        device: Where it is computed.
        placed: What to explain.
        told: Takes the result.
        failed: Takes the error.
    """

    shape: ModelShape
    folder: Path
    device: torch.device
    placed: PlacedParts
    told: Callable[[Relevance], None]
    failed: Callable[[ReasonError], None]
    cancelled: bool = False

    def run(self, prefixes: Prefixes) -> None:
        """Compute it; the engine's cache is not used."""
        placed = self.placed
        # The thread infers, and what it makes so can have no gradient.
        with torch.inference_mode(False), torch.enable_grad():
            try:
                work = GradientPass(self.shape, Checkpoint(self.folder, self.device), lambda: self.cancelled)
                explained = work.explain(placed.ids, placed.count)
            except Dropped:
                return
        # one more place, the last, for tokens of no part
        owner = torch.tensor(placed.owner)
        owner = torch.where(owner < 0, placed.parts, owner)
        relevance, gradient, attention, tokens = (
            torch.zeros(placed.parts + 1, dtype=torch.float64).index_add_(0, owner, values.double()).tolist()
            for values in (*explained[:3], torch.ones(len(placed.ids)))
        )
        self.told(
            Relevance(
                relevance=tuple(relevance[:-1]),
                gradient=tuple(gradient[:-1]),
                attention=tuple(attention[:-1]),
                tokens=tuple(round(n) for n in tokens[:-1]),
                rest=relevance[-1],
                logprob=explained.logprob,
                usage=Usage(prompt_tokens=len(placed.ids)),
            )
        )

    def fail(self, error: ReasonError) -> None:
        """Nothing was computed."""
        self.failed(error)
