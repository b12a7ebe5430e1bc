"""Splitting an answer into claims by rules: one claim for each sentence, list item and table row.

No grammar is parsed: a sentence stays as it is written, with its pronouns. A short answer ("Paris", "No") is read in
the context of its question. `model_splitter` splits statements further and resolves pronouns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from string import ascii_uppercase
from typing import Literal, NamedTuple

from markdown_it import MarkdownIt

from ...core.errors import UserError
from ...core.types import Question
from ...reasoning.segmentation import sentence_spans
from ..injection import without_instructions
from ..types import Claim

MAX_SENTENCE = 1500
"""Maximum characters of a claim; a longer sentence is cut at spaces."""
MAX_QUESTION = 400
"""Maximum characters of the question in a claim."""
SHORT_WORDS = 8
"""Maximum words of an answer that is joined with its question, and of a list item that its introduction completes."""


def question_text(question: Question) -> str:
    """The text of a question with its options, from which `split_claims` takes the option that a letter stands for."""
    options = [f"{letter}) {choice}" for letter, choice in zip(ascii_uppercase, question.choices, strict=False)]
    return "\n".join([question.text, *options])


def split_claims(answer: str, question: str = "", max_claims: int = 20) -> list[Claim]:
    """Split an answer into claims that can be checked one by one.

    Questions, greetings and instructions are left out. A sentence that may be a statement is kept: an extra claim costs
    a check, a missing one hides an error.

    Args:
        answer: The answer, in plain text or Markdown. It is data: instructions in it are not followed.
        question: The question, in whose context a short answer is read.
        max_claims: Maximum number of claims; the first ones are kept.

    Returns:
        The claims in the answer's order, without duplicates; each restates `answer[start:end]`.

    Raises:
        UserError: `max_claims` is not positive.
    """
    if max_claims < 1:
        raise UserError(f"max_claims must be at least 1, got {max_claims}")
    claims: dict[str, Claim] = {}
    for claim in _claims(answer, question):
        claims.setdefault(claim.text.casefold().rstrip("."), claim)
        if len(claims) == max_claims:
            break
    return list(claims.values())


@lru_cache(maxsize=4096)
def is_worth_checking(sentence: str) -> bool:
    """Whether a sentence may state something that is true or false."""
    text = sentence.strip(" \t\n*_>#\"'\u201c\u201d")
    has_content = any(c.isalnum() for c in text)
    return has_content and not text.endswith("?") and not _TALK.match(text) and not without_instructions(text).isspace()


_MIN_INTRODUCTION_WORDS = 4
"""Shorter introductions state nothing: "Run this:"."""
_TALK = re.compile(
    # words of courtesy, alone or with a few more
    r"(?:sure|certainly|of course|absolutely|ok|okay|got it|hello|hi|hey|thanks|thank you|great question|good luck"
    r"|enjoy|you['\u2019]re welcome|here you go|done|i (?:do not|don['\u2019]t) know|not sure|unknown|it depends)\b"
    r"[\w ]{0,20}[.!,:]*$"
    # sentences without a number that begin like these
    r"|(?:(?:please )?(?:let me|feel free|do(?: not|n['\u2019]t) hesitate)|please|let['\u2019]s|i['\u2019]m sorry"
    r"|you are now an?)\b[^\d]*$"
    r"|(?:here|below)(?: is|['\u2019]s| are)\b[^.\d]{0,80}:$"
    r"|(?:i hope|hope) (?:this|that|it) helps\b|as an ai\b|in my opinion\b|personally\b",
    re.IGNORECASE,
)
_OPENER = re.compile(
    r"(?:however|moreover|furthermore|additionally|also|therefore|thus|hence|so|overall|finally|in fact|actually|sure"
    r"|certainly|of course|well|indeed|in summary|in short),\s+|(?:please )?note that\s+|step [0-9]{1,3}[:.]\s+",
    re.IGNORECASE,
)
POLARITY = re.compile(r"(?:yes|no)(?:\s*[,.:;!]+\s*|\s*$)", re.IGNORECASE)
_NO = re.compile(r"(no\.)\s+(?=[^\W\d_])", re.IGNORECASE)
"""A sentence, where `sentence_spans` reads the abbreviation of "number"."""
_MARKER = re.compile(
    r"(?:so |thus |therefore,? )?(?:the |my )?(?:final |correct )?answer(?: is)?\s?(?:is\b|:)\s*", re.IGNORECASE
)
_IT_IS = re.compile(r"(?:it|that|they|he|she)(?:['\u2019]s| is| are| was| were)\s+", re.IGNORECASE)
_LETTER = re.compile(r"\(?(?:option )?\(?([A-Z])\)?\.?", re.IGNORECASE)
_OPTION = re.compile(r"^([A-Z])\) (.+)$", re.MULTILINE)
_ASKED = re.compile(r"[^.?!\n]*\?")
_WHAT_IS = re.compile(
    r"(?:what|who) (?P<be>is|are|was|were) (?P<thing>(?:the|an?|your|his|her|its|their)\b[^?]+?|[\d(][^?a-z]*\d\)?)"
    r"(?<! of| by| in| on| at| to)(?<! for)(?<! with| from| made| used)(?<! about| named)(?<! called)\?",
    re.IGNORECASE,
)


def join_answer(question: str, answer: str) -> str:
    """A short answer as a statement: that of a question "What is the …?", else the answer after its question."""
    options = dict(_OPTION.findall(question))
    letter = _LETTER.fullmatch(answer)
    if letter is not None and letter[1].upper() in options:
        answer = options[letter[1].upper()]
    text = _OPTION.sub("", question)
    asked = " ".join((_ASKED.findall(text) or [text])[-1].split())[-MAX_QUESTION:]
    what = _WHAT_IS.fullmatch(asked)
    if what is not None and not POLARITY.match(answer):
        it_is = _IT_IS.match(answer)
        answer = answer[it_is.end() :] if it_is else answer
        thing = what["thing"]
        be = "=" if thing[0] in "(0123456789" else what["be"].lower()
        return f"{thing[:1].upper()}{thing[1:]} {be} {answer.rstrip('.!')}."
    return f"{asked} {answer}"


def _claims(answer: str, question: str) -> Iterator[Claim]:
    introduction, header = "", list[str]()
    is_first = True
    parts = list(_blocks(answer))
    for number, block in enumerate(parts):
        if block.kind == "heading":
            introduction = ""
            continue
        if block.kind in ("header", "row"):
            texts = [_plain(answer[start:end]) for start, end in block.spans]
            if block.kind == "header":
                header = texts
            elif any(texts):
                named = zip(header, texts, strict=True) if len(header) == len(texts) else (("", text) for text in texts)
                row = "; ".join(f"{name}: {text}" if name else text for name, text in named if text)
                filled = [span for span, text in zip(block.spans, texts, strict=True) if text]
                yield Claim(text=row, start=filled[0][0], end=filled[-1][1])
            continue
        if block.kind == "text":
            introduction = ""
        for start, end in _sentences(answer, *block.spans[0]):
            text = _plain(answer[start:end])
            marker = _MARKER.match(text) if is_first and question else None
            text = text[marker.end() :] if marker else text
            if not is_worth_checking(text) or (not question and POLARITY.fullmatch(text)):
                continue
            if block.kind == "text" and text.endswith(":") and end == block.spans[0][1]:
                introduction = text.rstrip(": ")
                after = parts[number + 1] if number + 1 < len(parts) else None
                is_restated = (
                    after is not None and after.kind == "item" and _is_fragment(_plain(answer[slice(*after.spans[0])]))
                )
                if is_restated or len(introduction.split()) < _MIN_INTRODUCTION_WORDS:
                    continue
            if block.kind == "item" and introduction and _is_fragment(text):
                text = f"{introduction}: {text}"
            elif is_first and question.strip() and is_short(text):
                text = join_answer(question, text)
            elif not is_short(text):
                text = _without_polarity(text)
            is_first = False
            yield Claim(text=text.rstrip(":") or text, start=start, end=end)


def _without_polarity(text: str) -> str:
    polarity = POLARITY.match(text)
    return text if polarity is None else text[polarity.end() :]


_VERB = re.compile(
    r"(?<!\\)\b(?:is|are|was|were|has|have|had|does|do|did|can|could|will|would|may|might|must|should|[a-z]{2,}ed)\b"
    r"|n['\u2019]t\b|[=<>]"
)
PRONOUN = re.compile(r"(?:it|he|she|they|this|that|these|those)\b", re.IGNORECASE)


def _is_fragment(text: str) -> bool:
    return is_short(text) and not text.endswith((".", "!", "?", ":"))


def is_short(text: str) -> bool:
    """Whether a text may need its question to be understood: it is short, and begins with a pronoun or has no verb.

    Verbs are recognised by a few forms, so a short statement may count too; the question does it no harm.
    """
    text = _without_polarity(_MARKER.sub("", text, count=1))
    return len(text.split()) <= SHORT_WORDS and (_VERB.search(text) is None or PRONOUN.match(text) is not None)


# -- blocks and sentences


class _Block(NamedTuple):
    """A part of an answer with its span, or the spans of a row's cells."""

    kind: Literal["text", "item", "heading", "header", "row"]
    spans: tuple[tuple[int, int], ...]


