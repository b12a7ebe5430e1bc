"""`Antecedents`: who "he", "she", "it" or "they" at a sentence's beginning is, where only one can be meant.

The subject of the sentence before is meant if that sentence says what it is ("The Louvre is a museum. It …"), whatever
else it names; otherwise only if nothing else is named there, and for "it" and "they" only if it says how or where the
subject is. In doubt a pronoun stays: a wrong name makes a wrong claim.
"""

from __future__ import annotations

import re

from .subjects import POSSESSIVES, Subject, is_defined, is_described, is_plural, other_names, subject_of

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
_ASKED = re.compile(
    r"\s*(?:what|which|who|where|when|how\s+\w+|why)\s+(?:is|was|are|were)\s+(?P<what>[^?,;\n]{1,120}?)\s*\?*\s*$",
    re.IGNORECASE,
)
_ASKED_OF = re.compile(
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
    """What pronouns may stand for, sentence by sentence.

    Args:
        question: The question that the answer replies to; its topic is what a first "it" or "she" may mean.
    """

    def __init__(self, question: str = "") -> None:
        question = question.strip()[:400]
        self._person, self._thing = _asked_about(question)
        self._plural = ""
        self._called = ""

    def resolved(self, sentence: str) -> tuple[int, int, str] | None:
        """What to put for the pronoun at a sentence's beginning.

        Args:
            sentence: The sentence.

        Returns:
            Start, end and the new words; None if there is no pronoun or it stays.
        """
        match = _PRONOUN.match(sentence)
        if match is None:
            return None
        pronoun = match["pronoun"].lower()
        if pronoun == "it" and _DUMMY.match(sentence[match.end() :].lstrip()[:120]):
            return None
        if pronoun in ("he", "she", "his", "her"):
            gender = "she" if pronoun in ("she", "her") else "he"
            name = self._person if self._called in ("", gender) else ""
            if name:
                self._called = gender
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

    def hear(self, sentence: str) -> None:
        """Take in a sentence, its pronoun replaced where that could be done."""
        subject = subject_of(sentence)
        if subject is None or (subject.pronoun and not subject.named):
            if other_names(sentence, None, persons=False):
                self._person = self._thing = self._plural = self._called = ""
            return
        self._about(sentence, subject)

    def call(self, name: str) -> None:
        """Take in a label ("Mercury: …"), which is what follows is about."""
        self._person = self._thing = name
        self._plural = self._called = ""

    def _about(self, sentence: str, subject: Subject) -> None:
        name = " ".join(sentence[subject.start : subject.end].replace("*", "").replace("_", " ").split())
        same = name == self._person
        article = name.lower().startswith(("the ", "a ", "an "))
        plural = is_plural(subject)
        persons = subject.named and not article and not plural
        defined = is_defined(sentence, subject)
        alone = defined or not other_names(sentence, subject, persons=True)
        self._person = name if persons and alone else ""
        self._called = self._called if same else ""
        described = defined or (is_described(subject) and not other_names(sentence, subject, persons=False))
        described = described and not self._called
        clear = subject.named or name.lower().startswith("the ")
        self._thing = name if clear and described and not plural else ""
        self._plural = name if clear and described and plural else ""


def _asked_about(question: str) -> tuple[str, str]:
    """The person and the thing that a question may be about; empty where there is not exactly one."""
    names = [m for m in _NAME.finditer(question) if m.start() > 0]
    person = ""
    if len(names) == 1 and _ASKED_OF.match(question):
        before = question[: names[0].start()].split()
        person = (
            "" if before and before[-1].lower() in ("the", "of", "in") else names[0][0].rstrip(".").removesuffix("'s")
        )
    asked = _ASKED.match(question)
    thing = _FULL_STOP.sub("", _TAIL.sub("", asked["what"])) if asked else ""
    if not thing.lower().startswith("the ") and not (thing[:1].isupper() and len(names) == 1):
        thing = ""
    return person, thing
