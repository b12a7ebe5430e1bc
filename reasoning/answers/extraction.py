r"""Extraction of the answer from a model's text.

Methods, in order of trust; the first that gives an answer of the question's kind wins, and within a method the last
occurrence:

1. "boxed": `\boxed{…}`. If the text ends inside a box, the answer itself was cut off: nothing is extracted.
2. "marker": "the answer is …", "Answer: …", "**Final answer** …", "#### …", also in a few other languages.
3. By kind, without any marker: "choice" (an option by itself on the last or first line, or the only one mentioned),
   "number" (the last one that does not repeat a term of the question), "yes_no", "math" (the last formula), "sentence"
   (what a sentence adds to the question), "text" (a short text, else its last sentence).

An option of a multiple-choice question is recognised by its letter, by its text, or by being the only one mentioned. A
letter counts only if the question has that many options. The article "A" and the pronoun "I" are no letters: without
context, they need a bracket, a full stop or the end after them.

Thoughts are ignored (`normalization.visible_text`). The methods of number 3 search only the last `TAIL_CHARS`
characters. A statement that the answer is unknown ("I do not know") is no answer. Extraction is linear in the text's
length: every pattern is bounded, and each method tries only its last occurrences.
"""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ...core.messages import Completion
from ...core.types import Candidate, Question, Step
from ..segmentation import sentence_end, sentence_spans, split_steps
from .calls import normalized_calls
from .normalization import MAX_ANSWER_CHARS, Numeral, closing_brace, find_numerals, parse_numeral, unwrap, visible_text

# ruff: noqa: RUF001 (typographic signs of numbers are meant)

ResolvedKind = Literal["choice", "number", "math", "yes_no", "code", "text"]

_LATEX = re.compile(
    r"\\(?:[dt]?frac|sqrt|sum|int|left|begin|cdot|times|pi|theta|log|sin|cos|tan|mathbb|boxed)\b|\$[^$\n]{1,400}\$"
)
_SYMBOLIC = re.compile(
    r"\b(?:simplify|factor|expand|solve for|differentiate|integrate|derivative|polynomial|express)\b", re.I
)
_POLAR = re.compile(
    r"(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might|must|am|isn't|aren't|doesn't"
    r"|true or false|yes or no)\b",
    re.I,
)
_COUNT = re.compile(
    r"\bhow (?:many|much|old|far|tall|long|fast|big|heavy|wide|deep|high|large)\b|\bwhat (?:percent|number|fraction)"
    r"|\bwhat is the (?:total|sum|product|difference|average|mean|median|probability|area|volume|perimeter|value|cost"
    r"|price|speed|distance|remainder|percentage|ratio|profit)\b|\b(?:calculate|compute|evaluate)\b",
    re.I,
)
_ARITHMETIC = re.compile(r"[0-9)]\s{0,3}(?:[-+*/×÷^]|plus|minus|times|divided by|mod)\s{0,3}[-(]{0,3}[0-9]", re.I)
_WORDY = re.compile(r"\b(?:who|whom|whose|where|why|explain|describe|name|list|translate|summari[sz]e|which)\b", re.I)
_EXPLAINED = re.compile(
    r"\b(?:why|explain|describe|discuss|show|prove|derive|justify|compare|summari[sz]e|write|tell|reason|steps?"
    r"|how (?:do|does|did|to|can|could|would|should|is|are|was|were))\b",
    re.I,
)
_PERCENT = re.compile(r"\b(?:what|how many) percent|\bpercentage\b|\b(?:as|in) (?:a )?percent", re.I)


def answer_kind(question: Question) -> ResolvedKind:
    """The kind of answer: the question's own, or for "auto" the one that options and wording suggest.

    Options make it "choice", tests "code". Else the last sentence that asks decides: LaTeX or algebra makes it "math",
    an opening auxiliary verb without an "or" makes it "yes_no", a quantity or plain arithmetic makes it "number",
    anything else is "text".
    """
    if question.kind != "auto":
        return question.kind
    if question.choices:
        return "choice"
    if question.tests:
        return "code"
    return _kind_asked_for(question.text[-4000:])


def has_value_answer(question: Question) -> bool:
    """Whether the answer is a value that says everything by itself: an option, a number, a formula or tested code.

    A question that also asks for an explanation has no such answer.
    """
    kind = answer_kind(question)
    if kind in ("number", "math"):
        return not _EXPLAINED.search(question.text[-4000:])
    return kind in ("choice", "code")


@lru_cache(256)
def _kind_asked_for(text: str) -> ResolvedKind:
    question_sentence = _question_sentence(text)
    if _LATEX.search(text) or _SYMBOLIC.search(question_sentence):
        return "math"
    if _POLAR.match(question_sentence) and not re.search(r"\bor\b(?! not\b| no\b| false\b)", question_sentence, re.I):
        return "yes_no"
    if _COUNT.search(question_sentence) or (
        _ARITHMETIC.search(question_sentence) and not _WORDY.search(question_sentence)
    ):
        return "number"
    return "text"


def asks_for_percentage(question: Question) -> bool:
    """Whether the answer's unit is percent, so that "50" and "50%" are the same."""
    return _PERCENT.search(question.text[-4000:]) is not None


def _question_sentence(text: str) -> str:
    pieces = [p.strip() for p in re.split(r"(?<=[.!?。？])\s+|\n+", text) if p.strip()]
    question_sentence = [p for p in pieces if p.endswith(("?", "？"))]
    return (question_sentence or pieces or [text])[-1]


