"""Problems in several steps, and a reward model of a given quality, without a language model.

`World` is one problem. What comes when a prefix is continued follows from the problem, the prefix and the index of the
sample alone, so every search that asks for the same gets the same. `Judge` is a process reward model that tells right
prefixes from wrong ones with a given area under the ROC curve.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from statistics import NormalDist
from struct import Struct
from typing import NamedTuple

NORMAL = NormalDist()
RIGHT = 0
"""The right answer; wrong ones are 1, 2, …, the likeliest first."""

_PARTS = Struct("<8x5Q")


class Prefix(NamedTuple):
    """A solution so far.

    Attributes:
        text: Its last step. It is a digest of the whole prefix and of the sample's index, so it names the prefix.
        depth: Its number of steps.
        right: Whether nothing is wrong in it, or all that was is repaired.
        age: Steps since it went wrong, the wrong one left out; 0 while it is right.
        answer: What it will come to if all that follows is right.
        error: The reward model's error, standard normal.
        tokens: Length of the last step.
        ended: Whether it is a complete solution.
    """

    text: str
    depth: int
    right: bool
    age: int
    answer: int | None
    error: float
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Recipe:
    """How problems are made.

    A problem has a chance q of being solved by a plain chain, drawn from a beta distribution; step t is right with
    probability q^(w_t), where the weights sum to 1 over `depth` steps. So problems of many steps are as hard as those
    of few, and their single steps easier.

    Attributes:
        depth: Steps of a solution.
        spread: A solution has from `depth - spread` to `depth + spread` steps, evenly distributed.
        solved: Both parameters of the beta distribution of q.
        uneven: 0 where all steps of a problem are equally hard; else the weights are in proportion to gamma variates of
            this squared coefficient of variation, so that large values put the difficulty into a few steps.
        repair: Chance that a step after a wrong prefix puts it right.
        wrong: Number of wrong answers. A step that goes wrong decides which of them the solution comes to.
        zipf: Wrong answer number i comes with probability in proportion to i^-zipf.
        tokens: Median length of a step; lengths are log-normal, cut off at a fifth and at three times the median.
        sigma: Standard deviation of the logarithm of the length.
        rho: Correlation of the reward model's errors in a prefix and in one that is a step longer.
    """

    depth: int = 4
    spread: int = 1
    solved: tuple[float, float] = (0.6, 1.6)
    uneven: float = 0.0
    repair: float = 0.0
    wrong: int = 12
    zipf: float = 1.2
    tokens: int = 40
    sigma: float = 0.4
    rho: float = 0.5

    @property
    def longest(self) -> int:
        """Most tokens of a step."""
        return 3 * self.tokens

    @property
    def solution(self) -> float:
        """Mean tokens of a complete solution, the cut-off left out of account."""
        return self.depth * self.tokens * math.exp(self.sigma**2 / 2)


class World:
    """One problem.

    Args:
        recipe: How problems are made.
        seed: Which of them.

    Attributes:
        q: Chance that a plain chain of `recipe.depth` steps is right.
        p: Chance that a step from a right prefix is right, by its place from 0.
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        rng = Random(f"problem {seed}")
        self.q = rng.betavariate(*recipe.solved)
        shares = [
            rng.gammavariate(1 / recipe.uneven, recipe.uneven) if recipe.uneven else 1.0
            for _ in range(recipe.depth + recipe.spread)
        ]
        whole = sum(shares[: recipe.depth])
        self.p = [self.q ** (share / whole) for share in shares]
        self._known = {"": Prefix("", 0, True, 0, RIGHT, 0.0, 0, False)}
        self._steps: dict[tuple[str, int], Prefix] = {}
        self._sums = list(accumulate(i**-recipe.zipf for i in range(1, recipe.wrong + 1)))
        self._fresh = math.sqrt(1 - recipe.rho**2)

    def __getitem__(self, text: str) -> Prefix:
        """The prefix whose last step this is, among those that were asked for; the empty text is the empty prefix."""
        return self._known[text]

    def step(self, text: str, index: int) -> Prefix:
        """A prefix with one more step: sample number `index` of its continuations."""
        made = self._steps.get((text, index))
        if made is not None:
            return made
        digest = hashlib.blake2b(f"{self.seed}|{text}|{index}".encode(), digest_size=48).digest()
        name = digest[:8].hex()
        made = self._made(name, self._known[text], *_PARTS.unpack(digest))
        self._known[name] = self._steps[text, index] = made
        return made

    def _made(self, name: str, before: Prefix, turn: int, which: int, stop: int, length: int, error: int) -> Prefix:
        """A new prefix, from five uniform 64-bit integers."""
        recipe, depth = self.recipe, before.depth + 1
        right = _uniform(turn) < (self.p[before.depth] if before.right else recipe.repair)
        answer, age = before.answer, before.age + 1
        if right:
            answer, age = RIGHT, 0
        elif before.right:
            age = 0
            answer = 1 + bisect_left(self._sums, _uniform(which) * self._sums[-1])
        fresh = NORMAL.inv_cdf(_uniform(error))
        own = fresh if before.depth == 0 else recipe.rho * before.error + self._fresh * fresh
        tokens = round(recipe.tokens * math.exp(recipe.sigma * NORMAL.inv_cdf(_uniform(length))))
        left = recipe.depth + recipe.spread - depth  # steps that may still follow
        ended = left <= 2 * recipe.spread and _uniform(stop) * (left + 1) < 1
        return Prefix(name, depth, right, age, answer, own, min(max(tokens, recipe.tokens // 5), recipe.longest), ended)

    def rest(self, text: str, index: int, most: int) -> Prefix:
        """A forced final answer: all that is left of the chain, in one piece and at its full length.

        Where that takes more than `most` tokens, it is cut off there, and there is no answer.
        """
        at, tokens = self.step(text, index), 0
        while True:
            tokens += at.tokens
            if at.ended or tokens > most:
                break
            at = self.step(at.text, 0)
        whole = at._replace(
            text=f"rest {text} {index}",
            answer=at.answer if tokens <= most else None,
            right=at.right and tokens <= most,
            tokens=min(tokens, most),
            ended=True,
        )
        self._known[whole.text] = whole
        return whole


def _uniform(bits: int) -> float:
    """In (0, 1), never an end."""
    return ((bits >> 12) + 0.5) / (1 << 52)


class Judge:
    """A process reward model with binormal scores.

    The evidence about a prefix is x = d'·[right] + error, with a standard normal error, so that AUC = Phi(d'/sqrt(2)).
    The score is the posterior probability of being right at even prior odds: the logistic function of the
    log-likelihood ratio d'·(x - d'/2).

    Source: Green and Swets, "Signal Detection Theory and Psychophysics" (1966).

    Args:
        auc: Area under the ROC curve, from 0.5 to 1; at 1 the score is right without exception.
        fade: Factor on d' for each step of a prefix after its first; below 1 long prefixes are judged worse.
        lag: Steps that a fault takes to be noticed: until then, unless the solution is complete, the prefix is judged
            as if it were right, so the AUC is that of the others.
        clip: How close to 0 and 1 a score may come.
    """

    def __init__(self, auc: float, fade: float = 1.0, lag: int = 0, clip: float = 1e-4) -> None:
        self.auc, self.fade, self.lag, self.clip = auc, fade, lag, clip
        self.d = math.inf if auc >= 1 else math.sqrt(2) * NORMAL.inv_cdf(auc)

    def __call__(self, prefix: Prefix) -> float:
        """The score of a prefix, in [clip, 1 - clip]."""
        right = prefix.right or (prefix.age < self.lag and not prefix.ended)
        if self.d == math.inf:
            return 1 - self.clip if right else self.clip
        d = self.d * self.fade ** (prefix.depth - 1)
        ratio = d * ((0.5 if right else -0.5) * d + prefix.error)
        return min(max(1 / (1 + math.exp(-ratio)), self.clip), 1 - self.clip)
