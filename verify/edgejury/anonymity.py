"""`Scrubber`: takes out of a text what tells who wrote it, before anybody else on the jury reads it.

Taken out are the names of the roster (model strings and their parts, jurors' ids, roles and their other names), clauses
in which a model speaks of itself, labels and signatures with such a name, and the headings that only one role is told
to write. What the question itself names stays: it tells of nobody. The family of a model ("Llama") may be an everyday
word and is taken out only where it is used as the name of a model.

Source: our own rules; that jurors' answers are to be anonymous is Kumar, "EdgeJury" (2025, arXiv:2601.00850).

`Blinding`: the letters under which one reader sees the jurors' answers, and the way back from them.

Every reader gets letters of its own in an order of its own, so that nothing tells whose answer is whose, and an answer
is not always the first. Texts that speak of an answer by its letter are told again by juror ("answer #2") when they
come back, and by letter when another reader is to see them.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 2, for anonymous review. Differs: its public implementation
shows all reviewers one fixed order and their own answers; here the order is drawn and one's own answer is left out.

`OptionOrder`: the order in which one reader sees the options of a question, and the way back from its letters.

A model that likes what stands first, or the letter A, would vote for it under every juror alike. So every juror sees
the options in an order of its own, and over the jury each option stands in as many different places as there are
jurors. What a juror writes is told again with the question's letters before others read it.

Source: Zheng et al., "Large Language Models Are Not Robust Multiple Choice Selectors" (2023, arXiv:2309.03882), section
2, for the bias and for cyclic orders against it; telling a text again with other letters is our own.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...core.errors import UserError
from ...core.types import Question
from ...reasoning.answers.extraction import option_letter
from ...reasoning.answers.normalization import visible_text
from ...reasoning.prompts import LETTERS
from ...reasoning.retrieval.quoting import quote_line, quote_lines, visible_text
from .jurors import Role

GONE: Final = "[removed]"
"""What stands in the place of a name."""

_NOTHING = r"(?!)"  # never matches
_START, _END = r"(?<![^\W_])", r"(?![^\W_])"
_APART = r"[\s_./:@+#-]{0,2}"
_MARKUP = r"[ \t#*_>`~-]{0,8}"
_SENTENCE = r"(?:^|(?<=[.!?;:,(\n]))[ \t\"'*_-]{0,4}"
# letters of mathematics and in circles are read as letters: they would hide a name and keep it readable
_STYLED = re.compile("[\U0001d400-\U0001d7ff\u24b6-\u24e9\u2100-\u214f]")
_CHUNK = re.compile(r"[^\W\d_]+|\d+")
_KIND_WORDS = """
    instruct chat coder base mini nano small medium large tiny turbo pro flash preview latest gguf awq gptq int fp bf
    beta alpha vision thinking reasoning distill model text omni lite plus max ultra code math embed guard exp
"""
_KINDS = frozenset(_KIND_WORDS.split())
"""Parts of models' names that say what kind of model it is, and nothing of whose."""
_LEAST_FAMILY = 3
_SIZE = r"(?:[ ._-]?(?:v?\d[\w.]*(?<!\.)|instruct|chat|coder|turbo|nemo)" + _END + "){1,4}"
_MACHINE = (
    r"(?:\w{1,20}\s){0,2}?(?:AI|artificial\sintelligence|language\smodel|LLM|chatbot|virtual\sassistant|AI\sassistant"
    r"|helpful\sassistant)(?:\s(?:language\s)?(?:model|assistant|chatbot|system))?"
)
_MADE = r"(?:created|developed|trained|made|built|designed|tuned|fine-tuned|released)"
_BY_WHOM = rf"\s{_MADE}(?:\sand\s{_MADE})?\s(?:by|at)\s[^,.;!?\n]{{1,60}}"


@dataclass(frozen=True)
class Roster:
    """Who sits on a jury, by all the names that could give somebody away.

    Attributes:
        models: Model strings, the chair's too.
        jurors: Ids under which jurors are known in traces; bare numbers are none.
        roles: Their roles.
    """

    models: tuple[str, ...] = ()
    jurors: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ()


