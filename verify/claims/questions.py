"""Joining a short answer with its question: "What is the capital of France?" and "Paris" become one statement.

A question is parsed into a statement with a slot ("The capital of France is …"), or, if it is answered by yes or no,
into the statement and its negation. Word order and verb forms come from function words and the verbs of `verbs.py`. A
question that is not understood has no such form; its answer is quoted with it (`quote_answer`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ...core.types import Question
from ...reasoning.answers.extraction import option_letter
from ...reasoning.answers.normalization import unwrap
from ...reasoning.retrieval.words import is_negated
from ...reasoning.segmentation import sentence_spans
from .grammar import CONNECTORS, MONTHS, PRONOUNS, has_verb, is_finite, is_past
from .verbs import (
    ADVERBS,
    BASES,
    INTRANSITIVE_BASES,
    UNAMBIGUOUS_BASES,
    base_form,
    finite_phrase,
    is_participle,
    negated,
    third_person,
)

SlotKind = Literal["thing", "time", "place", "amount", "reason", "manner"]

MAX_QUESTION = 2000
"""Maximum length of a question that is parsed, in characters, counted from its end."""


@dataclass(frozen=True, slots=True)
class QuestionForm:
    """The statement that an answer to a question completes.

    Attributes:
        subject: The subject of the question, if it has one ("the bridge"); a following "it" may refer to it.
        before: The statement up to the slot.
        after: The statement after the slot.
        slot: What belongs into the slot; "" for a question that is answered by yes or no.
        noun: Noun that follows the slot unless the answer has it ("members", "long").
        yes: The statement that "yes" makes; "" for other questions.
        no: The statement that "no" makes.
        options: Options of a multiple-choice question by letter.
        asked: The sentence that asks, without the sentences before it.
    """

    subject: str = ""
    before: str = ""
    after: str = ""
    slot: SlotKind | Literal[""] = ""
    noun: str = ""
    yes: str = ""
    no: str = ""
    options: tuple[tuple[str, str], ...] = ()
    asked: str = ""

    def for_one_of_several(self) -> QuestionForm:
        """The form for one item of a list: "the primary colours include …", "… borders France"."""
        before = re.sub(r"\b(?:are|were)$", lambda m: "include" if m[0] == "are" else "included", self.before)
        verb, _, rest = self.after.partition(" ")
        plural = {"are": "is", "were": "was"}
        singular = plural.get(verb, third_person(verb) if verb in BASES and base_form(verb) == verb else verb)
        is_subject = not self.before and self.slot == "thing"
        return replace(self, before=before, after=f"{singular} {rest}".strip() if is_subject else self.after)


# fmt: off
_DETERMINERS = frozenset([
    "the", "a", "an", "this", "these", "those", "that", "his", "her", "its", "their", "my", "your", "our", "any",
    "some", "every", "each", "all", "no", "both", "many", "most", "several", "two", "three",
])
_PREPOSITIONS = frozenset([
    "in", "on", "at", "by", "from", "to", "for", "with", "of", "about", "under", "during", "into", "until", "since",
    "as", "between", "near", "through", "after", "before", "over", "against", "without", "within", "across", "around",
    "than", "per", "along", "off", "out", "up", "when", "while", "if", "because", "that", "who", "which", "where",
])
_ADVERBS = ADVERBS | frozenset(["too", "very", "so", "no"])
_ADJECTIVES = frozenset([
    "able", "absent", "alive", "allowed", "available", "bad", "better", "big", "bigger", "black", "blue", "capable",
    "cheaper", "cold", "colder", "common", "compulsory", "correct", "covered", "dead", "deeper", "different", "due",
    "early", "edible", "effective", "eligible", "empty", "equal", "even", "extinct", "false", "famous", "faster",
    "free", "full", "good", "green", "happy", "hard", "heavier", "heavy", "high", "higher", "hot", "hotter", "ill",
    "illegal", "included", "large", "larger", "late", "legal", "less", "liable", "light", "lighter", "likely",
    "located", "long", "longer", "magnetic", "mandatory", "married", "more", "necessary", "new", "odd", "old",
    "older", "open", "optional", "permitted", "poisonous", "poor", "popular", "possible", "present", "prime",
    "radioactive", "rare", "ready", "red", "refundable", "required", "responsible", "rich", "right", "sad", "safe",
    "sick", "similar", "single", "slower", "small", "smaller", "soft", "soluble", "subject", "tall", "taller",
    "toxic", "transferable", "true", "valid", "visible", "warmer", "waterproof", "white", "wide", "worse", "worth",
    "wrong", "yellow", "young", "younger",
])
_ING_NOUNS = frozenset([
    "building", "ceiling", "spring", "string", "evening", "morning", "meeting", "painting", "wedding", "beginning",
    "ending", "setting", "meaning", "rating", "spelling", "funding", "training", "housing", "clothing", "nothing",
    "something", "anything", "everything", "during", "shipping", "parking", "heating", "cooling", "lightning",
])
_MEASURES = frozenset(["long", "tall", "high", "deep", "wide", "old", "thick", "big", "large", "heavy", "hot", "cold",
                       "fast", "expensive", "strong", "bright", "dense"])
_TIME_NOUNS = frozenset(["week", "hour", "year", "month", "day", "date", "century", "decade", "season", "time"])
_WITH_INFINITIVE = frozenset([
    "want", "need", "have", "plan", "decide", "try", "hope", "like", "begin", "start", "continue", "intend", "promise",
    "agree", "going", "refuse", "choose", "offer", "expect", "learn", "manage", "fail", "attempt", "wish", "prefer",
    "able", "go",
])
_TIME_WORDS = MONTHS | frozenset([
    "today", "yesterday", "tomorrow", "ago", "later", "earlier", "noon", "midnight", "century", "year", "years",
    "spring", "summer", "autumn", "winter", "morning", "evening", "afternoon", "now", "never", "always", "every",
    "after", "before", "during", "when", "while", "until", "since", "once", "soon", "weekends", "am", "pm", "day",
    "week", "month", "war", "end", "beginning", "immediately",
])
_LOWERED = frozenset([
    "a", "about", "abroad", "after", "all", "almost", "an", "anyone", "approximately", "around", "as", "at",
    "because", "before", "between", "both", "by", "due", "during", "eight", "either", "eleven", "every", "everyone",
    "everywhere", "exactly", "few", "five", "for", "four", "from", "half", "he", "her", "his", "if", "in", "inside",
    "it", "its", "less", "likely", "many", "maybe", "more", "most", "near", "nearly", "neither", "never", "nine",
    "no", "nobody", "none", "not", "nothing", "nowhere", "of", "often", "on", "once", "one", "only", "outside",
    "over", "perhaps", "possibly", "probably", "reportedly", "roughly", "seven", "several", "she", "since", "six",
    "so", "some", "sometimes", "ten", "that", "the", "their", "these", "they", "this", "those", "three", "through",
    "to", "today", "twelve", "twenty", "twice", "two", "under", "unless", "until", "up", "using", "usually", "what",
    "when", "where", "who", "with", "within", "without", "yesterday",
])
_PERSONS = {"I": "you", "we": "you", "my": "your", "our": "your", "me": "you", "us": "you"}
# fmt: on
_AUXILIARY = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "can",
        "could",
        "will",
        "would",
        "should",
        "shall",
        "may",
        "might",
        "must",
    ]
)
_BE = frozenset(["is", "are", "was", "were"])
_DO = frozenset(["do", "does", "did"])
_HAVE = frozenset(["has", "have", "had"])
_CONTRACTED = re.compile(
    r"\b(?P<wh>what|who|where|when|how|why)['\u2019]s\b"
    r"|\b(?P<aux>is|are|was|were|do|does|did|has|have|had|ca|could|wo|would|should|must)n['\u2019]t\b",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?:(?<=\n)|(?<=\s)|^)[ \t]*(?:\((?P<a>[A-Za-z])\)|(?P<b>[A-Z])[).:]|(?P<c>[a-z])\))[ \t]+(?=\S)")
_LAST_QUESTION = re.compile(r"[^?]*\?(?=[^?]*$)")
_OPENER = re.compile(
    r"(?:(?:so|and|but|now|then|well|hello|hi|please|question|q)\b[,:.]?\s+)+(?=\w)"
    r"|(?:(?:exactly|specifically|approximately|roughly|about)\s*,?\s+)(?=(?:what|how|when|where|who)\b)",
    re.IGNORECASE,
)
_INDIRECT = re.compile(
    r"(?:(?:can|could|would|will) you (?:please )?(?:tell (?:me|us)|say|explain|state)|do you know|(?:please )?tell"
    r" (?:me|us)|i(?:['\u2019]d| would) like to know|i (?:want|need) to know)\s+",
    re.IGNORECASE,
)
_REQUEST = re.compile(
    r"(?:please\s+)?(?:name|give|state|identify|specify|provide|find|compute|calculate|determine|evaluate)\s+(?:me\s+)?"
    r"(?=(?:the|its|his|her)\s)",
    re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"(?P<context>(?:according to|if|in|on|at|for|during|under|after|before|as of|since|among|given|when|by|with"
    r"|of)\s(?!what\b|which\b)[^?]{1,200}?),\s+(?=(?:(?:in|at|on|by|from|to|for|with)\s+)?(?:what|which|who|whom|whose"
    r"|when|where|why|how|is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may|must)\b)",
    re.IGNORECASE,
)
_WH = re.compile(
    r"(?:(?P<prep>in|on|at|from|to|by|with|for|of|about|under|during|into|until|since|as|for)\s+)?"
    r"(?P<wh>what|which|whose|whom|who|when|where|why|how)\b\s*",
    re.IGNORECASE,
)
_SUPERLATIVE = re.compile(
    r"(?:the\s+)?(?P<adj>[a-z]+est|best|worst|(?:most|least)\s+[a-z]+)(?P<rest>(?:\s+(?:in|on|of|by|to|among)\s.+)?)$",
    re.IGNORECASE,
)
_SHARE = re.compile(
    r"(?:percentage|percent|part|share|fraction|proportion|portion)\s+of\s+(?P<whole>.+)", re.IGNORECASE
)
_BLANK = re.compile(r"_{3,}|\[\s?blank\s?\]|\.{4,}|\u2026$")
_TRUE_OR_FALSE = re.compile(r"[,.;:]?\s*(?:is (?:this|that) )?(?:true or false|yes or no)\s*[?:.]?\s*", re.IGNORECASE)
_AND_ASKED = re.compile(r",?\s(?:and|or)\s(?:what|when|where|why|how|who|which)\b", re.IGNORECASE)
_TRUE_THAT = re.compile(
    r"(?:is it (?:true|correct|the case)|would it be (?:true|correct) to say) that\s+", re.IGNORECASE
)
_PREPOSITION_PHRASE = re.compile(
    r"(?:in|on|at|by|from|to|for|with|during|after|before|since|until|because|due|through|via|using|of|near|between"
    r"|within|over|under|around|about|out|as|when|while|if|so|inside|outside|without|into|across|along|among|behind"
    r"|beside|beneath|above|below|next|opposite|towards?|every|each|once|twice|never|always|nowhere|abroad|everywhere"
    r"|here|there|not)\b",
    re.IGNORECASE,
)


def question_text(question: Question) -> str:
    """The text of a question with its options, from which `split_claims` takes the option that a letter stands for."""
    options = [f"{option_letter(i)}) {choice}" for i, choice in enumerate(question.choices)]
    return "\n".join([question.text, *options])


def parse_question(question: str, resolve: Callable[[Sequence[str], str], str] = lambda _, text: text) -> QuestionForm:
    """The form of a question's statement; an empty one if the question is not understood.

    Args:
        question: The question, possibly with sentences before it and with the options of a multiple choice after it.
        resolve: Puts a name from the sentences before the question in place of its pronoun.
    """
    text = question[-MAX_QUESTION:]
    text, options = _cut_options(text)
    statement = _TRUE_OR_FALSE.fullmatch(text[-20:])
    match = _LAST_QUESTION.match(text)
    text = text[: match.end()] if match else text
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    if not sentences:
        return QuestionForm(options=options)
    context = sentences[:-1]
    asked = " ".join(sentences[-1].rsplit(": ", 1)[-1].split())
    is_true_or_false = _TRUE_OR_FALSE.search(asked)
    if is_true_or_false is not None and (statement is None):
        rest = " ".join(_TRUE_OR_FALSE.sub(" ", asked).split()) or (context.pop() if context else "")
        form = _statement_form(rest.rstrip("."))
    else:
        form = _parse_sentence(asked)
    if form.subject.lower() in ("he", "she", "they", "it"):
        name = resolve(context, form.subject)
        form = _replace_subject(form, name) if name.lower() != form.subject.lower() else form
    return replace(form, asked=asked, options=options)


def _replace_subject(form: QuestionForm, name: str) -> QuestionForm:
    pattern = re.compile(rf"\b{re.escape(form.subject)}\b", re.IGNORECASE)

    def put(text: str) -> str:
        return pattern.sub(lambda _: name, text, count=1)

    return replace(
        form, subject=name, before=put(form.before), after=put(form.after), yes=put(form.yes), no=put(form.no)
    )


def _cut_options(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The question without the options of a multiple choice, and the options."""
    marks = list(_OPTION.finditer(text))
    for first in range(len(marks)):
        letters = [(m["a"] or m["b"] or m["c"]).upper() for m in marks[first:]]
        if len(letters) > 1 and letters == [chr(ord("A") + i) for i in range(len(letters))]:
            own = marks[first:]
            ends = [*(m.start() for m in own[1:]), len(text)]
            texts = [
                " ".join(text[m.end() : end].split("\n\n")[0].split()).rstrip(",;. ")
                for m, end in zip(own, ends, strict=True)
            ]
            return text[: own[0].start()].rstrip(), tuple(zip(letters, texts, strict=True))
    return text, ()


