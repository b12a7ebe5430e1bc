"""Splitting an answer into claims by rules: sentences, list items and table rows, split into single statements.

Claims restate the answer and add nothing; the names, subjects, verbs and list introductions that complete them come
from the answer or the question. A short answer ("The answer is: Paris", "No") is joined with the question. Questions,
instructions, opinions, talk about the answer itself and empty sentences are left out (`kind_of`). A sentence that may
be a statement is kept: an extra claim costs a check, a missing one hides an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ...core.errors import UserError
from ...reasoning.segmentation import sentence_spans
from ..types import Claim
from .antecedents import Antecedents, topic_of
from .clauses import Part, split_parts
from .grammar import AUXILIARIES, has_verb, subject_of
from .markdown import COVER, Block, blocks, cells, cover_markup
from .questions import (
    MarkedAnswer,
    Polarity,
    cleft_answer,
    continues_polarity,
    is_elliptic,
    join_answer,
    join_exception,
    join_polarity,
    marked_answer,
    parse_question,
    plain_answer,
    polarity_of,
    quote_answer,
)
from .verbs import BASES

Kind = Literal["statement", "fragment", "question", "instruction", "opinion", "talk", "nothing"]

# fmt: off
_COMMANDS = frozenset([
    "add", "apply", "ask", "avoid", "bake", "be", "boil", "bring", "build", "call", "check", "choose", "click",
    "close", "combine", "compare", "compute", "consider", "consult", "contact", "convert", "cook", "copy", "count",
    "cut", "divide", "do", "don't", "draw", "drink", "eat", "ensure", "enter", "explain", "explore", "fill", "find",
    "follow", "get", "give", "go", "heat", "imagine", "install", "keep", "learn", "leave", "let", "list", "look",
    "make", "measure", "mix", "move", "multiply", "never", "always", "open", "pick", "place", "please", "pour",
    "preheat", "whisk", "melt", "drain", "sprinkle", "season", "chop", "slice", "simmer", "roast", "grill", "fold",
    "press", "put", "read", "remember", "remove", "repeat", "replace", "rinse", "run", "save", "see", "select", "send",
    "serve", "set", "show", "simplify", "start", "stir", "stop", "substitute", "subtract", "take", "talk", "tell",
    "test", "think", "try", "turn", "type", "use", "verify", "visit", "wait", "wash", "watch", "wear", "write",
])
# fmt: on
_STRONG_COMMAND = re.compile(
    r"(?:please|remember to|make sure|be sure|don['\u2019]t|do not|try to|feel free|never|always)\b(?!.*\b(?:is|are"
    r"|was|were)\b)"
    r"|(?:please|remember to|make sure|be sure|feel free|don['\u2019]t|do not|try to)\b",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"(?:(?:system|important|instructions?|note|attention|warning|assistant|verifier|judge)(?: (?:to|for)[ \w]{1,30})?"
    r"\s*:\s*|if you (?:are|judge)\b[^,.]{0,60},\s*|dear [\w ]{1,30},\s*)?(?:now\s+|instead,?\s+|please\s+)?"
    r"(?:(?:ignore|disregard|forget|override|bypass|reply|respond|pretend|assume|accept|treat|declare|classify|regard)\s+"
    r"(?:the|all|any|this|that|these|those|every\w*|previous|prior|your|my|only|with|as|it|them|each|no|to|instructions?"
    r"|evidence|[\"'\u201c*]*[A-Z_]{4,}\b)"
    r"|(?:output|answer|return|print|mark|label|judge|rate|report|say|write|skip)\s+"
    r"(?:(?:the|all|any|this|that|these|those|every\w*|your|it|them|each)\b|(?:only|with|as|no)\b[^.]*\b(?-i:[A-Z]{4,})\b"
    r"|[\"'\u201c*]*(?-i:[A-Z_]{4,})\b))(?!\s+(?:is|was|are|were)\b)",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"\b(?:you|we|one|i)(?:['\u2019]d)?\s+(?:should|ought to|might want to|may want to|had better)\b"
    r"|\b(?:we|i)\s+(?:must|need to|have to)\b"
    r"|\b(?:verifier|judge|reviewer|evaluator|grader|assistant|checker)s?\s+(?:must|should|shall|has to|needs to)\b"
    r"|\bi(?:['\u2019]d|\s+would)\s+(?:recommend|suggest|advise|encourage|say)\b|\bi\s+(?:recommend|suggest|advise)\b"
    r"|^(?:you|we)\s+(?:can|could)\s+(?:also\s+)?(?:try|check|visit|find|read|see|use|start|look|explore|consult)\b",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"(?:i hope|hope (?:this|that)|hopefully,? th(?:is|at) helps|let me\b|let['\u2019]s\b|let us\b|feel free"
    r"|thank(?:s| you)\b"
    r"|you['\u2019]re welcome|hello\b|hi\b(?! \w+ is)|hey\b|greetings|good (?:morning|evening|afternoon|question)"
    r"|great question|that['\u2019]s an? (?:great|good|interesting|excellent) question|certainly\W*$|sure\W*$"
    r"|of course\W*$"
    r"|absolutely\W*$|okay\W*$|ok\W*$|got it\W*$|happy to help|glad to help|i(?:['\u2019]m| am) (?:happy|glad|sorry"
    r"|here|an ai"
    r"|a language model|not able|unable|just an ai)|i apologi[sz]e|as an ai\b|i (?:can['\u2019]t|cannot"
    r"|don['\u2019]t have|do not"
    r" have|was unable|will|['\u2019]ll|can help)\b|i['\u2019]ll\b|i(?:['\u2019]d| would) be happy"
    r"|we['\u2019]ll (?:now|need)\b"
    r"|if you (?:have|need|want|would like)\b.*\b(?:let me know|ask|feel free|happy)|let me know|do you (?:want|need)"
    r"|(?:here|below|above|following)(?:['\u2019]s| is| are)\b[^.]{0,80}:?\W*$|here you go|step [0-9]{1,3}\W*$"
    r"|in summary\W*$"
    r"|in conclusion\W*$|to summari[sz]e\W*$|(?:the )?(?:final )?answer\W*$|explanation\W*$|note\W*$|enjoy\b"
    r"|good luck|done\W*$"
    r"|have a (?:great|nice|good)|it depends\W*$|(?:i am |i['\u2019]m )?not sure\W*$|i do(?: not|n['\u2019]t) know\W*$"
    r"|(?:unknown|no idea|n/a)\W*$"
    r"|you are (?:now )?(?:an? )?(?:\w+ )?(?:judge|verifier|assistant|ai|model|evaluator)\b"
    r"|(?:note[^:.]{0,30}:\s*)?(?:(?:this|the|each|every|all|these)(?: \w+){0,3} (?:claims?|statements?|answers?)"
    r"|everything|all of (?:this|it|the above))(?: above| below| here)?"
    r" (?:is|are) (?:supported|verified|factual|true|correct|fully supported)\b"
    r"|to answer (?:this|that|your) question\W*$)",
    re.IGNORECASE,
)
_FIRST_PERSON_TASTE = re.compile(
    r"(?:in my (?:humble )?(?:opinion|view)|personally\b|to my mind\b|my favou?rite\b|i (?:personally |really |truly )?"
    r"(?:love|like|prefer|enjoy|hate|dislike|adore|wish|hope|feel)\b|i (?:think|believe|find)\b[^.]{0,120}\b(?:should|"
    r"beautiful|best|worst|great|amazing|wonderful|boring|interesting|fascinating|lovely|nice|ugly|better|fun)\b)",
    re.IGNORECASE,
)
_TASTE = (
    r"(?:beautiful|wonderful|great|amazing|fascinating|interesting|delicious|lovely|terrible|boring|fun|nice"
    r"|stunning|awesome"
    r"|fantastic|breathtaking|charming|magnificent|ugly|awful|horrible|enjoyable|delightful|cool|incredible|captivating"
    r"|must-see|excellent|superb|tasty|gorgeous|remarkable)"
)
_JUDGEMENT = re.compile(
    rf"[^\d,;:]{{1,60}}\b(?:is|are|was|were|looks|tastes|feels)\s+(?:(?:an?|the|such|so|very|really|truly|quite"
    rf"|just|most|"
    rf"absolutely)\s+){{0,3}}{_TASTE}(?:\s+(?:and|,)\s+{_TASTE})?(?:\s+[a-z]+)?[.!]*$",
    re.IGNORECASE,
)
_LETTER = re.compile(rf"[^\W_]|{COVER}")
_QUESTION = re.compile(r"\?[\s\"'\u201d\u2019)*_]*$")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_QUESTION_STARTS = AUXILIARIES | {
    "what",
    "which",
    "who",
    "whom",
    "whose",
    "where",
    "when",
    "why",
    "how",
    "you",
    "and",
    "but",
    "or",
}
_TAG = re.compile(
    r",\s*(?:right|no|yes|[a-z]+n['\u2019]t\s+\w+|(?:is|are|was|were|do|does|did|has|have|can|will)\s+\w+)\W*$"
)
_MIN_LONG_CHARS = 60
_CODE_INTRODUCTION = re.compile(rf":\s*{COVER}+$")
_EXCLAMATION = re.compile(r"\W*(?:\w+\W+){0,2}\w*!+\W*$")


def kind_of(sentence: str) -> Kind:
    """The kind of a sentence; "fragment" is a statement without a verb, such as a name.

    Args:
        sentence: One sentence, in which code and formulas may be covered (`cover_markup`); its beginning counts.
    """
    text = sentence.strip().lstrip("*_>#-\u2022 \t\"'\u201c([")[:2000]
    if not _LETTER.search(text):
        return "nothing"
    if _QUESTION.search(sentence.rstrip()[-40:]) and not _is_statement_in_question_form(text):
        return "question"
    title = text.startswith("I ") and text[2:3].isupper()  # "I Feel for You is an album."
    if _TALK.match(text) and not title:
        return "talk"
    if (_FIRST_PERSON_TASTE.match(text) and not title) or _JUDGEMENT.match(text):
        return "opinion"
    if _STRONG_COMMAND.match(text) or _ORDER.match(text) or _ADVICE.search(text[:200]):
        return "instruction"
    is_statement = has_verb(text) or _has_equality(text) or (COVER in text and not _CODE_INTRODUCTION.search(text))
    first_word = _WORD.match(text)
    is_verbless = not has_verb(text) and not _has_equality(text)
    if first_word is not None and first_word[0].lower() in _COMMANDS and is_verbless:
        one_word = len(_WORD.findall(text)) == 1
        return "fragment" if one_word and not text.endswith((".", "!")) else "instruction"
    if not is_statement and _EXCLAMATION.match(text) and len(text) < 40:
        return "talk"
    return "statement" if is_statement else "fragment"


def _is_statement_in_question_form(text: str) -> bool:
    """Whether a sentence with a question mark is a statement: the mark may belong to a title at its end."""
    first_word = _WORD.match(text)
    if first_word is None or first_word[0].lower() in _QUESTION_STARTS or _TAG.search(text[-60:]):
        return False
    return subject_of(text) is not None or (len(text) > _MIN_LONG_CHARS and has_verb(text))


def is_worth_checking(sentence: str) -> bool:
    """Whether a sentence states something that can be true or false."""
    return kind_of(sentence) in ("statement", "fragment")


def _has_equality(text: str) -> bool:
    return any(sign in text for sign in "=<>\u2248\u2260\u2264\u2265")


MAX_SENTENCE = 1500
"""Maximum length of a sentence, in characters; a longer one is cut at spaces."""

MAX_QUOTED_QUESTION = 200
"""Maximum length of a question that is quoted with its answer in full, in characters."""

_OPENER = re.compile(
    r"(?:[*_]{0,2}(?:sure|yes|no|well|okay|ok|certainly|of course|absolutely|indeed|actually|in fact|however|moreover"
    r"|furthermore|additionally|also|therefore|thus|hence|so|overall|finally|first|firstly|second|secondly|third"
    r"|thirdly|then"
    r"|in addition|in summary|in conclusion|to summari[sz]e|in short|correct|right|great question)[*_]{0,2}[,!:]\s+"
    r"|(?:yes|no)\.\s+(?=[A-Z])"
    r"|step [0-9]{1,3}[*_]{0,2}[:.][*_]{0,2}\s+"
    r"|(?:(?:please )?note|(?:please )?remember|recall|keep in mind|it is worth noting|it should be noted"
    r"|it['\u2019]s worth "
    r"noting|it is important to note)[,]? that\s+|note:\s+)",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\[\]\n]{1,300})\]\([^()\n]{0,300}\)")
_BOLD = re.compile(
    r"(?<![\w*])\*\*(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])\*\*|(?<!\w)__(?=[^\s_])([^\n]{1,400}?)(?<=[^\s_])__(?!\w)"
)
_ITALIC = re.compile(
    r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])\*(?![\w*])|(?<!\w)_(?=[^\s_])([^_\n]{1,400})(?<=[^\s_])_(?!\w)"
)
_COVERED = re.compile(f"{COVER}+")
_KEPT_INDEX = re.compile(f"{COVER}([0-9]+){COVER}")
_ITEM_LABEL = re.compile(r"[^:.]{1,40}:\s")
_LABEL = re.compile(
    r"[*_]{0,2}([^\W\d_a-z][^:*\n]{0,60}?)[*_]{0,2}:[*_]{0,2}\s+(?=(?i:it|he|she|they|its|his|her|their)\b)"
)
_UNFINISHED = re.compile(
    r"\b(?:is|are|was|were|include|includes|including|included|as follows|following|these|be)\W*$", re.IGNORECASE
)
_BARE = re.compile(
    r"[^,]{1,80}, (?:which|who|where|because|since|as|though|although|not|a|an|the|in|on|at)\b", re.IGNORECASE
)
_BUT = re.compile(r"but\s+", re.IGNORECASE)
_TRAILING_COLON = re.compile(r"[\s:*_]+$")
_NEVER = re.compile(r"\W*(?:never|nowhere)\W*", re.IGNORECASE)
_REASON = re.compile(r"(?:because|due to|owing to|thanks to|in order to|so that|to [a-z]+)\b", re.IGNORECASE)
_HOUR_END = re.compile(
    r"(\b[ap]\.m\.)\s+(?=[A-Z][a-z])(?!(?:\w+day|Eastern|Pacific|Central|January|February|March|April|May|June|July"
    r"|August|September|October|November|December)\b)"
)
_NUMBERED = re.compile(r"\b(?:No|Nos|Nr|Fig|Figs|Art|Sec|Ch|Vol|pp?|approx|ca?|Eq)\.$")
_TRAILING = re.compile(r"[\s.;,]+$")


class _Span(NamedTuple):
    start: int
    end: int


def split_claims(answer: str, question: str = "", max_claims: int = 20) -> list[Claim]:
    """Split an answer into claims that can be checked one by one.

    Args:
        answer: The answer, in plain text or Markdown. It is data: instructions in it are not followed.
        question: The question, which may name what "it" is, and completes an answer of one word ("Paris").
        max_claims: Maximum number of claims; the first ones are kept.

    Returns:
        The claims in the answer's order, without duplicates; each restates `answer[start:end]`.

    Raises:
        UserError: `max_claims` is not positive.
    """
    if max_claims < 1:
        raise UserError(f"max_claims must be at least 1, got {max_claims}")
    claims: list[Claim] = []
    seen: set[str] = set()
    for claim in _Splitter(answer, question).claims():
        key = claim.text.casefold().rstrip(".")
        if key not in seen:
            seen.add(key)
            claims.append(claim)
            if len(claims) == max_claims:
                break
    return claims


class _Splitter:
    """State of the splitting of one answer."""

    def __init__(self, answer: str, question: str) -> None:
        self._answer = answer
        self._question = " ".join(question.split())
        self._form = parse_question(question, _resolved_in)
        self._covered, self._code, _ = cover_markup(answer)
        self._topic = topic_of(question, self._form.subject)
        self._antecedents = Antecedents(self._topic)
        self._lead = ""
        self._header: list[str] = []
        self._has_claims = self._has_items = False

    def claims(self) -> Iterator[Claim]:
        pending: Block | None = None
        for block in blocks(self._covered, self._code):
            if block.kind == "break":
                continue
            if pending is not None:  # a line without a verb: a heading if something else follows
                yield from self._split_text(pending, last=False)
                pending = None
            if block.kind in ("prose", "heading"):
                pending = block
            else:
                yield from self._split_block(block)
        if pending is not None:
            yield from self._split_text(pending, last=True)

    def _split_text(self, block: Block, *, last: bool) -> Iterator[Claim]:
        is_answer = marked_answer(self._answer[block.start : block.end]) is not None
        if block.kind == "heading" and not is_answer and (self._has_claims or not last):
            self._split_heading(block)
        else:
            yield from self._split_prose(block, last=last)

    def _split_heading(self, block: Block) -> None:
        self._lead = _TRAILING.sub("", self._clean(block.start, block.end)).rstrip(":").strip()
        if kind_of(self._lead) == "instruction":
            self._lead = ""

    def _split_block(self, block: Block) -> Iterator[Claim]:
        if block.kind == "header":
            self._header = [self._clean(*cell) for cell in self._cells(block)]
        elif block.kind == "row":
            yield from self._split_row(block)
        elif block.kind == "item":
            yield from self._split_item(block)

    # -- Rows and items

    def _cells(self, block: Block) -> list[tuple[int, int]]:
        return cells(self._covered[block.start : block.end], block.start)

    def _split_row(self, block: Block) -> Iterator[Claim]:
        spans = self._cells(block)
        texts = [self._clean(*span) for span in spans]
        if len(self._header) == len(texts):
            texts = [f"{n}: {text}" if n and text else text for n, text in zip(self._header, texts, strict=True)]
        filled = [span for span in spans if span[0] < span[1]]
        if any(any(c.isalnum() for c in text) for text in texts):
            yield Claim(text="; ".join(filter(None, texts)), start=filled[0][0], end=filled[-1][1])

    def _split_item(self, block: Block) -> Iterator[Claim]:
        label = _LABEL.match(self._covered, block.start, min(block.end, block.start + 80))
        for start, end in self._sentences(block):
            marked = marked_answer(self._answer[start:end])
            kind = kind_of(self._covered[start:end])
            if marked is not None and self._question:
                yield from self._split_marked(_Span(start, end), marked)
            elif kind == "fragment":
                yield self._item(_Span(start, end))
            elif kind == "statement":
                yield from self._split_sentence(_Span(start, end))
            if label is not None:  # "Mercury: it is the smallest planet. It has no moons."
                self._antecedents.call(" ".join(label[1].split()))
        self._has_claims = True

    def _item(self, span: _Span) -> Claim:
        """Claim of a list item without a verb: the list's introduction, or the question, completes it."""
        text = self._clean(*span)
        is_labelled = _ITEM_LABEL.match(text) is not None
        introduction = self._lead or (self._topic if is_labelled else "")
        if introduction or is_labelled:
            claim = f"{introduction[:1].upper()}{introduction[1:]}: {text}" if introduction else text
            return Claim(text=claim, start=span.start, end=span.end)
        joined = join_answer(self._form.for_one_of_several(), text) if not self._has_claims or self._has_items else None
        self._has_items = self._has_items or joined is not None
        return Claim(text=joined or text, start=span.start, end=span.end)

    # -- Prose

    def _split_prose(self, block: Block, *, last: bool) -> Iterator[Claim]:
        self._lead, self._header = "", []
        sentences = list(self._sentences(block))
        for i, (start, end) in enumerate(sentences):
            span = _Span(start, end)
            covered = self._covered[start:end]
            if not self._has_claims and self._form.yes:
                polarity = polarity_of(covered)
                if polarity is not None:
                    yield from self._split_polarity(span, polarity)
                    continue
            marked = marked_answer(self._answer[start:end])
            if marked is not None and self._question:
                yield from self._split_marked(span, marked)
                continue
            cleft = cleft_answer(self._form, self._clean(start, end)) if not self._has_claims else None
            text = join_answer(self._form, cleft) if cleft else None
            if text is not None:
                yield self._joined(text, span)
                continue
            kind = kind_of(covered)
            ends_block = i == len(sentences) - 1
            if ends_block and covered.rstrip("*_ ").endswith(":") and kind not in ("instruction", "talk", "opinion"):
                self._lead = self._clean(start, end).rstrip(": ")
                if _is_unfinished(covered):
                    continue
            if not self._has_claims and kind in ("statement", "instruction") and self._is_short_answer(covered):
                text = join_answer(self._form, self._clean(start, end))
                if text is not None:
                    yield self._joined(text, span)
                    continue
            if kind == "fragment":
                yield from self._split_fragment(start, end, is_only_sentence=len(sentences) == 1, last=last)
            elif kind == "statement":
                yield from self._split_sentence(span)

    def _is_short_answer(self, covered: str) -> bool:
        """Whether a sentence with a verb is an answer without a main clause: "Paris, which lies on the Seine"."""
        if _NEVER.fullmatch(covered) is not None:
            return self._form.slot in ("time", "place", "manner")
        if self._form.slot == "reason":
            return _REASON.match(covered) is not None
        if self._form.slot not in ("thing", "place") or _BARE.match(covered) is None:
            return False
        name = covered.split(",", 1)[0]
        return subject_of(covered) is None and not has_verb(f"x {name}") and kind_of(name) == "fragment"

    def _joined(self, text: str, span: _Span) -> Claim:
        self._has_claims = True
        self._antecedents.add(text)
        return Claim(text=text, start=span.start, end=span.end)

    def _split_polarity(self, span: _Span, polarity: Polarity) -> Iterator[Claim]:
        """Claims of "Yes, …" and "No, …": what the question asks about, and what follows if it is a statement."""
        start, end = self._trim(span.start + polarity.end, span.end)
        rest = self._clean(start, end) if start < end else ""
        if not rest or is_elliptic(rest):
            yield self._joined(join_polarity(self._form, polarity), span)
        elif continues_polarity(polarity, rest):
            yield self._joined(join_polarity(self._form, polarity, rest), span)
        else:
            but = _BUT.match(self._covered, start, end)
            start = but.end() if but else start
            first_end = self._trim(span.start, span.start + polarity.end)[1]
            yield self._joined(join_polarity(self._form, polarity), _Span(span.start, first_end))
            if kind_of(self._covered[start:end]) == "statement":
                yield from self._split_sentence(_Span(start, end))
            elif kind_of(self._covered[start:end]) == "fragment":
                yield Claim(text=join_exception(self._form, rest) or rest, start=start, end=end)

    def _split_marked(self, span: _Span, marked: MarkedAnswer) -> Iterator[Claim]:
        """Claim of an announced answer: "The answer is: Paris"."""
        text = self._clean(span.start + marked.start, span.end)
        joined = join_answer(self._form, text)
        if joined is not None and marked.hedge:
            joined = join_answer(self._form, marked.hedge + plain_answer(text)) or joined
        if joined is None and has_verb(text) and subject_of(text) is not None:
            yield from self._split_sentence(_Span(span.start + marked.start, span.end))
        else:
            yield self._joined(joined or quote_answer(self._asked(), text), span)

    def _asked(self) -> str:
        """The question, or only its last sentence if it is long."""
        return self._question if len(self._question) <= MAX_QUOTED_QUESTION else self._form.asked[:400]

    def _split_fragment(self, start: int, end: int, *, is_only_sentence: bool, last: bool) -> Iterator[Claim]:
        """Claim of a fragment without a verb: the question completes a short answer; a separate line is a heading."""
        text = self._clean(start, end)
        is_first = not self._has_claims and bool(self._question) and len(text) <= 200
        unmarked = text.rstrip("*_")
        is_heading = is_only_sentence and not last and not unmarked.endswith((".", "!")) and ": " not in unmarked
        joined = join_answer(self._form, text) if is_first else None
        if is_heading and joined is not None and self._is_repeated_later(text, end):
            is_heading = False
        if unmarked.endswith(":") or is_heading:
            self._lead = unmarked.rstrip(":. ")
        elif is_first and (joined is not None or polarity_of(text) is None or not self._form.slot):
            yield self._joined(joined or quote_answer(self._asked(), text), _Span(start, end))
        elif polarity_of(text) is None:
            self._has_claims = True
            yield Claim(text=text, start=start, end=end)

    def _is_repeated_later(self, text: str, end: int) -> bool:
        """Whether a first line is an answer and not a heading: it is a number, or the following text is about it."""
        plain = plain_answer(text)
        if plain.casefold() in self._question.casefold():
            return False
        return any(c.isdigit() for c in plain) or plain.casefold() in self._answer[end : end + 2000].casefold()

    def _split_sentence(self, span: _Span) -> Iterator[Claim]:
        self._has_claims = True
        covered = self._covered[span.start : span.end].replace("\n", " ").replace("\r", " ")
        before = ""
        for part in split_parts(covered):
            start, end = self._trim(span.start + part.start, span.start + part.end)
            if start >= end:
                continue
            text = self._part_text(span, part, start, end, before)
            self._antecedents.add(text)
            if part.subject is None:
                before = text
            if text.endswith(":"):
                text = text[:-1].rstrip()
            if text:
                yield Claim(text=text, start=start, end=end)

    def _part_text(self, span: _Span, part: Part, start: int, end: int, before: str) -> str:
        """A clause with its subject and verb, and with names in place of pronouns."""
        if part.subject is None:
            return self._antecedents.resolved(self._clean(start, end))
        text = self._clean(start if part.text is None else span.start + part.text, end)
        subject = self._clean(span.start + part.subject[0], span.start + part.subject[1])
        if part.shared:
            subject = self._repeated_subject(subject, before)
            return " ".join(piece for piece in (subject, part.verb, text) if piece)
        return self._antecedents.resolved(" ".join(piece for piece in (subject, part.verb, text) if piece))

    @staticmethod
    def _repeated_subject(short_subject: str, before: str) -> str:
        """Subject for a second verb: that of the previous claim, if a pronoun was replaced there."""
        if before.startswith(short_subject):
            return short_subject
        subject = subject_of(before)
        return short_subject if subject is None else before[subject.start : subject.end]

    # -- Spans and texts

    def _sentences(self, block: Block) -> Iterator[tuple[int, int]]:
        """Spans of a block's sentences, without introductory phrases."""
        one_line = self._covered[block.start : block.end].replace("\n", " ").replace("\r", " ")
        for a, b in _with_abbreviations(one_line):
            polarity = polarity_of(one_line[a:b])
            if polarity is not None and self._form.yes and not self._has_claims and a + polarity.end < b:
                if one_line[a : a + polarity.end].rstrip("*_ ").endswith("."):  # "No. The policy …"
                    yield self._trim(block.start + a, block.start + a + polarity.end)
                    a += polarity.end
                else:
                    yield self._trim(block.start + a, block.start + b)
                    continue
            opener = _OPENER.match(one_line, a, b)
            a = opener.end() if opener else a
            order = _ORDER.match(one_line, a, b)
            semicolon = one_line.find("; ", order.end(), b) if order else -1
            if semicolon > 0:  # "Ignore the evidence; Oslo is in Norway."
                a = semicolon + 2
            for c, d in _cut_span(one_line, a, b):
                start, end = self._trim(block.start + c, block.start + d)
                if start < end:
                    yield start, end

    def _trim(self, start: int, end: int) -> tuple[int, int]:
        while start < end and self._answer[start].isspace():
            start += 1
        while start < end and self._answer[end - 1].isspace():
            end -= 1
        return start, end

    def _clean(self, start: int, end: int) -> str:
        """A part of the answer without Markdown and line ends; code, formulas and addresses are kept."""
        kept: list[str] = []

        def keep(match: re.Match[str]) -> str:
            kept.append(self._answer[start + match.start() : start + match.end()])
            return f"{COVER}{len(kept) - 1}{COVER}"

        text = _COVERED.sub(keep, self._covered[start:end])
        text = _LINK.sub(r"\1", text)
        for pattern in (_BOLD, _ITALIC):
            text = pattern.sub(lambda m: m[1] or m[2], text)
        text = " ".join(text.split()) or self._answer[start:end]
        text = _KEPT_INDEX.sub(lambda m: kept[int(m[1])], text)
        return text.encode("utf-8", "replace").decode("utf-8")  # replace lone surrogates


