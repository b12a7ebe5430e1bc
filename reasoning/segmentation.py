r"""Where sentences end, and what a sentence adds to the question it answers.

Cutting a chain of reasoning into steps, and stopping a model at the end of one.

A step begins after a blank line, at a heading, at "Step 3:" and at a numbered item ("3. …", "3) …"). A text with none
of these is cut into its sentences. Nothing is lost: the steps, joined, are the text.

What two steps have in common: their normal form, and the part of a reply that a model says again.

Whether a text that is still being written stands inside something that must not be cut.

Fenced code, and displayed formulas: `\[ … \]`, `$$ … $$`, `\begin{…} … \end{…}`. `steps.split_steps` answers the same
for a text that is whole, where it knows which of these close; here the end is still to come.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_END = re.compile(r"[.!?]+[\"'”’)\]*_]*(?=\s|$)|[。！？]+|\n")  # noqa: RUF001 (ideographic full stops)
# fmt: off
_ABBREVIATIONS = frozenset([
    "dr", "mr", "mrs", "ms", "prof", "st", "jr", "sr", "mt", "ft", "gen", "col", "lt", "sgt", "rev", "hon", "no",
    "nr", "vol", "fig", "eq", "approx", "ca", "cf", "vs", "etc", "dept", "univ", "inc", "ltd", "co", "e.g", "i.e",
    "a.m", "p.m", "u.s", "u.k", "d.c", "b.c", "a.d", "ph.d",
])
# fmt: on
# After a lone capital letter and a point, these words begin a sentence ("… vitamin C. It is …"), others go on with a
# name ("J. K. Rowling").
# fmt: off
_STARTERS = frozenset([
    "the", "this", "that", "these", "those", "it", "he", "she", "they", "we", "you", "i", "so", "thus", "hence",
    "therefore", "because", "since", "as", "in", "on", "at", "by", "for", "from", "to", "a", "an", "and", "but", "or",
    "if", "when", "while", "however", "then", "option", "answer", "choice", "all", "both", "each", "there", "here",
    "note", "let", "with", "is", "are", "explanation", "question",
])
# fmt: on
_LAST_WORD = re.compile(r"[^\s(\[\"'*]{1,12}$")
_NEXT_WORD = re.compile(r"\s*([^\W\d_]+)")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Spans of the sentences, in order, without the blanks around them; a line's end is a sentence's end.

    A point within a number, after an initial ("J. K. Rowling") or after a common abbreviation ends nothing. Linear.
    """
    stop = len(text) if end is None else end
    begin = start
    for match in _END.finditer(text, start, stop):
        if match[0] == "." and _goes_on(text, match.start(), match.end(), stop):
            continue
        yield from _stripped(text, begin, match.end())
        begin = match.end()
    yield from _stripped(text, begin, stop)


def sentence_end(text: str, start: int, end: int) -> int:
    """Where the sentence that begins at `start` ends, its full stop included."""
    for match in _END.finditer(text, start, end):
        if match[0] == "." and _goes_on(text, match.start(), match.end(), end):
            continue
        return match.end()
    return end


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    if left < right:
        yield start + left, start + right


def _goes_on(text: str, point: int, after: int, end: int) -> bool:
    """Whether the point at `point` belongs to an abbreviation or an initial."""
    word = _LAST_WORD.search(text, max(0, point - 12), point)
    if word is None:
        return False
    following = _NEXT_WORD.match(text, after, min(end, after + 24))
    if following is None or "\n" in text[after : following.start(1)]:
        return False
    if word[0].lower() in _ABBREVIATIONS:
        return True
    initial = len(word[0]) == 1 and word[0].isupper() and word[0] != "I"
    dotted = re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word[0]) is not None
    return (initial or dotted) and following[1].lower() not in _STARTERS


