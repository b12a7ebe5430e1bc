"""`Trie`: what has followed which tokens, in the texts of an engine.

Source: Zhao et al. 2024, Lookahead (arXiv 2312.12728), section 4: a trie of token windows with counts, filled from
prompts and outputs. Differs: the trie is not kept, but made below the two tokens that are asked for, from the places
where they stand. So it costs a place a token instead of a node for each token of each window, counts are exact, an
output can be drawn from at once instead of after a whole window, and forgetting is dropping the oldest text instead of
halving counts. Places are weighed by how far the tokens before them agree, which the paper's fixed query of two tokens
does not see; that takes the place of the paper's precedence of the request's own prompt.

`Pace`: what a step costs by the number of tokens that it computes, and so how many guesses are worth it.

`Lookahead`: guesses for the rows of a step, and what became of them.

Source: Zhao et al. 2024, Lookahead: An Inference Acceleration Framework for Large Language Model with Lossless
Generation Accuracy (arXiv 2312.12728), algorithm 1. A tree of guesses is computed in one pass with the token that a row
has chosen last; then tokens are chosen as ever, one after the other, each from the distribution at its place, and go on
through the tree as long as they were guessed. A token is chosen before the guess is looked at and takes one draw of the
row's generator, so a text is the one that it would have been.

Differs from the paper: how many guesses are computed is what the step times seen so far make worth it (`Pace`), not a
fixed 64; the paper's 64 lose on a CPU, where each further token of a step costs an eighth of a step. By default guesses
are one path: attention sums the columns of a path among wrong guesses in another order than without them, which moved
log-probabilities of SmolLM2-135M in bf16 by up to 0.19, while on a path without branches not a bit moves.

`Guesses`: the tree of tokens that is computed beside a row's own in one step, and what becomes of its columns.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from .attention import Span
from .kv_cache import whole_lanes
from .model import Forward
from .prefix_cache import Sequenced

if TYPE_CHECKING:
    from .sequence import Row


QUERY = 2
"""Tokens that a continuation is looked up by."""
RECENT = 24
"""Places of a pair that are looked at, the newest ones."""
AGREEING = 8
"""Tokens before a place that are compared at most."""
DOUBT = 3.0
"""Weight of what was never seen, at every token: the weight of one place where nothing but the query agrees is 1."""
MAX_TRIE_TOKENS = 1 << 17
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

    def __init__(self, ends: Iterable[int] = (), most_tokens: int = MAX_TRIE_TOKENS) -> None:
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


SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Sizes of a step, in tokens, whose times are kept apart."""
FIRST_SLOPE = 0.12
"""Cost of a further token before any was timed, as a share of a step of one: what was measured for bf16 on two cores
(docs/results/engine.md: 37.3 ms with one row, 68.9 with eight)."""
MARGIN = 1.03
"""Guesses must promise this much more than none: below it, looking them up and walking through them eats the gain."""
NEW = 0.2
"""Weight of a new time in the running mean."""
RECOVERY = 0.002
"""How far trust returns to 1 at each step without guesses: texts change, and what was mistrusted is tried again."""


class Pace:
    """Times of steps, and how far the guesses' odds can be trusted.

    Source: the expected number of tokens a pass is 1 plus the sum of the guesses' path probabilities, and the gain that
    times t(1) / t(1 + n) (specification of lookahead decoding, b.6; derived there, not from the paper).
    """

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._trust = 1.0
        self._promised = 0.0
        self._kept = 0.0

    @property
    def trust(self) -> float:
        """Accepted guesses for each that was promised, over the last steps."""
        return self._trust

    def observe(self, tokens: int, seconds: float) -> None:
        """Take the time of a step that computed `tokens` tokens and prefilled nothing."""
        size = _size(tokens)
        known = self._times.get(size)
        if known is None:
            self._times[size] = seconds
        else:  # a step during which something else had the processor says little
            self._times[size] = (1 - NEW) * known + NEW * min(seconds, 2 * known)

    def judge(self, promised: float, accepted: int) -> None:
        """Take how many guesses were accepted of those whose odds add up to `promised`."""
        if promised > 0:
            self._promised = 0.98 * self._promised + promised
            self._kept = 0.98 * self._kept + accepted
            # two guesses of each kind beforehand: the first steps decide nothing
            self._trust = min(1.5, (self._kept + 2) / (self._promised + 2))
        else:
            self._trust += RECOVERY * max(0.0, 1 - self._trust)

    def seconds(self, tokens: int) -> float | None:
        """Estimated time of a step; None while no step was timed.

        Between two sizes it is interpolated. Beyond the largest one it rises as between the last two, or as far as one
        alone was timed, by `FIRST_SLOPE` of it.
        """
        known = sorted(self._times)
        if not known:
            return None
        at = bisect_left(known, tokens)
        if at < len(known) and known[at] == tokens:
            return self._times[tokens]
        if at == 0:
            return self._times[known[0]]
        low = known[at - 1]
        if at < len(known):
            high = known[at]
            share = (tokens - low) / (high - low)
            return (1 - share) * self._times[low] + share * self._times[high]
        single = self._times[known[0]] / (1 + FIRST_SLOPE * (known[0] - 1))
        return self._times[low] + FIRST_SLOPE * single * (tokens - low)

    def worth(self, rows: int, odds: Sequence[float]) -> int:
        """How many guesses to compute beside `rows` rows.

        Args:
            rows: Rows that take a token each anyway.
            odds: Of all guesses, descending.

        Returns:
            The number for which tokens for each second are most; 0 where none is worth its time, or before any step
            was timed.
        """
        alone = self.seconds(rows)
        if alone is None:
            return 0
        best, count, expected = MARGIN * rows / alone, 0, float(rows)
        for i, chance in enumerate(odds, 1):
            expected += self._trust * chance
            time = self.seconds(rows + i)
            if time is not None and expected / time > best:
                best, count = expected / time, i
        return count