_BRACKETED = re.compile(r"(?<![\w(\[])[(\[]\s?([A-Za-z])\s?[)\]]|\\text\{\s?\(?([A-Z])\)?\s?\}")
_NAMED = re.compile(
    r"\b(?:option|choice|letter|answer)\s{1,3}(?:is\s{1,3})?[*_(\[\"']{0,4}([A-Za-z])\b(?!')", re.IGNORECASE
)
_LEADING = re.compile(r"[\s*_`\"'#>$]{0,8}(?:\\(?:text|textbf|mathrm|mathbf)\{)?[(\[]?\s?([A-Za-z])(?![^\W_])(?!')")
_AFTER_BARE = re.compile(r"[\s*_`\"'$}]{0,8}(?:$|[).:,;\]\-–—\n]|(?:because|since|as|is|and|or|which|due|with)\b)")
_NEGATION = re.compile(
    r"(?:\bnot|n't|\bneither|\bexclude|\beliminate|\brule out|\bincorrect)\s{1,3}(?:option |choice |be )?$"
)
_ALSO = re.compile(r"[\s*)_.\]]{0,6}(?:and|or|&|/|,)\s{0,3}(?:option\s|choice\s)?[(\[*]{0,3}([A-Za-z])(?![^\W_])(?!')")
_TRAILING = re.compile(r"(?<=\s)[*_(\"']{0,3}([A-Z])[*_)\"'.!]{0,4}\s{0,8}\Z")
_LETTER_BEFORE = re.compile(r"(?<![^\W_])[A-Z][)*_.\s,/]{1,4}(?:(?:and|or|&)\s{1,2})?[*_(\"']{0,3}$")
_WORD_BREAKS = re.compile(r"[\s\-_]+")


def option_letter(index: int) -> str:
    """The letter of an option: 0 is "A"."""
    return chr(ord("A") + index)


def find_option(text: str, choices: Sequence[str]) -> tuple[str, int, int] | None:
    """The option that a short text names: a letter at its beginning, else an option's text.

    If letter and text disagree, the letter wins. Several letters ("B and C") name none.

    Returns:
        Letter, start and end of the match.
    """
    leading = _LEADING.match(text)
    if leading and _is_letter(text, leading, len(choices)):
        also = _ALSO.match(text, leading.end())
        if also and _index(also[1], len(choices)) is not None and _ends_letter(text, also):
            return None
        return leading[1].upper(), leading.start(1), leading.end(1)
    by_text = _by_text(text, choices)
    if len(by_text) == 1:
        return by_text[0]
    named = _letters(text, choices)
    return named[0] if len({letter for letter, _, _ in named}) == 1 else None


def find_sole_option(text: str, choices: Sequence[str]) -> tuple[str, int, int] | None:
    """The option that a longer text mentions when it mentions no other; the last mention."""
    mentions = _letters(text, choices) or _by_text(text, choices)
    return mentions[-1] if len({letter for letter, _, _ in mentions}) == 1 else None


def _index(letter: str, count: int) -> int | None:
    index = ord(letter.upper()) - ord("A")
    return index if 0 <= index < count else None


def _is_letter(text: str, match: re.Match[str], count: int) -> bool:
    letter = match[1]
    if _index(letter, count) is None:
        return False
    bracketed = text[match.start(1) - 1 : match.start(1)] in {"(", "["} or text[match.end(1) : match.end(1) + 1] == ")"
    if bracketed:
        return True
    if letter.islower() or letter in "AI":
        return _AFTER_BARE.match(text, match.end(1)) is not None and not text[match.end(1) :].startswith("-")
    return True


def _ends_letter(text: str, match: re.Match[str]) -> bool:
    return match[1].isupper() or text[match.end(1) : match.end(1) + 1] == ")"


def _letters(text: str, choices: Sequence[str]) -> list[tuple[str, int, int]]:
    mentions = []
    for pattern in (_BRACKETED, _NAMED, _TRAILING):
        for match in pattern.finditer(text):
            group = 1 if match[1] or pattern.groups == 1 else 2
            letter, start, end = match[group], match.start(group), match.end(group)
            denied = _NEGATION.search(text, max(0, match.start() - 24), match.start())
            if denied or _index(letter, len(choices)) is None:
                continue
            if pattern is _NAMED and (letter.islower() or letter in "AI") and not _AFTER_BARE.match(text, end):
                continue
            if pattern is _TRAILING and _LETTER_BEFORE.search(text, max(0, start - 12), start):
                continue  # "B, C" and "B or C" name none
            mentions.append((letter.upper(), start, end))
            also = _ALSO.match(text, end)
            if also and _index(also[1], len(choices)) is not None and _ends_letter(text, also):
                mentions.append((also[1].upper(), also.start(1), also.end(1)))
    return sorted(mentions, key=lambda mention: mention[1])


def _by_text(text: str, choices: Sequence[str]) -> list[tuple[str, int, int]]:
    """Options whose text appears, an option inside a longer one not counted; last mention of each."""
    number = parse_numeral(text)
    mentions: list[tuple[int, int, int]] = []
    for i, choice in enumerate(choices):
        worth = parse_numeral(choice)
        if number is not None and worth is not None:
            if number.value == worth.value:
                mentions.append((i, 0, len(text)))
            continue
        pattern = _choice_pattern(choice)
        if pattern is None:
            continue
        for match in pattern.finditer(text):
            if not _NEGATION.search(text, max(0, match.start() - 24), match.start()):
                mentions.append((i, match.start(), match.end()))
    holders = mentions[:200]  # those inside a longer one do not count
    outer = [m for m in mentions if not any(o[1] <= m[1] and m[2] <= o[2] and o[1:] != m[1:] for o in holders)]
    last = {i: (option_letter(i), start, end) for i, start, end in sorted(outer[:1000], key=lambda m: m[1])}
    return sorted(last.values(), key=lambda mention: mention[1])


