"""Antecedents of pronouns, demonstratives and incomplete noun phrases, sentence by sentence.

A pronoun at the start of a sentence refers to the subject of the previous sentence if that sentence defines it ("The
Louvre is a museum. It ..."); otherwise only if nothing else is named there to which it may refer. If in doubt, it is
kept: a wrong name makes a wrong claim.
"""

from __future__ import annotations

import re

from .clauses import complete_ellipsis
from .grammar import (
    BE,
    CONNECTORS,
    LOCATIVES,
    MONTHS,
    POSSESSIVES,
    PRESENT,
    Subject,
    is_finite,
    is_past,
    subject_of,
    words,
)
from .verbs import BASES, is_participle

# fmt: off
_PERSON_NOUNS = frozenset([
    "actor", "actress", "admiral", "ambassador", "architect", "artist", "astronaut", "athlete", "aunt", "author",
    "baker", "banker", "biologist", "bishop", "boy", "brother", "captain", "chair", "chairman", "chairperson",
    "chairwoman", "champion", "chancellor", "chef", "chemist", "child", "coach", "composer", "conductor", "cousin",
    "cyclist", "dancer", "daughter", "dentist", "designer", "diplomat", "director", "doctor", "driver", "economist",
    "editor", "emperor", "employee", "empress", "engineer", "explorer", "farmer", "father", "founder", "general",
    "girl", "goalkeeper", "governor", "guitarist", "historian", "husband", "inventor", "journalist", "judge",
    "king", "lawyer", "leader", "lecturer", "man", "manager", "mathematician", "mayor", "merchant", "minister",
    "mother", "musician", "novelist", "nurse", "officer", "owner", "painter", "passenger", "patient", "philosopher",
    "photographer", "physician", "physicist", "pianist", "pilot", "player", "poet", "politician", "pope",
    "president", "priest", "prince", "princess", "prisoner", "producer", "professor", "pupil", "queen", "rider",
    "runner", "sailor", "scholar", "scientist", "sculptor", "secretary", "senator", "singer", "sister", "skier",
    "soldier", "son", "student", "surgeon", "swimmer", "teacher", "treasurer", "uncle", "violinist", "visitor",
    "widow", "wife", "winner", "woman", "worker", "writer",
])
_ATTRIBUTES = frozenset([
    "age", "amount", "area", "average", "cost", "density", "depth", "distance", "height", "length", "music", "name",
    "number", "population", "score", "size", "speed", "temperature", "total", "weight", "width",
])
"""Nouns of properties: what a following "it" refers to is rather the thing that has the property."""
_ADJUNCTS = LOCATIVES | frozenset(["of", "to", "since", "during", "until", "after", "before", "between", "for", "as",
    "without"])