_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")  # noqa: RUF001 (typographic apostrophe)
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
    r"|;|\s\(|\s(?:because|since|although|which|who)\b|\s[–—-]\s|,?\s(?:not|rather than|instead of)\b"  # noqa: RUF001 (dashes)
    r"|\s(?:in|around|during)\s(?:the\s)?(?:early|late|mid|year|[0-9]{1,2}th|[0-9]{3,4})\b)"
)
_LEAD = re.compile(
    r"(?:(?:[^\W\d_]+\s+)?by\s+|(?:(?:located|found|situated|called|named)\s+)?(?:(?:in|on|at)\s+)?(?:the year\s+)?)",
    re.IGNORECASE,
)
_VERB_LEAD = re.compile(r"[^\W\d_]+\s+(?:in|on|at|by)\s+", re.IGNORECASE)
_PRONOUNS = frozenset({"it", "that", "this"})
_MAX_ADDED_WORDS = 4  # words of its own that a sentence may put between the question's ("in our solar system")
_MAX_NEW_WORDS = 8  # longest answer read in front of the repeated question


def clause_end(text: str, start: int, end: int) -> int:
    """Where the first clause ends: before ", which is …", " because …", " (…", ", not …"."""
    clause = _CLAUSE.search(text, start, end)
    return clause.start() if clause and clause.start() > start else end


@dataclass(frozen=True, slots=True)
class Addition:
    """What a sentence adds to the question.

    Attributes:
        start: First character, within the sentence.
        end: One past the last.
        repeated: Share of the question's own words that the sentence repeats, in [0, 1]; 0 where a pronoun stands for
            them.
    """

    start: int
    end: int
    repeated: float


def addition(sentence: str, question: str) -> Addition | None:
    """What a sentence says beyond the question; of "The capital of France is Paris." that is "Paris".

    Two shapes are read, by words alone. *Question first*: the sentence repeats the question's words up to a form of
    "to be" or up to the first new word, and what follows is new (a leading "written by" or "located in" and trailing
    clauses are dropped). *Question last*: the sentence ends by repeating the question ("Paris is the capital of
    France."), and what stands before is new. A sentence that repeats fewer than half of the question's own words is
    neither; a pronoun may stand for all of them ("It is Paris.").

    Args:
        sentence: One sentence.
        question: The question's text.

    Returns:
        What is new; None if the sentence does not repeat the question or adds nothing to it.
    """
    asked = {w.lower() for w in _WORD.findall(question[:4000])} - _FUNCTION_WORDS - _QUESTION_WORDS
    words = list(_WORD.finditer(sentence[:4000]))
    if not asked or not words:
        return None
    return _question_first(sentence, words, asked) or _question_last(sentence, words, asked)


def _question_first(sentence: str, words: list[re.Match[str]], asked: set[str]) -> Addition | None:
    repeated: set[str] = set()
    added = 0
    first_new = len(words)
    after = 0
    for i, word in enumerate(words):
        lower = word[0].lower()
        if lower in _COPULAS:
            if 2 * len(repeated) >= len(asked) or _is_pronoun(words, i):
                after = i + 1
                break
        elif same := _repeated(lower, asked):
            repeated.add(same)
        elif lower not in _FUNCTION_WORDS:
            first_new = min(first_new, i)
            added += 1
            if added > _MAX_ADDED_WORDS:
                break
    if after == 0 and 2 * len(repeated) < len(asked):
        return None
    if after == 0:  # no "is": the question's own verb stands before what is new ("Plants absorb carbon dioxide.")
        after = first_new
        if any(_repeated(w[0].lower(), asked) for w in words[after:]):
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
    end = _trimmed_end(sentence, start, clause_end(sentence, start, len(sentence)))
    return Addition(start, end, len(repeated) / len(asked)) if start < end else None


def _question_last(sentence: str, words: list[re.Match[str]], asked: set[str]) -> Addition | None:
    repeated: set[str] = set()
    i = len(words)
    while i > 0:
        lower = words[i - 1][0].lower()
        if same := _repeated(lower, asked):
            repeated.add(same)
        elif lower not in _FUNCTION_WORDS:
            break
        i -= 1
    if i == 0 or 2 * len(repeated) < len(asked):
        return None
    start = words[0].start()
    end = min(words[i - 1].end(), _trimmed_end(sentence, start, clause_end(sentence, start, len(sentence))))
    return Addition(start, end, len(repeated) / len(asked)) if i <= _MAX_NEW_WORDS else None


def _is_pronoun(words: list[re.Match[str]], before: int) -> bool:
    """Whether a lone pronoun stands before word number `before`."""
    return before == 1 and words[0][0].lower() in _PRONOUNS


