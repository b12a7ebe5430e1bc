"""From logits to a token: raw log-probabilities, logits processors, temperature, truncation, one generator per sample.

A token is sampled by an exponential race (Gumbel-max): each sample owns a generator of (seed, index) that yields one
noise value per vocabulary entry and step. So the choice depends on the sample only, and a logit that differs in the
last bits (another batch, another order of summation) changes the token with a probability of that same small size,
where sampling by cumulative sums would let it shift the complete tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.messages import SamplingParams
from ..logits_processors import LogitsProcessor, ProcessorState, ThoughtState, run_logits_processors
from ..structured_output import SCHEMA, GrammarProcessor


@dataclass(frozen=True)
class SampledToken:
    """A sampled token.

    Attributes:
        token: Its id.
        logprob: Its raw log-probability, in nats.
        top: The most likely tokens with their raw log-probabilities, best first; empty unless requested.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Scratch:
    """Memory that the rows of a step use one after the other, `[vocab_size]` each: fresh memory costs page faults."""

    def __init__(self, vocab_size: int) -> None:
        self.noise = np.empty(vocab_size)
        self.scores = np.empty(vocab_size, np.float32)
        self.bounds = np.empty(vocab_size, np.float32)
        self.is_candidate = np.empty(vocab_size, np.bool_)


