"""From logits to a token: raw log-probabilities, temperature, truncation, hooks, one generator for each sample.

A token is drawn by an exponential race (Gumbel-max): each sample owns a generator of (seed, index) that yields one
noise value per vocabulary entry and step. So the draw depends on the sample alone, and a logit that differs in the
last bits (another batch, another order of summation) changes the token with a probability of that same small size,
where drawing by cumulative sums would let it shift the whole tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.messages import SamplingParams
from ..logits_processors import Hook, HookState, Line, run_hooks
from ..structured_output import SCHEMA, Grammar


@dataclass(frozen=True)
class Picked:
    """A chosen token.

    Attributes:
        token: Its id.
        logprob: Its raw log-probability, in nats.
        top: The most likely tokens with their raw log-probabilities, best first; empty unless asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Draws the tokens of one sample.

    Args:
        sampling: How.
        index: Which sample of the request: picks the generator.
        hooks: The request's hooks, by name, in order.
        prompt_ids: Tokens of the prompt.
        eos: Tokens that end a text, for hooks.
        together: What the samples of a group that is begun as a whole have in common; None for a sample alone.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        index: int,
        hooks: Sequence[tuple[str, Hook]],
        prompt_ids: Sequence[int],
        eos: frozenset[int] = frozenset(),
        together: object = None,
    ) -> None:
        self._sampling, self._hooks = sampling, hooks
        self._prompt_ids, self._scope = prompt_ids, self if together is None else together
        self.generated: list[int] = []
        self.states = {
            name: HookState(prompt_ids, self.generated, index, eos_ids=eos, together=together is not None)
            for name, _ in hooks
        }
        self._grammar = next((hook for _, hook in hooks if isinstance(hook, Grammar)), None)
        entropy = None if sampling.seed is None else [_unsigned(sampling.seed), index]
        self._noise = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken, with nothing in the way."""
        return self._sampling.temperature == 0 and not self._hooks

    @property
    def whole(self) -> bool:
        """Whether the text is held to a schema, satisfies it, and nothing can follow."""
        return self._grammar is not None and self._grammar.ended(self.states[SCHEMA])

    def line(self, logits: Tensor) -> Line:
        """A row of fp32 logits `[vocab]`, in the CPU's memory, that is to go through the hooks."""
        return Line(logits.numpy(), self._prompt_ids, self.generated, self._hooks, self.states, self._scope)

    def choose(self, row: NDArray[np.float32]) -> int:
        """Choose the next token of a row of logits `[vocab]` that the hooks have left, and remember it.

        Raises:
            ValueError: The hooks leave no token.
        """
        token = self._choose(row)
        self.generated.append(token)
        return token

    def _choose(self, row: NDArray[np.float32]) -> int:
        sampling = self._sampling
        best = int(row.argmax())
        if not row[best] > float("-inf"):
            raise ValueError("the hooks forbid every token")
        if sampling.temperature == 0:
            return best
        scores = row / np.float32(sampling.temperature)
        uniform = self._noise.random(len(scores))
        kept = self._truncate(torch.from_numpy(scores))
        if kept is None:
            kept = _contenders(scores, uniform, best)
        values = scores[kept].astype(np.float64) - np.log(_arrivals(uniform[kept]))
        return int(kept[int(values.argmax())])

    def _truncate(self, scores: Tensor) -> NDArray[np.int64] | None:
        """Tokens that top-k and then top-p leave; None for all.

        Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1 (nucleus): the smallest
        set of most likely tokens whose mass reaches p. The mass is of the distribution at temperature, cut to the top
        k.
        """
        top_k, top_p = self._sampling.top_k, self._sampling.top_p
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


def pick(logits: Tensor, samplers: Sequence[Sampler], tops: Sequence[int]) -> list[Picked | Exception]:
    """Choose a token for every row.

    Args:
        logits: `[rows, vocab]`, fp32, on any device. Hooks and draws are the CPU's: what they need is brought there.
        samplers: One for each row.
        tops: Alternatives wanted for each row.

    Returns:
        For each row the token, or what its hook raised: a hook that fails takes no other sample along.
    """
    logprobs = torch.log_softmax(logits, -1)
    greedy = logits.argmax(-1).tolist() if any(s.greedy for s in samplers) else []
    here = logits if all(s.greedy for s in samplers) else logits.cpu()
    lines = {i: s.line(here[i]) for i, s in enumerate(samplers) if not s.greedy}
    run_hooks(list(lines.values()))
    tokens: list[int | Exception] = []
    for i, sampler in enumerate(samplers):
        if sampler.greedy:
            sampler.generated.append(greedy[i])
            tokens.append(greedy[i])
            continue
        line = lines[i]
        try:
            tokens.append(line.error or sampler.choose(line.row))
        except Exception as error:  # noqa: BLE001 - a row that a hook has broken belongs to its sample alone
            tokens.append(error)
    index = torch.tensor([t if isinstance(t, int) else 0 for t in tokens], device=logits.device)
    chosen = logprobs.gather(1, index[:, None])[:, 0].tolist()
    return [
        Picked(token, chosen[i], most_likely(logprobs[i], tops[i])) if isinstance(token, int) else token
        for i, token in enumerate(tokens)
    ]


def most_likely(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The most likely tokens of a row, best first, with their log-probabilities."""
    if count == 0:
        return ()
    values, ids = logprobs.topk(min(count, logprobs.shape[0]))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def entropy(logprobs: Tensor) -> float:
    """Shannon entropy of a row of log-probabilities, in nats."""
    exact = logprobs.cpu().double()  # not every device has double precision
    return float(-(exact.exp() * exact.clamp_min(-1e30)).sum())


def _arrivals(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard exponential times of uniform numbers in [0, 1)."""
    return np.maximum(-np.log1p(-uniform), 1e-300)


def _contenders(scores: NDArray[np.float32], uniform: NDArray[np.float64], best: int) -> NDArray[np.int64]:
    """Tokens that can win the race: those that do not lose to the most likely one by a bound that needs no logarithm.

    Token v beats token b if its time e_v is below e_b * exp(s_v - s_b), and e_v is never below its uniform number.
    """
    limit = np.log(_arrivals(uniform[best : best + 1]))[0] - float(scores[best])
    with np.errstate(over="ignore"):
        bound = np.exp(scores + np.float32(limit))
    return np.flatnonzero(uniform <= bound * np.float32(1.001))


def _unsigned(seed: int) -> int:
    """Seeds below zero are seeds of their own: NumPy takes none."""
    return 2 * seed if seed >= 0 else -2 * seed - 1
