"""`JudgeReward`: a process reward model without training: a language model judges whether each step is right.

A score is the log-odds of yes against no as the first token of the response: the difference of their raw
log-probabilities. It needs calibration before it is read as a probability: small models say yes to most things. A
search uses its order among siblings.

The judge reads the problem as a user's turn, the steps as its own response, and the question about the last step in a
short turn after them. All steps of all solutions are sent in one batch, so a backend with prefix reuse computes the
problem and the earlier steps once; and if the judge is the model that wrote them for the same prompt, they are in its
cache already.

The verdict is read at the beginning of the answer, in the state in which the model does not think. A model that always
thinks is refused: a thought for each step of each solution costs more than any search that would use the scores.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence

from ...core.errors import CapabilityMissing, ContextTooLong, InvalidResponse
from ...core.messages import Message, NextTokenDistribution, Prompt, Usage
from ...core.settings import RewardSettings
from ..model import LanguageModel
from ..quick_calls import first_tokens, quick_capabilities, without_thought
from ..verdict_distribution import verdict_from_token
from .inputs import check_length, failed_scores, settings_digest
from .model import RewardCapabilities, RewardModel, StepScores, StepSelection, check_solutions

YES, NO = "Yes", "No"
TOP = 200
"""Number of alternatives that are searched for the two words."""

_OTHER_JUDGE = "a trained reward model, or a judge that can answer without thinking (--reward, reward= in Python)"
_QUESTION = "Is the last step right? Answer {yes} or {no}."


class JudgeReward:
    """A language model as a reward model.

    Args:
        name: Model string.
        model: The language model.
        settings: The section `rewards` of this name; `good_token` and `bad_token` replace the words yes and no.
        owns: Whether closing this closes the model.

    Raises:
        CapabilityMissing: The model always thinks, or has neither top log-probabilities nor scoring.
    """

    def __init__(
        self, name: str, model: LanguageModel, settings: RewardSettings | None = None, *, owns: bool = True
    ) -> None:
        settings = settings or RewardSettings()
        can = quick_capabilities(model)
        if not can.profile.can_skip_thinking:
            raise CapabilityMissing("verdicts without thinking", model.name, alternative=_OTHER_JUDGE)
        # what is scored comes right after the prompt: there must be no thought between them
        self._can_score = can.scoring and (not can.profile.can_think or can.profile.prefix == "thought")
        if not can.top_logprobs and not self._can_score:
            raise CapabilityMissing("top_logprobs", model.name)
        self.name = name
        question_digest = hashlib.sha256(_QUESTION.encode()).hexdigest()[:12]
        self.identity = f"judge-verdict-{question_digest}-{settings_digest(settings)}:{model.identity}"
        self._model, self._owns = model, owns
        self._salt = ""
        self._yes, self._no = settings.good_token or YES, settings.bad_token or NO
        self._top = min(TOP, can.top_logprobs)
        self._limit = settings.max_tokens or can.context_tokens

    @property
    def capabilities(self) -> RewardCapabilities:
        return RewardCapabilities(
            kind="judge",
            one_pass=False,
            context_tokens=self._limit,
            price_known=self._model.capabilities.price_known,
        )

    def with_cache_salt(self, salt: str) -> JudgeReward:
        """The same judge, whose prompts share keys and values only under a salt; it does not own the model."""
        other = copy.copy(self)
        other._salt, other._owns = salt, False
        return other

    def prompt(self, problem: str, steps: Sequence[str]) -> Prompt:
        """The question about the last step, in a turn after the steps."""
        turns = (
            Message(role="user", content=problem),
            Message(role="assistant", content="\n\n".join(steps)),
            Message(role="user", content=_QUESTION.format(yes=self._yes, no=self._no)),
        )
        return Prompt(messages=turns, cache_salt=self._salt)

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all"
    ) -> list[StepScores]:
        check_solutions(solutions)
        prompts, whose, results = self._prompts(problem, solutions, which)
        odds = await self._ask(prompts)
        for i, steps in enumerate(solutions):
            if i in results:
                continue
            answers = [odds[k] for k, owner in enumerate(whose) if owner == i]
            wrong = next((a for a in answers if isinstance(a, InvalidResponse)), None)
            good = [a for a in answers if not isinstance(a, InvalidResponse)]
            if wrong is not None:
                results[i] = failed_scores(wrong, passes=len(answers))
                continue
            results[i] = StepScores(
                log_odds=tuple(odds for odds, _ in good),
                passes=1 if which == "last" else len(steps),
                usage=sum((usage for _, usage in good), Usage()),
            )
        return [results[i] for i in range(len(solutions))]

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all") -> float:
        """The price of all prompts, with a token per byte where the backend cannot count."""
        can = self._model.capabilities
        prompt_price, price = can.usd_per_prompt_token or 0.0, can.usd_per_completion_token or 0.0
        if not prompt_price and not price:
            return 0.0
        prompts, _, _ = self._prompts(problem, solutions, which)
        tokens = [self._model.count_tokens(p) or sum(len(m.content.encode()) for m in p.messages) + 64 for p in prompts]
        num_requests = 3 if self._can_score else 1  # a word that is not shown is scored in requests of its own
        return num_requests * math.fsum(prompt_price * t + price for t in tokens)

    async def aclose(self) -> None:
        """Close the language model if it is owned; idempotent."""
        if self._owns:
            await self._model.aclose()

    def _prompts(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection
    ) -> tuple[list[Prompt], list[int], dict[int, StepScores]]:
        """The prompts, the solution of each, and the solutions that do not fit."""
        prompts: list[Prompt] = []
        whose: list[int] = []
        refused: dict[int, StepScores] = {}
        for i, steps in enumerate(solutions):
            ends = [len(steps)] if which == "last" else range(1, len(steps) + 1)
            mine = [self.prompt(problem, steps[:end]) for end in ends]
            try:
                check_length((self._model.count_tokens(mine[-1]) or 0) + 1, self._limit)
            except ContextTooLong as e:
                refused[i] = failed_scores(e)
                continue
            prompts += mine
            whose += [i] * len(mine)
        return prompts, whose, refused

    async def _ask(self, prompts: list[Prompt]) -> list[tuple[float, Usage] | InvalidResponse]:
        if not prompts:
            return []
        if not self._top:
            return [await self._scored(prompt, {}, Usage()) for prompt in prompts]
        distributions = await first_tokens(self._model, prompts, self._top)
        return [await self._odds(prompt, token) for prompt, token in zip(prompts, distributions, strict=True)]

    async def _odds(
        self, prompt: Prompt, distribution: NextTokenDistribution | None
    ) -> tuple[float, Usage] | InvalidResponse:
        if distribution is None:
            return InvalidResponse(f"{self._model.name} gave no verdict")
        verdict = verdict_from_token(distribution, (self._yes, self._no))
        listed = {word: p for word, p in zip(verdict.labels, verdict.logprobs, strict=True) if p > -math.inf}
        if self._can_score and len(listed) < len(verdict.labels):
            return await self._scored(prompt, listed, distribution.usage)
        if not listed:
            return InvalidResponse(
                f"{self._model.name} begins its verdict neither with {self._yes!r} nor with {self._no!r}, "
                f"among its {len(distribution.tokens)} most likely tokens",
                hint=f"if it thinks first, describe that under [profiles.{self._model.name!r}], or use {_OTHER_JUDGE}",
            )
        return verdict.log_odds(self._yes, self._no), distribution.usage

    async def _scored(
        self, prompt: Prompt, listed: Mapping[str, float], usage: Usage
    ) -> tuple[float, Usage] | InvalidResponse:
        """The log-odds, with words that are not among the alternatives scored as continuations."""
        words = [word for word in (self._yes, self._no) if word not in listed]
        scored = await self._model.score(without_thought(prompt, self._model.capabilities.profile), words)
        logprobs = {**listed, **dict(zip(words, (s.logprob for s in scored), strict=True))}
        usage = sum((s.usage for s in scored), usage)
        yes, no = logprobs[self._yes], logprobs[self._no]
        if yes == no == -math.inf:
            return InvalidResponse(f"{self._model.name} can say neither {self._yes!r} nor {self._no!r} as its verdict")
        return yes - no, usage


def own_judge(model: LanguageModel) -> RewardModel:
    """A language model as the judge of its own steps: `judge/<model string>`; closing it does not close the model.

    Raises:
        CapabilityMissing: The model always thinks, or has neither top log-probabilities nor scoring.
    """
    return JudgeReward(f"judge/{model.name}", model, owns=False)