class Scrubber:
    """Takes out of texts what tells who of a roster wrote them. Wording is English, names may be of any language.

    Args:
        roster: Whose names.
        question: What is answered; names that stand in it, its options or documents are no secret.
    """

    def __init__(self, roster: Roster, question: Question) -> None:
        turns = [turn.content for turn in question.conversation]
        documents = [f"{d.name}\n{d.text}" for d in question.documents]
        asked = "\n".join([*turns, question.text, *question.choices, *documents])
        roles = [word for role in roster.roles for word in (role.name, *role.aliases)]
        models = [part for model in roster.models for part in (model, *_parts(model))]
        names = [_spelt(name) for name in (*models, *roster.jurors, *roles) if _is_name(name)]
        secret = [name for name in dict.fromkeys(names) if not _whole(name).search(asked)]
        families = [
            family
            for model in roster.models
            for family in _families(model)
            if not re.search(rf"{_START}{family}(?![^\W\d_])", asked, re.IGNORECASE)
        ]
        headings = [re.escape(heading) for role in roster.roles for heading in role.headings]
        self._names = _whole(_any_of(secret))
        self._versions = re.compile(rf"{_START}{_any_of(families)}{_SIZE}", re.IGNORECASE)
        self._dropped = _tells(
            who=rf"(?:{_any_of(secret)}|{_any_of(families)}(?:{_SIZE})?)",
            labelled=rf"(?:{_any_of(secret)}|{_any_of(families)}{_SIZE})",
            role=_any_of([_spelt(word) for word in roles]),
            heading=_any_of(headings),
        )

    def scrub(self, text: str) -> str:
        """The text without what tells who wrote it; thoughts and characters that are not seen are left out, too.

        A text of which nothing is left is `[removed]`.
        """
        shown = visible_text(visible_text(text).text)
        shown = _STYLED.sub(lambda m: unicodedata.normalize("NFKC", m[0]), shown)
        for pattern in self._dropped:
            shown = _without(pattern, shown)
        shown = self._names.sub(GONE, shown)
        shown = self._versions.sub(GONE, shown)
        return shown.strip() or GONE


def _tells(*, who: str, labelled: str, role: str, heading: str) -> list[re.Pattern[str]]:
    """What is dropped whole. An empty group `following` says that a sentence may go on behind it.

    Args:
        who: Any name of a model or juror, a family's too.
        labelled: The same without bare families: a list may well have an entry "Llama: …".
        role: Any name of a role.
        heading: Any heading of a role.
    """
    anybody = rf"(?:{who}|{role})"
    rest = rf"(?:,?\s(?:an?|the)\s{_MACHINE}|,?{_BY_WHOM})*[.!]?(?:,?\sand(?=\s))?(?:,?\s)?(?P<following>)"
    article = r"(?:(?:an?|the|your|this)\s)?(?:\w{1,20}\s){0,2}?"
    drops = [
        # "I am Qwen, created by …", "My name is …", "I'm an AI assistant and …"
        rf"{_START}(?:I\sam|I['\u2019]m|my\sname\sis|call\sme|you\sare\stalking\sto)\s{article}(?:{anybody}|{_MACHINE})"
        rf"{_END}{rest}",
        rf"{_START}(?:I\swas|I\sam|I['\u2019]m|I['\u2019]ve\sbeen|I\shave\sbeen){_BY_WHOM}[.!]?\s?",
        rf"{_START}my\s(?:role|assignment)(?:\shere|\son\sthis\sjury)?\s(?:is|was){_END}[^.!?\n]{{0,200}}[.!?]?\s?",
        # "As an AI language model, …", "Speaking as the edge case finder, …", "In my role as …, …"
        rf"{_SENTENCE}(?:\w{{4,10}}ing\s)?as\s{article}(?:{anybody}|{_MACHINE}){_END}(?:\shere|\son\sthis\sjury)?,\s?"
        r"(?P<following>)",
        rf"{_START}(?:in|from)\smy\s(?:role|capacity|position|function)\s(?:as|of)\s{article}{anybody}{_END},?\s?"
        r"(?P<following>)",
        # labels before it and signatures below it
        rf"^{_MARKUP}(?:role|model|juror|author|name|(?:written|answered)\sby)[*_]{{0,3}}\s?:[*_]{{0,3}}\s?(?:the\s)?"
        rf"{anybody}{_END}[^\n]{{0,40}}$",
        rf"^{_MARKUP}(?:the\s)?(?:{labelled}|{role}){_END}(?:['\u2019]s\s(?:answer|view|reply))?[*_]{{0,3}}\s?"
        r":[*_]{0,3}[ \t]?",
        rf"^[ \t]{{0,8}}(?:--|[\u2013\u2014~])\s?(?:the\s|your\s)?{anybody}{_END}[^\n]{{0,20}}$",
        rf"^{_MARKUP}{heading}[*_]{{0,3}}\s?(?::[*_]{{0,3}}[ \t]?|$)",
    ]
    return [re.compile(drop, re.IGNORECASE | re.MULTILINE) for drop in drops]


