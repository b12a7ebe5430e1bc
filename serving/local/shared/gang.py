"""`Gang`: workers of one group on the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....core.messages import Sampling
from ...hooks import Hook
from ...worker_feeds import Lengths
from ...workers import Drawn, Opening
from ..sampling import Sampler, pick
from ..text import TextAssembler, Tokenizer
from .block import Block, grown
from .shared_plan import Feed
from .workspace import Workspace


@dataclass(frozen=True)
class Step:
    """One pass, in tokens.

    Attributes:
        feeds: What each worker reads; one without tokens stands still.
        moves: Workers whose text joins the history before it.
    """

    feeds: Sequence[Sequence[int]]
    moves: Sequence[int]


class Gang:
    """Workers of one group: their blocks, views and generators. Lives on the engine's thread.

    Args:
        workspace: Empty.
        opening: How they begin.
        prompt: Tokens of the prompt.
        others: Tokens of the header before the others' texts; none where they are not seen.
        own: Tokens of the header before one's own; likewise.
        tokenizer: Decodes.
        eos: Tokens that end a text.
        hooks: Hooks on what workers draw, by name.
        context: Most tokens that a worker may see.
        lent: Columns that were taken for it before.

    Attributes:
        workspace: As given.
        lent: Columns that are taken for it.
    """

    def __init__(
        self,
        workspace: Workspace,
        opening: Opening,
        prompt: Sequence[int],
        others: Sequence[int],
        own: Sequence[int],
        *,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        hooks: Sequence[tuple[str, Hook]],
        context: int,
        lent: int,
    ) -> None:
        self.workspace = workspace
        self._tokenizer, self._eos, self._context = tokenizer, eos, context
        self.lent = lent
        self._history = workspace.open(prompt)
        before, behind = ((workspace.open(ids),) if ids else () for ids in (others, own))
        self._steps = [workspace.open() for _ in range(opening.workers)]
        self._lengths = Lengths(opening.layout, len(prompt), len(others) + len(own), (0,) * opening.workers)
        self._views: list[tuple[Block, ...]] = []
        for mine in self._steps:
            rest = tuple(step for step in self._steps if step is not mine)
            shown = () if opening.layout == "interleaved" else (*before, *rest, *behind)
            self._views.append((self._history, *shown, mine))
        sampling = Sampling(
            temperature=opening.temperature, top_p=opening.top_p, top_k=opening.top_k, seed=opening.seed
        )
        self._samplers = [Sampler(sampling, worker, hooks, prompt, eos) for worker in range(opening.workers)]
        self._texts = [TextAssembler(tokenizer, prompt, ()) for _ in self._steps]

    def growth(self, step: Step) -> int:
        """Columns by which the blocks will grow for a pass."""
        more = 0
        capacity, length = self._history.capacity, len(self._history)
        for worker in step.moves:
            length += len(self._steps[worker])
            more += grown(capacity, length) - capacity
            capacity = grown(capacity, length)
        for worker, (block, ids) in enumerate(zip(self._steps, step.feeds, strict=True)):
            length = len(ids) + (0 if worker in step.moves else len(block))
            more += grown(block.capacity, length) - block.capacity
        return more

    def close(self) -> int:
        """Forget everything.

        Returns:
            Columns that were taken for it and are free now; none if it was closed before.
        """
        lent, self.lent = self.lent, 0
        self.workspace.clear()
        self._views, self._steps = [], []
        return lent

    def check_length(self, step: Step) -> None:
        """See whether everybody's view stays within the context.

        Raises:
            ContextTooLong: Somebody's does not.
        """
        self._after(step)

    def _after(self, step: Step) -> Lengths:
        return self._lengths.after([len(ids) for ids in step.feeds], step.moves, self._context)

    def run(self, step: Step) -> list[Drawn | None]:
        """Move what is finished, run the pass, and draw."""
        self._lengths = self._after(step)
        for worker in step.moves:
            self.workspace.move(self._steps[worker], self._history)
        reading = [worker for worker, ids in enumerate(step.feeds) if ids]
        logits = self.workspace.run([Feed(self._views[w], step.feeds[w]) for w in reading])
        picked = pick(logits, [self._samplers[w] for w in reading], [0] * len(reading))
        drawn: list[Drawn | None] = [None] * len(self._steps)
        for worker, choice in zip(reading, picked, strict=True):
            if isinstance(choice, Exception):
                raise choice
            ids = step.feeds[worker]
            if len(ids) > 1 or list(ids) != self._samplers[worker].generated[-2:-1]:
                self._texts[worker] = TextAssembler(self._tokenizer, ids, ())  # it was given something to read
            ends = choice.token in self._eos
            text = "" if ends else self._texts[worker].push(choice.token)
            drawn[worker] = Drawn(token=choice.token, logprob=choice.logprob, text=text, ends=ends, read=len(ids))
        return drawn
