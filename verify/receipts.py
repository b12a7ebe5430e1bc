"""Claims of actions, and the tool calls that they need as receipts.

"I cancelled the order" is true only if a call that cancels it was executed and succeeded. A claim is one of an action
if the speaker, or nobody ("it has been cancelled"), did something: offers, plans, refusals, questions and conditions
state none, nor do acts of the answer itself ("I checked", "I summarized"). A program decides the clear cases:

- supported by a successful call that names the verb, or a synonym, and everything that the claim names;
- refuted if nothing was changed at all, or if the calls that did this failed or name another code, address or file.

The judge decides the rest from the calls that changed something. The rules are our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final, Literal, get_args

from ..core.types import Evidence
from ..core.unicode_forms import normalize
from ..reasoning.knowledge import Passage
from .types import Claim, ClaimReport
from .values import canonical, plain
from .verifier import ToolUse

ReceiptState = Literal["found", "unclear", "failed", "other", "missing"]
_STATES: Final[tuple[ReceiptState, ...]] = get_args(ReceiptState)


@dataclass(frozen=True)
class Receipt:
    """What the calls say about a claim of an action.

    Attributes:
        state: "found"; "unclear" if calls changed something, under other words or with other details; "failed" if the
            calls that did this failed; "other" if they did this to something else; "missing" if nothing was changed.
        uses: The calls that show it, or come closest.
    """

    state: ReceiptState
    uses: tuple[ToolUse, ...] = ()


_MAX_READ_CHARS: Final = 20_000
_MAX_SHOWN_CHARS: Final = 300


def word_set(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


# -- vocabulary

_SYNONYMS: Final = tuple(
    map(
        word_set,
        (
            "cancel void terminate revoke abort call_off end",
            "book reserve",
            "schedule arrange plan set_up create",
            "create make open generate set_up add",
            "order purchase buy",
            "add append insert attach put",
            "register enroll sign_up subscribe",
            "update change modify edit adjust amend alter set",
            "reschedule move postpone shift push_back",
            "extend renew prolong",
            "delete remove erase wipe purge trash discard get_rid take_off drop",
            "send email mail message text",
            "post publish share",
            "submit file lodge",
            "refund reimburse pay_back",
            "pay settle",
            "transfer wire send",
            "write save store record note log",
            "copy duplicate clone",
            "move relocate",
            "install deploy roll_out release",
            "start launch turn_on switch_on enable activate",
            "restart reboot",
            "stop disable deactivate shut_down turn_off switch_off close",
            "pause suspend",
            "lock block",
            "freeze block",
            "unlock unblock unfreeze",
            "approve accept okay",
            "reject deny decline",
            "assign hand_over",
            "close resolve",
            "revert undo restore roll_back",
            "invite add",
            "raise increase turn_up",
            "lower reduce decrease turn_down",
        ),
    )
)
_BY_VERB: Final[dict[str, frozenset[str]]] = {
    verb: frozenset(chain.from_iterable(group for group in _SYNONYMS if verb in group))
    for verb in frozenset(chain.from_iterable(_SYNONYMS))
}
_PHRASES: Final = frozenset(name.partition("_")[0] for name in _BY_VERB if "_" in name)
_PARTICLES: Final = frozenset(name.partition("_")[2] for name in _BY_VERB if "_" in name)
_OF_NOUN: Final = {
    "refund": "refund", "reimbursement": "refund", "cancellation": "cancel", "booking": "book", "reservation": "book",
    "payment": "pay", "change": "change", "update": "update", "transfer": "transfer", "upgrade": "upgrade",
    "order": "order", "purchase": "purchase", "deletion": "delete", "removal": "remove", "extension": "extend",
}  # fmt: skip
_GENERIC: Final = word_set("process complete handle finalize perform make do put issue")
"""Verbs whose object says what was done."""
_NO_CHANGE: Final = word_set(
    "check look find search review verify notice read list retrieve fetch compute calculate compare consider use try "
    "understand think see identify analyze summarize explain mention provide include recommend suggest assume base "
    "round translate format need want decide determine estimate count convert rewrite draft gather collect examine "
    "inspect scan locate discover observe learn receive hope believe expect realize infer conclude answer cover "
    "outline describe highlight show display present group rank pick choose select match have be go come wait skip "
    "keep assess evaluate cross-check double-check prepare quote cite paraphrase fail miss attempt say render work "
    "get"
)
"""Verbs of what changes nothing, or of the answer itself."""
_VAGUE: Final = word_set(
    "add make write set change move apply remove create generate put open note run include replace report drop start "
    "return convert record mark reduce increase lower raise order correct insert copy store complete give share adjust "
    "revise edit place hold print log plan clear sort do confirm ask pull leave stop"
)
"""Verbs of answers, too ("I added the two totals"): actions only if a call did this, or upon something of the user."""
_IRREGULAR: Final = {
    "sent": "send", "paid": "pay", "bought": "buy", "made": "make", "put": "put", "set": "set", "wrote": "write",
    "written": "write", "did": "do", "done": "do", "shut": "shut", "gave": "give", "given": "give", "froze": "freeze",
    "frozen": "freeze", "got": "get", "took": "take", "taken": "take", "let": "let", "withdrew": "withdraw",
    "withdrawn": "withdraw", "undid": "undo", "undone": "undo", "ran": "run", "reset": "reset", "held": "hold",
    "brought": "bring", "told": "tell", "threw": "throw", "thrown": "throw", "cut": "cut", "resent": "send",
    "rebuilt": "build", "built": "build", "hid": "hide", "hidden": "hide", "lent": "lend", "sold": "sell",
    "found": "find", "saw": "see", "read": "read", "thought": "think", "chose": "choose", "kept": "keep",
    "went": "go", "came": "come", "said": "say", "was": "be", "were": "be", "been": "be", "had": "have",
    "left": "leave",
}  # fmt: skip
_NO_VERB: Final = word_set("need indeed speed red bed hundred shed seed feed wed led based related interested")
_ADVERB: Final = (
    r"(?:just|now|also|already|then|since|all|both|gone\s+ahead\s+and|went\s+ahead\s+and|ahead\s+and|[a-z]+ly)"
)
_SUBJECT: Final = r"(?<![a-z'])(?:i|we)(?:\s+(?:have|had)|'ve|'d)?"


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ACTIVE: Final = _rule(
    rf"{_SUBJECT}(?:\s+{_ADVERB})*\s+(?:(?P<able>(?:was|were|been)\s+able\s+to|managed\s+to)(?:\s+{_ADVERB})*\s+)?"
    r"(?P<verb>[a-z-]+)(?P<object>)"
)
_CAUSATIVE: Final = _rule(
    rf"{_SUBJECT}\s+(?P<able>got|gotten|had)\s+(?P<object>(?:[a-z0-9#'-]+\s+){{1,6}}?)(?P<verb>[a-z]+ed|sent|paid)\b"
)
_COORDINATED: Final = _rule(
    rf"(?:,|;|\band|\bthen|\bplus)\s+(?:(?:i|we)(?:\s+have|'ve)?\s+)?(?:{_ADVERB}\s+)*(?P<verb>[a-z]+)\b"
)
_PASSIVE: Final = _rule(
    rf"(?:\b(?:has|have|had)|'s|'ve)(?:\s+{_ADVERB})*\s+been(?:\s+{_ADVERB})*\s+(?P<verb>[a-z-]+)"
    rf"|\b(?:is|are|was|were|'s)\s+(?:{_ADVERB}\s+)*(?P<stated>[a-z-]+)"
)
_INITIAL: Final = _rule(
    rf"^\W*(?:(?:done|ok|okay|sure|great|certainly|all\s+set)\b\W+)?(?:{_ADVERB}\s+)*(?P<verb>[a-z]+)\b"
)
_CONDITION: Final = _rule(r"\b(?:if|once|unless|until|whether|before|when|soon\s+as|which|what)\s+$")
_BY_OTHERS: Final = _rule(r"^[^.,;]{0,40}\bby\s+(?!me\b|us\b|e-?mail|\d)")
_OF_THE_USER: Final = _rule(
    r"\b(?:you|your|yours|his|her|him|them|their|my|our)\b|@|[\w/~-]+\.[a-z]{2,4}\b|[#/\"“]\w|\d{3}|\b(?:to|for|on)\s+[A-Z]"
)
_CODE: Final = re.compile(
    r"[\w.+-]+@[\w.-]+\w|(?:[\w~-]*/)+[\w.-]+|\b[\w-]+\.[a-zA-Z]{2,4}\b|\b(?!\d+(?:st|nd|rd|th)\b)(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{4,}|\b\d{3,}\b"
)
"""What names one thing and no other: addresses, paths, files, codes, long numbers."""
_TIME: Final = _rule(r"\b(\d{1,2})(?::(\d\d))?\s?([ap])\.?m\b")
_TOKEN: Final = re.compile(r"[A-Za-z][a-z'-]*[a-z]|[A-Z]|\d+(?:[:.,]\d+)*")
_WORD: Final = re.compile(r"[a-z]+")
_CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NO_DETAIL: Final = word_set(
    "a an the this that these those it its to for of on in at from with by as and or so also too now today yesterday "
    "tomorrow just you your yours i we me my us our he she they him her his them their for up off out over back done "
    "january february march april may june july august september october november december monday tuesday wednesday "
    "thursday friday saturday sunday per successfully request requested new all both ahead right away behalf same well "
    "one is are was were has have had been be will would which who please again instead automatically account"
)


_CLAUSE_END: Final = _rule(
    rf"[;,:]\s|\s(?:but|so|because|since|which)\s|[.!]\s|[.!]?$|\s(?:and|then|plus)\s+(?:{_ADVERB}\s+)*(?:i\b|we\b|[a-z]+ed\b|sent\b)"
)
_NOTHING: Final = _rule(r"\b(?:no|not|nothing|none|neither|nor|never)\b")
_NO_SUCCESS: Final = _rule(r"\b(?:fail\w*|error|reject\w*|denied|declined|pending)\b")


@dataclass(frozen=True)
class _Action:
    """One thing that a claim says was done."""

    verb: str
    voice: Literal["active", "perfect", "past"]
    object: str


def stem(word: str) -> str:
    """The verb of a past form, as far as spelling tells; the vocabulary decides between "file" and "fill"."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for ending in ("ed", "d", "ing", "es", "s"):
        if word.endswith(ending):
            base = word[: -len(ending)]
            doubled = base[:-1] if base[-2:-1] == base[-1:] else base
            for candidate in (base, base + "e", doubled, f"{base[:-1]}y"):
                if candidate in _KNOWN:
                    return candidate
    if word.endswith("ed"):
        return word[:-2]
    return _OF_NOUN.get(word, word)