def _without(pattern: re.Pattern[str], text: str) -> str:
    """A text without what matches; the letter behind it begins a sentence if what was dropped did."""
    kept, end, begins = "", 0, False
    for dropped in [*pattern.finditer(text), None]:
        piece = text[end : dropped.start() if dropped else len(text)]
        kept += piece[:1].upper() + piece[1:] if begins else piece
        begins = begins and not piece
        if dropped is not None and "following" in pattern.groupindex:
            before = kept.rstrip()
            begins = not before or before[-1] in ".!?:\n"
            if before and kept == before and dropped[0][0].isspace():
                kept += " "
        end = dropped.end() if dropped else end
    return kept


def _parts(model: str) -> Iterable[str]:
    """The parts of a model string by which a model may call itself: its last part, and that part's beginning."""
    last = model.rstrip("/").rsplit("/", 1)[-1]
    yield last
    name = re.sub(r"\.(?:gguf|safetensors|bin)\Z", "", last, flags=re.IGNORECASE)
    yield name
    beginning = re.split(r"[-_:@]", name, maxsplit=1)[0]
    if re.search(r"\d", beginning) and len(_CHUNK.findall(beginning)[0]) >= _LEAST_FAMILY:
        yield beginning  # "Qwen2.5", "SmolLM2"


def _families(model: str) -> list[str]:
    """Words of a model's name that are no kind or size of model, as patterns: "Llama", "Qwen"."""
    last = model.rstrip("/").rsplit("/", 1)[-1]
    words = [chunk for chunk in _CHUNK.findall(last) if chunk.isalpha() and len(chunk) >= _LEAST_FAMILY]
    return [re.escape(word) for word in dict.fromkeys(words) if word.casefold() not in _KINDS]


def _is_name(text: str) -> bool:
    """Whether a name says anything: not a single character, and not a mere number."""
    return sum(c.isalnum() for c in text) > 1 and any(c.isalpha() for c in text)


def _spelt(name: str) -> str:
    """A pattern of a name in its spellings: any or no separator between its parts, "GPT-4o", "gpt 4o", "gpt4o"."""
    pattern, end = "", 0
    for chunk in _CHUNK.finditer(name):
        seam = _APART if pattern and (chunk.start() > end or _is_long(name, chunk.start())) else ""
        pattern += seam + re.escape(chunk[0])
        end = chunk.end()
    return pattern or re.escape(name)


def _is_long(name: str, at: int) -> bool:
    """Whether the word that ends at a place is long enough to be told from a number behind it by itself."""
    before = re.search(r"[^\W\d_]+\Z", name[:at])
    return before is not None and len(before[0]) >= _LEAST_FAMILY


def _any_of(patterns: Iterable[str]) -> str:
    """One pattern of several, the longest first; one that never matches if there are none."""
    return f"(?:{'|'.join(sorted(dict.fromkeys(patterns), key=lambda p: (-len(p), p))) or _NOTHING})"


def _whole(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"{_START}{pattern}{_END}", re.IGNORECASE)


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
        who = f" by {quote_line(names[juror], 160)}" if names is not None and juror in names else ""
        chosen = None if choices is None else choices.get(juror)
        what = "" if chosen is None else f", which comes to {quote_line(chosen, 160)}"
        lines += [f"Answer {letter}{who}{what}:", quote_lines(texts[juror], most_chars)]
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
        return option_letter(self.order[place]) if place is not None and place < len(self.order) else None

    def to_shown(self, letter: str) -> str | None:
        """The letter under which an option is shown, from the question's letter; None if there is no such one."""
        place = _index(letter)
        return option_letter(self.order.index(place)) if place is not None and place < len(self.order) else None

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
        letter = option_letter(target)
        pieces += [text[end:start], letter if text[start].isupper() else letter.lower()]
        end = start + 1
    return "".join([*pieces, text[end:]])


def _letters_in(text: str, question: Question) -> set[int]:
    """Where in a text letters of options stand."""
    last = option_letter(len(question.choices) - 1)
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