_MARKDOWN = MarkdownIt("commonmark").enable("table").disable(["code", "html_block", "reference", "inline"])
_BOLD_LINE = re.compile(r"\*\*[^*\n]{1,120}\*\*:?")
_LINE_END = re.compile(r"\r\n?|\n")


def _blocks(answer: str) -> Iterator[_Block]:
    """The parts of an answer in Markdown, in order, without fenced code."""
    starts = [0, *(match.end() for match in _LINE_END.finditer(answer)), len(answer) + 1]
    parents: list[str] = []
    row: list[tuple[int, int]] = []
    at = 0
    for token in _MARKDOWN.parse(answer):
        if token.nesting == 1:
            parents.append(token.type)
            if token.type == "tr_open" and token.map:
                row, at = [], starts[token.map[0]]
        elif token.nesting == -1:
            parents.pop()
            if token.type == "tr_close" and row:
                yield _Block("header" if "thead_open" in parents else "row", tuple(row))
        elif token.type == "inline" and "tr_open" in parents:
            cell = token.content.replace("|", r"\|")  # the parser removes the backslash
            found = answer.find(cell, at)
            start = found if found >= 0 else at
            at = min(len(answer), start + len(cell))
            row.append((start, at))
        elif token.type == "inline" and token.map and token.content.strip():
            lines = token.content.split("\n")
            first, last = starts[token.map[0]], starts[token.map[0] + len(lines) - 1]
            start = answer.find(lines[0].strip(), first)
            end = answer.find(lines[-1].strip(), last) + len(lines[-1].strip())
            if start < 0 or end <= start:
                start, end = first, starts[token.map[1]] - 1
            kind: Literal["text", "item", "heading"] = "text"
            is_bold = _BOLD_LINE.fullmatch(token.content) is not None
            if "heading_open" in parents or (is_bold and answer[end:].strip()):  # at the end it is no heading
                kind = "heading"
            elif "list_item_open" in parents:
                kind = "item"
            yield _Block(kind, ((start, end),))


