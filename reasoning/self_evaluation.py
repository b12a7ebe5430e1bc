"""A model's own opinion of its responses: two opposite questions, read as probabilities of yes and no.

Source: the idea is Manvi, Singh and Ermon, "Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better,
Even Mid-Generation" (2024, arXiv:2410.02725). That asking a model yields a usable probability: Kadavath et al.,
"Language Models (Mostly) Know What They Know" (2022, arXiv:2207.05221), section 3.

Differs: the paper trains the model to say one token whose probability is the signal, and this one is prompted, without
training. None of the paper's numbers holds for it. Averaging two opposite questions and taking away what the questions
give without a response are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ..core.messages import Completion, Frozen, Message, NextTokenDistribution, Prompt, Request, SamplingParams
from ..core.run import Run
from ..core.types import Candidate, Question
from ..serving.metered.model import MeteredModel
from ..serving.rewards.model import sigmoid
from .answers.normalization import visible_text
from .candidates import text_with_calls
from .prompts import fit_prompt, question_prompt

TOP_LOGPROBS = 20
"""Alternatives of the verdict's token that are looked at."""
MIN_TOP_LOGPROBS = 5
"""With fewer alternatives shown, verdicts are sampled instead."""
MIN_COVERAGE = 0.5
"""Least probability of yes and no together; below, the model did not answer the question."""
TAIL_CHARS = 2000
"""How much of the end of a response that is nothing but a thought is shown."""

_VERDICT_TOKENS = 4
_TINY = 1e-12
_EDGES = " \t\n\r\u2581\u0120\u010a.,:;!?*_\"'`()[]"
_WORD = re.compile(r"[^\W\d_]+")
_ONE_WORD = "Say one word: {yes} or {no}."
_SHOWN = "Consider your response above."
_UNFINISHED = (
    "Your response above is unfinished: it was stopped in the middle. Consider where it is heading, and do not hold "
    "against it that its end is missing."
)


class EvaluationPrompts(Frozen):
    """What is asked about a response. `{yes}` and `{no}` stand for the words of the verdict.

    Attributes:
        restart: Whether a fresh attempt would be better.
        right: Whether the response is right.
        restart_unfinished: The first about the beginning of a response.
        right_unfinished: The second likewise.
        yes: The word of agreement.
        no: The word of disagreement.
    """

    restart: str = f"{_SHOWN} If you started over from scratch, would your new response be better than it? {_ONE_WORD}"
    right: str = f"{_SHOWN} Is it correct? {_ONE_WORD}"
    restart_unfinished: str = (
        f"{_UNFINISHED} If you started over from scratch, would your new response be better? {_ONE_WORD}"
    )
    right_unfinished: str = f"{_UNFINISHED} Is it on the way to a correct answer? {_ONE_WORD}"
    yes: Annotated[str, Field(min_length=1)] = "Yes"
    no: Annotated[str, Field(min_length=1)] = "No"

    def pair(self, unfinished: bool) -> tuple[str, str]:
        """Both requests, for an unfinished response or a whole one."""
        pair = (self.restart_unfinished, self.right_unfinished) if unfinished else (self.restart, self.right)
        restart, right = (text.replace("{yes}", self.yes).replace("{no}", self.no) for text in pair)
        return restart, right


class EvaluationConfig(Frozen):
    """How responses are evaluated.

    Attributes:
        alpha: Offset of `q = sigmoid(alpha + beta v)`, fitted on prompts with known scores for one model and wording.
        beta: Its slope.
        verdicts: Verdicts sampled for each request where the model shows no next-token distribution.
        opening: Beginning of the verdict's turn, where the model can continue one, so that its first token is the
            verdict; for a model that thinks first, its thought, closed, goes before it.
        system: System message of the conversation; empty leaves it to the model.
        requests: What is asked.
    """

    alpha: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    beta: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    verdicts: Annotated[int, Field(ge=1, le=100)] = 8
    opening: str = "Answer:"
    system: str = ""
    requests: EvaluationPrompts = EvaluationPrompts()

    @property
    def is_calibrated(self) -> bool:
        """Whether alpha and beta were fitted."""
        return (self.alpha, self.beta) != (0.0, 1.0)