_ARTICLES = frozenset(["the", "a", "an"])
_COMPETING = frozenset(["the", "a", "an", "this", "that", "its", "his", "her", "their", "another"])
_MOVED = frozenset(["back", "came", "emigrated", "fled", "moved", "returned", "travelled", "went"])
_BREAKS = frozenset([
    "in", "on", "at", "by", "from", "to", "for", "with", "of", "and", "or", "that", "which", "who", "whose", "where",
    "when", "near", "between", "founded", "based", "born", "located", "made", "built", "known", "about",
])
# fmt: on
_EMPHASIS = re.compile(r"[*_]")
_DEFINES = re.compile(r"\s+(?:(?:also|both|probably|perhaps|now|still|once)\s+)?(?:an?|the|one\s+of)\s", re.IGNORECASE)
_LEADING = (
    r"(?:(?:In|On|By|During|Since|From|After|At|Later|Then|Today|Also|Soon|Until|Before|According\sto)\b[^,.\n]{0,40},\s+"
    r"|(?:In|By|Since|Until|After)\s+(?:[A-Z][a-z]+\s+)?[0-9]{4}\s+"
    r"|[^,.;:\n]{1,30}\s(?:later|earlier|afterwards|year|month|week|day),?\s+)"
)
_LEADING_PHRASE = re.compile(rf"{_LEADING}(?=\w)")
_PRONOUN = re.compile(
    rf"[\"'\u201c*_]{{0,3}}{_LEADING}?"
    r"(?P<pronoun>He|She|It|They|His|Her|Its|Their|he|she|it|they|his|her|its|their)\b(?!['\u2019])"
)
_CONTRACTION = re.compile(
    rf"\A({_LEADING}?(?:[Ii]t|[Hh]e|[Ss]he|[Tt]here|[Tt]hat|[Tt]hey))['\u2019](s|re)\b(?=\s+(\w+))"
)
_DUMMY = re.compile(
    r"depends\b|(?:is|was)\s+because\b|(?:rains|rained|snows)\b"
    r"|(?:is|was|has been|(?:would|could|might|may|will|can|should|must)(?:\s+(?:also|not))?\s+be|seems|appears"
    r"|turns|takes|took)\b(?P<what>[^.]{0,60}?)\b(?P<link>that|to|who|whether|when|how)\b"
    r"|(?:is|was)\s+(?:raining|snowing|late|early|cold|hot|clear|possible|true|false)\b",
    re.IGNORECASE,
)
_REPORTED = frozenset([
    "known", "said", "believed", "thought", "reported", "estimated", "expected", "assumed", "claimed", "required",
    "recommended", "decided", "agreed", "argued", "hoped", "feared", "rumoured", "rumored", "called",
])  # fmt: skip
_NOTIONS = frozenset(["pity", "shame", "fact", "myth", "mistake", "misconception", "rule", "tradition", "requirement"])
_DESCRIPTION = re.compile(r"(?:This|The|That|These)\s+(?P<noun>[a-z]+)(?P<genitive>['\u2019]s?)?(?=\s+(?P<next>\w+))")
_FORMER = re.compile(r"\b[Tt]he\s+(?P<which>former|latter)(?=\s+(?P<next>[a-z]+))")
_THAT_YEAR = re.compile(
    r"(?:In\s+)?(?:[Tt]hat|[Tt]he)\s+same\s+year,?\s+|(?:In\s+)?[Tt]hat\s+year,?\s+|In the same year,?\s+"
)
_THERE = re.compile(r"(?<!\bis)(?<!\bwas)(?<!\bare)(?<!\bwere)\s+there\b(?!\s+(?:is|was|are|were|has|have|to))")
_PLACE = re.compile(
    r"\b(?P<prep>[Ii]n|[Aa]t|to)\s+(?P<name>(?:the\s+)?[^\W\d_a-z][\w'\u2019-]*(?:\s+[^\W\d_a-z][\w'\u2019-]*)*)"
)
_YEAR = re.compile(r"\b[12][0-9]{3}\b")
_ONE = re.compile(
    r"\b(?P<det>[Tt]he|[Aa]nother|[Aa])\s+(?P<adj>first|second|third|fourth|fifth|last|other|next|new|old|smaller|larger"
    r"|(?!west|east|rest|best|test|forest|guest|contest|request|interest|chest|nest|protest|harvest|priest)[a-z]{3,}est)"
    r"(?:\s+one)?(?=\s+(?P<verb>[a-z]+)|[.!]?$)"
)
_NONE = re.compile(r"\b(?P<verb>has|have|had)\s+none(?:\s+either)?(?=[.!]?$)")
_COUNTED = re.compile(
    r"\b(?:has|have|had|are|were|there\s+(?:are|were))\s+(?:about\s+|only\s+|exactly\s+)?(?:no|[0-9][0-9.,]*|two|three"
    r"|four|five|six|seven|eight|nine|ten|twelve|several|many)\s+(?:[a-z]+\s+)?(?P<noun>[a-z]+s)\b"
)
_SUBJECT_COUNTED = re.compile(
    r"(?:The|A|One)\s+(?:(?:first|second|third|old|older|new|newer|larger|smaller|[a-z]+est)\s+)?(?P<noun>[a-z]+)$"
)
_PLURAL_PHRASE = re.compile(r"\b(?:the|their|some|many|several|other|these|those|and)\s+(?:\w+\s+)?\w{2,}s\b")
_IDENTITY = re.compile(r"\s+(?:[Tt]he\s+)?[^\W\d_a-z][\w'\u2019-]*(?:\s+[^\W\d_a-z][\w'\u2019-]*)*[.]?$")
_NAME = re.compile(
    r"\b[^\W\d_a-z][\w'\u2019.-]*(?:\s+(?:(?:of|the|de|von|van|der|da|di|la|le|du)\s+)?[^\W\d_a-z][\w'\u2019-]*)*"
)