_KNOWN: Final = frozenset((*_BY_VERB, *_PHRASES, *_GENERIC, *_NO_CHANGE, *_VAGUE))


def synonyms(verb: str) -> frozenset[str] | None:
    """Verbs that say the same of the world; None of a word that is no verb of a change."""
    return _BY_VERB.get(verb, frozenset({verb}) if verb in _VAGUE else None)


def is_verb(word: str) -> bool:
    """Whether the vocabulary has a word as a verb, of a change or not."""
    return word in _KNOWN


def _is_past(word: str) -> bool:
    return word in _IRREGULAR or (word.endswith("ed") and word not in _NO_VERB)


def actions_of(claim: str) -> list[_Action]:
    """What the speaker says to have done, or to have been done."""
    text = normalize("NFKC", claim).replace("’", "'")  # noqa: RUF001 (typographic apostrophe)
    return [] if text.rstrip().endswith("?") else list(_actions(text))


def _actions(text: str) -> Iterator[_Action]:
    ends: list[int] = []
    for match in chain(_ACTIVE.finditer(text), _CAUSATIVE.finditer(text)):
        verb = match["verb"].lower()
        if (_is_past(verb) or match["able"]) and not _CONDITION.search(text[: match.start()]):
            ends.append(match.end())
            yield from _action(verb, f"{match['object']}{text[match.end() :]}")
    initial = _INITIAL.match(text)
    if initial is not None and not ends and initial["verb"].lower().endswith("ed"):
        ends.append(initial.end())
        yield from _action(initial["verb"].lower(), text[initial.end() :])
    for match in _PASSIVE.finditer(text):
        verb = (match["verb"] or match["stated"]).lower()
        if _is_past(verb) and not _BY_OTHERS.search(text[match.end() :]):
            ends.append(match.end())
            subject = re.split(r"[.;,:]\s|\band\b", text[: match.start()])[-1]
            if _NOTHING.search(subject):
                continue
            is_perfect = match["verb"] or re.search(r"\bnow\b", match[0], re.IGNORECASE)
            yield from _action(verb, f"{subject} {text[match.end() :]}", "perfect" if is_perfect else "past")
    if ends:
        for match in _COORDINATED.finditer(text, min(ends)):
            if _is_past(match["verb"].lower()) and match.end() not in ends:
                yield from _action(match["verb"].lower(), text[match.end() :])


