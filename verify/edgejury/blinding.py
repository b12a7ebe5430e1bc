"""`Blinding`: the letters under which one reader sees the jurors' answers, and the way back from them.

Every reader gets letters of its own in an order of its own, so that nothing tells whose answer is whose, and an answer
is not always the first. Texts that speak of an answer by its letter are told again by juror ("answer #2") when they
come back, and by letter when another reader is to see them.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 2, for anonymous review. Differs: its public implementation
shows all reviewers one fixed order and their own answers; here the order is drawn and one's own answer is left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...core.errors import UserError
from ...core.question import Question
from ...reasoning.brains.quoting import plain, quoted
from ...reasoning.prompts import LETTERS

OPENING: Final = "<answers>"
CLOSING: Final = "</answers>"
"""Fences of the answers; quoting breaks up whatever in an answer looks like one."""

MOST_ANSWER_CHARS: Final = 4000
"""Characters of one answer that are shown."""

_FIRST_APART: Final = LETTERS.index("P")
"""Where the letters of answers begin beside those of options, which begin at A."""

_BETWEEN = r"\s?(?:,|,?\sand|,?\sor|&)\s?"
_BY_JUROR = re.compile(r"\banswer #(\d{1,3})\b")


@dataclass(frozen=True, slots=True)
class Blinding:
    """Which letter stands for which juror's answer, for one reader.

    Attributes:
        letters: The letters, in the order in which the answers are shown.
        jurors: The juror behind each.
    """

    letters: tuple[str, ...]
    jurors: tuple[int, ...]

    def juror(self, letter: str) -> int | None:
        """Whose answer a letter stands for, however it is written ("b", "Answer B", "(B)"); None if for nobody's."""
        words = re.findall(r"[^\W_]+", letter)
        named = [word.upper() for word in words if word.upper() in self.letters]
        return self.jurors[self.letters.index(named[0])] if len(named) == 1 and len(words) <= 2 else None

    def letter(self, juror: int) -> str | None:
        """The letter of a juror's answer; None if this reader does not see it."""
        return self.letters[self.jurors.index(juror)] if juror in self.jurors else None

    def to_jurors(self, text: str) -> str:
        """A text of this reader with answers called by juror: "Answer B" becomes "answer #2"."""
        return self._told_again(text, lambda letter: f"answer #{self.jurors[self.letters.index(letter)]}")

    def to_letters(self, text: str) -> str:
        """The way back: a text that calls answers by juror, as this reader is to see it."""

        def called(mention: re.Match[str]) -> str:
            letter = self.letter(int(mention[1]))
            return "another answer" if letter is None else f"Answer {letter}"

        return _BY_JUROR.sub(called, text)

    def without_letters(self, text: str) -> str:
        """A text of this reader that is meant for people who see no letters: "Answer B" becomes "one answer"."""
        return self._told_again(text, lambda letter: "one answer")

    def _told_again(self, text: str, called: Callable[[str], str]) -> str:
        """The text with every mention of an answer by its letter replaced; letters are believed as capitals only."""
        if not self.letters:
            return text
        one = rf"(?:{'|'.join(self.letters)})(?![^\W_])"
        several = re.compile(rf"\b(?i:answers|candidates|responses)\s{{1,2}}({one}(?:{_BETWEEN}{one})+)")
        single = re.compile(rf"\b(?i:answer|candidate|response)\s{{1,2}}(?:\(({one})\)|({one}))")
        text = several.sub(lambda m: re.sub(one, lambda letter: called(letter[0]), m[1]), text)
        return single.sub(lambda m: called(m[1] or m[2]), text)


def blinding(
    jurors: Sequence[int],
    question: Question,
    seed: int,
    *,
    shuffle: bool = True,
    without: int | None = None,
) -> Blinding:
    """Draw the letters for one reader.

    Beside options, which have the letters from A, answers have those from P, or double ones where these do not do.

    Args:
        jurors: Those whose answers there are.
        question: What they answer.
        seed: Decides the order; a seed of its own for every reader.
        shuffle: Whether the order is drawn; else it is that of `jurors`.
        without: A juror who is not to see its own answer.

    Raises:
        UserError: There are more answers than letters.
    """
    shown = [juror for juror in jurors if juror != without]
    if shuffle:
        random.Random(seed).shuffle(shown)  # noqa: S311 (reproducible order, no secret)
    return Blinding(_letters(len(shown), len(question.choices)), tuple(shown))


def show_answers(
    blind: Blinding,
    texts: Mapping[int, str],
    *,
    choices: Mapping[int, str | None] | None = None,
    names: Mapping[int, str] | None = None,
    most_chars: int = MOST_ANSWER_CHARS,
) -> str:
    """The answers as quoted, fenced data for a prompt, under their letters and in their order.

    Args:
        blind: The letters.
        texts: The answers by juror, scrubbed already (see `anonymity`).
        choices: The letter of the option that each chooses, as this reader sees the options; for closed questions.
        names: Who wrote each; given only where anonymity is switched off on purpose.
        most_chars: Most characters of each.
    """
    lines = [OPENING]
    for letter, juror in zip(blind.letters, blind.jurors, strict=True):
        who = f" by {plain(names[juror], 160)}" if names is not None and juror in names else ""
        chosen = None if choices is None else choices.get(juror)
        what = "" if chosen is None else f", which comes to {plain(chosen, 160)}"
        lines += [f"Answer {letter}{who}{what}:", quoted(texts[juror], most_chars)]
    lines.append(CLOSING)
    return "\n".join(lines)


def _letters(count: int, options: int) -> tuple[str, ...]:
    if count > len(LETTERS):
        raise UserError(f"{count} answers cannot be told apart by letters", hint=f"at most {len(LETTERS)} jurors")
    if not options:
        return tuple(LETTERS[:count])
    if options <= _FIRST_APART and count <= len(LETTERS) - _FIRST_APART:
        return tuple(LETTERS[_FIRST_APART : _FIRST_APART + count])
    return tuple(letter * 2 for letter in LETTERS[:count])