def _size(tokens: int) -> int:
    at = bisect_left(SIZES, tokens)
    return SIZES[min(at, len(SIZES) - 1)]


Mode = Literal["auto", "on", "off"]
MOST = 16
"""Most guesses for a row in a step."""
DEPTH = 12
"""Most guesses on one path: the paper's branch length."""
LEAST = 0.1
"""Probability below which a guess is not looked at (specification, b.6)."""
MOST_TOKENS = 1 << 18
"""Tokens kept over all tries, about 50 MB: each tenant has its own, and the one used longest ago gives way."""


@dataclass(frozen=True)
class Counts:
    """What lookahead has done since the engine began.

    Attributes:
        passes: Steps of rows: a step of three rows is three.
        guessed: Guesses computed.
        accepted: Those that were chosen.
        tokens: Tokens chosen; each row's first, which comes with its prompt, is not among them.
    """

    passes: int = 0
    guessed: int = 0
    accepted: int = 0
    tokens: int = 0

    @property
    def tokens_a_pass(self) -> float:
        """Tokens for each row and step; 1 without lookahead."""
        return self.tokens / self.passes if self.passes else 1.0


class Guessed(Protocol):
    """What is to be known of a row."""

    @property
    def salt(self) -> str:
        """Whose text it is: only texts with the same salt are drawn from."""

    @property
    def left(self) -> int:
        """Tokens that it may still take; 0 if none may be guessed."""

    def tail(self, count: int) -> Sequence[int]:
        """Its last `count` tokens, fewer if there are no more."""


class Writing:
    """A row's text as the trie knows it."""

    def __init__(self, trie: Trie, text: Text) -> None:
        self._trie, self._text = trie, text

    def write(self, token: int) -> None:
        """Take a chosen token."""
        self._trie.extend(self._text, (token,))