# -- Parsing


def _parse_sentence(asked: str) -> QuestionForm:
    asked = _CONTRACTED.sub(_expanded, asked)
    if _AND_ASKED.search(asked):
        return QuestionForm()
    asked = asked[:-1].rstrip() if asked.endswith("?") else asked
    opener = _OPENER.match(asked)
    asked = asked[opener.end() :] if opener else asked
    blank = _BLANK.search(asked)
    if blank is not None:
        return QuestionForm(before=asked[: blank.start()].strip(), after=asked[blank.end() :].strip(" ."), slot="thing")
    context = _CONTEXT.match(asked)
    if context is not None:
        form = _parse_sentence(asked[context.end() :])
        return _with_context(context["context"], form)
    true_that = _TRUE_THAT.match(asked)
    if true_that is not None:
        return _statement_form(asked[true_that.end() :])
    indirect = _INDIRECT.match(asked)
    if indirect is not None:
        return _parse_indirect(asked[indirect.end() :].rstrip("."))
    request = _REQUEST.match(asked)
    if request is not None:
        what = asked[request.end() :].rstrip(".")
        return QuestionForm(subject=what, before=f"{what} {'are' if _is_plural(what) else 'is'}", slot="thing")
    words = asked.split()
    if not words:
        return QuestionForm()
    if words[0].lower() in _AUXILIARY:
        return _parse_yes_no(words[0].lower(), words[1:])
    wh = _WH.match(asked)
    return QuestionForm() if wh is None else _parse_wh(wh, asked[wh.end() :].split())


