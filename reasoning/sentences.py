"""Where sentences end, and what a sentence adds to the question it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