class Lookahead:
    """Guesses for rows, from what was read and written under the same salt.

    Args:
        ends: Tokens that end a text.
        mode: "auto" guesses where `Pace` says that it pays and no text can change by it, one path for each row; "on"
            guesses all that the trie makes likely, a tree; "off" never.
    """

    def __init__(self, ends: Iterable[int], mode: Mode) -> None:
        self._ends, self.mode = frozenset(ends), mode
        self._tries: dict[str, Trie] = {}
        self._pace = Pace()
        self.counts = Counts()

    @property
    def active(self) -> bool:
        """Whether there can be guesses."""
        return self.mode != "off"

    def read(self, salt: str, ids: Sequence[int], known: int) -> None:
        """Take a prompt.

        Args:
            salt: Whose it is.
            ids: Its tokens.
            known: Tokens at its beginning that an earlier text had: they are not counted again.
        """
        if not self.active:
            return
        self._trie(salt).begin(ids[max(0, known - QUERY) :])
        while len(self._tries) > 1 and sum(map(len, self._tries.values())) > MOST_TOKENS:
            del self._tries[next(iter(self._tries))]

    def writing(self, salt: str, before: Sequence[int]) -> Writing | None:
        """Begin a row's text, behind the last tokens of its prompt; None if there are no guesses."""
        if not self.active:
            return None
        trie = self._trie(salt)
        return Writing(trie, trie.begin(before[-QUERY:]))

    def drafts(self, rows: Sequence[Guessed], steady: Sequence[int]) -> list[Draft]:
        """Guesses for each row of the next step; empty ones where there are none or they are not worth it.

        Args:
            rows: The rows.
            steady: For each how many guesses may stand beside it without moving a bit; "on" does not look at that.
        """
        if not self.active:
            return [Draft()] * len(rows)
        drafts = []
        for row, most in zip(rows, steady, strict=True):
            depth = min(DEPTH, row.left - 1, most if self.mode == "auto" else DEPTH)
            tail = row.tail(QUERY + AGREEING) if depth > 0 else ()
            drafts.append(self._trie(row.salt).draft(tail, MOST, depth, LEAST) if depth > 0 else Draft())
        if self.mode == "on" or not any(drafts):
            return drafts
        # a wrong guess that stands between right ones is no part of any sum, and yet moves their last bits
        drafts = [draft.chain() for draft in drafts]
        odds = sorted((chance for draft in drafts for chance in draft.odds), reverse=True)
        count = self._pace.worth(len(rows), odds)
        if not count:
            return [Draft()] * len(rows)
        return [draft.cut(sum(chance >= odds[count - 1] for chance in draft.odds)) for draft in drafts]

    def tell(self, rows: int, drafts: Sequence[Draft], accepted: int, seconds: float) -> None:
        """Take what came of a step that prefilled nothing.

        Args:
            rows: Rows that took part.
            drafts: Their guesses.
            accepted: Guesses that were chosen.
            seconds: Time of the step.
        """
        guessed = sum(map(len, drafts))
        self._pace.observe(rows + guessed, seconds)
        self._pace.judge(sum(sum(draft.odds) for draft in drafts), accepted)
        was = self.counts
        self.counts = replace(
            was,
            passes=was.passes + rows,
            guessed=was.guessed + guessed,
            accepted=was.accepted + accepted,
            tokens=was.tokens + rows + accepted,
        )

    def _trie(self, salt: str) -> Trie:
        """The trie of a salt, which becomes the one used last."""
        trie = self._tries.pop(salt, None)
        if trie is None:
            trie = Trie(self._ends)
        self._tries[salt] = trie
        return trie


@dataclass(eq=False)
class Guesses:
    """What is guessed of a row in this step, and how far it was right.

    Attributes:
        row: The row.
        draft: The guesses.
        span: Their place in the step; None if there is no room for them.
        accepted: Guesses that were chosen and gone on from, in order.
    """

    row: Row
    draft: Draft
    span: Span | None = None
    accepted: list[int] = field(default_factory=list)

    def child(self, at: int, token: int) -> int | None:
        """The guess of a token below another one, or below the row's last token (-1)."""
        tokens, parents = self.draft.tokens, self.draft.parents
        return next((i for i in range(at + 1, len(tokens)) if parents[i] == at and tokens[i] == token), None)


def settle(guesses: Sequence[Guesses]) -> None:
    """Give the columns of right guesses to their rows, and take back the others."""
    of_log: dict[int, list[Guesses]] = {}
    for guess in guesses:
        of_log.setdefault(id(placed(guess.row).tree.log), []).append(guess)
    for some in of_log.values():
        log = placed(some[0].row).tree.log
        count = sum(len(guess.draft) for guess in some)
        first, kept = log.used - count, []
        for guess in some:
            kept += [first + node for node in guess.accepted]
            first += len(guess.draft)
        settled = log.settle(count, kept)
        for guess in some:
            if guess.accepted:
                columns, settled = settled[: len(guess.accepted)], settled[len(guess.accepted) :]
                sequence = placed(guess.row)
                log.show(sequence.branch, columns)
                sequence.record([guess.draft.tokens[node] for node in guess.accepted])


def steady(rows: Sequence[Row], forward: Forward) -> list[int]:
    """For each row how many guesses, of one path, may stand beside it without moving a bit.

    Other samples of its call may stand in its log, now or later, and then the order of all their columns would be
    another one. That moves logits by about 1e-6 in fp32. In bf16, of 18 samples of SmolLM2-135M in logs of under 350
    columns 9 changed. And not every forward function gives a token the same bits whatever stands beside it.

    Attention multiplies as many columns as the step has, in whole groups, and another number of groups may be another
    order of summing: of 10 texts of SmolLM2-135M in bf16 with steps that reached into the next group 5 moved. So the
    guesses end with the group in which the row's own token stands.
    """
    ends = []
    for row in rows:
        columns = placed(row).tree.log.used + 1
        ends.append(whole_lanes(columns) - columns if forward.steady and row.task.alone else 0)
    return ends


def placed(row: Row) -> Sequenced:
    """Where a row under way lives."""
    if row.sequence is None:
        raise RuntimeError("a row under way has a sequence")
    return row.sequence
