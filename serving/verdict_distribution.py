"""`VerdictDistribution`: a judge's verdict as probabilities of labels, instead of the one label that it would state.

It is read from the distribution of the verdict's first token where the model returns one, and else counted over sampled
verdicts. Labels are the words, letters or digits that the prompt offers: yes and no, the letters of answers, marks.

Source: a score as the mean over its tokens' probabilities: Liu et al., "G-Eval: NLG Evaluation using GPT-4 with Better
Human Alignment" (EMNLP 2023, arXiv:2303.16634), section 2; they count 20 samples, since their model returned no
probabilities. Smoothing by one verdict spread evenly over the labels: Perks, "Some Observations on Inverse Probability
Including a New Indifference Rule" (1947); for two labels it is the Krichevsky-Trofimov estimator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Self

from pydantic import Field

from ..core.messages import Completion, Frozen, NextTokenDistribution, Prompt, Request
from .model import LanguageModel
from .quick_calls import first_tokens, quick_capabilities, quick_params, report_cut

TOP_LOGPROBS: Final = 20
"""Requested alternatives of the verdict's token."""
MIN_TOP_LOGPROBS: Final = 5
"""With fewer alternatives available, verdicts are sampled instead."""
MIN_COVERAGE: Final = 0.5
"""Minimum probability of all labels together; below it, the model did not answer the question."""
NUM_VERDICTS = 8
"""Verdicts that are sampled where no distribution is available."""
VERDICT_TOKENS: Final = 4
"""Maximum tokens of a sampled verdict."""

_TINY = 1e-12
_BLANKS = " \t\n\r\u2581\u0120\u010a"
_EDGES = _BLANKS + ".,:;!?*_\"'`()[]"
_WORD = re.compile(r"[^\W_]+")
_INTRODUCTIONS = frozenset({"answer", "verdict", "score"})


class VerdictDistribution(Frozen):
    """The probabilities of a verdict's labels.

    Attributes:
        labels: The labels.
        logprobs: Log-probability of each, in nats, of all verdicts; minus infinity for one that was not listed.
        unlisted: Maximum log-probability of a label that was not listed.
        num_samples: Sampled verdicts, readable or not; 0 if a distribution was read.
    """

    labels: tuple[str, ...]
    logprobs: tuple[float, ...]
    unlisted: float = math.log(_TINY)
    num_samples: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def from_tokens(cls, tokens: Iterable[tuple[str, float]], labels: Sequence[str]) -> Self:
        """Read the distribution of the verdict's first token.

        All spellings of a label are summed: blanks and punctuation around it, case unless it is a single character
        ("a" is a word), and its beginning if it is not another label's too, since a tokenizer may split a word. A label
        that is not listed has at most the probability of the last listed token, and what all listed ones leave.
        """
        listed = [(token, p) for token, p in tokens if p > -math.inf]
        by_label: dict[str, list[float]] = {label: [] for label in labels}
        for token, logprob in listed:
            label = label_of(token, labels)
            if label is not None:
                by_label[label].append(logprob)
        rest = 1.0 - math.fsum(math.exp(p) for _, p in listed)
        return cls(
            labels=tuple(labels),
            logprobs=tuple(logsumexp(by_label[label]) for label in labels),
            unlisted=min([math.log(max(rest, _TINY)), *(p for _, p in listed)]),
        )

    @classmethod
    def from_samples(cls, samples: Iterable[Completion], labels: Sequence[str]) -> Self:
        """Count sampled verdicts, whose first word is the label ("Answer:" aside); failed samples do not count."""
        stated = [_stated_label(sample.text, labels) for sample in samples if sample.ok]
        counts = [stated.count(label) for label in labels]
        return cls(
            labels=tuple(labels),
            logprobs=tuple(math.log(count / len(stated)) if count else -math.inf for count in counts),
            num_samples=len(stated),
        )

    @property
    def coverage(self) -> float:
        """Probability that the verdict is one of the labels at all, in [0, 1]."""
        return min(1.0, math.fsum(math.exp(p) for p in self.logprobs))

    @property
    def off_scale(self) -> float:
        """Probability that it is none of them, or a label that was not listed."""
        return 1.0 - self.coverage

    @property
    def is_readable(self) -> bool:
        """Whether the labels have at least half of the probability."""
        return self.coverage >= MIN_COVERAGE

    @property
    def shares(self) -> tuple[float, ...]:
        """Probability of each label, normalised over the labels; equal if none was listed."""
        return _softmax(self.logprobs)

    def logprob(self, label: str) -> float:
        """Log-probability of a label; its bound if it was not listed; smoothed if verdicts were sampled."""
        logprob = self.logprobs[self.labels.index(label)]
        if self.num_samples:
            return math.log(self._smoothed[self.labels.index(label)])
        return logprob if logprob > -math.inf else self.unlisted

    def log_odds(self, label: str, other: str) -> float:
        """Log-odds of one label against another, in nats: `ln((a + 1/k) / (b + 1/k))` of counts a and b of k labels."""
        return self.logprob(label) - self.logprob(other)

    def expected(self, values: Sequence[float]) -> float:
        """Mean of the labels' values under `shares`."""
        return math.fsum(share * value for share, value in zip(self.shares, values, strict=True))

    def standard_error(self, values: Sequence[float]) -> float:
        """Standard error of `expected`: 0 where a distribution was read.

        Of counts it is the standard deviation under a Dirichlet posterior, so that a few equal verdicts are not
        certain; infinite without a readable verdict.
        """
        if not self.num_samples:
            return 0.0
        num_verdicts = round(self.coverage * self.num_samples)
        if not num_verdicts:
            return math.inf
        mean = math.fsum(p * v for p, v in zip(self._smoothed, values, strict=True))
        variance = math.fsum(p * (v - mean) ** 2 for p, v in zip(self._smoothed, values, strict=True))
        return math.sqrt(variance / (num_verdicts + 2))

    @property
    def _smoothed(self) -> tuple[float, ...]:
        """Shares of the readable verdicts with one more, spread evenly."""
        counts = [round(math.exp(p) * self.num_samples) for p in self.logprobs]
        total = sum(counts) + 1
        return tuple((count + 1 / len(counts)) / total for count in counts)


