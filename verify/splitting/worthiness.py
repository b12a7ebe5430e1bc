"""Whether a sentence is worth checking: it states something, rather than asking, advising, judging taste or chatting.

Only these are left out: questions, instructions, opinions, talk about the answer itself, and what says nothing. A
sentence that may be a statement is kept: a claim too many costs a check, a claim too few hides an error.
"""

from __future__ import annotations

import re
from typing import Literal

from .masking import COVER
from .subjects import subject_of
from .verbs import AUXILIARIES, has_verb

Kind = Literal["statement", "fragment", "question", "instruction", "opinion", "talk", "nothing"]

# fmt: off
_COMMANDS = frozenset([
    "add", "apply", "ask", "avoid", "bake", "be", "boil", "bring", "build", "call", "check", "choose", "click",
    "close", "combine", "compare", "compute", "consider", "consult", "contact", "convert", "cook", "copy", "count",
    "cut", "divide", "do", "don't", "draw", "drink", "eat", "ensure", "enter", "explain", "explore", "fill", "find",
    "follow", "get", "give", "go", "heat", "imagine", "install", "keep", "learn", "leave", "let", "list", "look",
    "make", "measure", "mix", "move", "multiply", "never", "always", "open", "pick", "place", "please", "pour",
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
_ADVICE = re.compile(
    r"\b(?:you|we|one|i)(?:['\u2019]d)?\s+(?:should|must|need to|ought to|might want to|may want to|have to"
    r"|had better)\b"
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
    r"|have a (?:great|nice|good)|to answer (?:this|that|your) question\W*$)",
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
_ASKING = AUXILIARIES | {
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
_LONG = 60
_INTRODUCING = re.compile(rf":\s*{COVER}+$")
_SHOUT = re.compile(r"\W*(?:\w+\W+){0,2}\w*!+\W*$")


def kind_of(sentence: str) -> Kind:
    """What kind of sentence it is; "fragment" is a statement without a verb, such as a name alone.

    Args:
        sentence: One sentence, in which code and formulas may be covered (`masking.masked`); its beginning counts.
    """
    text = sentence.strip().lstrip("*_>#-\u2022 \t\"'\u201c(")[:2000]
    if not _LETTER.search(text):
        return "nothing"
    if _QUESTION.search(sentence.rstrip()[-40:]) and not _states_in_spite(text):
        return "question"
    title = text.startswith("I ") and text[2:3].isupper()  # "I Feel for You is an album."
    if _TALK.match(text) and not title:
        return "talk"
    if (_FIRST_PERSON_TASTE.match(text) and not title) or _JUDGEMENT.match(text):
        return "opinion"
    if _STRONG_COMMAND.match(text) or _ADVICE.search(text[:200]):
        return "instruction"
    stated = has_verb(text) or _equality(text) or (COVER in text and not _INTRODUCING.search(text))
    first = _WORD.match(text)
    if first is not None and first[0].lower() in _COMMANDS and not stated:
        one_word = len(_WORD.findall(text)) == 1
        return "fragment" if one_word and not text.endswith((".", "!")) else "instruction"
    if not stated and _SHOUT.match(text) and len(text) < 40:
        return "talk"
    return "statement" if stated else "fragment"


def _states_in_spite(text: str) -> bool:
    """Whether a sentence with a mark of interrogation states something: the mark may be that of a title at its end."""
    first = _WORD.match(text)
    if first is None or first[0].lower() in _ASKING or _TAG.search(text[-60:]):
        return False
    return subject_of(text) is not None or (len(text) > _LONG and has_verb(text))


def is_worth_checking(sentence: str) -> bool:
    """Whether a sentence states something that can be true or false."""
    return kind_of(sentence) in ("statement", "fragment")


def _equality(text: str) -> bool:
    return any(sign in text for sign in "=<>\u2248\u2260\u2264\u2265")