def _action(word: str, rest: str, voice: Literal["active", "perfect", "past"] = "active") -> Iterator[_Action]:
    clause = _CLAUSE_END.split(rest)[0]
    verb, words = stem(word), _WORD.findall(clause.lower())
    if verb in _PHRASES:
        particle = next((w for w in words[:5] if w in _PARTICLES and f"{verb}_{w}" in _BY_VERB), None)
        verb = verb if particle is None else f"{verb}_{particle}"
    if verb in _GENERIC:
        nouns = [_OF_NOUN[noun] for noun in words if noun in _OF_NOUN]
        verb = nouns[-1] if nouns else verb
    if verb not in _NO_CHANGE:
        yield _Action(verb, voice, clause)


# -- receipts


class _Reading:
    """What a call says, read once for all claims."""

    def __init__(self, use: ToolUse) -> None:
        self.use = use
        self._result = use.result[:_MAX_READ_CHARS]

    @cached_property
    def text(self) -> str:
        """The arguments and the result, for comparisons."""
        return plain(f"{self.use.arguments} {self._result}")

    @cached_property
    def named(self) -> set[str]:
        """The words and numbers of the call."""
        use = self.use
        return _named(f"{_CAMEL.sub(' ', use.tool)} {use.description} {use.arguments} {self._result}")

    def shown_of(self, objects: set[str]) -> set[str]:
        """The words of the objects of a read's result that have one of these IDs: what the IDs stand for."""
        if self.use.effect != "read" or not self.use.ok:
            return set()
        own = [text for text in _OBJECT.findall(self._result) if objects & set(re.findall(r"[\w@.-]{2,}", plain(text)))]
        return {word for word in _named(" ".join(own)) if not re.search(r"\d", word)}

    @cached_property
    def stated(self) -> set[str]:
        """The verbs that the result of a read states in the past."""
        words = tool_words(self._result) if self.use.effect == "read" and self.use.ok else []
        return {stem(word) for word in words if _is_past(word)}

    @cached_property
    def tool(self) -> list[str]:
        """The words of the tool's name."""
        return [stem(word) for word in tool_words(self.use.tool)]

    @cached_property
    def verbs(self) -> set[str]:
        """The words that name the action; a tool whose name says little names it in its arguments."""
        arguments = tool_words(self.use.arguments) if _GENERIC_TOOL.intersection(self.tool) else []
        return {*self.tool, *map(stem, arguments)}

    @cached_property
    def objects(self) -> set[str]:
        """The arguments that look like IDs."""
        values = re.findall(r'"[^"]*"\s*:\s*("?[\w@.-]{2,})', plain(self.use.arguments))
        return {value.strip('"') for value in values if value.startswith('"') or value[0].isdigit()}

    def does(self, verb: str) -> bool:
        """Whether it names an action; a read only one that is its whole name, such as `add`."""
        if self.use.effect == "read":
            return self.tool == [verb]
        names = _BY_VERB.get(verb, frozenset({verb})) - {"do", ""}
        return any(self.verbs.issuperset(name.split("_")) for name in names)


