"""Verbs, subjects, pronouns and clauses of English sentences, by word forms only, without a parser or model.

Pronouns (`Antecedents`): a pronoun at the start of a sentence refers to the subject of the previous sentence if that
sentence defines it ("The Louvre is a museum. It ..."); otherwise only if nothing else is named there, and for "it" and
"they" only if it describes the subject. If in doubt a pronoun is kept, since a wrong name makes a wrong claim.

Clauses (`split_parts`): a sentence with two statements is split at a conjunction or semicolon ("A was born in X and
died in Y"). Sentences that suppose, negate, hedge, report or compare are not split: it may apply to both halves.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# fmt: off
BE = frozenset(["is", "are", "was", "were", "isn't", "aren't", "wasn't", "weren't"])
AUXILIARIES = BE | frozenset([
    "has", "have", "had", "do", "does", "did", "can", "could", "will", "would", "shall", "should", "may", "might",
    "must", "cannot", "can't", "couldn't", "won't", "wouldn't", "doesn't", "don't", "didn't", "hasn't", "haven't",
    "hadn't",
])
SIMPLE_PAST = frozenset([
    "ate", "became", "began", "bore", "broke", "came", "chose", "drank", "drew", "drove", "fell", "flew", "forgot",
    "gave", "grew", "knew", "ran", "rang", "rode", "rose", "sang", "sank", "saw", "spoke", "stole", "swam", "swore",
    "threw", "took", "went", "woke", "wore", "wrote", "died", "lived", "occurred", "happened", "arrived", "remained",
    "emerged", "existed", "belonged", "consisted", "retired", "graduated", "emigrated", "resigned",
])
"""Past-tense verbs that are not participles, or participles that form no passive."""
_PAST = frozenset([
    "bought", "brought", "built", "burnt", "caught", "cost", "cut", "dealt", "fed", "felt", "fought", "found", "got",
    "held", "hit", "kept", "laid", "lay", "led", "left", "lent", "lost", "made", "meant", "met", "paid", "put", "read",
    "said", "sat", "sent", "set", "shot", "shut", "slept", "sold", "spent", "stood", "struck", "swept", "taught",
    "thought", "told", "understood", "won",
])
PRESENT = frozenset([
    "absorbs", "accounts", "acts", "allows", "appears", "begins", "belongs", "borders", "boils", "breaks", "carries",
    "causes", "comes", "comprises", "connects", "consists", "contains", "controls", "converts", "costs", "covers",
    "creates", "depends", "describes", "differs", "eats", "emits", "ends", "equals", "exists", "falls", "flows",
    "forms", "freezes", "gives", "goes", "governs", "grows", "happens", "helps", "hosts", "houses", "includes",
    "increases", "involves", "joins", "keeps", "lasts", "lays", "leads", "lets", "lies", "lives", "loses", "makes",
    "means", "measures", "melts", "moves", "needs", "occupies", "occurs", "orbits", "owns", "plays", "produces",
    "protects", "provides", "pumps", "reaches", "reacts", "refers", "releases", "remains", "represents", "requires",
    "rises", "rotates", "rules", "runs", "says", "serves", "shows", "sits", "spans", "speaks", "stands", "starts",
    "states", "stores", "supplies", "supports", "takes", "tells", "turns", "uses", "weighs", "wins", "works", "writes",
])
_PLURAL_PRESENT = frozenset([
    "absorb", "appear", "belong", "border", "boil", "carry", "cause", "come", "consist", "contain", "convert", "cover",
    "depend", "differ", "eat", "emit", "exist", "fall", "flow", "form", "freeze", "give", "go", "grow", "happen",
    "include", "involve", "last", "lay", "lead", "lie", "live", "lose", "make", "mean", "melt", "need", "occur",
    "orbit", "own", "produce", "provide", "reach", "refer", "release", "remain", "require", "rise", "run", "serve",
    "speak", "stand", "take", "use", "vary", "weigh", "think", "believe", "know", "say", "want", "like", "hope",
    "find",
])
_NOT_PAST = frozenset([
    "red", "bed", "led", "shed", "speed", "seed", "need", "feed", "indeed", "hundred", "sacred", "breed", "exceed",
    "wed", "united", "unprecedented", "aged", "based", "talented", "renowned", "so-called", "embed", "sled", "bred",
    "weed", "deed", "biped", "kindred", "naked", "wicked", "greed", "reed", "creed", "steed", "limited", "advanced",
    "married",
])
_NO_SUBJECT = frozenset([
    "the", "a", "an", "of", "in", "and", "or", "its", "his", "her", "their", "some", "many", "two", "all",
])
_NO_OBJECT = frozenset([
    "of", "in", "for", "and", "or", "by", "about", "on", "with", "to", "from", "at", "per", "as", "between",
])
_MAX_VERB_INDEX = 3
# fmt: on
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[0-9]+(?:[.,][0-9]+)*|[^\s]")


def words(text: str) -> list[re.Match[str]]:
    """The words and punctuation of a text, in order."""
    return list(_WORD.finditer(text))


def is_past(word: str) -> bool:
    """Whether a word looks like a past tense; it may be a participle too."""
    return word in SIMPLE_PAST or word in _PAST or (len(word) > 3 and word.endswith("ed") and word not in _NOT_PAST)


def is_finite(word: str) -> bool:
    """Whether a word, in lower case, looks like the verb of a clause."""
    normalized = word.replace("\u2019", "'")
    return (
        normalized in AUXILIARIES
        or normalized in PRESENT
        or normalized in _PLURAL_PRESENT
        or is_past(normalized)
        or normalized.endswith("n't")
    )


def _is_possible_verb(word: str, context: list[re.Match[str]]) -> bool:
    """Whether an unknown word between two others may be a verb: "tin coats steel", not "the oats of" or "key facts"."""
    if len(context) < 3 or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return False
    before, after = context[0][0].lower(), context[2][0].lower()
    return before not in _NO_SUBJECT and after not in _NO_OBJECT and after[0].isalnum()


def has_verb(text: str) -> bool:
    """Whether a word of a text, except the first, looks like a verb.

    Unknown verbs are recognized among the first words, by the ending -s and a following object.
    """
    tokens = words(text[:2000])
    for i, match in enumerate(tokens[1:], 1):
        word = match[0]
        if (
            word.replace("\u2019", "'").lower().endswith(("'s", "'re", "'ve", "'ll", "'d", "'m"))
            and i < len(tokens) - 1
        ):
            return True
        if word.islower() and (
            is_finite(word) or (i <= _MAX_VERB_INDEX and _is_possible_verb(word, tokens[i - 1 : i + 2]))
        ):
            return True
    first = tokens[0][0].replace("\u2019", "'").lower() if tokens else ""
    return first in {
        "it's",
        "he's",
        "she's",
        "there's",
        "that's",
        "they're",
        "i'm",
        "we're",
        "what's",
        "here's",
        "i've",
    }


PRONOUNS = frozenset(["he", "she", "it", "they", "we", "i", "you"])
POSSESSIVES = frozenset(["his", "her", "its", "their"])

# fmt: off
_DETERMINERS = frozenset(["the", "a", "an", "this", "these", "those", "that"]) | POSSESSIVES
_CONNECTORS = frozenset(
    ["of", "de", "von", "van", "der", "da", "di", "la", "le", "du", "del", "bin", "al", "el", "the"]
)
_NO_SUBJECTS = frozenset([
    "in", "on", "at", "by", "with", "from", "to", "for", "after", "before", "during", "since", "until", "when",
    "while", "if", "because", "although", "though", "as", "there", "here", "however", "therefore", "thus", "and",
    "but", "or", "so", "who", "which", "what", "where", "why", "how", "that", "not", "no", "never", "every", "each",
    "all", "some", "many", "most", "few", "both", "neither", "either", "one", "according", "unlike", "like", "about",
    "over", "under", "between", "probably", "perhaps", "possibly", "maybe", "reportedly", "allegedly", "supposedly",
    "apparently", "usually", "often", "than", "also", "then", "later", "today", "currently", "only", "even", "whether",
    "unless", "nobody", "nothing", "let", "let's", "don't", "please",
])
_SUBJECT_ADVERBS = frozenset(["also", "later", "then", "now", "still", "once", "soon", "eventually", "first"])
_MONTHS = frozenset([
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
])
# fmt: on
_LOCATIVES = frozenset(["in", "at", "near", "from", "across", "on", "into", "through"])
_PERSON_ARTICLES = frozenset(["the", "a", "an"])
_MAX_SUBJECT_WORDS = 7
_MAX_PREFIX = 600
_EMPHASIS = re.compile(r"[*_]")
_DEFINES = re.compile(r"\s+(?:(?:also|both|probably|perhaps|now|still|once)\s+)?(?:an?|the|one\s+of)\s", re.IGNORECASE)


class Subject(NamedTuple):
    """The subject of a sentence and the verb after it.

    Attributes:
        start: First character of the subject in the sentence.
        end: One past its last character.
        verb: The verb, in lower case.
        verb_end: One past its last character.
        named: Whether it is a name, or a single capitalised noun.
        pronoun: The pronoun in lower case, if it is or begins with one.
    """

    start: int
    end: int
    verb: str
    verb_end: int
    named: bool
    pronoun: str = ""


def subject_of(sentence: str) -> Subject | None:
    """The subject, if the sentence begins with it and a verb follows; None if that is not clear.

    "(1879-1955)" and a part between commas may be between a name and its verb.

    Args:
        sentence: A sentence or clause.
    """
    tokens = words(_EMPHASIS.sub(" ", sentence[:_MAX_PREFIX]))
    i = 1 if tokens and tokens[0][0] in "\"'\u201c" else 0
    if len(tokens) < i + 2 or not (tokens[i][0][0].isalpha()) or tokens[i][0].lower() in _NO_SUBJECTS:
        return None
    first = tokens[i][0].lower()
    if first in PRONOUNS:
        return _subject_with_verb(tokens, i, i + 1, named=False, pronoun=first)
    at = i + 1 if first in _DETERMINERS else i
    first_word = at
    while at < len(tokens) and at - first_word < _MAX_SUBJECT_WORDS:
        word = tokens[at][0]
        lower = word.lower()
        if (
            at > first_word
            and word.islower()
            and (is_finite(lower) or lower in _SUBJECT_ADVERBS or lower.endswith("ly"))
        ):
            break
        initial = word == "." and at > first_word and len(tokens[at - 1][0]) == 1
        connector = lower in _CONNECTORS and at > first_word
        if not initial and not connector and (not word[0].isalnum() or (lower in _NO_SUBJECTS and word.islower())):
            break
        at += 1
    if at == first_word or tokens[at - 1][0].lower() in _CONNECTORS:
        return None
    inside = [m[0] for m in tokens[first_word:at]]
    named = inside[0][0].isupper() and all(w[0].isupper() or not w[0].isalpha() or w in _CONNECTORS for w in inside)
    verb = _skip_parenthetical(tokens, at) if named else at
    pronoun = first if first in POSSESSIVES else ""
    return _subject_with_verb(tokens, i, at, named=named, pronoun=pronoun, verb=verb)


def _subject_with_verb(
    tokens: list[re.Match[str]], first: int, after: int, *, named: bool, pronoun: str, verb: int | None = None
) -> Subject | None:
    at = after if verb is None else verb
    while at < len(tokens) and (tokens[at][0].lower() in _SUBJECT_ADVERBS or tokens[at][0].lower().endswith("ly")):
        at += 1
    if at >= len(tokens) or not tokens[at][0].islower() or not is_finite(tokens[at][0]):
        return None
    match = tokens[at]
    end = tokens[after - 1].end()
    return Subject(tokens[first].start(), end, match[0], match.end(), named, pronoun)


def _skip_parenthetical(tokens: list[re.Match[str]], at: int) -> int:
    """Position after brackets or commas that follow a name."""
    if at < len(tokens) and tokens[at][0] in "(,":
        closing = ")" if tokens[at][0] == "(" else ","
        for j in range(at + 1, min(len(tokens) - 1, at + 16)):
            if tokens[j][0] == closing:
                return j + 1
    return at


def is_plural(subject: Subject) -> bool:
    """Whether a subject is plural, by its verb."""
    return subject.verb in {"are", "were", "have"}


def is_described(subject: Subject) -> bool:
    """Whether the sentence defines or describes its subject, so that a following "it" likely refers to it."""
    return subject.verb in BE or subject.verb in PRESENT & {"lies", "stands", "sits", "spans", "belongs", "rises"}


def is_defined(sentence: str, subject: Subject) -> bool:
    """Whether the sentence defines its subject ("is a museum", "was one of the …") and is about nothing else."""
    return subject.verb in BE and _DEFINES.match(sentence, subject.verb_end) is not None


def other_names(sentence: str, subject: Subject | None, *, persons: bool) -> bool:
    """Whether a sentence names something other than its subject to which a following pronoun may refer.

    Locations ("in Paris") and months do not count; for persons neither do names with an article ("the Seine").
    """
    after = subject.end if subject is not None else 0
    tokens = words(_EMPHASIS.sub(" ", sentence[after : after + 4 * _MAX_PREFIX]))
    subject_words = {w.lower() for w in re.findall(r"\w+", sentence[:after])} if subject is not None else set()
    is_in_name = False
    for i, match in enumerate(tokens):
        word = match[0]
        if not word[0].isupper() or (subject is None and i == 0):
            is_in_name = is_in_name and word.lower() in _CONNECTORS
            continue
        before = tokens[i - 1][0].lower() if i else ""
        is_exempt = (
            is_in_name
            or before in _LOCATIVES
            or (before == "of" and not persons)
            or word.lower() in _MONTHS
            or word.lower() in subject_words
        )
        is_exempt = is_exempt or (
            i > 1 and before in _PERSON_ARTICLES and (persons or tokens[i - 2][0].lower() in _LOCATIVES)
        )
        if not is_exempt:
            return True
        is_in_name = True
    return False


_PRONOUN = re.compile(
    r"[\"'\u201c*_]{0,3}(?:(?:In|On|By|During|Since|From|After|At|Later|Then|Today|Also)\b[^,.\n]{0,40},\s+)?"
    r"(?P<pronoun>He|She|It|They|His|Her|Its|Their|he|she|it|they|his|her|its|their)\b(?!['\u2019])"
)
_DUMMY = re.compile(
    r"(?:is|was|has been|seems|appears|turns|takes|took|rains|snows)\b[^.]{0,60}?\b(?:that|to|who|whether|because"
    r"|when|how)\b"
    r"|(?:is|was)\s+(?:raining|snowing|late|early|cold|hot|clear|possible|true|false)\b|(?:rains|rained|snows)\b",
    re.IGNORECASE,
)
_DEFINITION_QUESTION = re.compile(
    r"\s*(?:what|which|who|where|when|how\s+\w+|why)\s+(?:is|was|are|were)\s+(?P<what>[^?,;\n]{1,120}?)\s*\?*\s*$",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\s*(?:what|which|who|where|when|how|why|in\s+(?:what|which)|did|does|was|is|how\s+\w+)\s[^\n]{0,160}$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"\b[^\W\d_a-z][\w'\u2019.-]*(?:\s+(?:(?:of|the|de|von|van|der|da|di|la|le|du)\s+)?[^\W\d_a-z][\w'\u2019-]*)*"
)
_TAIL = re.compile(
    r"\s+(?:born|founded|built|written|invented|discovered|located|found|made|completed|published|established"
    r"|called|named"
    r"|created|painted|composed|signed|opened|introduced|released|used|known|famous|important|situated|like|first"
    r"|for)\b.*$"
)
_FULL_STOP = re.compile(r"[.\s]+$")


class Antecedents:
    """Antecedents of pronouns, sentence by sentence.

    Args:
        question: The question; a first "it" or "she" may refer to its topic.
    """

    def __init__(self, question: str = "") -> None:
        question = question.strip()[:400]
        self._person, self._thing = _question_topic(question)
        self._plural = ""
        self._gender = ""

    def resolved(self, sentence: str) -> tuple[int, int, str] | None:
        """Replacement for the pronoun at the start of a sentence.

        Args:
            sentence: The sentence.

        Returns:
            Start, end and the replacement; None if there is no pronoun or it is kept.
        """
        match = _PRONOUN.match(sentence)
        if match is None:
            return None
        pronoun = match["pronoun"].lower()
        if pronoun == "it" and _DUMMY.match(sentence[match.end() :].lstrip()[:120]):
            return None
        if pronoun in ("he", "she", "his", "her"):
            gender = "she" if pronoun in ("she", "her") else "he"
            name = self._person if self._gender in ("", gender) else ""
            if name:
                self._gender = gender
        else:
            name = self._thing if pronoun in ("it", "its") else self._plural
        if not name:
            return None
        start = match.start("pronoun")
        if start > 0 and name.startswith("The ") and sentence[:start].strip("\"'\u201c*_ "):
            name = "the " + name[4:]
        elif start == 0 or not sentence[:start].strip("\"'\u201c*_ "):
            name = name[0].upper() + name[1:]
        return start, match.end("pronoun"), name + ("'s" if pronoun in POSSESSIVES else "")

    def add(self, sentence: str) -> None:
        """Add a sentence, with its pronoun replaced if possible."""
        subject = subject_of(sentence)
        if subject is None or (subject.pronoun and not subject.named):
            if other_names(sentence, None, persons=False):
                self._person = self._thing = self._plural = self._gender = ""
            return
        self._set_antecedents(sentence, subject)

    def call(self, name: str) -> None:
        """Add a label ("Mercury: ..."), the topic of the text after it."""
        self._person = self._thing = name
        self._plural = self._gender = ""

    def _set_antecedents(self, sentence: str, subject: Subject) -> None:
        name = " ".join(sentence[subject.start : subject.end].replace("*", "").replace("_", " ").split())
        is_same = name == self._person
        article = name.lower().startswith(("the ", "a ", "an "))
        is_plural_subject = is_plural(subject)
        persons = subject.named and not article and not is_plural_subject
        is_definition = is_defined(sentence, subject)
        is_unambiguous = is_definition or not other_names(sentence, subject, persons=True)
        self._person = name if persons and is_unambiguous else ""
        self._gender = self._gender if is_same else ""
        is_description = is_definition or (is_described(subject) and not other_names(sentence, subject, persons=False))
        is_description = is_description and not self._gender
        is_definite = subject.named or name.lower().startswith("the ")
        self._thing = name if is_definite and is_description and not is_plural_subject else ""
        self._plural = name if is_definite and is_description and is_plural_subject else ""


def _question_topic(question: str) -> tuple[str, str]:
    """The person and the thing that a question may be about; empty where there is not exactly one."""
    names = [m for m in _NAME.finditer(question) if m.start() > 0]
    person = ""
    if len(names) == 1 and _QUESTION.match(question):
        before = question[: names[0].start()].split()
        person = (
            "" if before and before[-1].lower() in ("the", "of", "in") else names[0][0].rstrip(".").removesuffix("'s")
        )
    question_match = _DEFINITION_QUESTION.match(question)
    thing = _FULL_STOP.sub("", _TAIL.sub("", question_match["what"])) if question_match else ""
    if not thing.lower().startswith("the ") and not (thing[:1].isupper() and len(names) == 1):
        thing = ""
    return person, thing


_UNSAFE = re.compile(
    r"\b(?:if|unless|whether|neither|nor|either|or|than|would|could|should|might|may|can|must|will|because|although"
    r"|though"
    r"|while|when|until|since|who|whom|which|whose|that|where|both|not|no|never|cannot|probably|possibly|perhaps|likely"
    r"|unlikely|reportedly|allegedly|supposedly|apparently|maybe|generally|usually|often|sometimes|typically|presumably"
    r"|believed|thought|considered|said|says|claimed|rumou?red|seems?|appears?|respectively|together|jointly|only|every"
    r"|each|some|most|many|few|all|between|simultaneously|think|believe|suggest\w*|according|estimated|so|as)\b"
    r"|n['\u2019]t\b",
    re.IGNORECASE,
)
_AND = re.compile(r"(?P<comma>,)?\s+(?P<word>and|but)\s+")
_ADVERBS = frozenset(
    ["later", "then", "also", "eventually", "subsequently", "finally", "soon", "now", "today", "still"]
)
_SEMICOLON = re.compile(r";\s+")
# fmt: off
_ALSO_NOUNS = frozenset([
    "plays", "works", "states", "houses", "rules", "turns", "uses", "forms", "starts", "ends", "covers", "costs",
    "runs", "needs", "falls", "rises", "acts", "shows", "causes", "measures", "controls", "accounts", "supplies",
    "supports", "orbits", "moves", "means", "stores", "flows", "breaks", "borders", "hosts", "helps", "stands",
    "reaches", "lives", "lies", "increases", "leads", "joins", "lets", "lasts", "boils", "eats", "lays", "sits",
    "spans", "wins",
])
_OBJECT_STARTS = frozenset([
    "the", "a", "an", "his", "her", "its", "their", "in", "to", "from", "at", "on", "for", "with", "into", "several",
    "two", "three", "four", "five", "there", "until", "after", "over", "about", "under", "through", "back", "part",
])
# fmt: on
_TRANSITIVE_PAST = frozenset(["bore", "broke", "drank", "drove", "rang", "saw", "threw", "fell", "rose"])


class Part(NamedTuple):
    """A part of a sentence with one statement.

    Attributes:
        start: First character in the sentence.
        end: One past the last character.
        subject: Span in the sentence of the subject that it lacks; None if it has its own.
    """

    start: int
    end: int
    subject: tuple[int, int] | None = None


def split_parts(sentence: str) -> list[Part]:
    """The parts of a sentence, in order; the complete sentence if it must not be split.

    Args:
        sentence: One sentence, code, formulas and quotations covered (`cover_markup`).
    """
    parts: list[Part] = []
    for start, end in _split_semicolons(sentence):
        parts += _split_conjunction(sentence, start, end)
    return parts


def _split_semicolons(sentence: str) -> list[tuple[int, int]]:
    """Split at semicolons if both sides have verbs."""
    separators = list(_SEMICOLON.finditer(sentence))
    starts = [0, *(m.end() for m in separators), len(sentence)]
    ends = [*(m.start() for m in separators), len(sentence)]
    pieces = list(zip(starts, ends, strict=False))
    all_have_verbs = all(
        subject_of(sentence[a:b]) is not None or (has_verb(sentence[a:b]) and a == 0) for a, b in pieces
    )
    return pieces if len(pieces) > 1 and all_have_verbs else [(0, len(sentence))]


def _split_conjunction(sentence: str, start: int, end: int) -> list[Part]:
    unchanged = [Part(start, end)]
    clause = sentence[start:end]
    if len(clause) > 600 or _UNSAFE.search(clause):
        return unchanged
    subject = subject_of(clause)
    if subject is None:
        return unchanged
    for match in _AND.finditer(clause, subject.verb_end):
        rest = clause[match.end() :]
        if match["comma"] or rest.split(" ", 1)[0] in PRONOUNS:
            second_subject = subject_of(rest)
            if second_subject is not None and has_verb(clause[: match.start()]):
                return [Part(start, start + match.start()), *_split_conjunction(sentence, start + match.end(), end)]
        if match["word"] == "and" and _has_second_verb(clause, subject, match):
            first = Part(start, start + match.start())
            return [first, Part(start + match.end(), end, (start + subject.start, start + subject.end))]
    return unchanged


def _has_second_verb(clause: str, subject: Subject, match: re.Match[str]) -> bool:
    """Whether the subject's second verb follows an "and", so that the subject can be repeated before it."""
    between = [w for w in words(clause[subject.verb_end : match.start()]) if w[0][0].isalnum()]
    following = words(clause[match.end() : match.end() + 120])
    if following and following[0][0] in _ADVERBS:
        following = following[1:]
    min_words = 2 if subject.verb in AUXILIARIES else 1  # "was born and died in Rome" is a single statement
    if len(between) < min_words or len(following) < 2:
        return False
    verb, after = following[0][0], following[1][0]
    if not verb.islower() or not after[0].isalnum():
        return False
    past = is_past(subject.verb) or subject.verb in ("was", "were", "had", "did")
    if verb in BE:
        return (verb in ("was", "were")) == past or subject.verb in ("has", "have")
    if verb in ("has", "have"):
        return not past and after.lower() not in ("been",)
    if verb in SIMPLE_PAST:
        return past and (verb not in _TRANSITIVE_PAST or subject.verb not in AUXILIARIES)
    object_follows = after.lower() in _OBJECT_STARTS or after[0].isupper() or after[0].isdigit()
    if verb in PRESENT:
        return not past and verb not in _ALSO_NOUNS and object_follows
    plain_past = is_past(subject.verb) and subject.verb not in AUXILIARIES
    return is_past(verb) and plain_past and object_follows