def _repeated(word: str, asked: set[str]) -> str | None:
    """The question's word that this one repeats, be it in another form ("ended" repeats "end")."""
    if word in asked:
        return word
    if len(word) < 4:
        return None
    return next((a for a in asked if len(a) >= 3 and (word.startswith(a) or (len(a) > 3 and a.startswith(word)))), None)


def _trimmed_end(sentence: str, start: int, end: int) -> int:
    while start < end and (sentence[end - 1].isspace() or sentence[end - 1] in ".,;:!?。！？*_\"”'’"):  # noqa: RUF001
        end -= 1
    return end


# A line that begins a step: "## Step 2", "**Step 2:**", "Step 2.", "2. …", "2) …", "(2) …".
_BEGIN = re.compile(
    r"^[ \t]{0,8}(?:\#{1,6}[ \t]|[*_]{0,3}step[ \t]{0,3}[0-9]{1,3}\b|[*_]{0,3}\(?[0-9]{1,3}[.)][*_]{0,3}[ \t])",
    re.MULTILINE | re.IGNORECASE,
)
_BLANK = re.compile(r"\n[ \t\r]*\n\s*")
_FENCE = re.compile(r"^[ \t]{0,8}(?:```|~~~)", re.MULTILINE)
_DISPLAY = re.compile(r"\\\[|\\\]|\$\$|\\(?:begin|end)\{")


def split_steps(text: str) -> list[str]:
    """Cut a text into steps.

    Code between fences and displayed formulas are never cut. White space belongs to the step before it, at the text's
    beginning to the first step. Linear in the text's length.

    Args:
        text: A chain of reasoning.

    Returns:
        The steps, none of them blank unless the text is; joined, they are the text. Empty for an empty text.
    """
    if not text:
        return []
    cuts = _marked_cuts(text)
    if not cuts:
        cuts = _sentence_cuts(text)
    return _pieces(text, cuts)


def step_stops() -> tuple[str, ...]:
    """Stop strings for generating a chain step by step: where `split_steps` would begin the next step.

    A blank line ends a step; models that write none begin the next step with "Step" or a heading on a new line.
    """
    return ("\n\n", "\nStep ", "\n## ", "\n### ")


def _marked_cuts(text: str) -> list[int]:
    cuts = {m.start() for m in _BEGIN.finditer(text)} | {m.end() for m in _BLANK.finditer(text)}
    return _outside(text, sorted(cuts))


def _sentence_cuts(text: str) -> list[int]:
    cuts = []
    at = 0
    while at < len(text):
        at = sentence_end(text, at, len(text))
        while at < len(text) and text[at].isspace():
            at += 1
        cuts.append(at)
    return _outside(text, cuts)


def _outside(text: str, cuts: list[int]) -> list[int]:
    """The cuts that lie in no fenced code and no displayed formula."""
    if not _FENCE.search(text) and not _DISPLAY.search(text):
        return cuts
    closed: list[tuple[int, int]] = []
    fences = [m.start() for m in _FENCE.finditer(text)]
    closed += zip(fences[0::2], fences[1::2], strict=False)
    depth = 0
    begun = 0
    dollars: int | None = None
    for mark in _DISPLAY.finditer(text):
        if mark[0] == "$$":
            if dollars is None:
                dollars = mark.start()
            else:
                closed.append((dollars, mark.end()))
                dollars = None
        elif mark[0] in ("\\[", "\\begin{"):
            begun = mark.start() if depth == 0 else begun
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0:
                closed.append((begun, mark.end()))
    closed.sort()
    kept = []
    i = 0
    covered = 0  # end of the regions that begin before the cut
    for cut in cuts:
        while i < len(closed) and closed[i][0] < cut:
            covered = max(covered, closed[i][1])
            i += 1
        if cut >= covered:
            kept.append(cut)
    return kept


def _pieces(text: str, cuts: list[int]) -> list[str]:
    pieces = []
    start = 0
    for cut in [*cuts, len(text)]:
        if text[start:cut].strip():  # a blank stretch joins what follows
            pieces.append(text[start:cut])
            start = cut
    if start < len(text):  # a blank end joins what comes before
        if pieces:
            pieces[-1] += text[start:]
        else:
            pieces.append(text[start:])
    return pieces