def _expanded(match: re.Match[str]) -> str:
    if match["wh"]:
        return f"{match['wh']} is"
    auxiliary = {"ca": "can", "wo": "will"}.get(match["aux"].lower(), match["aux"])
    return f"{auxiliary} not"


def _with_context(context: str, form: QuestionForm) -> QuestionForm:
    """The form with the condition or circumstance that stands before the question."""
    if form.slot:
        return replace(form, before=f"{context}, {form.before}" if form.before else f"{context},")
    return replace(form, yes=f"{context}, {form.yes}", no=f"{context}, {form.no}") if form.yes else form


def _parse_indirect(clause: str) -> QuestionForm:
    """The form of an indirect question: "what the capital of France is"."""
    wh = _WH.match(clause)
    if wh is None:
        whether = re.match(r"(?:whether|if)\s+", clause, re.IGNORECASE)
        return _statement_form(clause[whether.end() :]) if whether else QuestionForm()
    words = clause[wh.end() :].split()
    is_inverted = not words or words[0].lower() in _AUXILIARY or is_finite(words[0].lower())
    if is_inverted or wh["wh"].lower() == "how" or wh["wh"].lower() in ("which", "whose"):
        return _parse_wh(wh, words) if is_inverted else QuestionForm()
    slot = _ADJUNCTS.get(wh["wh"].lower(), "thing")
    return QuestionForm(before=" ".join(words), slot=slot)


def _statement_form(statement: str) -> QuestionForm:
    """The form of a statement that is to be confirmed."""
    words = statement.split()
    if is_negated(statement):
        return QuestionForm(yes=statement, no=f"it is not the case that {statement}")
    for i, word in enumerate(words[1:], 1):
        lower = word.lower()
        if lower in _AUXILIARY and lower not in _DO:
            return QuestionForm(yes=statement, no=" ".join([*words[:i], negated(lower), *words[i + 1 :]]))
        base = base_form(lower) if word.islower() else None
        if base is not None and (is_past(lower) or lower == third_person(base)) and i > 0:
            auxiliary = "did" if is_past(lower) else "does"
            return QuestionForm(yes=statement, no=" ".join([*words[:i], auxiliary, "not", base, *words[i + 1 :]]))
    return QuestionForm()


_ADJUNCTS: dict[str, SlotKind] = {"when": "time", "where": "place", "why": "reason", "how": "manner"}


def _addressed(word: str) -> str:
    """The second person for the first: "my" is "your" for the one who answers."""
    return _PERSONS.get(word, word)


def _parse_yes_no(auxiliary: str, words: list[str]) -> QuestionForm:
    words = words[1:] if words[:1] == ["not"] else words
    if words and words[0].lower() == "you":
        return QuestionForm()
    if words[:1] == ["there"]:
        subject, predicate = ["there"], words[1:]
    else:
        at = (
            _predicate_start(words, needs_predicate=True)
            if auxiliary in _BE
            else _main_verb(words, participle=auxiliary in _HAVE)
        )
        if at is None:
            return QuestionForm()
        subject, predicate = words[:at], words[at:]
    if "or" in predicate and predicate[-2:] != ["or", "not"] and auxiliary in _BE:
        first = predicate[:1] if predicate[0].lower() in _PREPOSITIONS else []
        return QuestionForm(" ".join(subject), " ".join([*subject, auxiliary, *first]), slot="thing")
    if predicate[-2:] == ["or", "not"]:
        predicate = predicate[:-2]
    if _addressed(subject[0]) != subject[0]:
        auxiliary = {"am": "are", "was": "were"}.get(auxiliary, auxiliary)
    subject, predicate = list(map(_addressed, subject)), list(map(_addressed, predicate))
    name = " ".join(subject)
    positive = [w for w in predicate if w.lower() not in ("any", "ever", "yet")]
    positive = [{"anyone": "someone", "anything": "something"}.get(w.lower(), w) for w in positive]
    verb = finite_phrase(auxiliary, positive) if auxiliary in _DO else " ".join([auxiliary, *positive])
    yes = f"{name} {verb}"
    if "or" in subject:
        return QuestionForm()
    if name == "there":
        return QuestionForm(yes=yes, no=_no_such(auxiliary, predicate))
    quantifier = subject[0].lower()
    if quantifier in ("all", "every", "each", "both"):
        no = f"not {yes}"
    elif quantifier in ("some", "any"):
        no = f"no {' '.join(subject[1:])} {verb}"
    elif quantifier in ("most", "many", "few", "several", "only"):
        no = f"it is not the case that {yes}"
    else:
        no = " ".join([name, negated(auxiliary), *predicate])
    return QuestionForm(subject=name, yes=yes, no=no)


