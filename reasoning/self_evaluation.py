"""Self-evaluation: a model judges its own responses by two opposite yes-or-no questions.

Source: the idea is Manvi, Singh and Ermon, "Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better,
Even Mid-Generation" (2024, arXiv:2410.02725). That a prompted model yields a usable probability: Kadavath et al.,
"Language Models (Mostly) Know What They Know" (2022, arXiv:2207.05221), section 3.

Differs: the paper trains the model to emit one token whose probability is the signal; this one is prompted, without
training, and none of the paper's numbers applies to it. Averaging two opposite questions and subtracting the score of
an empty response are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from ..core.messages import Frozen, Message, Prompt
from ..core.run import Run
from ..core.types import Question
from ..serving.metered.model import MeteredModel
from ..serving.profiles.profile import quick_sampling
from ..serving.rewards.model import sigmoid
from ..serving.verdict_distribution import (
    MIN_COVERAGE,
    VERDICT_TOKENS,
    VerdictDistribution,
    has_verdict_distribution,
    read_verdicts,
)
from .answers.normalization import visible_text
from .prompts import fit_prompt, question_prompt

TAIL_CHARS = 2000
"""Shown part of the end of a response that consists only of a thought."""

_FINISHED = "Look at your response above."
_UNFINISHED = (
    "Your response above is incomplete: it was cut off partway. Judge where it is heading, and don't hold the missing "
    "ending against it."
)

WORDS: Final = ("Yes", "No")
"""The words of the verdict."""
PREFIX: Final = "Answer:"
"""Prefix of the verdict's completion, if the model can continue one, so that its first token is the verdict."""


def evaluation_questions(unfinished: bool, words: tuple[str, str] = WORDS) -> tuple[str, str]:
    """The two opposite questions about a response: whether a fresh attempt would be better, whether it is right.

    Args:
        unfinished: Whether the response is partial.
        words: The words of agreement and of disagreement.
    """
    one_word = f"Reply with one word: {words[0]} or {words[1]}."
    if unfinished:
        return (
            f"{_UNFINISHED} If you started over from scratch, would your new response be better? {one_word}",
            f"{_UNFINISHED} Is it on track to reach a correct answer? {one_word}",
        )
    return (
        f"{_FINISHED} If you started over from scratch, would your new response be better? {one_word}",
        f"{_FINISHED} Is it correct? {one_word}",
    )


class EvaluationConfig(Frozen):
    """How responses are evaluated.

    Attributes:
        alpha: Offset of `q = sigmoid(alpha + beta v)`, fitted on prompts with known scores for one model and wording.
        beta: Its slope.
        words: The words of agreement and of disagreement.
        system: System message of the conversation; empty leaves it to the model.
    """

    alpha: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    beta: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    words: tuple[str, str] = WORDS
    system: str = ""

    @property
    def is_calibrated(self) -> bool:
        """Whether alpha and beta were fitted."""
        return (self.alpha, self.beta) != (0.0, 1.0)


class SelfEvaluation(Frozen):
    """A model's evaluation of one of its responses.

    Attributes:
        restart: Log-odds that a fresh attempt would be better, in nats.
        right: Log-odds that the response is right, in nats.
        coverage: The smaller of the two questions' probabilities that the verdict is yes or no at all, in [0.5, 1].
        prior: `u` of the same questions about an empty response, in nats; None if unknown: then nothing was subtracted,
            which does not change the order of responses to one question.
        v: `(right - restart) / 2` less the prior, in nats.
        q: `sigmoid(alpha + beta v)`: the chance that the response is at least as good as a fresh one.
        calibrated: Whether alpha and beta were fitted; if not, only the order of `q` is meaningful.
        sampled: Whether the verdicts were sampled instead of read from a distribution.
    """

    restart: float
    right: float
    coverage: float
    prior: float | None
    v: float
    q: Annotated[float, Field(ge=0, le=1)]
    calibrated: bool
    sampled: bool = False

    @property
    def u(self) -> float:
        """Score before the prior is subtracted, in nats: a fixed preference for yes cancels out."""
        return (self.right - self.restart) / 2