_PROTECTED = re.compile(
    r"\$\$[^$]{1,2000}\$\$|\\\[(?s:.{1,2000}?)\\\]|`[^`\n]{1,400}`|\\\([^\n]{1,400}?\\\)|(?<![\\$\w])\$(?=[^\s$])[^$\n]{0,300}[^\s$\\]\$(?![\w$])"
    r"|[\"\u201c][^\"\u201c\u201d\n]{1,400}[\"\u201d](?=\s+[a-z])"
)
"""Code, formulas, and quotations within a sentence, in which no sentence ends."""
_SOFT_BREAK = re.compile(r"\r?\n[ \t>]*(?=[a-z(])|(?<=,)\r?\n[ \t>]*")
_QUOTE_MARK = re.compile(r"(?<=\n)[ \t]*>[ \t>]*")
_LINK = re.compile(r"!?\[([^\[\]\n]{1,300})\]\([^()\n]{0,300}\)")
_EMPHASIS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\w*])\*\*(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])\*\*",
        r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])\*(?![\w*])",
        r"(?<!\w)__?(?=[^\s_])([^_\n]{1,400}?)(?<=[^\s_])__?(?!\w)",
    )
)


def _sentences(answer: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of a block's sentences, without introductory words; long ones are cut."""
    text = _PROTECTED.sub(lambda m: "x" * len(m[0]), answer[start:end])
    text = _SOFT_BREAK.sub(lambda m: " " * len(m[0]), text)
    text = _QUOTE_MARK.sub(lambda m: " " * len(m[0]), text)
    for begin, stop in sentence_spans(text):
        opener = _OPENER.match(text, begin, stop)
        begin = opener.end() if opener else begin
        refusal = _NO.match(text, begin, stop)
        if refusal is not None:
            yield start + begin, start + refusal.end(1)
            begin = refusal.end()
        while stop - begin > MAX_SENTENCE:
            cut = text.rfind(" ", begin + 1, begin + MAX_SENTENCE)
            cut = cut if cut > 0 else begin + MAX_SENTENCE
            yield start + begin, start + cut
            begin = cut + (text[cut] == " ")
        if begin < stop:
            yield start + begin, start + stop


def _plain(text: str) -> str:
    """A part of the answer in one line, without emphasis and the addresses of links."""
    text = _LINK.sub(r"\1", _QUOTE_MARK.sub("", text))
    for pattern in _EMPHASIS:
        text = pattern.sub(r"\1", text)
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")  # replace lone surrogates