def _no_such(auxiliary: str, predicate: list[str]) -> str:
    """The negation of "there is a bridge"."""
    first = predicate[0].lower() if predicate else ""
    rest = predicate[1:] if first in ("a", "an", "any") else predicate
    is_bare = rest is not predicate or (first.isalpha() and first not in _DETERMINERS | _ADVERBS)
    return " ".join(["there", auxiliary, "no" if auxiliary in _BE and is_bare else "not", *rest])


def _parse_wh(wh: re.Match[str], words: list[str]) -> QuestionForm:
    word, preposition = wh["wh"].lower(), (wh["prep"] or "").lower()
    at = next((i for i, w in enumerate(words) if w.lower() in _AUXILIARY), None)
    if word in ("when", "where", "why"):
        return QuestionForm() if at != 0 else _inverted(words, _ADJUNCTS[word], preposition)
    if word == "how":
        return _parse_how(words, at, preposition)
    noun = " ".join(words[:at]) if at is not None else ""
    is_verb = at not in (0, 1) and bool(words) and words[0].islower() and is_finite(words[0])  # "what happens if …"
    if (word in ("who", "whom") and at != 0) or (word == "what" and is_verb):
        return _subject_question(words)
    if noun.startswith("of "):
        return QuestionForm(after=" ".join(words[at or 0 :]), slot="thing", noun=noun)
    if at is None or (at > 0 and any(is_finite(w) and w.islower() for w in words[1:at])):
        return _noun_as_subject(words)
    if word == "whose":
        return QuestionForm()
    head = noun.split()[-1].lower() if noun else ""
    if preposition and noun and head in _TIME_NOUNS:
        return _inverted(words[at:], "time", "", noun=head)
    if not preposition and head in _TIME_NOUNS and words[at].lower() not in _BE:
        return _inverted(words[at:], "time", "", noun=head)
    if preposition:
        return _inverted(words[at:], "thing", preposition)
    if head in _TIME_NOUNS and _predicate_start(words[at + 1 :], needs_predicate=False) is not None:
        return _inverted(words[at:], "time", "", noun=head)
    return _object_or_subject(words[at].lower(), words[at + 1 :], noun)


def _subject_question(words: list[str]) -> QuestionForm:
    """The form of "wrote Moby-Dick", after "who"."""
    verb = words[0].rstrip(",:") if words else ""
    if not (verb.islower() and (is_finite(verb) or verb in BASES)):
        return QuestionForm()
    return QuestionForm(after=" ".join(words), slot="thing")


def _noun_as_subject(words: list[str]) -> QuestionForm:
    """The form of "country won the cup", after "which"."""
    for i, word in enumerate(words[1:], 1):
        if word.islower() and (is_finite(word) or base_form(word) in UNAMBIGUOUS_BASES):
            return QuestionForm(after=" ".join(words[i:]), slot="thing")
    return QuestionForm()


def _object_or_subject(auxiliary: str, rest: list[str], noun: str) -> QuestionForm:
    """The form of "is the capital of France", after "what"."""
    if not rest:
        return QuestionForm()
    if auxiliary in _DO:
        if rest[0].lower() == "not":
            return QuestionForm(after=" ".join([auxiliary, *rest]), slot="thing")
        form = _inverted([auxiliary, *rest], "thing", "")
        share = _SHARE.match(noun)
        return replace(form, after=f"of {share['whole']} {form.after}".strip()) if share and form.slot else form
    superlative = _SUPERLATIVE.match(" ".join(rest)) if noun and auxiliary in _BE else None
    if superlative is not None:
        after = f"{auxiliary} the {superlative['adj']} {noun}{superlative['rest']}"
        return QuestionForm(after=after, slot="thing")
    first = rest[0].lower()
    starts_predicate = (
        is_participle(first)
        or first in _PREPOSITIONS
        or first in _ADVERBS
        or first in _ADJECTIVES
        or first.endswith("ing")
        or (auxiliary not in _BE and (rest[0].islower() and first in BASES))
        or (auxiliary in _HAVE and _main_verb(rest, participle=True) is None)
    )
    if starts_predicate and first not in PRONOUNS:
        return QuestionForm(after=" ".join([auxiliary, *rest]), slot="thing")
    return _inverted([auxiliary, *rest], "thing", "")


def _inverted(words: list[str], slot: SlotKind, preposition: str, noun: str = "") -> QuestionForm:
    """A question whose auxiliary stands before the subject: "was the bridge opened", after "when".

    Args:
        words: The words from the auxiliary on.
        slot: Kind of the answer.
        preposition: Preposition before the question word ("by whom"); it stands before the answer.
        noun: For "which year" and "how many members", the noun.
    """
    auxiliary, rest = words[0].lower(), words[1:]
    is_negative = rest[:1] == ["not"]
    rest = rest[1:] if is_negative else rest
    if not rest or rest[0].lower() in ("you", "be", "been"):
        return QuestionForm()
    if auxiliary in _BE:
        at = _predicate_start(rest, needs_predicate=False)
        if slot == "thing" and "like" in rest:
            return QuestionForm()  # "what are winters like"
        at = len(rest) if at is None or (slot == "thing" and not preposition and not _lacks_object(rest, at)) else at
    else:
        found = _main_verb(rest, participle=auxiliary in _HAVE)
        if found is None:
            return QuestionForm()
        at = found
    subject, predicate = rest[:at], rest[at:]
    subject, predicate = list(map(_addressed, subject)), list(map(_addressed, predicate))
    name = " ".join(subject)
    is_amount = slot == "amount"
    head, tail = predicate, []
    if slot in ("thing", "amount") and not preposition and (auxiliary not in _BE or predicate):
        cut = _object_position(predicate)
        head, tail = predicate[:cut], predicate[cut:]
    elif slot in ("thing", "amount") and auxiliary in _BE and not predicate and not preposition:
        name, tail = _cut_trailing_context(name)
    if auxiliary in _DO and not is_negative:
        verb = finite_phrase(auxiliary, head)
    else:
        verb = " ".join([negated(auxiliary) if is_negative else auxiliary, *head])
    before = " ".join(w for w in (name, verb, preposition) if w)
    return QuestionForm(name, before, " ".join(tail), slot, noun if is_amount or slot == "time" else "")


