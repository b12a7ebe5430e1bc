"""`Lookahead`: guesses for the rows of a step, and what became of them.

Source: Zhao et al. 2024, Lookahead: An Inference Acceleration Framework for Large Language Model with Lossless
Generation Accuracy (arXiv 2312.12728), algorithm 1. A tree of guesses is computed in one pass with the token that a row
has chosen last; then tokens are chosen as ever, one after the other, each from the distribution at its place, and go on
through the tree as long as they were guessed. A token is chosen before the guess is looked at and takes one draw of the
row's generator, so a text is the one that it would have been.

Differs from the paper: how many guesses are computed is what the step times seen so far make worth it (`Pace`), not a
fixed 64; the paper's 64 lose on a CPU, where each further token of a step costs an eighth of a step. By default guesses
are one path: attention sums the columns of a path among wrong guesses in another order than without them, which moved
log-probabilities of SmolLM2-135M in bf16 by up to 0.19, while on a path without branches not a bit moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from .pace import Pace
from .trie import AGREEING, QUERY, Draft, Text, Trie

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
