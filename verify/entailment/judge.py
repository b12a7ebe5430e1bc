"""`JudgeEntailment`: a language model as an `Entailment`: it is asked whether the evidence supports the claim.

Where the model shows the distribution of a token, the verdict is a letter and is read from it, once for each of two
orders of the labels. Elsewhere verdicts are sampled and counted.

Source: the two readings are our own. That a model's letter is a usable probability: Kadavath et al., "Language Models
(Mostly) Know What They Know" (2022, arXiv:2207.05221), section 3. That it depends on the order of the choices, and is
to be averaged over orders: Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors" (2023,
arXiv:2309.03882). Smoothing by half a count: the Krichevsky-Trofimov estimator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from ...core.errors import BackendError
from ...core.messages import Completion, Frozen, Request, Sampling
from ...reasoning.self_evaluation import LEAST_COVERAGE, LEAST_TOP, TOP
from ...serving.model import LanguageModel
from ..support import Support, support
from .judge_prompts import ORDERS, letter_prompt, prompts_digest, read_letters, read_vote, vote_prompt
from .protocol import Pair

MOST_WORDS = 1500
"""Words of evidence that are shown at most: models read long texts less well."""

_CHARS_PER_WORD = 10
_TOKENS_PER_WORD = 1.6
_OTHER_TOKENS = 600
"""Tokens of instructions, claim and title."""


class Judging(Frozen):
    """How a language model judges.

    Attributes:
        votes: Verdicts sampled for a pair where the model shows no distribution.
        temperature: Their temperature.
        max_tokens: Most tokens of one of them: a short comparison and the verdict.
        seed: Their seed; None leaves it to whoever meters the model, which gives it the run's.
        least_coverage: Least probability, under each order, that a reply is one of the letters; below, the model did
            not answer, and the pair has no verdict.
        max_words: Most words of evidence; None is what the model's context holds, and at most 1500.
    """

    votes: Annotated[int, Field(ge=3, le=15)] = 5
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.7
    max_tokens: Annotated[int, Field(ge=8)] = 256
    seed: int | None = None
    least_coverage: Annotated[float, Field(ge=0, le=1)] = LEAST_COVERAGE
    max_words: Annotated[int, Field(ge=1)] | None = None


class Opinion(NamedTuple):
    """What a judge thinks of a pair.

    Attributes:
        support: The probabilities; None if the reply could not be read.
        coverage: Share of the judge's replies that are verdicts: the smaller of the two orders' probability that the
            reply is one of the letters, or the share of sampled replies that could be read; in [0, 1].
        votes: Verdicts counted; 0 where the letters were read from a distribution.
    """

    support: Support | None
    coverage: float
    votes: int = 0


class JudgeEntailment:
    """A language model that judges (see `Entailment`).

    Model calls for K pairs: 2 K in one batch, nothing being generated, or K of `votes` samples each in one batch. A
    metered model is charged as for any other call. Evidence beyond `max_words` may be cut in the prompt, with a mark:
    `windows.WindowedEntailment` keeps it from that.

    Args:
        model: Who judges; mostly another model than the one that wrote the claims, which tends to agree with itself.
        judging: How.
        name: The string it was opened by.
        owns: Whether closing this closes the model.
    """

    def __init__(
        self, model: LanguageModel, judging: Judging | None = None, *, name: str = "judge", owns: bool = False
    ) -> None:
        self._model, self._judging, self._owns = model, judging or Judging(), owns
        self._reads = model.capabilities.top_logprobs >= LEAST_TOP
        self.max_words: int | None = self._judging.max_words or self._room()
        self.name = name
        way = "letters" if self._reads else "votes"
        settings = f"{self._judging.model_dump_json()}|{self.max_words}|{model.capabilities.prefix}"
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        self.identity = f"judge-{way}-{prompts_digest()}-{digest}:{model.identity}"

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, in order (see `Entailment.judge`)."""
        return [opinion.support for opinion in await self.opinions(pairs)]

    async def opinions(self, pairs: Sequence[Pair]) -> list[Opinion]:
        """The same, with how much of the judge's reply was a verdict at all.

        Raises:
            LimitExceeded: The requests do not fit the budget.
            BackendError: Nothing could be asked at all.
        """
        if not pairs:
            return []
        return await (self._read(pairs) if self._reads else self._count(pairs))

    async def aclose(self) -> None:
        """Close the model, if it is this object's own; idempotent."""
        if self._owns:
            await self._model.aclose()

    def _room(self) -> int:
        """Words of evidence that fit the model's context beside all else."""
        context = self._model.capabilities.context_tokens
        if context is None:
            return MOST_WORDS
        left = context - _OTHER_TOKENS - (0 if self._reads else self._judging.max_tokens)
        return max(1, min(MOST_WORDS, int(left / _TOKENS_PER_WORD)))

    @property
    def _most_chars(self) -> int:
        return _CHARS_PER_WORD * (self.max_words or MOST_WORDS)

    async def _read(self, pairs: Sequence[Pair]) -> list[Opinion]:
        """Letters from the distribution of the reply's first token, averaged over the orders."""
        can = self._model.capabilities
        prompts = [letter_prompt(p, order, self._most_chars, prefix=can.prefix) for p in pairs for order in ORDERS]
        told = await self._model.next_token(prompts, min(TOP, can.top_logprobs))
        opinions = []
        for i in range(len(pairs)):
            some = told[i * len(ORDERS) : (i + 1) * len(ORDERS)]
            letters = [read_letters(one, order) for one, order in zip(some, ORDERS, strict=True)]
            coverage = min(one.coverage for one in letters)
            columns = zip(*(one.support for one in letters), strict=True)
            answered = coverage >= self._judging.least_coverage
            opinions.append(Opinion(support(map(sum, columns)) if answered else None, coverage))
        return opinions

    async def _count(self, pairs: Sequence[Pair]) -> list[Opinion]:
        """Sampled verdicts, counted."""
        how = self._judging
        sampling = Sampling(
            temperature=how.temperature, max_tokens=how.max_tokens, n=how.votes, seed=how.seed, logprobs=False
        )
        requests = [Request(prompt=vote_prompt(p, self._most_chars), sampling=sampling) for p in pairs]
        replies = await self._model.generate(requests)
        failures = [s.failure for samples in replies for s in samples]
        if failures and all(failures):
            why = failures[0].message if failures[0] else ""
            raise BackendError(f"{self._model.name} could not sample a single verdict: {why}")
        return [count_votes(samples) for samples in replies]


def count_votes(samples: Sequence[Completion]) -> Opinion:
    """Shares `(count + 1/2) / (n + 3/2)` of the verdicts among n that could be read.

    Replies that are no verdict, were cut before it, or failed, are kept apart: they are in the coverage alone.

    Args:
        samples: The judge's replies about one pair.
    """
    votes = [vote for s in samples if s.ok and (vote := read_vote(s.text)) is not None]
    coverage = len(votes) / len(samples) if samples else 0.0
    if not votes:
        return Opinion(None, coverage)
    shares = support(votes.count(label) + 0.5 for label in ("supports", "refutes", "neutral"))
    return Opinion(shares, coverage, len(votes))