def _lacks_object(words: list[str], at: int) -> bool:
    """Whether the answer belongs at the end of a predicate: "Vogt married to", "the bridge called"."""
    is_short = _name_end(words[:at]) == at or at == 1 or words[0].lower() in PRONOUNS
    return (
        words[-1].lower() in _PREPOSITIONS
        or (len(words) == at + 1 and words[at] not in BASES)
        or is_short
        or words[at].endswith("ing")
    )


def _cut_trailing_context(name: str) -> tuple[str, list[str]]:
    """A time clause after a subject: "Vogt when he died"."""
    match = re.search(r"\s(?=(?:when|after|before|while|at the time)\s)", name)
    return (name[: match.start()], name[match.end() :].split()) if match else (name, [])


def _parse_how(words: list[str], at: int | None, preposition: str) -> QuestionForm:
    first = words[0].lower() if words else ""
    if first in ("many", "much"):
        return _parse_amount(words[1:], preposition)
    if at == 0:
        return _inverted(words, "manner", preposition)
    if at != 1:
        return QuestionForm()
    auxiliary, rest = words[1].lower(), words[2:]
    if auxiliary not in _BE:
        is_measured = first in _MEASURES and auxiliary not in _DO and rest[-1:] != ["last"] and "be" in rest
        return _inverted(words[1:], "amount", "", noun=first) if is_measured else _inverted(words[1:], "manner", "")
    if first == "far" and rest:
        text = " ".join(rest)
        cut = re.search(r"\s(?=(?:from|to|between)\s)", text)
        name, after = (text[: cut.start()], text[cut.end() :]) if cut else (text, "")
        return QuestionForm(text, f"{name} {auxiliary}", after, "amount", "" if cut else "away")
    if first not in _MEASURES:
        return _inverted(words[1:], "manner", "") if first in ("often", "well", "quickly") else QuestionForm()
    name, tail = _cut_trailing_context(" ".join(rest))
    return QuestionForm(name, f"{name} {auxiliary}", " ".join(tail), "amount", first)


def _parse_amount(words: list[str], preposition: str) -> QuestionForm:
    """The form of "members does the council have", after "how many"."""
    at = next((i for i, w in enumerate(words) if w.lower() in _AUXILIARY), None)
    verb = next((i for i, w in enumerate(words[:at]) if i > 0 and w.islower() and is_finite(w)), None)
    is_inverted = at is not None and words[at].lower() in _DO
    if at is None or (verb is not None and not is_inverted):
        if verb is None:
            return QuestionForm()
        return QuestionForm(after=" ".join(words[verb:]), slot="amount", noun=" ".join(words[:verb]))
    noun, auxiliary, rest = " ".join(words[:at]), words[at].lower(), words[at + 1 :]
    if rest[:1] == ["there"]:
        return QuestionForm(before=f"there {auxiliary}", after=" ".join(rest[1:]), slot="amount", noun=noun)
    if preposition and noun:
        return QuestionForm()
    first = rest[0].lower() if rest else ""
    is_subject = noun != "" and (
        not rest
        or is_participle(first)
        or first in _PREPOSITIONS | _ADJECTIVES | _ADVERBS
        or first.endswith("ing")
        or (auxiliary not in _BE | _HAVE | _DO and rest[0].islower() and first in BASES)
        or (auxiliary in _BE and rest[0].islower() and first not in _DETERMINERS | PRONOUNS)
    )
    if noun.startswith("of "):
        return QuestionForm()
    if is_subject:
        return QuestionForm(after=" ".join([auxiliary, *rest]), slot="amount", noun=noun)
    return _inverted(words[at:], "amount", preposition, noun=noun)


def _object_position(predicate: list[str]) -> int:
    """Position in a predicate at which its object is inserted: after the verb, or after a stranded preposition."""
    at = 0
    while at < len(predicate) and (predicate[at].lower() in _ADVERBS or predicate[at].lower().endswith("ly")):
        at += 1
    words = [word.lower() for word in predicate]
    while (
        at + 1 < len(words)
        and words[at] in ("have", "be", "been")
        and (is_participle(words[at + 1]) or words[at + 1] == "able")
    ):
        at += 1
    verb = words[at] if at < len(words) else ""
    at += 1
    if verb in ("take", "cost") and "to" in words[at:]:
        return words.index("to", at)  # "take Max | to watch the film"
    if words[at : at + 1] == ["to"] and at + 1 < len(words) and verb.removesuffix("ing") in _WITH_INFINITIVE:
        at += 2
    if at >= len(predicate):
        return len(predicate)
    word = predicate[at].lower()
    after = predicate[at + 1].lower() if at + 1 < len(predicate) else ""
    if word in _PREPOSITIONS:
        return at + 1 if not after or after in _PREPOSITIONS - {"that"} else at
    is_adjunct = word in _ADVERBS | {"left", "online", "altogether", "together", "today", "total"} or word.endswith(
        "ing"
    )
    is_adjunct = (
        is_adjunct or is_participle(word) or (word in _DETERMINERS and not {after, words[-1]}.isdisjoint(_TIME_NOUNS))
    )
    return at if is_adjunct else len(predicate)


def _is_capitalized(word: str) -> bool:
    return word[:1].isupper() or word[:1].isdigit() or word[:1] in "\"'\u201c("


def _name_end(words: list[str]) -> int:
    """One past a name at the beginning."""
    at = 0
    while at < len(words) and (_is_capitalized(words[at]) or (at > 0 and words[at].lower() in CONNECTORS)):
        at += 1
    while at > 0 and words[at - 1].lower() in CONNECTORS and not words[at - 1][0].isupper():
        at -= 1
    return at