class SelfEvaluation(Frozen):
    """What a model thinks of one of its responses.

    Attributes:
        restart: Log-odds that a fresh attempt would be better, in nats.
        right: Log-odds that the response is right, in nats.
        coverage: The smaller of the two requests' probabilities that the verdict is yes or no at all, in [0.5, 1].
        prior: `u` of the same requests about an empty response, in nats; None where it is not known: nothing was taken
            away then, which changes no order among responses to one question.
        v: `(right - restart) / 2` less the prior, in nats.
        q: `sigmoid(alpha + beta v)`: the chance that the response is at least as good as a fresh one.
        calibrated: Whether alpha and beta were fitted; if not, only the order of `q` means something.
        sampled: Whether the verdicts were sampled, not read from a distribution.
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
        """Score before the prior is taken away, in nats: a fixed preference for yes cancels out."""
        return (self.right - self.restart) / 2


class SelfEvaluator:
    """Asks a model about responses to one question.

    The requests are a new turn behind question and response, so they share the response's prefix and are no part of any
    text that goes on being generated. A call puts all requests about all its responses, and the first call of each form
    those about the empty response too, into one batch.

    Model calls: 2 for each different response, and 2 for each form (whole, unfinished); nothing is generated unless
    verdicts have to be sampled, which makes no calls about an empty response.

    Args:
        model: Who evaluates: mostly the one that wrote the responses.
        question: What they respond to.
        run: The run.
        evaluating: How.
    """

    def __init__(
        self, model: MeteredModel, question: Question, run: Run, evaluating: EvaluationConfig | None = None
    ) -> None:
        self._model = model
        self._run = run
        self._evaluating = evaluating or EvaluationConfig()
        self._asked = question_prompt(question, system=self._evaluating.system)
        self._priors: dict[bool, float | None] = {}

    async def evaluate(self, responses: Sequence[str], *, unfinished: bool = False) -> list[SelfEvaluation | None]:
        """Ask about responses.

        Args:
            responses: The responses; thoughts in them are left out.
            unfinished: Whether they are beginnings.

        Returns:
            What the model thinks of each; None where there is no signal: the response is empty or too long to be shown,
            or the model's verdict is neither yes nor no.

        Raises:
            BudgetExceeded: The requests do not fit the budget.
            BackendError: Nothing could be asked at all.
        """
        shown = [_shown(response) for response in responses]
        prompts: dict[str, tuple[Prompt, Prompt]] = {}
        for text in dict.fromkeys(shown):
            pair = await self._prompts(text, unfinished) if text else None
            if pair is not None:
                prompts[text] = pair
        if not prompts:
            return [None] * len(responses)
        sampled = not has_verdict_distribution(self._model)
        bare = None if sampled or unfinished in self._priors else await self._prompts("", unfinished)
        asked = [*prompts.values(), *([] if bare is None else [bare])]
        flat = [prompt for pair in asked for prompt in pair]
        verdicts = await (self._sample(flat) if sampled else self._read(flat))
        pairs = list(zip(verdicts[::2], verdicts[1::2], strict=True))
        if bare is not None:
            self._priors[unfinished] = _prior(*pairs.pop())
        found = {
            text: self._evaluation(restart, right, self._priors.get(unfinished), sampled)
            for text, (restart, right) in zip(prompts, pairs, strict=True)
        }
        return [found.get(text) for text in shown]

    async def qualities(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """`q` of whole candidates; None where there is no signal. Raises as `evaluate`."""
        made = await self.evaluate([text_with_calls(candidate) for candidate in candidates])
        return [None if evaluation is None else evaluation.q for evaluation in made]

    async def _prompts(self, response: str, unfinished: bool) -> tuple[Prompt, Prompt] | None:
        """The two requests about a response, which is shortened if it does not fit."""
        made = []
        for request in self._evaluating.requests.pair(unfinished):

            def make(texts: Sequence[str], request: str = request) -> Prompt:
                return Prompt(
                    messages=(
                        *self._asked.messages,
                        Message(role="assistant", content=texts[0]),
                        Message(role="user", content=request),
                    ),
                    prefix=self._evaluating.opening if self._model.capabilities.prefix else "",
                    tools=self._asked.tools,  # shown, and not to be called: a verdict is wanted
                )

            prompt, _ = await fit_prompt(self._model, self._run, make, [response], _VERDICT_TOKENS)
            if prompt is None:
                return None
            made.append(prompt)
        return made[0], made[1]

    async def _read(self, prompts: Sequence[Prompt]) -> list[tuple[float, float]]:
        """Log-odds and coverage of each verdict, from the distribution of its first token."""
        top = min(TOP_LOGPROBS, self._model.capabilities.top_logprobs)
        words = self._evaluating.requests.yes, self._evaluating.requests.no
        return [verdict_from_distribution(told, *words) for told in await self._model.next_token(prompts, top)]

    async def _sample(self, prompts: Sequence[Prompt]) -> list[tuple[float, float]]:
        """The same, from sampled verdicts."""
        sampling = SamplingParams(
            temperature=1.0, max_tokens=_VERDICT_TOKENS, n=self._evaluating.verdicts, logprobs=False
        )
        replies = await self._model.generate([Request(prompt=prompt, sampling=sampling) for prompt in prompts])
        words = self._evaluating.requests.yes, self._evaluating.requests.no
        return [verdict_from_samples(reply, *words) for reply in replies]

    def _evaluation(
        self, restart: tuple[float, float], right: tuple[float, float], prior: float | None, sampled: bool
    ) -> SelfEvaluation | None:
        coverage = min(restart[1], right[1])
        if coverage < MIN_COVERAGE:
            return None
        evaluating = self._evaluating
        v = (right[0] - restart[0]) / 2 - (prior or 0.0)
        return SelfEvaluation(
            restart=restart[0],
            right=right[0],
            coverage=min(1.0, coverage),
            prior=prior,
            v=v,
            q=sigmoid(evaluating.alpha + evaluating.beta * v),
            calibrated=evaluating.is_calibrated,
            sampled=sampled,
        )


def has_verdict_distribution(model: MeteredModel) -> bool:
    """Whether a model shows enough of the next token's distribution that no verdict has to be sampled."""
    return model.capabilities.top_logprobs >= MIN_TOP_LOGPROBS