def label_of(text: str, labels: Sequence[str], *, whole: bool = False) -> str | None:
    """The label that a token is a spelling of, or an unmistakable beginning of."""
    bare = text.strip(_BLANKS)
    form = bare.strip(_EDGES)
    for label in labels:
        if bare == label or _folded(form, label) == _folded(label, label):
            return label
    begun = [label for label in labels if form and len(label) > 1 and label.casefold().startswith(form.casefold())]
    return begun[0] if len(begun) == 1 and not whole else None


def has_verdict_distribution(model: LanguageModel) -> bool:
    """Whether a model provides enough of the next token's distribution that no verdict has to be sampled."""
    return quick_capabilities(model).top_logprobs >= MIN_TOP_LOGPROBS


async def read_verdicts(
    model: LanguageModel, prompts: Sequence[Prompt], labels: Sequence[str], **params: Any
) -> list[VerdictDistribution | None]:
    """The verdict on each prompt, in one batch of quick calls, one for each prompt.

    Nothing is generated where the model returns a distribution, unless it has to think first; else
    `NUM_VERDICTS` verdicts of a few tokens are sampled at temperature 1.

    Args:
        params: Fields of `SamplingParams` for what is generated, such as the room of a thought.

    Returns:
        A distribution for each prompt; None if its sample failed, or was cut while the model thought.

    Raises:
        BudgetExceeded: The requests do not fit the budget.
        BackendError: Every request failed.
    """
    if has_verdict_distribution(model):
        top = min(TOP_LOGPROBS, quick_capabilities(model).top_logprobs)
        firsts = await first_tokens(model, prompts, top, **params)
        return [None if first is None else verdict_from_token(first, labels) for first in firsts]
    sampling = quick_params(model, max_tokens=VERDICT_TOKENS, default_temperature=1.0, n=NUM_VERDICTS, **params)
    completions = await model.generate([Request(prompt=p, sampling=sampling, is_attempt=False) for p in prompts])
    report_cut(model, [sample for samples in completions for sample in samples], "verdicts")
    verdicts = [VerdictDistribution.from_samples(samples, labels) for samples in completions]
    return [verdict if verdict.num_samples else None for verdict in verdicts]


def verdict_from_token(distribution: NextTokenDistribution, labels: Sequence[str]) -> VerdictDistribution:
    """The verdict whose first token has this distribution."""
    return VerdictDistribution.from_tokens(zip(distribution.tokens, distribution.logprobs, strict=True), labels)


def logsumexp(logprobs: Sequence[float]) -> float:
    """Logarithm of the sum of probabilities; minus infinity without any."""
    top = max(logprobs, default=-math.inf)
    return top + math.log(math.fsum(math.exp(p - top) for p in logprobs)) if top > -math.inf else top


def _stated_label(text: str, labels: Sequence[str]) -> str | None:
    words = [word for word in _WORD.findall(text) if word.casefold() not in _INTRODUCTIONS]
    return label_of(words[0], labels, whole=True) if words else None


def _folded(text: str, label: str) -> str:
    return text if len(label) == 1 else text.casefold()


def _softmax(logprobs: Sequence[float]) -> tuple[float, ...]:
    total = logsumexp(logprobs)
    if total == -math.inf:
        return tuple(1 / len(logprobs) for _ in logprobs)
    return tuple(math.exp(p - total) for p in logprobs)