def _is_plural(name: str, subject: Subject) -> bool:
    if subject.verb in ("are", "were", "have") or " and " in name:
        return True
    if subject.verb in BASES and not is_past(subject.verb):
        return True
    if subject.verb in ("is", "was", "has") or subject.named:
        return False
    head = _head(name)
    return head.endswith("s") and not head.endswith(("ss", "us", "is"))


def _head(name: str) -> str:
    """The noun of a noun phrase in lower case, without a phrase after it: "The bridge in Oslo" is a bridge."""
    parts = name.split()
    stop = next((i for i, w in enumerate(parts) if i > 0 and w.lower() in _BREAKS), len(parts))
    return parts[stop - 1].lower() if stop else ""


def _singular(noun: str) -> str:
    return noun[:-3] + "y" if noun.endswith("ies") else noun.removesuffix("s")


def _other_names(sentence: str, subject: Subject | None, *, persons: bool) -> bool:
    """Whether a sentence names something other than its subject to which a following pronoun may refer.

    Locations ("in Paris") and months do not count; for persons neither do names with an article ("the Seine").
    """
    after = subject.end if subject is not None else 0
    tokens = words(_EMPHASIS.sub(" ", sentence[after : after + 2400]))
    subject_words = {w.lower() for w in re.findall(r"\w+", sentence[:after])} if subject is not None else set()
    is_in_name = False
    for i, match in enumerate(tokens):
        word = match[0]
        if not word[0].isupper() or (subject is None and i == 0):
            is_in_name = is_in_name and word.lower() in CONNECTORS
            continue
        before = tokens[i - 1][0].lower() if i else ""
        is_exempt = (
            is_in_name
            or before in LOCATIVES
            or (before == "of" and not persons)
            or (before == "to" and i > 1 and tokens[i - 2][0].lower() in _MOVED)
            or word.lower() in MONTHS
            or word.lower() in subject_words
        )
        is_exempt = is_exempt or (i > 1 and before in _ARTICLES and (persons or tokens[i - 2][0].lower() in LOCATIVES))
        if not is_exempt:
            return True
        is_in_name = True
    return False


def _competing_thing(sentence: str, subject: Subject) -> bool:
    """Whether the predicate of a sentence has a noun phrase to which a following "it" may refer."""
    if subject.verb in ("has", "have", "had"):
        return False
    tokens = words(_EMPHASIS.sub(" ", sentence[subject.verb_end : subject.verb_end + 2400]))
    for i, match in enumerate(tokens):
        word, before = match[0], tokens[i - 1][0].lower() if i else ""
        following = tokens[i + 1][0] if i + 1 < len(tokens) else ""
        if word.lower() in _COMPETING and before not in _ADJUNCTS:
            return True
        is_name = word[0].isupper() and word.lower() not in MONTHS
        if is_name and before not in _ADJUNCTS | _ARTICLES and not (i and tokens[i - 1][0][0].isupper()):
            is_agent = before == "by" and following[:1].isupper()  # "by Ada Berg": a person
            if not is_agent:
                return True
    return False