class Sampler:
    """Samples the tokens of one sequence.

    Args:
        index: Sample index of the request: seeds the generator.
        thought: Where the sample's thought ends; None if it begins with none.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        index: int,
        processors: Sequence[tuple[str, LogitsProcessor]],
        prompt_ids: Sequence[int],
        eos: frozenset[int] = frozenset(),
        thought: ThoughtState | None = None,
    ) -> None:
        self._sampling, self._processors = sampling, processors
        self._temperature = 1.0 if sampling.temperature is None else sampling.temperature
        self._top_p = 1.0 if sampling.top_p is None else sampling.top_p
        self._prompt_ids = prompt_ids
        self.generated: list[int] = []
        self.states = {
            name: ProcessorState(prompt_ids, self.generated, index, eos_ids=eos, thought=thought)
            for name, _ in processors
        }
        self._grammar = next(
            (processor for _, processor in processors if isinstance(processor, GrammarProcessor)), None
        )
        entropy = None if sampling.seed is None else [_nonnegative(sampling.seed), index]
        self._noise = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))

    @property
    def is_greedy(self) -> bool:
        """Whether decoding is greedy without processors."""
        return self._temperature == 0 and not self._processors

    @property
    def is_structure_complete(self) -> bool:
        """Whether the text is constrained by a schema, satisfies it, and cannot continue."""
        return self._grammar is not None and self._grammar.ended(self.states[SCHEMA])

    def sample(self, logits: NDArray[np.float32], scratch: Scratch) -> int:
        """Sample the next token from raw logits `[vocab_size]`, and append it to `generated`.

        Raises:
            ValueError: The processors forbid every token.
            Exception: A processor raised it.
        """
        processed = run_logits_processors(self._processors, self.states, logits, self._prompt_ids, self.generated)
        token = self._sample(processed, scratch)
        self.generated.append(token)
        return token

    def _sample(self, logits: NDArray[np.float32], scratch: Scratch) -> int:
        best = int(logits.argmax())
        if not logits[best] > float("-inf"):
            raise ValueError("the logits processors forbid every token")
        if self._temperature == 0:
            return best
        scores = np.divide(logits, np.float32(self._temperature), out=scratch.scores)
        uniform = self._noise.random(out=scratch.noise)
        kept = self._truncate(torch.from_numpy(scores))
        if kept is None:
            kept = _candidates(scores, uniform, best, scratch)
        values = scores[kept].astype(np.float64) - np.log(_exponential(uniform[kept]))
        return int(kept[int(values.argmax())])

    def _truncate(self, scores: Tensor) -> NDArray[np.int64] | None:
        """Tokens that top-k and then top-p leave; None for all.

        Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1 (nucleus): the smallest
        set of most likely tokens whose mass reaches p. The mass is of the distribution at temperature, cut to the top
        k.
        """
        top_k, top_p = self._sampling.top_k, self._top_p
        if not 0 < top_k < scores.shape[0] and top_p >= 1:
            return None
        if 0 < top_k < scores.shape[0]:
            best, ids = scores.topk(top_k)
        else:
            best, ids = scores.sort(descending=True, stable=True)
        if top_p < 1:
            mass = best.softmax(-1).cumsum(-1)
            ids = ids[: int((mass < top_p).sum()) + 1]
        return ids.numpy()


def sample_tokens(
    logits: Tensor, samplers: Sequence[Sampler], num_top: Sequence[int]
) -> list[SampledToken | Exception]:
    """Sample a token for every row.

    Args:
        logits: `[rows, vocab_size]`, fp32.
        num_top: Alternatives requested for each row.

    Returns:
        For each row the token, or what its processor raised: a failing processor affects no other sample.
    """
    scratch = Scratch(logits.shape[1])
    greedy = logits.numpy().argmax(-1).tolist() if any(s.is_greedy for s in samplers) else []  # faster than torch's
    tokens: list[int | Exception] = []
    for i, sampler in enumerate(samplers):
        if sampler.is_greedy:
            sampler.generated.append(greedy[i])
            tokens.append(greedy[i])
            continue
        try:
            tokens.append(sampler.sample(logits[i].numpy(), scratch))
        except Exception as error:  # noqa: BLE001 - a row that a processor has broken belongs to its sample only
            tokens.append(error)
    logprobs = token_logprobs(logits, [t if isinstance(t, int) else 0 for t in tokens], num_top)
    return [SampledToken(token, *logprobs[i]) if isinstance(token, int) else token for i, token in enumerate(tokens)]


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], num_top: Sequence[int]
) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
    """Log-probabilities of one token for each row of `[rows, vocab_size]`, and of the row's most likely tokens.

    The rows are normalized one after the other in the same memory, which stays in the processor's cache: the
    kernel makes a row's log-softmax in less time than its log-sum-exp takes by itself, and memory for all rows would
    cost page faults.
    """
    row_logprobs = torch.empty(logits.shape[1])
    values = row_logprobs.numpy()
    result = []
    for row, token, count in zip(logits, tokens, num_top, strict=True):
        torch.log_softmax(row, -1, out=row_logprobs)
        result.append((float(values[token]), top_logprobs(row_logprobs, count)))
    return result


def top_logprobs(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The most likely tokens of a row, best first, with their log-probabilities."""
    if count == 0:
        return ()
    values, ids = logprobs.topk(min(count, logprobs.shape[0]))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def entropy(logprobs: Tensor) -> float:
    """Shannon entropy of a row of log-probabilities, in nats."""
    exact = logprobs.double()
    return float(-(exact.exp() * exact.clamp_min(-1e30)).sum())


def _exponential(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard exponential numbers from uniform ones in [0, 1)."""
    return np.maximum(-np.log1p(-uniform), 1e-300)


def _candidates(
    scores: NDArray[np.float32], uniform: NDArray[np.float64], best: int, scratch: Scratch
) -> NDArray[np.int64]:
    """Tokens that can win the race: those that do not lose to the most likely one by a bound that needs no logarithm.

    Token v beats token b if its time e_v is below e_b * exp(s_v - s_b), and e_v is never below its uniform number.
    """
    limit = np.log(_exponential(uniform[best : best + 1]))[0] - float(scores[best]) + 1e-3  # for what rounding changes
    with np.errstate(over="ignore"):
        bounds = np.exp(np.add(scores, np.float32(limit), out=scratch.bounds), out=scratch.bounds)
    return np.flatnonzero(np.less_equal(uniform, bounds, out=scratch.is_candidate))


def _nonnegative(seed: int) -> int:
    """Negative seeds are seeds of their own: NumPy accepts none."""
    return 2 * seed if seed >= 0 else -2 * seed - 1