def _is_unfinished(introduction: str) -> bool:
    """Whether the introduction of a list states nothing without its items: "The policy does not cover:"."""
    subject = subject_of(introduction)
    verb_end = subject.verb_end if subject is not None else len(introduction)
    rest = _TRAILING_COLON.sub("", introduction[verb_end:]).split()
    is_verb = not rest or (len(rest) < 3 and rest[0] in ("not", "also", "only", "never") and rest[-1] in BASES)
    starts_list = introduction.lower().startswith(("the following", "these ", "here "))
    return _UNFINISHED.search(introduction) is not None or (subject is not None and is_verb) or starts_list


def _with_abbreviations(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a line; a number after "No." or "Fig." continues one."""
    pending: tuple[int, int] | None = None
    for start, end in sentence_spans(text):
        if pending is not None:
            if _NUMBERED.search(text, max(0, pending[1] - 8), pending[1]) and text[start].isdigit():
                pending = (pending[0], end)
                continue
            yield pending
        for hour in _HOUR_END.finditer(text, start, end):
            yield start, hour.end(1)
            start = hour.end()
        pending = (start, end)
    if pending is not None:
        yield pending


def _resolved_in(context: Sequence[str], pronoun: str) -> str:
    """The name to which a pronoun of the question refers, from the sentences before it; else the pronoun."""
    antecedents = Antecedents()
    for text in context:
        antecedents.add(antecedents.resolved(text))
    return antecedents.resolved(f"{pronoun.capitalize()} is so.").removesuffix(" is so.")


def _cut_span(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A span, split at spaces if possible into spans of at most `MAX_SENTENCE` characters."""
    while end - start > MAX_SENTENCE:
        cut = text.rfind(" ", start + MAX_SENTENCE // 2, start + MAX_SENTENCE)
        cut = cut if cut > 0 else start + MAX_SENTENCE
        yield start, cut
        start = cut
    yield start, end