def _is_dummy(predicate: str) -> bool:
    """Whether "it" refers to nothing in "it is known that", "it is late", "it was Anna who"."""
    match = _DUMMY.match(predicate)
    if match is None or match["link"] is None:
        return match is not None
    what = match["what"].lower().split()
    is_passive = bool(what) and is_participle(what[0]) and what[0] not in _REPORTED
    is_kind = what[:1] in (["a"], ["an"]) and match["link"] == "that" and what[-1] not in _NOTIONS
    return not is_passive and not is_kind


def _competing_plural(sentence: str, subject: Subject) -> bool:
    """Whether the predicate of a sentence has a plural to which a following "they" may refer."""
    after = sentence[subject.verb_end : subject.verb_end + 2400]
    return _PLURAL_PHRASE.search(after) is not None


class Antecedents:
    """Antecedents of pronouns and incomplete noun phrases, sentence by sentence.

    Args:
        topic: What the question is about; a first "it" or "she" may refer to it.
    """

    def __init__(self, topic: str = "") -> None:
        self._person = self._thing = self._plural = ""
        self._gender = self._continued = ""
        self._described: dict[str, str] = {}
        self._previous = ""
        self._known = topic
        self._pair: list[str] = []
        self._counted = ""
        if topic:
            self._set_topic(topic)

    def _set_topic(self, topic: str) -> None:
        head = _head(topic)
        is_definite = topic.lower().startswith(("the ", "this ", "these "))
        is_name = topic[:1].isupper() and not is_definite
        if is_name and " and " in topic:
            self._plural = topic
        elif is_name:
            self._person = self._thing = topic
        elif is_definite and head in _PERSON_NOUNS:
            self._person = topic
        elif is_definite and head.endswith("s") and not head.endswith(("ss", "us", "is")):
            self._plural = topic
        elif is_definite:
            self._thing = topic
        elif topic and topic.split()[0].lower() not in ("a", "an", "there"):
            self._plural = topic if head.endswith("s") else ""
            self._thing = "" if head.endswith("s") or " " in topic else topic

    def resolved(self, sentence: str) -> str:
        """A sentence with names in place of the words that refer to them, as far as they are certain.

        Args:
            sentence: The sentence.
        """
        sentence = _CONTRACTION.sub(_uncontracted, sentence, count=1)
        sentence = self._with_year(sentence)
        sentence = self._with_names_of_previous(sentence)
        sentence = self._with_noun(sentence)
        completed = complete_ellipsis(sentence, self._previous) if self._previous else None
        sentence = completed or sentence
        sentence = self._with_described(sentence)
        return self._with_pronoun(sentence)

    def _with_pronoun(self, sentence: str) -> str:
        match = _PRONOUN.match(sentence)
        if match is None:
            return sentence
        pronoun = match["pronoun"].lower()
        if pronoun == "it" and _is_dummy(sentence[match.end() :].lstrip()[:120]):
            return sentence
        if pronoun in ("he", "she", "his", "her"):
            gender = "she" if pronoun in ("she", "her") else "he"
            is_reported = sentence.startswith("According")
            name = self._person if self._gender in ("", gender) and not is_reported else ""
            if name:
                self._gender = gender
        else:
            name = self._thing if pronoun in ("it", "its") else self._plural
            self._continued = name
        if not name or (pronoun == "her" and sentence[match.end() :].lstrip()[:1] in ",.;"):
            return sentence
        if pronoun in POSSESSIVES and " of " in name:  # "the capital of Norway": its capital is Norway's
            noun, _, whole = name.partition(" of ")
            if sentence[match.end() :].split()[:1] != [noun.split()[-1]]:
                return sentence
            name = whole
        start = match.start("pronoun")
        is_first = not sentence[:start].strip("\"'\u201c*_ ")
        if is_first:
            name = name[0].upper() + name[1:]
        elif name.startswith(("The ", "This ", "These ")):
            name = name[0].lower() + name[1:]
        genitive = ("'" if name.endswith("s") and pronoun == "their" else "'s") if pronoun in POSSESSIVES else ""
        return sentence[:start] + name + genitive + sentence[match.end("pronoun") :]

    def _with_year(self, sentence: str) -> str:
        match = _THAT_YEAR.match(sentence)
        years = set(_YEAR.findall(self._previous))
        if match is None or len(years) != 1:
            return sentence
        return f"In {years.pop()}, {sentence[match.end() :]}"

    def _with_names_of_previous(self, sentence: str) -> str:
        match = _FORMER.search(sentence)
        names = self._pair
        if match is not None and len(names) == 2 and is_finite(match["next"]):
            name = names[0] if match["which"] == "former" else names[1]
            sentence = sentence[: match.start()] + name + sentence[match.end() :]
        there = _THERE.search(sentence)
        places = {m["prep"].lower() + " " + m["name"] for m in _PLACE.finditer(self._previous)}
        places = {p for p in places if p.split()[-1].lower() not in MONTHS}
        if there is not None and len(places) == 1:
            place = places.pop()
            place = "in" + place.removeprefix("to") if place.startswith("to ") else place
            sentence = f"{sentence[: there.start()]} {place}{sentence[there.end() :]}"
        return sentence

    def _with_noun(self, sentence: str) -> str:
        if not self._counted:
            return sentence
        match = _ONE.search(sentence)
        is_subject = match is not None and (
            match.start() == 0 or sentence[: match.start()].lower().split()[:1] in (["so"], ["neither"], ["nor"])
        )
        if match is not None and is_subject and (match["verb"] is None or is_finite(match["verb"])):
            noun = f"{match['det']} {match['adj']} {_singular(self._counted)}"
            sentence = sentence[: match.start()] + noun + sentence[match.end() :]
        return _NONE.sub(lambda m: f"{m['verb']} no {self._counted}", sentence)

    def _with_described(self, sentence: str) -> str:
        match = _DESCRIPTION.match(sentence)
        name = self._described.get(match["noun"], "") if match is not None else ""
        if not name and match is not None and _head(self._thing) == match["noun"]:
            name = self._thing  # "The bridge … This bridge …"
        if match is None or not name or not (match["genitive"] or is_finite(match["next"])):
            return sentence
        return name[0].upper() + name[1:] + (match["genitive"] or "") + sentence[match.end() :]

    def add(self, sentence: str) -> None:
        """Add a sentence, with its pronoun replaced if possible."""
        leading = _LEADING_PHRASE.match(sentence)
        if leading is not None and subject_of(sentence) is None:
            sentence = sentence[leading.end()].upper() + sentence[leading.end() + 1 :]
        subject = subject_of(sentence)
        self._previous = sentence
        names = _names(sentence)
        if len(names) == 2 or not set(names) <= set(self._pair):
            self._pair = names if len(names) == 2 else []
        counted = list(_COUNTED.finditer(sentence))
        self._counted = counted[0]["noun"] if len(counted) == 1 else ""
        if subject is None or (subject.pronoun and not subject.named):
            known = [name for name in (self._thing, self._person, self._plural) if name]
            if any(map(sentence.startswith, known)):
                return
            if not sentence.lower().startswith(("nobody ", "no one ", "nothing ", "there ")):
                self._thing = self._plural = ""
            is_person = subject is not None and subject.pronoun in ("he", "she", "his", "her")
            if is_person or _other_names(sentence, None, persons=False):
                self._person = self._gender = ""
            return
        name = " ".join(sentence[subject.start : subject.end].replace("*", "").replace("_", " ").split())
        own = _SUBJECT_COUNTED.match(name)
        if own is not None and not self._counted:
            self._counted = own["noun"] + "s"
        self._set_antecedents(name, sentence, subject)

    def call(self, name: str) -> None:
        """Add a label ("Mercury: ..."), the topic of the text after it."""
        self._person = self._thing = name
        self._plural = self._gender = ""

    def _set_antecedents(self, name: str, sentence: str, subject: Subject) -> None:
        is_identity = subject.verb in BE and _IDENTITY.match(sentence, subject.verb_end) is not None
        is_definition = is_identity or (subject.verb in BE and _DEFINES.match(sentence, subject.verb_end) is not None)
        defined = _defined_noun(sentence, subject) if is_definition else ""
        is_same = name == self._person
        has_article = name.lower().startswith(("the ", "a ", "an "))
        plural = _is_plural(name, subject)
        head = _head(name)
        is_person = head in _PERSON_NOUNS or defined in _PERSON_NOUNS
        may_be_person = ((subject.named and not has_article) or is_person) and not plural and "'s " not in name
        if subject.named and name.endswith("s") and " " not in name and name not in self._known:
            may_be_person = False  # "Humans"
        is_unambiguous = is_definition or not _other_names(sentence, subject, persons=True)
        if not subject.named and any(w in _PERSON_NOUNS for w in sentence[subject.end :].split()):
            is_unambiguous = is_definition
        self._person = name if may_be_person and is_unambiguous and not name.lower().startswith(("a ", "an ")) else ""
        self._gender = self._gender if is_same else ""
        is_described = is_definition or (
            (subject.verb in BE or subject.verb in PRESENT & {"lies", "stands", "sits", "spans", "belongs", "rises"})
            and not _other_names(sentence, subject, persons=False)
        )
        is_common = (not subject.named or has_article) and not _competing_thing(sentence, subject)
        is_described = (is_described or is_common or name == self._thing) and not self._gender
        is_described = is_described and (is_definition or not _competing_thing(sentence, subject) or subject.verb in BE)
        is_described = is_described or name == self._continued  # "It … It …" is about one thing
        is_definite = subject.named or name.lower().startswith(("the ", "this ", "these ")) or "'s " in name
        may_be_thing = is_definite and is_described and not is_person and head not in _ATTRIBUTES
        self._thing = name if may_be_thing and not plural else ""
        may_be_plural = plural or (has_article and name.endswith("s") and subject.verb not in ("is", "was", "has"))
        self._plural = name if is_definite and may_be_plural and not _competing_plural(sentence, subject) else ""
        if subject.named or is_definition:
            for noun in {defined, head if name != name.lower() and " " in name else ""} - {""}:
                known = self._described.setdefault(noun, name)
                if known != name:
                    self._described[noun] = ""