def _predicate_start(words: list[str], *, needs_predicate: bool) -> int | None:
    """Position of the predicate after a form of "be" and the subject; None if there is none, or it is not clear."""
    if not words:
        return None
    if words[0].lower() in PRONOUNS | {"there", "this", "that", "these"} and words[0].lower() != "i":
        is_pronoun = words[0].lower() in PRONOUNS | {"there"} or len(words) == 1
        if is_pronoun:
            return 1 if len(words) > 1 else None
    start = _first_predicate_word(words)
    if start is not None or not needs_predicate:
        return start
    for i, word in enumerate(words[1:], 1):  # "water | a liquid"
        if word.lower() in _DETERMINERS and words[i - 1].lower() not in _PREPOSITIONS | {"and", "or"} | _DETERMINERS:
            return i
    name = _name_end(words)
    if 0 < name < len(words):
        return name
    inside = range(1, len(words))
    of = [i for i in inside if words[i].lower() in _PREPOSITIONS - {"of"}]
    if of:
        return of[0]
    is_name = [_is_capitalized(w) for w in words]
    if any(is_name[-3:-1]) and is_name[-1] and len(words) > 3 and not all(is_name[-3:]):
        return len(words) - 1  # "the capital of France | Paris"
    if is_name[-1] or len(words) == 1 or "of" in (w.lower() for w in words[-2:]):
        return None
    return len(words) - 1


def _first_predicate_word(words: list[str]) -> int | None:
    """Position of a participle or adjective that follows the subject, with the adverbs before it."""
    for i, word in enumerate(words):
        lower = word.lower()
        before = words[i - 1].lower() if i else ""
        if i == 0 or not word.islower() or before in _DETERMINERS or before in _PREPOSITIONS | {"most", "least"}:
            continue
        if lower in ("that", "who", "which", "whose", "where", "when"):
            return None
        following = words[i + 1] if i + 1 < len(words) else ""
        is_adjective = lower in _ADJECTIVES and not is_participle(lower)
        is_progressive = len(lower) > 4 and lower.endswith("ing") and lower not in _ING_NOUNS
        if lower == "cost" or not (is_adjective or is_participle(lower) or is_progressive):
            continue
        # "the oldest registered ship", "the largest open market": a noun follows, and the subject has none yet
        is_before_noun = following.islower() and following not in _PREPOSITIONS | {"or", "and"}
        if is_before_noun and before.endswith("est"):
            continue
        if is_before_noun and is_adjective and lower not in ("more", "less"):
            continue
        while i > 1 and (words[i - 1].lower() in _ADVERBS or words[i - 1].lower().endswith("ly")):
            i -= 1
        return i
    return None


def _main_verb(words: list[str], *, participle: bool) -> int | None:
    """Position of the main verb after an auxiliary and the subject, with the adverbs before it."""
    if not words:
        return None

    def fits(word: str) -> bool:
        lower = word.lower()
        return word.islower() and ((is_participle(lower) if participle else lower in BASES) or lower in ("be", "been"))

    if words[0].lower() in PRONOUNS | {"there"}:
        start = 1
    else:
        start = 2 if words[0].lower() in _DETERMINERS else max(1, _name_end(words))
    is_bare_plural = start == 1 and words[0].islower() and words[0].endswith("s") and not words[0].endswith("ss")
    is_name = (
        is_bare_plural or words[0].lower() in PRONOUNS or (_name_end(words) == start and "and" not in words[:start])
    )
    known = start < len(words) and words[start].islower() and words[start] not in _PREPOSITIONS | _DETERMINERS
    if is_name and not participle and known and words[start] not in ("and", "all", "each", "both"):
        return start
    at: int | None = None
    i = start
    while i < len(words):
        if words[i].lower() in _PREPOSITIONS or words[i].lower() in _DETERMINERS or _is_capitalized(words[i]):
            if at is not None:
                break
        elif fits(words[i]) and words[i - 1].lower() not in _DETERMINERS:
            is_later_verb = words[i].lower() in UNAMBIGUOUS_BASES | INTRANSITIVE_BASES and i + 1 == len(words)
            if at is None or (not participle and words[at].lower() not in UNAMBIGUOUS_BASES and is_later_verb):
                at = i
        elif at is not None:
            break
        i += 1
    if at is None and not participle and start + 1 == len(words) and words[start].islower():
        at = start  # the only word left: "does the device vibrate"
    while at is not None and at > 1 and (words[at - 1].lower() in _ADVERBS or words[at - 1].lower().endswith("ly")):
        at -= 1
    return at


def _is_plural(name: str) -> bool:
    head = re.split(r"\s(?:of|in|for|from|to|with|that|which|who)\s", name)[0].rsplit(None, 1)[-1].lower()
    return head.endswith("s") and not head.endswith(("ss", "us", "is"))


# -- Short answers

