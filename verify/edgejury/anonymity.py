"""`Scrubber`: takes out of a text what tells who wrote it, before anybody else on the jury reads it.

Taken out are the names of the roster (model strings and their parts, jurors' ids, roles and their other names), clauses
in which a model speaks of itself, labels and signatures with such a name, and the headings that only one role is told
to write. What the question itself names stays: it tells of nobody. The family of a model ("Llama") may be an everyday
word and is taken out only where it is used as the name of a model.

Source: our own rules; that jurors' answers are to be anonymous is Kumar, "EdgeJury" (2025, arXiv:2601.00850).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ...core.question import Question
from ...reasoning.brains.quoting import visible
from ...reasoning.reading import read
from .roles import Role

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
        shown = visible(read(text).text)
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
