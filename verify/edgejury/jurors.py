"""The jurors: the parameters they share, their models, roles and option orders.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 1, for the four kinds of role; the texts are ours. Differs:
every role answers the question, where the public implementation asks one for a list of risks.

Each juror sees the options of a question in an order of its own. Over the jury each option has as many different
positions as there are jurors, so that position bias cancels out. Source: Zheng et al., "Large Language Models Are Not
Robust Multiple Choice Selectors" (2023, arXiv:2309.03882), section 2, for position bias and cyclic orders; rewriting
letters in a text is ours.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from ...core.run import Run
from ...core.settings import JURY
from ...core.types import Question
from ...reasoning.anonymity import Roster
from ...reasoning.answers.extraction import option_letter
from ...reasoning.strategy import MAX_TOKENS, Models, Parameters
from ...serving.metered.model import MeteredModel
from ...serving.recorded.model import PREFIX as RECORDED
from ...serving.recorded.model import parse_name
from ..verifier import AUTO

MIN_JURORS: Final = 3
"""Minimum number of jurors unless `n` is set."""
ANSWER_TOKENS, REVIEW_TOKENS, CHAIR_TOKENS = 400, 500, 1000
"""Default maximum tokens of an opinion, a review and the chair's answer."""


class PanelConfig(Parameters):
    """Parameters of the jurors, shared by the strategy and the verifier."""

    n: Annotated[
        int | None, Field(ge=1, le=26, description="number of jurors; null is one for each given model, at least 3")
    ] = None
    roles: Annotated[bool, Field(description="give the jurors four different roles, in turn")] = True
    shuffle: Annotated[bool, Field(description="show options and answers to each model in an order of its own")] = True
    judge: Annotated[
        str, Field(min_length=1, description="judge that compares claims with answers and evidence, as for davinci")
    ] = AUTO
    temperature: Annotated[
        float | None,
        Field(ge=0, le=100, description="sampling temperature of opinions; null for 0.7 where the model takes one"),
    ] = None
    max_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_TOKENS,
            description=f"maximum tokens of each call; null is {ANSWER_TOKENS} for an opinion, {REVIEW_TOKENS} for a "
            f"review and {CHAIR_TOKENS} for the chair",
        ),
    ] = None


@dataclass(frozen=True)
class Role:
    """The role of a juror.

    Attributes:
        name: Its name in traces; never shown to reviewers.
        system: The juror's system message.
        headings: Headings that the role requests. They reveal the author, so they are removed before review; the text
            below them stays.
        aliases: Other names that a juror may use for itself in this role; removed likewise.
    """

    name: str
    system: str
    headings: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


ROLES: Final = (
    Role(
        "direct-answerer",
        "Give a short, precise answer in as few sentences as the question needs. Name any assumption you had to make, "
        "and say which part you are unsure of. Prefer a plain true statement to an impressive one.",
        aliases=("direct answer giver",),
    ),
    Role(
        "edge-case-finder",
        "Look for what could be wrong. Does the question rest on a false premise, or repeat a common misconception? In "
        "which unusual case would the obvious answer fail? Give the answer that holds up first. Then add a line "
        '"Concerns:" followed by up to four doubts or exceptions, one per line.',
        headings=("Concerns",),
        aliases=("edge case hunter", "edge case analyst", "edge case expert"),
    ),
    Role(
        "step-by-step-explainer",
        "Explain step by step. Work from what is known to the answer in short numbered steps, and give the reason for "
        "each. If a step rests on something you only believe, say so. End with the answer that the steps lead to.",
        aliases=("step by step teacher", "step by step tutor"),
    ),
    Role(
        "pragmatic-implementer",
        "Focus on what holds in practice. Give your answer, then support it with a concrete example or number, or "
        "explain how to check it. Skip theory that does not change the answer, and say what you would verify before "
        "relying on it.",
        aliases=("pragmatic engineer", "practical implementer"),
    ),
)
"""The roles, in the order in which jurors get them."""


# -- option orders

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
        if self.order == tuple(range(len(self.order))):
            return text
        pieces, end = [], 0
        for start in sorted(_letters_in(text, question).union(known)):
            letter = option_letter(self.order[ord(text[start].upper()) - ord("A")])
            pieces += [text[end:start], letter if text[start].isupper() else letter.lower()]
            end = start + 1
        return "".join([*pieces, text[end:]])


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


# -- jurors


@dataclass(frozen=True)
class Juror:
    """A member of the jury.

    Attributes:
        id: Its number, from 0.
        model: Its model; jurors with the same model share the object.
        role: Its role; None without roles.
        order: The order in which it sees the options.
        sample_index: Its number among the jurors of its model, from 0: jurors with equal prompts get different samples.
    """

    id: int
    model: MeteredModel
    role: Role | None
    order: OptionOrder
    sample_index: int

    @property
    def name(self) -> str:
        """Its name in traces."""
        return f"juror #{self.id}"

    @property
    def role_name(self) -> str:
        """The name of its role; empty without one."""
        return "" if self.role is None else self.role.name


def make_jurors(config: PanelConfig, question: Question, models: Models, run: Run) -> tuple[Juror, ...]:
    """The jurors, with models and roles taken in turn.

    A jury of a single model family degrades the run, since its jurors share their errors.
    """
    jury = models.jury
    num_jurors = config.n or max(MIN_JURORS, len(jury))
    orders: Sequence[OptionOrder] = (identity_order(question),) * num_jurors
    if config.shuffle:
        orders = option_orders(question, num_jurors, run.derive_seed("edgejury", "options"))
    num_of_model: Counter[str] = Counter()
    jurors: list[Juror] = []
    for i in range(num_jurors):
        model = jury[i % len(jury)]
        role = ROLES[i % len(ROLES)] if config.roles else None
        jurors.append(Juror(i, model, role, orders[i], num_of_model[model.identity]))
        num_of_model[model.identity] += 1
    families = {family_of(juror.model.name) for juror in jurors}
    if len(families) == 1 and num_jurors > 1:
        kind = "one model" if len(num_of_model) == 1 else "models of one family"
        hint = "" if models.has(JURY) else "; add others with --juror (jurors= in Python)"
        run.degrade(f"single_family: the jurors are {kind} ({families.pop()}), so their agreement says little{hint}")
    return tuple(jurors)


def make_roster(jurors: Sequence[Juror], chair: MeteredModel) -> Roster:
    """All names that could reveal a juror, or the chair whose name could identify an answer too."""
    return Roster(
        models=tuple(dict.fromkeys([*(juror.model.name for juror in jurors), chair.name])),
        jurors=tuple(juror.name for juror in jurors),
        roles=tuple({juror.role.name: juror.role for juror in jurors if juror.role is not None}.values()),
    )


def family_of(model: str) -> str:
    """The family of a model by its string: the first letters of the last part, "qwen" of `local/Qwen2.5-0.5B`."""
    if model.startswith(RECORDED):
        model = parse_name(model)[1] or model
    last = model.rstrip("/").rsplit("/", 1)[-1].casefold()
    match = re.search(r"[a-z]+", last)
    return last if match is None else match[0]