_MARKER = re.compile(
    r"\W{0,6}(?:(?:therefore|thus|so|hence|in conclusion|in summary|finally)\b,?\s+)?"
    r"(?:"
    r"(?:the\s+|my\s+)?(?:(?:final|correct|short|best|right)\s+)?(?:answer|result|solution|option|choice)"
    r"(?:\s+to\s+(?:the|this|your)\s+question)?[*_]{0,3}\s*"
    r"(?:\bis|\bwas|\b(?P<modal>may|might|could|should|must|would) be|:|=)"
    r"(?:\s+(?:that\b|option\b|choice\b))?"
    r"|a(?=:\s)|\#{4}(?=\s))"
    r"[\s:*_]{0,8}(?=\S)",
    re.IGNORECASE,
)
_IT_IS = re.compile(
    r"(?:(?:it|that|this)(?:\s+(?:is|was|would be)|['\u2019]s)\s+(?P<what>(?!(?:the case|true|not)\b).{1,80}?)"
    r"|(?P<who>[^,;]{1,60}?)\s+(?:did|does|do|is|was|are|were|has|have))[.!]?$",
    re.IGNORECASE,
)
_BOX = re.compile(
    r"\W{0,6}(?:(?:therefore|thus|so|hence)\b,?\s+)?\$*\\(?:boxed|fbox)\s*\{.{1,300}\}\$*\.?\s*$", re.DOTALL
)
_LETTERS = re.compile(
    r"[(\[]?(?:option\s+|choice\s+)?[(\[]?(?P<letter>[A-Za-z])(?:[)\].:]+|$)(?:\s+(?P<text>.+))?", re.IGNORECASE
)
_LETTER_LIST = re.compile(r"(?:both\s+)?\(?([A-Z])\)?(?:,?\s+(?:and|&)\s+|,\s*)\(?([A-Z])\)?\.?")
_UNKNOWN = re.compile(r"(?:unknown|not known|unclear|uncertain|n/a|none of the above|not stated)", re.IGNORECASE)
_LIMIT = re.compile(r"(?:(?:only|probably|possibly|perhaps|maybe|not|just|mostly|usually|likely)\s+)+", re.IGNORECASE)
_HEDGE = r"(?P<hedge>probably|possibly|perhaps|maybe|likely|most likely|apparently|presumably|usually|generally)"
_POLARITY = re.compile(
    rf"\W{{0,6}}(?:{_HEDGE}\s+)?(?:(?P<yes>yes|yep|yeah|true|correct|indeed|that is correct|that is true|it is true"
    r"|certainly|absolutely|definitely|of course)|(?P<no>no|nope|false|incorrect|not at all|never|that is incorrect"
    r"|not))\b(?!\s+\w|-)[*_\"'\u201d]{0,3}\s*(?:[,.;:!\u2013\u2014-]|$)[*_]{0,3}\s*",
    re.IGNORECASE,
)
_MAYBE = re.compile(rf"\W{{0,6}}{_HEDGE}\W*$", re.IGNORECASE)
_ELLIPSIS = re.compile(
    r"(?:it|he|she|they|there|this|that|you|one|we|i)\s+(?:is|are|was|were|do|does|did|has|have|had|can|could|will"
    r"|would|should|may|might|must|ca|wo|cannot|'s|\u2019s)?(?:n['\u2019]t|\s+not)?[.!]?$",
    re.IGNORECASE,
)
_CIRCUMSTANCE = (
    r"(?:because|since|if|unless|provided|until|as|although|though|when|while|due|in|on|at|by|from|for|with|after"
    r"|before|during|within|under|through|to|about|subject to|without)\b"
)
_CONTINUATION = re.compile(rf"(?:but\s+)?{_CIRCUMSTANCE}", re.IGNORECASE)
_RESTRICTION = re.compile(rf"(?:but\s+)?(?:only|except|once|twice|every|not)\b(?:\s+{_CIRCUMSTANCE})?", re.IGNORECASE)
_NUMBER_ONLY = re.compile(
    r"(?:(?:between|about|approximately|roughly|around|nearly|almost|over|under|exactly|at least|at most|more than"
    r"|less than|fewer than|not more than|no more than|no fewer than|up to|only|~|\u2248)\s*)*"
    r"[-+]?[0-9][0-9.,]*(?:\s+and\s+[0-9][0-9.,]*)?(?:\s*(?:million|billion|thousand|hundred|dozen))?",
    re.IGNORECASE,
)
_YEAR = re.compile(
    r"(?:about\s+|around\s+|ca?\.?\s+)?(?:[12]?[0-9]{3}|[0-9]{1,4}\s?(?:BC|BCE|AD|CE)|the\s+[0-9]{2,4}s)\b"
)
_DAY = re.compile(
    r"(?:[0-9]{1,2}(?:st|nd|rd|th)?\s+(?:of\s+)?[A-Z][a-z]+|[A-Z][a-z]+\s+[0-9]{1,2}(?:st|nd|rd|th)?(?:,|$)"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|[0-9]{4}-[0-9]{2}-[0-9]{2})"
)
_CLOCK = re.compile(
    r"(?:[0-9]{1,2}[:.][0-9]{2}|[0-9]{1,2}\s?(?:am|pm|a\.m|p\.m|o['\u2019]clock)|noon|midnight)\b", re.I
)


class MarkedAnswer(NamedTuple):
    """An answer that a sentence announces.

    Attributes:
        start: Its first character in the sentence; it extends to the sentence's end.
        hedge: "possibly " or "probably ", if the answer "may be" or "should be" it.
    """

    start: int
    hedge: str = ""


def marked_answer(sentence: str) -> MarkedAnswer | None:
    """The answer that a sentence announces ("The answer is …", a box); None in other sentences."""
    if _BOX.match(sentence):
        return MarkedAnswer(0)
    match = _MARKER.match(sentence)
    if match is None or match.end() >= len(sentence):
        return None
    modal = (match["modal"] or "").lower()
    return MarkedAnswer(match.end(), "" if not modal else "probably " if modal in ("must", "should") else "possibly ")


def cleft_answer(form: QuestionForm, sentence: str) -> str | None:
    """The answer of "That would be Paris", and to "Who wrote …?" of "It was Eva Krog" or "Eva Krog did"."""
    match = _IT_IS.match(sentence) if form.slot == "thing" else None
    if match is None or (form.before and not sentence.lower().startswith(("that ", "this "))):
        return None
    answer = match["what"] or match["who"]
    is_name = bool(answer) and not has_verb(f"x {answer}") and answer.split()[0].lower() not in PRONOUNS
    return answer if is_name else None


class Polarity(NamedTuple):
    """A yes or no at the beginning of a text.

    Attributes:
        is_yes: Whether it affirms.
        end: Position after it.
        hedge: The hedge before it ("probably").
    """

    is_yes: bool
    end: int
    hedge: str = ""


def polarity_of(text: str) -> Polarity | None:
    """The yes or no with which a text begins, if it is separated from the rest."""
    maybe = _MAYBE.match(text)
    if maybe is not None:
        return Polarity(True, len(text), maybe["hedge"].lower())
    match = _POLARITY.match(text)
    if match is None or ((match["no"] or "").lower() == "not" and not match["hedge"]):
        return None
    return Polarity(match["yes"] is not None, match.end(), (match["hedge"] or "").lower())


def is_elliptic(text: str) -> bool:
    """Whether a text after a yes or no only repeats it ("he didn't")."""
    return _ELLIPSIS.match(text.strip()) is not None


def continues_polarity(polarity: Polarity, text: str) -> bool:
    """Whether a text after a yes or no restricts or explains it ("if the driver is insured")."""
    return _CONTINUATION.match(text) is not None or (polarity.is_yes and _RESTRICTION.match(text) is not None)


def plain_answer(text: str) -> str:
    """A short answer without emphasis, formula, box and final punctuation."""
    start, end = unwrap(text, 0, len(text))
    plain = text[start:end]
    abbreviated = text[end : end + 1] == "." and re.search(r"\b(?:a\.m|p\.m|[A-Z]\.[A-Z]|Inc|Jr|Sr|Ltd|Co)$", plain)
    return plain + "." if abbreviated else plain