class SelfEvaluator:
    """Evaluates responses to one question.

    The questions are a new message after question and response, so they share the response's prefix and are no part of
    any text that is still being generated. A call evaluates all its responses in one batch, and the first call of each
    form the empty response too.

    Model calls: 2 for each distinct response, and 2 for each form (complete, partial); nothing is generated unless the
    model has to think first, or verdicts have to be sampled, which needs no calls about an empty response.

    Args:
        model: The model that evaluates, usually the one that wrote the responses.
        config: How responses are evaluated.
    """

    def __init__(
        self, model: MeteredModel, question: Question, run: Run, config: EvaluationConfig | None = None
    ) -> None:
        self._model = model
        self._run = run
        self._config = config or EvaluationConfig()
        self._prompt = question_prompt(question, system=self._config.system)
        self._priors: dict[bool, float | None] = {}

    async def evaluate(self, responses: Sequence[str], *, unfinished: bool = False) -> list[SelfEvaluation | None]:
        """Evaluate responses.

        Args:
            responses: The responses; their thoughts are removed.
            unfinished: Whether they are partial.

        Returns:
            An evaluation of each; None if there is no signal: the response is empty or does not fit the context, or the
            model's verdict is neither yes nor no.

        Raises:
            BudgetExceeded: The requests do not fit the budget.
            BackendError: Every request failed.
        """
        texts = [_without_thoughts(response) for response in responses]
        prompts: dict[str, tuple[Prompt, Prompt]] = {}
        for text in dict.fromkeys(texts):
            pair = await self._prompts(text, unfinished) if text else None
            if pair is not None:
                prompts[text] = pair
        if not prompts:
            return [None] * len(responses)
        sampled = not has_verdict_distribution(self._model)
        empty = None if sampled or unfinished in self._priors else await self._prompts("", unfinished)
        flat = [prompt for pair in (*prompts.values(), *([] if empty is None else [empty])) for prompt in pair]
        read = await read_verdicts(self._model, flat, self._config.words)
        verdicts = [_odds_and_coverage(verdict) for verdict in read]
        pairs = list(zip(verdicts[::2], verdicts[1::2], strict=True))
        if empty is not None:
            self._priors[unfinished] = _prior(*pairs.pop())
        by_text = {
            text: self._evaluation(restart, right, self._priors.get(unfinished), sampled)
            for text, (restart, right) in zip(prompts, pairs, strict=True)
        }
        return [by_text.get(text) for text in texts]

    async def _prompts(self, response: str, unfinished: bool) -> tuple[Prompt, Prompt] | None:
        """The two prompts about a response, which is truncated if it does not fit."""
        pair = []
        for request in evaluation_questions(unfinished, self._config.words):

            def make(texts: Sequence[str], request: str = request) -> Prompt:
                return Prompt(
                    messages=(
                        *self._prompt.messages,
                        Message(role="assistant", content=texts[0]),
                        Message(role="user", content=request),
                    ),
                    prefix=PREFIX if self._model.capabilities.prefix else "",
                    tools=self._prompt.tools,  # part of the shared prefix, not to be called
                )

            sampling = quick_sampling(self._model.profile, max_tokens=VERDICT_TOKENS)
            prompt, _ = await fit_prompt(self._model, self._run, make, [response], sampling)
            if prompt is None:
                return None
            pair.append(prompt)
        return pair[0], pair[1]

    def _evaluation(
        self, restart: tuple[float, float], right: tuple[float, float], prior: float | None, sampled: bool
    ) -> SelfEvaluation | None:
        coverage = min(restart[1], right[1])
        if coverage < MIN_COVERAGE:
            return None
        config = self._config
        v = (right[0] - restart[0]) / 2 - (prior or 0.0)
        return SelfEvaluation(
            restart=restart[0],
            right=right[0],
            coverage=min(1.0, coverage),
            prior=prior,
            v=v,
            q=sigmoid(config.alpha + config.beta * v),
            calibrated=config.is_calibrated,
            sampled=sampled,
        )


def _odds_and_coverage(verdict: VerdictDistribution | None) -> tuple[float, float]:
    """Log-odds of yes in nats, and coverage."""
    return (0.0, 0.0) if verdict is None else (verdict.log_odds(*verdict.labels), verdict.coverage)


def _prior(restart: tuple[float, float], right: tuple[float, float]) -> float | None:
    return None if min(restart[1], right[1]) < MIN_COVERAGE else (right[0] - restart[0]) / 2


def _without_thoughts(response: str) -> str:
    """The response without its thoughts; of one without anything else, the end of the thought."""
    return visible_text(response).text.strip() or response.strip()[-TAIL_CHARS:]
