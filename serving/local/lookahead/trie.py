"""`Trie`: what has followed which tokens, in the texts of an engine.

Source: Zhao et al. 2024, Lookahead (arXiv 2312.12728), section 4: a trie of token windows with counts, filled from
prompts and outputs. Differs: the trie is not kept, but made below the two tokens that are asked for, from the places
where they stand. So it costs a place a token instead of a node for each token of each window, counts are exact, an
output can be drawn from at once instead of after a whole window, and forgetting is dropping the oldest text instead of
halving counts. Places are weighed by how far the tokens before them agree, which the paper's fixed query of two tokens
does not see; that takes the place of the paper's precedence of the request's own prompt.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

QUERY = 2
"""Tokens that a continuation is looked up by."""
RECENT = 24
"""Places of a pair that are looked at, the newest ones."""
AGREEING = 8
"""Tokens before a place that are compared at most."""
DOUBT = 3.0
"""Weight of what was never seen, at every token: the weight of one place where nothing but the query agrees is 1."""
MOST_TOKENS = 1 << 17
"""Tokens that are kept, at about 200 bytes each."""


@dataclass(eq=False)
class Text:
    """Tokens that belong together, in order.

    Attributes:
        tokens: The tokens.
        kept: Whether the trie still has it.
    """

    tokens: list[int] = field(default_factory=list)
    kept: bool = True


@dataclass(frozen=True)
class Draft:
    """A tree of guessed tokens below the last token of a sequence.

    Attributes:
        tokens: The guesses, parents before children.
        parents: Place of each one's parent among them; -1 is the sequence's last token.
        odds: Estimated probability that each one, and so the path to it, is what will be written. Never rising along a
            path, and descending in this order.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    odds: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, count: int) -> Draft:
        """The `count` likeliest guesses alone."""
        return Draft(self.tokens[:count], self.parents[:count], self.odds[:count])

    def chain(self) -> Draft:
        """One path alone: at each token the likeliest guess below it."""
        path: list[int] = []
        for i, parent in enumerate(self.parents):  # of several below one token, the likeliest comes first
            if parent == (path[-1] if path else -1):
                path.append(i)
        return Draft(
            tuple(self.tokens[i] for i in path), tuple(range(-1, len(path) - 1)), tuple(self.odds[i] for i in path)
        )


class Trie:
    """Texts, and where every pair of neighbouring tokens stands in them.

    Args:
        ends: Tokens that end a text: neither they nor what stands behind them is guessed.
        most_tokens: Tokens kept; beyond them the oldest text is dropped, unless it is the only one.
    """

    def __init__(self, ends: Iterable[int] = (), most_tokens: int = MOST_TOKENS) -> None:
        self._ends = frozenset(ends)
        self._most = most_tokens
        self._texts: deque[Text] = deque()
        self._places: dict[tuple[int, int], list[tuple[Text, int]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def begin(self, tokens: Sequence[int] = ()) -> Text:
        """Store a text, which may grow (`extend`)."""
        text = Text()
        self._texts.append(text)
        self.extend(text, tokens)
        return text

    def extend(self, text: Text, tokens: Iterable[int]) -> None:
        """Let a text go on; one that was dropped meanwhile stays dropped."""
        if not text.kept:
            return
        seen = text.tokens
        for token in tokens:
            seen.append(token)
            self._size += 1
            if len(seen) >= QUERY:
                places = self._places.setdefault((seen[-2], token), [])
                places.append((text, len(seen)))
                if len(places) > RECENT:
                    del places[0]
        while self._size > self._most and len(self._texts) > 1:
            self.drop()

    def draft(self, tail: Sequence[int], most: int, depth: int, least: float) -> Draft:
        """Guess what follows.

        Args:
            tail: The last tokens of a sequence; more than `AGREEING + QUERY` of them are not looked at.
            most: Most guesses.
            depth: Most guesses on one path.
            least: Guesses less probable than this are left out.

        Returns:
            The likeliest guesses by the trie's counts (arXiv 2312.12728 takes the most frequent ones): the probability
            of a path is the product of the shares of its tokens among their siblings. That is the choice by which the
            expected number of tokens a pass is largest, if the shares are true.
        """
        if most < 1 or len(tail) < QUERY:
            return Draft()
        places = self._places.get((tail[-2], tail[-1]))
        if not places:
            return Draft()
        found = [(text.tokens, at, self._weight(text.tokens, at, tail)) for text, at in places if at < len(text.tokens)]
        tokens: list[int] = []
        parents: list[int] = []
        odds: list[float] = []
        heap: list[tuple[float, int, int, int, int, list[tuple[list[int], int, float]]]] = []
        number = 0

        def grow(parent: int, level: int, reached: list[tuple[list[int], int, float]], path: float) -> None:
            nonlocal number
            total = DOUBT
            following: dict[int, list[tuple[list[int], int, float]]] = {}
            shares: dict[int, float] = {}
            for text, at, weight in reached:
                total += weight
                if at < len(text) and text[at] not in self._ends:
                    following.setdefault(text[at], []).append((text, at + 1, weight))
                    shares[text[at]] = shares.get(text[at], 0.0) + weight
            for token, next_places in following.items():
                chance = path * shares[token] / total
                if chance >= least:
                    number += 1
                    heapq.heappush(heap, (-chance, number, token, parent, level, next_places))

        grow(-1, 1, found, 1.0)
        while heap and len(tokens) < most:
            chance, _, token, parent, level, reached = heapq.heappop(heap)
            tokens.append(token)
            parents.append(parent)
            odds.append(-chance)
            if level < depth:
                grow(len(tokens) - 1, level + 1, reached, -chance)
        return Draft(tuple(tokens), tuple(parents), tuple(odds))

    def _weight(self, text: list[int], at: int, tail: Sequence[int]) -> float:
        """Weight of a place: twice as much for each further token before it that agrees."""
        agreeing = 0
        for back in range(QUERY + 1, QUERY + 1 + AGREEING):
            if at < back or len(tail) < back or text[at - back] != tail[-back]:
                break
            agreeing += 1
        return float(2**agreeing)

    def drop(self) -> None:
        """Forget the oldest text, if there is one."""
        if not self._texts:
            return
        text = self._texts.popleft()
        text.kept = False
        self._size -= len(text.tokens)
        for pair in zip(text.tokens, text.tokens[1:], strict=False):
            stay = [place for place in self._places.pop(pair, ()) if place[0] is not text]
            if stay:
                self._places[pair] = stay