def find_receipts(claims: Sequence[str], uses: Sequence[ToolUse]) -> list[Receipt | None]:
    """What a run's calls say about claims; None of one that states no action. Of several actions the worst decides."""
    readings = [_Reading(use) for use in uses]
    results: list[Receipt | None] = []
    for claim in claims:
        receipts = [receipt for one in actions_of(claim) if (receipt := _receipt(one, claim, readings)) is not None]
        worst = max(receipts, key=lambda receipt: _STATES.index(receipt.state), default=None)
        shown = tuple(dict.fromkeys(use for receipt in receipts for use in receipt.uses))
        results.append(None if worst is None else Receipt(worst.state, shown))
    return results


def _receipt(action: _Action, claim: str, readings: Sequence[_Reading]) -> Receipt | None:
    """None if the verb may be that of the answer, or a passive's of somebody else."""
    done = [one for one in readings if one.does(action.verb)]
    codes = {plain(code) for code in _CODE.findall(action.object)}
    exact = [one for one in done if all(_is_about(code, one, readings) for code in codes)]
    details = _details(action.object, action.verb) or _details(claim, action.verb)  # "it" is what the sentence names
    succeeded = [one for one in exact if one.use.ok]
    complete = [
        one.use
        for one in succeeded
        if not _NO_SUCCESS.search(one.use.result)
        and (missing := details - one.named)
        <= set().union(*(read.shown_of(one.objects) for read in readings if missing))
    ]
    failed = [one.use for one in exact if not one.use.ok]
    if complete and not failed:
        return Receipt("found", (complete[-1],))
    changes = [one for one in readings if one.use.ok and one.use.effect != "read"]
    is_vague = action.verb in _VAGUE and not _OF_THE_USER.search(action.object)
    names = _BY_VERB.get(action.verb, frozenset({action.verb}))
    is_stated = action.voice != "active" and not all(names.isdisjoint(one.stated) for one in readings)
    if is_vague or (not done and (is_stated or action.voice == "past")):
        return None  # an act of the answer, or of somebody else
    if failed and not succeeded:
        return Receipt("failed", (failed[-1],))
    is_other = bool(codes) and not exact
    if is_other and done:
        return Receipt("other", tuple(one.use for one in done))
    if not changes:
        return Receipt("missing")
    if is_other and not any(_is_about(code, one, readings) for code in codes for one in changes):
        return Receipt("other")
    return Receipt("unclear", tuple(one.use for one in changes))