# "Step 3:", "**Step 3.1**", "## Step 3 -", "- 3. ", "(3) "; a bare number needs a blank behind it, so that "3.5 kg" and
# "(2)(3) = 6" stay
_LABEL = re.compile(
    r"(?:[#>*_ ]|-(?= )){0,8}(?:step ?[0-9]{1,3}(?:\.[0-9]{1,3}){0,2}\b"
    r"(?:[*_ ]{0,4}(?:[:.)]|[-\u2013\u2014](?= )))?[*_ ]{0,4}"
    r"|\(?[0-9]{1,3}[.)]{1,2}[*_]{0,3}(?: |$))",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"\s+")


def normalize_step(text: str) -> str:
    """The form by which siblings are compared: NFKC, blanks collapsed, a label such as "Step 3:" gone.

    Source: A*-decoding (Chatziveroglou 2025, arXiv:2505.13672) leaves this open; the form is ours.
    """
    form = _BLANKS.sub(" ", unicodedata.normalize("NFKC", text)).strip()
    label = _LABEL.match(form)
    return form[label.end() :] if label else form


def strip_repeated_steps(steps: Sequence[str], text: str) -> str:
    """A text without the steps that it says again before it goes on.

    A model that cannot be given the beginning of its reply is asked to go on from it, and may repeat all of it or its
    end. Blanks do not count in the comparison.

    Args:
        steps: The steps before.
        text: What the model said.

    Returns:
        What follows the longest run of last steps that the text begins with, or of first ones if that is all it says;
        the text itself if it repeats nothing.
    """
    for first in range(len(steps)):
        end = _after(steps[first:], text)
        if end is not None:
            return text[end:].lstrip()
    for last in range(len(steps) - 1, 0, -1):
        end = _after(steps[:last], text)
        if end is not None and not text[end:].strip():
            return ""
    return text


def _after(steps: Sequence[str], text: str) -> int | None:
    """Where the text stands after saying these steps; None if it does not."""
    at = 0
    for word in " ".join(steps).split():
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith(word, at):
            return None
        at += len(word)
    return at or None


FORMULA_CHARS = 2000
"""Longest formula, in characters: what opened one further back is a stray mark and not heeded any more."""

_MARK = re.compile(
    r"""
    ^[ \t]{0,8}(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})(?P<info>[^\n]*)$
    | (?P<dollars>(?<!\\)\$\$)
    | (?<!\\)\\(?P<bracket>[\[\]])
    | (?<!\\)\\(?P<environment>begin|end)\{
    """,
    re.VERBOSE | re.MULTILINE,
)


def is_inside_block(text: str) -> bool:
    """Whether a text ends inside fenced code or a displayed formula.

    Marks of formulas inside code mean nothing, and a fence inside a formula shows that the formula's mark was a stray
    one. Linear in the text's length.

    Args:
        text: The beginning of a reply, from its first character on.
    """
    fence: str | None = None
    dollars: int | None = None
    bracket: int | None = None
    environments: list[int] = []
    for mark in _MARK.finditer(text):
        if mark["fence"]:
            if fence is None:
                fence = mark["fence"]
                dollars = bracket = None
                environments.clear()
            elif mark["fence"].startswith(fence) and not mark["info"].strip():
                fence = None
        elif fence is not None:
            continue
        elif mark["dollars"]:
            stray = dollars is not None and mark.start() - dollars > FORMULA_CHARS
            dollars = mark.start() if dollars is None or stray else None
        elif mark["bracket"]:
            bracket = mark.start() if mark["bracket"] == "[" else None
        elif mark["environment"] == "begin":
            environments.append(mark.start())
        elif environments:
            environments.pop()
    begun = [at for at in (dollars, bracket, *environments) if at is not None]
    return fence is not None or any(len(text) - at <= FORMULA_CHARS for at in begun)


def find_boundary(text: str, delimiter: str, before: str = "") -> int | None:
    """Where the first delimiter begins that lies in nothing which must not be cut; None if there is none.

    Args:
        text: What is searched; blanks at its beginning are no step, so a delimiter among them does not count.
        delimiter: What ends a step.
        before: What stands before the text.
    """
    at = text.find(delimiter, len(text) - len(text.lstrip()))
    while at >= 0:
        if not is_inside_block(before + text[:at]):
            return at
        at = text.find(delimiter, at + 1)
    return None