def verdict_from_distribution(told: NextTokenDistribution, yes: str = "Yes", no: str = "No") -> tuple[float, float]:
    """Log-odds of yes against no in a distribution, and the probability of the two together.

    All spellings of a word are summed: case, blanks and marks around it, and its beginning where that is not the
    other's too, since a tokenizer may cut the word. A word that is not among the tokens shown gets the most it can
    have: the probability of the last one shown, and no more than what all of those leave.

    Args:
        told: The distribution of the verdict's first token.
        yes: The word of agreement.
        no: The word of disagreement.

    Returns:
        The log-odds in nats, and the coverage in [0, 1].
    """
    found: dict[str, list[float]] = {yes: [], no: []}
    seen = [(token, p) for token, p in zip(told.tokens, told.logprobs, strict=True) if p > -math.inf]
    for token, logprob in seen:
        word = _meant(token, yes, no)
        if word is not None:
            found[word].append(logprob)
    rest = 1.0 - math.fsum(math.exp(p) for _, p in seen)
    hidden = min([math.log(max(rest, _TINY)), *(p for _, p in seen)])
    sums = {word: _logsumexp(logprobs) if logprobs else hidden for word, logprobs in found.items()}
    coverage = math.fsum(math.exp(p) for logprobs in found.values() for p in logprobs)
    return sums[yes] - sums[no], coverage


def verdict_from_samples(sampled: Sequence[Completion], yes: str = "Yes", no: str = "No") -> tuple[float, float]:
    """Log-odds `ln((yes + 1/2) / (no + 1/2))` of sampled verdicts, and the share of them that are yes or no.

    Returns:
        The log-odds in nats, and the share in [0, 1]; failed samples do not count.
    """
    words = [_WORD.search(verdict.text) for verdict in sampled if verdict.ok]
    said = [word[0].casefold() for word in words if word is not None]
    agree, disagree = said.count(yes.casefold()), said.count(no.casefold())
    share = (agree + disagree) / len(words) if words else 0.0
    return math.log((agree + 0.5) / (disagree + 0.5)), share


def _meant(token: str, yes: str, no: str) -> str | None:
    """The word that a token is a spelling of, or an unmistakable beginning of."""
    form = token.strip(_EDGES).casefold()
    begins = [word for word in (yes, no) if form and word.casefold().startswith(form)]
    whole = [word for word in begins if word.casefold() == form]
    return (whole or begins)[0] if len(whole or begins) == 1 else None


def _prior(restart: tuple[float, float], right: tuple[float, float]) -> float | None:
    return None if min(restart[1], right[1]) < MIN_COVERAGE else (right[0] - restart[0]) / 2


def _logsumexp(logprobs: Sequence[float]) -> float:
    most = max(logprobs)
    return most + math.log(math.fsum(math.exp(p - most) for p in logprobs)) if most > -math.inf else most


def _shown(response: str) -> str:
    """The response without its thoughts; of one that is nothing else, the end of the thought."""
    return visible_text(response).text.strip() or response.strip()[-TAIL_CHARS:]