def join_answer(form: QuestionForm, answer: str) -> str | None:
    """The statement that a short answer makes; None if the answer does not fit the question.

    Args:
        form: The question.
        answer: The answer, without markup ("Paris").
    """
    answer = _option_text(form, plain_answer(answer))
    if not answer or _UNKNOWN.fullmatch(answer):
        return None
    polarity = polarity_of(answer)
    if form.yes:
        return join_polarity(form, polarity, answer[polarity.end :]) if polarity is not None else None
    if form.slot in ("time", "place", "manner") and answer.lower() == "never" and form.subject:
        return sentence(f"{form.before.replace(form.subject, f'{form.subject} never', 1)} {form.after}")
    if not form.slot or (polarity is not None and polarity.end == len(answer)):
        return None
    fitted = _fitted(form, _lowered(answer))
    if fitted is None:
        return None
    repeated = form.before.rsplit(" ", 1)[-1].lower()  # "Oslo is in | in Norway"
    if repeated in _PREPOSITIONS and fitted.lower().startswith(f"{repeated} "):
        fitted = fitted[len(repeated) + 1 :]
    return sentence(" ".join(part for part in (form.before, fitted, form.after) if part))


def join_exception(form: QuestionForm, text: str) -> str | None:
    """The statement of "only members", after "no": "only members can vote"."""
    text = text.strip().rstrip(".! ")
    if not text.lower().startswith("only ") or not form.subject or not form.yes.startswith(form.subject):
        return None
    return sentence(text + form.yes[len(form.subject) :])


def join_polarity(form: QuestionForm, polarity: Polarity, rest: str = "") -> str:
    """The statement that yes or no makes, with what follows it."""
    statement = form.yes if polarity.is_yes else form.no
    if polarity.hedge:
        statement = f"{polarity.hedge}, {statement}"
    rest = rest.strip().rstrip(".! ")
    return sentence(f"{statement} {rest[:1].lower()}{rest[1:]}" if rest else statement)


def quote_answer(question: str, answer: str) -> str:
    """An answer with its question, where no statement could be formed."""
    return f'The answer to the question "{question}" is {_lowered(plain_answer(answer)) or answer.strip()}.'


def sentence(text: str) -> str:
    """A text with a capital at its beginning and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", '."', ".\u201d")) else ".")


def _option_text(form: QuestionForm, answer: str) -> str:
    options = dict(form.options)
    if not options:
        return answer
    both = _LETTER_LIST.fullmatch(answer)
    if both is not None and both[1] in options and both[2] in options:
        return f"{options[both[1]]} and {options[both[2]]}"
    match = _LETTERS.fullmatch(answer)
    return options.get(match["letter"].upper(), answer) if match else answer


def _lowered(answer: str) -> str:
    first = re.match(r"[^\W\d_]+", answer)
    if first is None or first[0].lower() not in _LOWERED or (len(first[0]) > 1 and first[0].isupper()):
        return answer
    if first[0] == "A" and not answer[1:].startswith(" "):
        return answer
    return answer[0].lower() + answer[1:]


def _fitted(form: QuestionForm, answer: str) -> str | None:
    """The answer as it is put into the slot, with the preposition or noun that it lacks."""
    limit = _LIMIT.match(answer)
    if limit is not None and form.slot in ("time", "place"):
        rest = _fitted(form, answer[limit.end() :])
        return None if rest is None else answer[: limit.end()] + rest
    if form.slot == "thing" and form.noun:  # "which of the two bridges"
        is_pronoun = answer.lower() in ("neither", "both", "none", "all", "each", "one") or answer.endswith(" one")
        return f"{answer} {form.noun}" if is_pronoun else answer
    has_preposition = _PREPOSITION_PHRASE.match(answer) is not None
    words = {w.lower() for w in re.findall(r"[^\W\d_]+", answer)}
    if form.slot == "time":
        return _fitted_time(form, answer, words)
    if form.slot == "place":
        is_ready = has_preposition or form.before.endswith((" from", " to", " in", " at"))
        return answer if is_ready else f"in {answer}"
    if form.slot == "reason":
        if re.match(r"(?:because|due|to|since|for|so|as|in order|owing|thanks|out of|by|not)\b", answer, re.I):
            return answer
        return f"because of {answer}" if len(answer.split()) <= 8 and not any(map(is_finite, answer.split())) else None
    if form.slot == "manner":
        is_manner = has_preposition or form.before.split()[-1] in ("last", "lasts", "lasted") or answer[:1].isdigit()
        is_measure = re.match(r"(?:\S+\s+){0,3}\S*[0-9]", answer) is not None or bool(
            words & {"years", "days", "hours", "weeks", "months"}
        )
        return answer if is_manner or is_measure or answer.endswith("ly") else None
    if form.slot == "amount":
        return _fitted_amount(form, answer, words)
    return answer


def _fitted_time(form: QuestionForm, answer: str, words: set[str]) -> str | None:
    if _PREPOSITION_PHRASE.match(answer):
        return answer
    is_time = any(c.isdigit() for c in answer) or bool(words & _TIME_WORDS)
    if not is_time:
        return None
    if re.match(r"[0-9]{1,2}(?:st|nd|rd|th) century", answer):
        return f"in the {answer}"
    if _CLOCK.match(answer):
        return f"at {answer}"
    if _DAY.match(answer):
        return f"on {answer}"
    periods = MONTHS | {"century", "spring", "summer", "autumn", "winter"}
    is_period = _YEAR.match(answer) is not None or not words.isdisjoint(periods)
    is_period = is_period or form.noun in ("century", "decade", "season", "month")
    return f"in {answer}" if is_period else answer


def _fitted_amount(form: QuestionForm, answer: str, words: set[str]) -> str | None:
    if not form.noun:
        return answer
    head = form.noun.split()[-1].lower()
    if head == "old":
        is_number = _NUMBER_ONLY.fullmatch(answer) is not None
        return answer + (" years old" if is_number else "" if "old" in words or "aged" in words else " old")
    has_noun = head in words or head.rstrip("s") in words or head + "s" in words
    if head == "times" and answer.lower() in ("once", "twice", "never"):
        return answer
    if answer.lower() in ("none", "zero", "0", "no one", "nobody"):
        return f"no {form.noun}" if head not in _MEASURES else answer
    if has_noun:
        return answer
    is_number = _NUMBER_ONLY.fullmatch(answer) is not None or not any(c.isdigit() for c in answer)
    is_mass = head not in _MEASURES | {"away", "people", "men", "women", "children"} and not head.endswith("s")
    is_unit_of = not is_number and is_mass
    return f"{answer} of {form.noun}" if is_unit_of else f"{answer} {form.noun}"