def _uncontracted(match: re.Match[str]) -> str:
    if match[2] == "re":
        return f"{match[1]} are"
    has = match[3].lower() in ("been", "got", "had", "become")
    return f"{match[1]} {'has' if has else 'is'}"


def _names(sentence: str) -> list[str]:
    names = []
    for match in _NAME.finditer(sentence):
        name = match[0].rstrip(".")
        if name.split()[0].lower() not in MONTHS and name not in ("The", "In", "On", "At", "He", "She", "It", "They"):
            names.append(name)
    return names


def _defined_noun(sentence: str, subject: Subject) -> str:
    """The noun with which a sentence defines its subject: "company" in "Orla is a Norwegian company in Oslo"."""
    following = [m[0] for m in words(sentence[subject.verb_end : subject.verb_end + 200])]
    if not following or following[0].lower() not in _ARTICLES:
        return ""
    noun = ""
    for word in following[1:]:
        if not word[0].isalpha() or word.lower() in _BREAKS:
            break
        noun = word
    return noun.lower() if noun.islower() else ""


_ABOUT = re.compile(
    r"\s*(?:tell me (?:more )?about|describe|explain|what do you know about)\s+(?P<what>[^?.,;]{1,80})", re.I
)


def topic_of(question: str, subject: str) -> str:
    """What a question is about, to which a pronoun in its answer may refer; "" if that is not clear.

    Args:
        question: The question.
        subject: The subject of its statement (`QuestionForm.subject`).
    """
    if subject:
        return subject.removesuffix("'s")
    about = _ABOUT.match(question)
    return about["what"].strip() if about is not None else ""
