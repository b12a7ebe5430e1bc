"""Option orders: each juror sees the options of a question in an order of its own.

Over the jury each option has as many different positions as there are jurors, so that position bias cancels out.

Source: Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors" (2023, arXiv:2309.03882), section
2, for position bias and cyclic orders; rewriting letters in a text is ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import dataclass

from ...core.types import Question
from ...reasoning.answers.extraction import option_letter

_NAMED = (
    r"\b(?i:options?|choices?|letters?|answers?)\s{1,3}(?i:(?:is|are|would\sbe|should\sbe)\s{1,3})?[*_(\[\"'`]{0,4}"
)
_MARKED = r"\b(?i:answer|choice|option)\s?[:=]\s{0,3}[*_(\[\"'`]{0,4}"
_NOT_IN_WORD = r"(?![^\W_])(?!['\u2019][^\W_])"
_NO_LABEL = r"(?!\s?[-+#&/])"
_LISTED = r"\s{0,3}(?:,|/|&|,?\sand|,?\sor|,?\snor)\s{1,3}(?i:option\s|choice\s)?[*_(\[\"'`]{0,3}"
_VERBS = (
    r"\s(?:is|are|was|were|and|or|nor|has|have|had|does|do|can|could|would|may|might|seems?|says?|states?|claims?"
    r"|because|fits|follows|looks|remains|cannot|being)\b"
)
_MEANS_A_LETTER = re.compile(rf"{_VERBS}|[).,;:*_}}\]]|\s?$", re.MULTILINE)
_IS_NO_PRONOUN = re.compile(r"\s(?:is|fits|follows)\b|[).;:*_}\]]|\s?$", re.MULTILINE)
_INITIALS = re.compile(r"\.\s?[A-Z]\.")
_INITIAL_BEFORE = re.compile(r"(?<![^\W_])[A-Z]\.\s?\Z")
_OTHER_LETTERS = re.compile(
    r"\b(?:vitamins?|hepatitis|types?|group|grade|class|plan|section|figure|table|appendix|point|part|blood|level|size"
    r"|series|team|phase|\d+\s?°?)\s{0,2}\Z",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class OptionOrder:
    """An order of the options.

    Attributes:
        order: Index in the question of the option that is displayed first, second, …; empty without options.
    """

    order: tuple[int, ...] = ()

    def shown(self, question: Question) -> Question:
        """The question with its options in this order."""
        return question.model_copy(update={"choices": tuple(question.choices[i] for i in self.order)})

    def to_question(self, letter: str) -> str | None:
        """The question's letter of an option from its displayed letter; None if there is none."""
        place = _index(letter)
        return option_letter(self.order[place]) if place is not None and place < len(self.order) else None

    def to_shown(self, letter: str) -> str | None:
        """The displayed letter of an option from the question's letter; None if there is none."""
        place = _index(letter)
        return option_letter(self.order.index(place)) if place is not None and place < len(self.order) else None

    def to_question_letters(self, text: str, question: Question, known: Collection[int] = ()) -> str:
        """A text of a reader of this order with the question's letters.

        Letters are recognized in brackets, as labels, after "answer" or "option", on a line of their own, in a list
        with one of these, or as single capitals. The last are left unchanged if the question has single capitals itself
        ("vitamin B").

        Args:
            text: The text.
            question: The question in its own order.
            known: Positions known to hold an option letter.
        """
        return _replace_letters(text, question, dict(enumerate(self.order)), known)