_OBJECT: Final = re.compile(r"\{[^{}]*\}")


def _named(text: str) -> set[str]:
    text = text.replace("_", " ")
    tokens = _TOKEN.findall(text) + tool_words(text) + _TOKEN.findall(canonical(text))
    return {_base(token) for token in tokens}


def _is_about(code: str, call: _Reading, readings: Sequence[_Reading]) -> bool:
    """Whether a call names a code, or a read shows it with an argument of the call, as a card's number with its ID."""
    if code in call.text:
        return True
    texts = (one.text for one in readings if one.use.effect == "read" and one.use.ok)
    return any(code in text and any(argument in text for argument in call.objects) for text in texts)


_GENERIC_TOOL: Final = word_set(
    "execute exec run process perform action request http call shell sql command do op api invoke decide respond "
    "transition status"
)


def _details(text: str, verb: str) -> set[str]:
    """The words and numbers of an action's object that its call should name."""
    for match in _TIME.finditer(text):
        text = text.replace(match[0], f"{int(match[1]) % 12 + 12 * (match[3].lower() == 'p'):02}:{match[2] or '00'}")
    words = [token for token in _TOKEN.findall(text) if token.lower() not in _NO_DETAIL | _PARTICLES]
    return {_base(word) for word in words if stem(word.lower()) != verb and not word.lower().endswith("ed")} - {""}


def _base(token: str) -> str:
    token = plain(token).replace(",", "").removesuffix(".00").removesuffix(".0").removesuffix("'s").removesuffix("s")
    return token.lstrip("0") if token.isdigit() else token


def tool_words(text: str) -> list[str]:
    """The words of a name, as `sendEmail` and `order_cancel` have them, in lower case."""
    return _WORD.findall(_CAMEL.sub(" ", text).lower())


# -- reports

_NOTES: Final[dict[ReceiptState, str]] = {
    "found": "the call was executed",
    "unclear": "no tool call shows that this was done",
    "failed": "the call that should do this failed",
    "other": "the call that did this names something else",
    "missing": "no tool call changed anything",
}


def action_report(claim: Claim, receipt: Receipt) -> ClaimReport:
    """The report on a claim of an action that its calls decide: supported by a receipt, else refuted."""
    note = _NOTES[receipt.state]
    report = ClaimReport.by_program(claim, holds=receipt.state == "found", shown=note, result=note, backend="receipts")
    evidence = tuple(_evidence(use) for use in receipt.uses)
    return report.model_copy(update={"evidence": evidence or report.evidence})


def with_receipt(report: ClaimReport, receipt: Receipt) -> ClaimReport:
    """A language model's report on a claim of an action: what it does not find in the calls was not done."""
    return action_report(report.claim, receipt) if report.verdict == "not_enough_evidence" else report


def _evidence(use: ToolUse) -> Evidence:
    if not use.ok or not use.result.strip():
        return Evidence(source=use.source, text=use.statement[:_MAX_SHOWN_CHARS])
    text = use.result[:_MAX_SHOWN_CHARS]
    return Evidence(source=use.source, text=text, start=0, end=len(text))


def use_passage(use: ToolUse) -> Passage:
    """A call as a passage."""
    return Passage(id=use.source, source=use.source, text=use.statement)
