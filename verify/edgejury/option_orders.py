"""`OptionOrder`: the order in which one reader sees the options of a question, and the way back from its letters.

A model that likes what stands first, or the letter A, would vote for it under every juror alike. So every juror sees
the options in an order of its own, and over the jury each option stands in as many different places as there are
jurors. What a juror writes is told again with the question's letters before others read it.

Source: Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors" (2023, arXiv:2309.03882), section
2, for the bias and for cyclic orders against it; telling a text again with other letters is our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import dataclass

from ...core.question import Question
from ...reasoning.options import letter_of

_NAMED = (
    r"\b(?i:options?|choices?|letters?|answers?)\s{1,3}(?i:(?:is|are|would\sbe|should\sbe)\s{1,3})?[*_(\[\"'`]{0,4}"
)
_MARKED = r"\b(?i:answer|choice|option)\s?[:=]\s{0,3}[*_(\[\"'`]{0,4}"
_BEHIND = r"(?![^\W_])(?!['\u2019][^\W_])"
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
        order: The place in the question of the option that is shown first, second, …; empty where there are none.
    """

    order: tuple[int, ...] = ()

    def shown(self, question: Question) -> Question:
        """The question with its options in this order."""
        return question.model_copy(update={"choices": tuple(question.choices[i] for i in self.order)})

    def to_question(self, letter: str) -> str | None:
        """The question's letter of an option, from the letter under which it is shown; None if there is no such one."""
        place = _index(letter)
        return letter_of(self.order[place]) if place is not None and place < len(self.order) else None

    def to_shown(self, letter: str) -> str | None:
        """The letter under which an option is shown, from the question's letter; None if there is no such one."""
        place = _index(letter)
        return letter_of(self.order.index(place)) if place is not None and place < len(self.order) else None

    def retell(self, text: str, question: Question, known: Collection[int] = ()) -> str:
        """A text of somebody who sees this order, with the question's letters.

        Letters are found by how they stand in the text: in brackets, as a label, after "answer" or "option", on a line
        of their own, in a list with one of these, or alone as a capital. The last are left as they are if the question
        has such capitals of its own ("vitamin B").

        Args:
            text: What was written.
            question: The question in its own order.
            known: Places where a letter of an option is known to stand.
        """
        return _replaced(text, question, dict(enumerate(self.order)), known)

    def tell(self, text: str, question: Question) -> str:
        """A text with the question's letters, for somebody who sees this order (see `retell`)."""
        return _replaced(text, question, {target: i for i, target in enumerate(self.order)})


def option_orders(question: Question, jurors: int, seed: int) -> tuple[OptionOrder, ...]:
    """An order for each juror: turns of one drawn order by different steps, as far apart as can be.

    No option stands in one place for two jurors, as long as there are no more jurors than options.

    Args:
        question: The question; without options there is nothing to order.
        jurors: How many orders are wanted.
        seed: Decides the order that is turned.
    """
    count = len(question.choices)
    if not count:
        return (OptionOrder(),) * jurors
    drawn = list(range(count))
    random.Random(seed).shuffle(drawn)  # noqa: S311 (reproducible order, no secret)
    steps = [i * count // jurors if jurors <= count else i % count for i in range(jurors)]
    return tuple(OptionOrder(tuple(drawn[step:] + drawn[:step])) for step in steps)


def own_order(question: Question) -> OptionOrder:
    """The question's own order."""
    return OptionOrder(tuple(range(len(question.choices))))


def _replaced(text: str, question: Question, targets: dict[int, int], known: Collection[int] = ()) -> str:
    if all(i == target for i, target in targets.items()):
        return text
    pieces, end = [], 0
    for start in sorted(_letters_in(text, question).union(known)):
        target = targets[ord(text[start].upper()) - ord("A")]
        letter = letter_of(target)
        pieces += [text[end:start], letter if text[start].isupper() else letter.lower()]
        end = start + 1
    return "".join([*pieces, text[end:]])


def _letters_in(text: str, question: Question) -> set[int]:
    """Where in a text letters of options stand."""
    last = letter_of(len(question.choices) - 1)
    capital, any_case = f"[A-{last}]", f"[A-{last}a-{last.lower()}]"
    places: set[int] = set()
    for pattern in (
        rf"(?<![\w(\[])[(\[]\s?({capital})\s?[)\]]",
        rf"{_NAMED}({capital}){_BEHIND}",
        rf"{_MARKED}({any_case}){_BEHIND}(?=[\s*_)\]\"'`.,;:]{{0,6}}(?:$|\n|[)\].,;:]))",
        rf"{_MARKED}({capital}){_BEHIND}",
        rf"(?m:^)[ \t*_>#-]{{0,6}}({capital})[).:](?=[\s*_]|\Z)",
        rf"(?m:^)[ \t*_>#(\[\"'`-]{{0,6}}({any_case})[ \t*_)\]\"'`.]{{0,6}}(?m:$)",
        rf"(?<=\s)[*_\"']{{0,3}}({capital})\)(?=[\s*_.,;]|\Z)",
    ):
        places |= {match.start(1) for match in re.finditer(pattern, text)}
    if not _has_capitals(question, capital):
        places |= _alone(text, capital)
    listed = re.compile(rf"{_LISTED}({capital}){_BEHIND}")
    waiting = sorted(places)
    while waiting:  # "B, C and D": what a list goes on with
        begin = waiting.pop() + 1
        close = re.compile(r"[)\]*_\"'`]{0,3}").match(text, begin)
        follows = listed.match(text, close.end() if close else begin)
        if follows and follows.start(1) not in places:
            places.add(follows.start(1))
            waiting.append(follows.start(1))
    return places


def _alone(text: str, capital: str) -> set[int]:
    """Capitals that stand alone as words; the article "A" and the pronoun "I" only where a letter must be meant."""
    places: set[int] = set()
    for match in re.finditer(rf"(?<![^\W_])(?<!['\u2019.&])({capital}){_BEHIND}{_NO_LABEL}", text):
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
        places.add(start)
    return places


def _has_capitals(question: Question, capital: str) -> bool:
    """Whether capitals stand alone in the question or its options, other than as the article or the pronoun."""
    asked = "\n".join([question.text, *question.choices])
    return any(m[1] not in "AI" for m in re.finditer(rf"(?<![^\W_])({capital}){_BEHIND}", asked)) or bool(
        re.search(r"(?<=\s)A(?=[\s.,;?]*(?:$|\n|[.,;?]))", asked)
    )


def _index(letter: str) -> int | None:
    return ord(letter.upper()) - ord("A") if len(letter) == 1 and letter.isascii() and letter.isalpha() else None