MAX_CHOICE_CHARS = 1000
"""Length of an option above which it is not looked for by its text; to compile its expression takes long."""


def _choice_pattern(choice: str) -> re.Pattern[str] | None:
    if len(choice) > MAX_CHOICE_CHARS:
        return None
    parts = [re.escape(w) for w in _WORD_BREAKS.split(choice.strip().rstrip(".").strip()) if w]
    if not parts or len(parts) > 60:
        return None
    body = r"[\s\-_]{1,3}".join(parts)
    return re.compile(rf"(?<![^\W_])(?<![0-9][.,]){body}(?![^\W_])(?![.,][0-9])", re.IGNORECASE)


TAIL_CHARS = 20_000
"""Searched part of the text's end for an answer without a marker, in characters."""

_MAX_OCCURRENCES = 32  # tried per method, from the end
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s{0,3}(\{|(?=[A-Za-z0-9+-]))")
_BARE_BOX = re.compile(r"-?[0-9]+(?:\.[0-9]+)?|[A-Za-z]")
_ADVERB = (
    r"(?:definitely|probably|most likely|likely|clearly|therefore|thus|simply|just|indeed|actually|then|now|also|that"
    r"|in fact|of course|of|approximately|about|roughly|around)"
)
_MARKER = re.compile(
    r"""
    (?:
      (?<![^\W_])(?:answers?|ans|final\s(?:result|solution|value))
      (?:[*_]{0,3}\s[*_]{0,3}(?:to|for|of|here|in)\b[^\n.:?!=]{0,120}?)?
      [*_]{0,3}\s{0,3}[*_]{0,3}
      (?:
        (?:is|are|was|will\sbe|would\sbe|should\sbe|must\sbe|could\sbe|might\sbe|equals)(?![^\W_])
      | [:=] | (?<=\s)[–—-](?=\s) | (?=[(])
      )
    | ^\s{0,3}[#*_]{1,6}\s?(?:the\s)?(?:final\s)?answer[*_]{0,3}\s{0,3}$
    | \#\#\#\#(?=\s)
    | 答案(?:是|为|應該是|应该是|[:=])?
    | (?<![^\W_])(?:réponse|respuesta|resposta|risposta)
      (?:\s(?:finale?|correc?ta|corretta))?\s?(?:est|es|é|è|:)(?![^\W_])
    | (?<![^\W_])(?:antwort(?:\s?(?:ist|lautet)|:)|ответ\s?[:—-])
    )
    [\s*_:=]{0,20}
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_KIND_MARKERS: dict[ResolvedKind, re.Pattern[str]] = {
    "choice": re.compile(
        r"(?<![^\W_])(?:correct|right|best|final|my)\s(?:option|choice|letter)\b(?:\s[^\n.:?!=]{0,60}?)?"
        r"[*_]{0,3}\s{0,3}(?:is(?![^\W_])|:)[\s*_:]{0,8}",
        re.IGNORECASE,
    ),
    "math": re.compile(r"(?<![^\W_])solutions?\s(?:is|are)(?![^\W_])[\s*_:]{0,8}", re.IGNORECASE),
}
"""Markers for questions of one kind only; tried after the others."""
_SHORT_MARKER = re.compile(r"^[*_]{0,3}A[*_]{0,3}:[*_]{0,3}[ ]{1,4}", re.MULTILINE)
_ADVERBS = re.compile(rf"(?:{_ADVERB}\b,?[\s:]{{1,5}}){{1,3}}", re.IGNORECASE)
_NOT_BUT = re.compile(r"not\s(?P<wrong>[^\n]{1,120}?),?\s(?:but(?:\srather)?|it'?s|it\sis|rather)\s", re.IGNORECASE)
_NEGATED = re.compile(r"(?:not|n't)\b", re.IGNORECASE)
_NOT_TAIL = re.compile(r",?\s(?:and\s)?(?:not|rather than|instead of)\s", re.IGNORECASE)
_CLOSERS = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]", "**": "**", "`": "`", '"': '"', "“": "”", "「": "」"}
_NEXT_FORMULA = re.compile(r"\s{0,3}(?:,\s?and|,\s?or|,|and|or)\s{0,3}(?=\$|\\\()")
_FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|(?<![\\0-9])\$([^$\n]{1,2000})\$|\\\(((?:[^\\]|\\(?!\))){1,2000})\\\)"
    r"|\\\[((?:[^\\]|\\(?!\])){1,2000})\\\]"
)
_LINE_LABEL = re.compile(
    r"^[ \t]{0,8}[*_#>\-]{0,4}[ ]?(?:\(?[0-9]{1,3}[.):](?![0-9])"
    r"|(?:step|part|case|question|problem|equation|eq\.?)\s?[0-9]{1,3}\b[.:)]?)",
    re.IGNORECASE,
)
_LABEL_BEFORE = re.compile(r"\b(?:step|part|case|question|problem|equation|eq\.?|figure|line)\s?\(?$", re.IGNORECASE)
_UNITS = re.compile(
    r"\\(?:text|mathrm|textbf|mbox)\s?\{[^{}]*\}|\\(?:[dtc]?frac|times|cdot|left|right)\b|\\[$%,!;: ]"
    r"|\^\s?\{?\s?\\circ\s?\}?|\\degree"
)
_LONE_SIDE = re.compile(r"\s*(?:[A-Za-z]|\\[a-z]+|[A-Za-z](?:_\{?\w{1,4}\}?|\([A-Za-z]\)))\s*")
_TERM = re.compile(r"[0-9](?:[0-9.,]|[\s$]{0,3}(?:[*×·+/^÷−-]|\\times|\\cdot|\\div)[\s$]{0,3}(?=[0-9]))+")
_LABEL = re.compile(r"\s*\(?[0-9]{1,3}[.):]\s*")
_NO_ANSWER = re.compile(
    r"(?:(?:sorry|unfortunately),?\s(?:but\s)?)?i(?:'m|’m|\sam)?\s(?:(?:really|honestly|just)\s)?"
    r"(?:(?:do\snot|don['’]t)\sknow|not\s(?:sure|certain)|unable\sto\s(?:answer|say|tell|determine|know)"
    r"|can(?:\s?not|['’]t)\s(?:answer|say|tell|determine|know))\b",
    re.IGNORECASE,
)
"""An answer that says there is none."""
_YES_NO = re.compile(r"(?<![^\W_])(yes|no|true|false|correct|incorrect)(?![^\W_])", re.IGNORECASE)
_YES = frozenset({"yes", "true", "correct"})
_CONNECTIVE = re.compile(
    r"(?:(?:so|thus|therefore|hence|finally|in conclusion|in summary|consequently|sure|certainly|of course)\b"
    r"[,!:]?\s{1,3}){1,3}",
    re.IGNORECASE,
)
_CHATTER = re.compile(
    r"(?:let|first|sure|okay|ok|step|we|i|hello|hi|great|certainly|of course|think|well|hmm|question|to|given|wait|yes"
    r"|no)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ExtractedAnswer:
    """An answer and its position.

    Attributes:
        value: The answer: an option's letter, a plain number (`1000`, `3/4`, `50%`), "yes" or "no", or the text as
            written, without its wrappings.
        method: How it was extracted: "boxed", "marker", "choice", "number", "yes_no", "math", "sentence", "code" or
            "text".
        start: First character in the model's text.
        end: One past the last.
    """

    value: str
    method: str
    start: int
    end: int

    @property
    def is_explicit(self) -> bool:
        """Whether the text states explicitly, by a box or a marker, that this is its answer."""
        return self.method in ("boxed", "marker")


def extract_answer(text: str, question: Question) -> ExtractedAnswer | None:
    """Extract the answer from a model's text.

    Returns:
        The answer; None if there is none of the question's kind. With kind "auto" and no options, a text answer is
        taken if there is none of the guessed kind.
    """
    visible = visible_text(text)
    body = visible.text
    kind = answer_kind(question)
    if kind != "code" and _cut_in_box(body):
        return None
    answer = _find(body, question, kind)
    if answer is None and question.kind == "auto" and kind not in ("choice", "code", "text"):
        answer = _find(body, question, "text")
        if answer is not None and not answer.is_explicit and _CHATTER.match(body, answer.start):
            answer = None  # the beginning of a solution
    if answer is None or (kind != "code" and _NO_ANSWER.match(body, answer.start)):
        return None
    start, end = visible.span(answer.start, answer.end)
    return ExtractedAnswer(answer.value, answer.method, start, end)


def _find(text: str, question: Question, kind: ResolvedKind) -> ExtractedAnswer | None:
    if kind == "code":
        span = find_code(text, [test.code for test in question.tests] or _EXAMPLE.findall(question.text))
        return None if span is None else ExtractedAnswer(text[slice(*span)].strip("\n"), "code", *span)
    for method, spans in (("boxed", _boxes(text)), ("marker", _marked(text, kind))):
        for start, end in spans:
            answer = _as_kind(text, start, end, question, kind, method)
            if answer is not None:
                return answer
    start = max(0, len(text) - TAIL_CHARS)
    match kind:
        case "choice":
            return _unmarked_option(text, start, question)
        case "number":
            return _last_number(text, start, question)
        case "yes_no":
            return _unmarked_yes_no(text, start)
        case "math":
            return _last_formula(text, start) or _last_number(text, start, question)
        case "text":
            return _unmarked_text(text, start, question)


MAX_CODE_CHARS = 100_000
"""Maximum length of code that is read."""
_FENCE = re.compile(
    r"^(?P<indent>[ ]{0,3})(?P<marks>`{3,}|~{3,})[ ]*(?P<language>[^\s`]*)[^\n`]*\n(?P<code>.*?)"
    r"(?:^[ ]{0,3}(?P=marks)[ ]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_EXAMPLE = re.compile(r"^\s*(?:>>>|\.\.\.) (.*)", re.MULTILINE)


def code_blocks(text: str) -> list[tuple[int, int]]:
    """Spans of the fenced blocks of Python code that are not empty, without the fences."""
    return [
        match.span("code")
        for match in _FENCE.finditer(text[:MAX_CODE_CHARS])
        if match["language"].lower() in ("python", "python3", "py", "") and match["code"].strip()
    ]


def find_code(text: str, tests: Sequence[str] = ()) -> tuple[int, int] | None:
    """Where the Python code of an answer is: its last fenced block that defines something, else its last one.

    A block that defines a name in the tests comes before others. A text without a block is code if Python can read it,
    and it defines something.

    Returns:
        First character and one past the last, without the fences; None if there is no code.
    """
    text = text[:MAX_CODE_CHARS]
    blocks = code_blocks(text)
    if not blocks:
        return (0, len(text)) if _defined(text) else None
    tested = {name for test in tests for name in re.findall(r"[A-Za-z_]\w*", test)}
    names = [_defined(text[start:end]) for start, end in blocks]
    for is_better in (lambda own: not own.isdisjoint(tested), bool):
        defining = [block for block, own in zip(blocks, names, strict=True) if is_better(own)]
        if defining:
            return defining[-1]
    return blocks[-1]


def parsed_code(source: str) -> ast.Module | None:
    """The syntax tree of a source; None if Python cannot read it."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defined(source: str) -> frozenset[str]:
    """Names of the functions and classes that a source defines; of a source that Python cannot read, by its lines."""
    tree = parsed_code(source)
    if tree is None:
        return frozenset(re.findall(r"^(?:async[ ]+def|def|class)[ ]+(\w+)[^\n]*:", source, re.MULTILINE))
    return frozenset(
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    )


def _cut_in_box(text: str) -> bool:
    """Whether the text ends inside a box: an unfinished one without a further line after it."""
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    box = _BOX.match(text, at) if at >= 0 else None
    if at >= 0 and box is None:
        return text[at : at + 16].strip() in ("\\boxed", "\\fbox")
    if box is None or box[1] != "{" or closing_brace(text, box.end(), box.end() + MAX_ANSWER_CHARS) is not None:
        return False
    return len(text) - box.end() <= MAX_ANSWER_CHARS and "\n" not in text[box.end() :].strip()


def _boxes(text: str) -> Iterator[tuple[int, int]]:
    """Contents of the boxes, last first; of nested ones the inner first."""
    for box in reversed(deque(_BOX.finditer(text), maxlen=_MAX_OCCURRENCES)):
        if box[1]:
            end = closing_brace(text, box.end(), box.end() + MAX_ANSWER_CHARS)
            if end is not None:
                yield box.end(), end
        elif bare := _BARE_BOX.match(text, box.end()):
            yield bare.span()


def _marked(text: str, kind: ResolvedKind) -> Iterator[tuple[int, int]]:
    """Spans after the markers, last first."""
    ends = deque((m.end() for m in _MARKER.finditer(text)), maxlen=_MAX_OCCURRENCES)
    yield from (span for end in reversed(ends) for span in _after_marker(text, end, kind))
    patterns = [_KIND_MARKERS[kind]] if kind in _KIND_MARKERS else []
    if kind != "choice":  # "A: 42" among options would be the first option
        patterns.append(_SHORT_MARKER)
    for pattern in patterns:
        ends = deque((m.end() for m in pattern.finditer(text)), maxlen=_MAX_OCCURRENCES)
        yield from (span for end in reversed(ends) for span in _after_marker(text, end, kind))


def _after_marker(text: str, start: int, kind: ResolvedKind) -> Iterator[tuple[int, int]]:
    end = min(len(text), start + MAX_ANSWER_CHARS)
    for opening in ("**", "*"):  # emphasis that began before the marker and closes after it
        if text.startswith(opening, start) and text[start + len(opening) : start + len(opening) + 1].isspace():
            start += len(opening)
    while start < end and text[start].isspace():
        start += 1
    if adverbs := _ADVERBS.match(text, start, end):
        start = adverbs.end()
    if but := _NOT_BUT.match(text, start, sentence_end(text, start, end)):
        start = but.end()
    elif _NEGATED.match(text, start, end):
        return
    stop = _closed(text, start, end) or sentence_end(text, start, end)
    if kind != "text" and (tail := _NOT_TAIL.search(text, start, stop)):
        stop = tail.start()
    if start < stop:
        yield start, stop


def _closed(text: str, start: int, end: int) -> int | None:
    """Where the formula, emphasis or quotation that begins at `start` closes, with formulas joined to it by "and"."""
    for opening, closing in _CLOSERS.items():
        if not text.startswith(opening, start, end):
            continue
        close = text.find(closing, start + len(opening), end)
        if close < 0 or (opening in ("$", "**", "`", '"') and "\n" in text[start:close]):
            return None
        stop = close + len(closing)
        if opening in ("$", "\\("):
            joined = _NEXT_FORMULA.match(text, stop, end)
            further = _closed(text, joined.end(), end) if joined and end - start <= MAX_ANSWER_CHARS else None
            return further or stop
        return stop
    return None


def _as_kind(
    text: str, start: int, end: int, question: Question, kind: ResolvedKind, method: str
) -> ExtractedAnswer | None:
    """The span read as an answer of the kind."""
    start, end = unwrap(text, start, end)
    if start >= end:
        return None
    match kind:
        case "choice":
            option = find_option(text[start:end], question.choices)
            return ExtractedAnswer(option[0], method, start + option[1], start + option[2]) if option else None
        case "number":
            return _number_in(text, start, end, question, method)
        case "yes_no":
            word = _YES_NO.search(text, start, end)
            return _yes_no(word, method) if word else None
        case "math":
            return _formula_in(text, start, end, method)
        case "text" | "code":
            return _text_in(text, start, end, question, method)


def _number_in(text: str, start: int, end: int, question: Question, method: str) -> ExtractedAnswer | None:
    equals = text.rfind("=", start, end)
    if equals >= 0 and text[equals - 1 : equals] not in ("<", ">", "!"):
        return _number_in(text, equals + 1, end, question, method) or _number_in(text, start, equals, question, method)
    start, end = unwrap(text, start, end)
    if start >= end:
        return None
    numeral = next(find_numerals(text, start, end), None)
    rest = _UNITS.sub("", text[start:end])
    exact = numeral is not None and numeral.start <= start and numeral.end >= end
    if not exact and method == "boxed" and re.search(r"\\[a-zA-Z]|\^|_|[A-Za-z0-9)]\s*[-+*]\s*[A-Za-z0-9(\\]", rest):
        return ExtractedAnswer(text[start:end], method, start, end)  # an expression such as 2\sqrt{3} or 3x+1
    return _numeral(numeral, question, method) if numeral else None


def _numeral(numeral: Numeral, question: Question, method: str) -> ExtractedAnswer:
    value = numeral.text.rstrip("%") if asks_for_percentage(question) else numeral.text
    return ExtractedAnswer(value, method, numeral.start, numeral.end)


def _formula_in(text: str, start: int, end: int, method: str) -> ExtractedAnswer | None:
    if method != "boxed" and "$" not in text[start : start + 1]:
        inside = deque(_FORMULA.finditer(text, start, end), maxlen=1)
        if inside and text.count("$", start, end) <= 2 and not parse_numeral(text[start:end]):
            start, end = inside[0].span()
    start, end = unwrap(text, start, end)
    return ExtractedAnswer(text[start:end], method, start, end) if start < end else None


def _text_in(text: str, start: int, end: int, question: Question, method: str) -> ExtractedAnswer | None:
    added = restatement(text[start:end], question.text)
    if added:
        start, end = start + added.start, start + added.end
        if but := _NOT_BUT.match(text, start, end):
            start = but.end()
    elif method == "marker":
        end = clause_end(text, start, end)
    start, end = unwrap(text, start, end)
    return ExtractedAnswer(text[start:end], method, start, end) if start < end else None


def _yes_no(word: re.Match[str], method: str) -> ExtractedAnswer:
    return ExtractedAnswer("yes" if word[1].lower() in _YES else "no", method, word.start(1), word.end(1))


def _unmarked_option(text: str, start: int, question: Question) -> ExtractedAnswer | None:
    lines = [span for span in _lines(text, start) if unwrap(text, *span)[0] < unwrap(text, *span)[1]]
    if not lines:
        return None
    option = _option_of_line(text, lines[-1], question)
    first = _option_of_line(text, lines[0], question)
    second = _option_of_line(text, lines[1], question) if len(lines) > 1 else None
    if option is None and (first is None or second is None or first.value == second.value):  # not a list of options
        option = first
    if option is not None:
        return option
    only = find_sole_option(text[start:], question.choices)
    return ExtractedAnswer(only[0], "choice", start + only[1], start + only[2]) if only else None


def _option_of_line(text: str, line: tuple[int, int], question: Question) -> ExtractedAnswer | None:
    a, b = unwrap(text, *line)
    lead = _CONNECTIVE.match(text, a, b)
    a = lead.end() if lead else a
    option = find_option(text[a:b], question.choices)
    return ExtractedAnswer(option[0], "choice", a + option[1], a + option[2]) if option and b - a <= 400 else None


def _last_number(text: str, start: int, question: Question) -> ExtractedAnswer | None:
    for line_start, line_end in reversed(list(_lines(text, start))):
        label = _LINE_LABEL.match(text[line_start:line_end])
        if label and text[line_start + label.end() : line_end].strip():
            line_start += label.end()
        for numeral in reversed(list(find_numerals(text, line_start, line_end))):
            if _LABEL_BEFORE.search(text, max(line_start, numeral.start - 12), numeral.start):
                continue
            if _repeats_term(text, numeral, line_start, line_end, question):
                continue
            return _numeral(numeral, question, "number")
    return None


def _repeats_term(text: str, numeral: Numeral, start: int, end: int, question: Question) -> bool:
    """Whether a number is an operand of a term of the question, which the text repeats without its value."""
    terms = (m[0] for m in _TERM.finditer(text, start, end) if m.start() < numeral.end and numeral.start < m.end())
    term = "".join(next(terms, "").split()).rstrip(".,")
    return (
        term != ""
        and not term.replace(".", "").replace(",", "").isdecimal()
        and term in "".join(question.text[:4000].split())
    )


def _unmarked_yes_no(text: str, start: int) -> ExtractedAnswer | None:
    spans = list(sentence_spans(text, start))
    for span_start, span_end in [*reversed(spans[-3:]), *spans[:1]]:
        a, b = unwrap(text, span_start, span_end)
        lead = _CONNECTIVE.match(text, a, b)
        word = _YES_NO.match(text, lead.end() if lead else a, b)
        # "No" before a noun is a determiner ("no way"), at a sentence's end or before a comma it is the answer.
        if word and (word.end() == b or not text[word.end()].isspace() or word[1].lower() != "no"):
            return _yes_no(word, "yes_no")
    matches = [w for w in _YES_NO.finditer(text, start) if w[1].lower() in ("yes", "true", "false")]
    return _yes_no(matches[-1], "yes_no") if len({w[1].lower() in _YES for w in matches}) == 1 else None


def _last_formula(text: str, start: int) -> ExtractedAnswer | None:
    last: tuple[int, int] | None = None
    joined = False
    for formula in _FORMULA.finditer(text, start):
        join = _NEXT_FORMULA.match(text, last[1]) if last else None
        joined = join is not None and join.end() == formula.start()
        last = (last[0] if joined and last else formula.start(), formula.end())
    if last is None:
        return None
    a, b = unwrap(text, *last)
    sides = text[a:b].split("=")
    if not joined and (len(sides) > 2 or (len(sides) == 2 and not _LONE_SIDE.fullmatch(sides[0]))):
        a, b = unwrap(text, text.rfind("=", a, b) + 1, b)  # "3 + 4 = 7": what it comes to
    return ExtractedAnswer(text[a:b], "math", a, b) if a < b <= a + MAX_ANSWER_CHARS else None


def _unmarked_text(text: str, start: int, question: Question) -> ExtractedAnswer | None:
    spans = list(sentence_spans(text, start))
    added = [(new, i) for i, (a, b) in enumerate(spans[-400:]) if (new := restatement(text[a:b], question.text))]
    added = [(new, i) for new, i in added if new.repeated > 0 or i == 0]
    if added:
        _, i = max(added, key=lambda pair: (pair[0].repeated, pair[1]))
        answer = _text_in(text, *spans[-400:][i], question, "sentence")
        if answer:
            return answer
    spans = [span for span in spans if not _LABEL.fullmatch(text, *span)]
    if not spans:
        return None
    first, last = spans[0], spans[-1]
    short_first = len(text[first[0] : first[1]].split()) <= 4 and not _CHATTER.match(text, first[0])
    a, b = unwrap(text, *(first if short_first else last))
    if lead := _CONNECTIVE.match(text, a, b):
        a, b = unwrap(text, lead.end(), b)
    b = min(b, a + MAX_ANSWER_CHARS)
    return ExtractedAnswer(text[a:b], "text", a, b) if a < b else None


def _lines(text: str, start: int) -> Iterator[tuple[int, int]]:
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            yield start, end
        start = end + 1


_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
# fmt: off
_FUNCTION_WORDS = frozenset([
    "the", "a", "an", "of", "in", "on", "at", "to", "for", "by", "from", "with", "and", "or", "as", "it", "its",
    "it's", "that", "this", "these", "those", "there", "here", "one", "my", "your", "our", "is", "are", "was", "were",
    "be", "been", "being", "am", "has", "have", "had", "do", "does", "did", "can", "could", "will", "would", "so",
    "thus", "hence", "therefore", "well", "sure", "yes", "called", "named", "known", "actually", "simply", "just",
])
# fmt: on
_COPULAS = frozenset(["is", "are", "was", "were", "be", "equals", "means", "becomes"])
_QUESTION_WORDS = frozenset(["what", "which", "who", "whom", "whose", "where", "when", "why", "how", "many", "much"])
_CLAUSE = re.compile(
    r"\s*(?:[,;]\s+(?:which|who|whose|where|when|and|but|because|since|as|although|while|located|known|with|the|a|an|so|at|in"
    r"|on|from|by)\b"
    r"|;|\s\(|\s(?:because|since|although|which|who)\b|\s[–—-]\s|,?\s(?:not|rather than|instead of)\b"
    r"|\s(?:in|around|during)\s(?:the\s)?(?:early|late|mid|year|[0-9]{1,2}th|[0-9]{3,4})\b)"
)
_LEAD = re.compile(
    r"(?:(?:[^\W\d_]+\s+)?by\s+|(?:(?:located|found|situated|called|named)\s+)?(?:(?:in|on|at)\s+)?(?:the year\s+)?)",
    re.IGNORECASE,
)
_VERB_LEAD = re.compile(r"[^\W\d_]+\s+(?:in|on|at|by)\s+", re.IGNORECASE)
_PRONOUNS = frozenset({"it", "that", "this"})
_MAX_ADDED_WORDS = 4  # new words between the question's words ("in our solar system")
_MAX_NEW_WORDS = 8  # longest answer before the repeated question


def clause_end(text: str, start: int, end: int) -> int:
    """Where the first clause ends: before ", which is …", " because …", " (…", ", not …"."""
    clause = _CLAUSE.search(text, start, end)
    return clause.start() if clause and clause.start() > start else end


@dataclass(frozen=True, slots=True)
class Restatement:
    """A sentence that restates the question: the span of what it adds.

    Attributes:
        start: First character, within the sentence.
        end: One past the last.
        repeated: Share of the question's content words that the sentence repeats, in [0, 1]; 0 for a pronoun.
    """

    start: int
    end: int
    repeated: float


_NEGATED_NEXT = re.compile(r"\s*(?:not\b|never\b|n['\u2019]t\b)", re.IGNORECASE)


def restatement(sentence: str, question: str) -> Restatement | None:
    """What a sentence adds to the question: "Paris" in "The capital of France is Paris".

    Two forms are recognised, by their words. *Question first*: the sentence repeats the question's words up to a form
    of "to be" or up to the first new word, and the rest is new (a leading "written by" or "located in" and trailing
    clauses are dropped). *Question last*: the sentence ends by repeating the question ("Paris is the capital of
    France."), and the beginning is new. A sentence that repeats fewer than half of the question's content words is
    neither; a pronoun may replace all of them ("It is Paris.").

    Returns:
        The new part; None if the sentence does not repeat the question or adds nothing to it.
    """
    question_words = {w.lower() for w in _WORD.findall(question[:4000])} - _FUNCTION_WORDS - _QUESTION_WORDS
    words = list(_WORD.finditer(sentence[:4000]))
    if not question_words or not words:
        return None
    found = _question_first(sentence, words, question_words) or _question_last(sentence, words, question_words)
    # without its negation the new part would state the opposite: "He did" of "He did not win"
    is_negated = found is not None and _NEGATED_NEXT.match(sentence, found.end) is not None
    return None if is_negated else found


def _question_first(sentence: str, words: list[re.Match[str]], question_words: set[str]) -> Restatement | None:
    repeated: set[str] = set()
    added = 0
    first_new = len(words)
    after = 0
    for i, word in enumerate(words):
        lower = word[0].lower()
        if lower in _COPULAS:
            if 2 * len(repeated) >= len(question_words) or (i == 1 and words[0][0].lower() in _PRONOUNS):
                after = i + 1
                break
        elif same := _repeated(lower, question_words):
            repeated.add(same)
        elif lower not in _FUNCTION_WORDS:
            first_new = min(first_new, i)
            added += 1
            if added > _MAX_ADDED_WORDS:
                break
    if after == 0 and 2 * len(repeated) < len(question_words):
        return None
    if after == 0:  # no "is": the question's own verb precedes the new part ("Plants absorb carbon dioxide.")
        after = first_new
        if any(_repeated(w[0].lower(), question_words) for w in words[after:]):
            return None
        lead = _VERB_LEAD.match(sentence, words[after].start()) if after < len(words) else None  # "sank on April 15"
    else:
        lead = None
    if after >= len(words):
        return None
    start = words[after].start()
    lead = lead or _LEAD.match(sentence, start)
    if lead and lead.end() < len(sentence):
        start = lead.end()
    end = _trim_end(sentence, start, clause_end(sentence, start, len(sentence)))
    return Restatement(start, end, len(repeated) / len(question_words)) if start < end else None


def _question_last(sentence: str, words: list[re.Match[str]], question_words: set[str]) -> Restatement | None:
    repeated: set[str] = set()
    i = len(words)
    while i > 0:
        lower = words[i - 1][0].lower()
        if same := _repeated(lower, question_words):
            repeated.add(same)
        elif lower not in _FUNCTION_WORDS:
            break
        i -= 1
    if i == 0 or 2 * len(repeated) < len(question_words):
        return None
    start = words[0].start()
    end = min(words[i - 1].end(), _trim_end(sentence, start, clause_end(sentence, start, len(sentence))))
    return Restatement(start, end, len(repeated) / len(question_words)) if i <= _MAX_NEW_WORDS else None


def _repeated(word: str, question_words: set[str]) -> str | None:
    """The question's word that this one repeats, possibly in another form ("ended" repeats "end")."""
    if word in question_words:
        return word
    if len(word) < 4:
        return None
    return next(
        (a for a in question_words if len(a) >= 3 and (word.startswith(a) or (len(a) > 3 and a.startswith(word)))), None
    )


def _trim_end(sentence: str, start: int, end: int) -> int:
    while start < end and (sentence[end - 1].isspace() or sentence[end - 1] in ".,;:!?。！？*_\"”'’"):
        end -= 1
    return end


_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n|\}|(?<!\d)[.!?]\Z")


def read_candidate(completion: Completion, question: Question, score: float | None = None) -> Candidate:
    """Parse a completion.

    The answer is read from the completion's text (`read_answer`), never from its thought.

    If a completion calls tools, its answer is the text of the calls (`normalized_calls`), which is appended as a last
    step.
    """
    if completion.tool_calls:
        return _read_tool_calls(completion, question, score)
    answer = read_answer(completion.text, question, is_cut=completion.finish_reason != "stop")
    return _candidate(
        completion,
        None if answer is None else answer.value,
        [Step(text=s) for s in split_steps(completion.text)],
        score,
    )


def read_answer(text: str, question: Question, *, is_cut: bool) -> ExtractedAnswer | None:
    """The answer of a text.

    A text that was cut has one only if a box or a marker ("the answer is …") states it, or complete code is it, within
    its complete sentences: what else comes before a cut is a step on the way, and the text right at the cut may be half
    a word or half a number.
    """
    if not is_cut:
        return extract_answer(text, question)
    answer = extract_answer(complete_sentences(text), question)
    return answer if answer is not None and (answer.is_explicit or answer.method == "code") else None


def _candidate(completion: Completion, answer: str | None, steps: Sequence[Step], score: float | None) -> Candidate:
    thought = completion.thought
    return Candidate(
        text=completion.text,
        answer=answer,
        steps=tuple(steps),
        score=score,
        logprob=completion.logprob,
        tokens=completion.usage.completion_tokens,
        thought="" if thought is None else thought.text.strip(),
        thinking_tokens=completion.usage.thinking_tokens,
        finish_reason=completion.finish_reason,
        tool_calls=completion.tool_calls,
        thought_blocks=thought.blocks if thought is not None and completion.tool_calls else (),
    )


def is_unfinished(candidate: Candidate) -> bool:
    """Whether a candidate was cut before it stated an answer: it takes part in no vote and no choice."""
    return candidate.answer is None and candidate.finish_reason != "stop"


def finished_or_all(candidates: Sequence[Candidate]) -> list[int]:
    """Positions of the candidates among which one is chosen: the finished ones, or all if none is."""
    finished = [i for i, candidate in enumerate(candidates) if not is_unfinished(candidate)]
    return finished or list(range(len(candidates)))


def text_with_calls(candidate: Candidate) -> str:
    """A candidate's text with its tool calls appended: what a judge of it reads."""
    if not candidate.tool_calls:
        return candidate.text
    return "\n\n".join(part for part in (candidate.text.strip(), candidate.answer) if part)


def _read_tool_calls(completion: Completion, question: Question, score: float | None) -> Candidate:
    calls = normalized_calls(completion.tool_calls, question.tools)
    steps = [*(Step(text=text) for text in split_steps(completion.text)), Step(text=calls)]
    return _candidate(completion, calls, steps, score)


def complete_sentences(text: str) -> str:
    """A truncated text up to the end of its last complete sentence, line or formula; empty if there is none.

    A full stop at the very end counts only if it cannot be the middle of a number.
    """
    end = max((m.end() for m in _SENTENCE_END.finditer(text)), default=0)
    return text[:end]