def option_orders(question: Question, jurors: int, seed: int) -> tuple[OptionOrder, ...]:
    """An order for each juror: rotations of one random order by different steps.

    No option has the same position for two jurors if there are no more jurors than options.
    """
    count = len(question.choices)
    if not count:
        return (OptionOrder(),) * jurors
    base = list(range(count))
    random.Random(seed).shuffle(base)  # noqa: S311 (reproducible order, no secret)
    steps = [i * count // jurors if jurors <= count else i % count for i in range(jurors)]
    return tuple(OptionOrder(tuple(base[step:] + base[:step])) for step in steps)


def identity_order(question: Question) -> OptionOrder:
    """The question's own order."""
    return OptionOrder(tuple(range(len(question.choices))))


def _replace_letters(text: str, question: Question, targets: dict[int, int], known: Collection[int] = ()) -> str:
    if all(i == target for i, target in targets.items()):
        return text
    pieces, end = [], 0
    for start in sorted(_letters_in(text, question).union(known)):
        target = targets[ord(text[start].upper()) - ord("A")]
        letter = option_letter(target)
        pieces += [text[end:start], letter if text[start].isupper() else letter.lower()]
        end = start + 1
    return "".join([*pieces, text[end:]])


def _letters_in(text: str, question: Question) -> set[int]:
    """Positions of option letters in a text."""
    last = option_letter(len(question.choices) - 1)
    capital, any_case = f"[A-{last}]", f"[A-{last}a-{last.lower()}]"
    positions: set[int] = set()
    for pattern in (
        rf"(?<![\w(\[])[(\[]\s?({capital})\s?[)\]]",
        rf"{_NAMED}({capital}){_NOT_IN_WORD}",
        rf"{_MARKED}({any_case}){_NOT_IN_WORD}(?=[\s*_)\]\"'`.,;:]{{0,6}}(?:$|\n|[)\].,;:]))",
        rf"{_MARKED}({capital}){_NOT_IN_WORD}",
        rf"(?m:^)[ \t*_>#-]{{0,6}}({capital})[).:](?=[\s*_]|\Z)",
        rf"(?m:^)[ \t*_>#(\[\"'`-]{{0,6}}({any_case})[ \t*_)\]\"'`.]{{0,6}}(?m:$)",
        rf"(?<=\s)[*_\"']{{0,3}}({capital})\)(?=[\s*_.,;]|\Z)",
    ):
        positions |= {match.start(1) for match in re.finditer(pattern, text)}
    if not _uses_capitals(question, capital):
        positions |= _single_capitals(text, capital)
    listed = re.compile(rf"{_LISTED}({capital}){_NOT_IN_WORD}")
    pending = sorted(positions)
    while pending:  # "B, C and D": the rest of a list
        begin = pending.pop() + 1
        closing = re.compile(r"[)\]*_\"'`]{0,3}").match(text, begin)
        follows = listed.match(text, closing.end() if closing else begin)
        if follows and follows.start(1) not in positions:
            positions.add(follows.start(1))
            pending.append(follows.start(1))
    return positions


def _single_capitals(text: str, capital: str) -> set[int]:
    """Positions of single capitals; the article "A" and the pronoun "I" only where they must be letters."""
    positions: set[int] = set()
    for match in re.finditer(rf"(?<![^\W_])(?<!['\u2019.&])({capital}){_NOT_IN_WORD}{_NO_LABEL}", text):
        start, end = match.span(1)
        before = text[max(0, start - 24) : start]
        if _OTHER_LETTERS.search(before) or (text[start] == "I" and not _IS_NO_PRONOUN.match(text, end)):
            continue
        if (
            _INITIALS.match(text, end)
            or _INITIAL_BEFORE.search(before)
            or (text[start] == "A" and not _MEANS_A_LETTER.match(text, end))
        ):
            continue
        positions.add(start)
    return positions


def _uses_capitals(question: Question, capital: str) -> bool:
    """Whether the question has single capitals other than the article and the pronoun."""
    text = "\n".join([question.text, *question.choices])
    return any(m[1] not in "AI" for m in re.finditer(rf"(?<![^\W_])({capital}){_NOT_IN_WORD}", text)) or bool(
        re.search(r"(?<=\s)A(?=[\s.,;?]*(?:$|\n|[.,;?]))", text)
    )


def _index(letter: str) -> int | None:
    return ord(letter.upper()) - ord("A") if len(letter) == 1 and letter.isascii() and letter.isalpha() else None
