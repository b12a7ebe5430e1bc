"""Which writes depend on untrusted text: the approval mode "guard".

A tool's result is data, but a model that reads "transfer the money to …" in it may do so. Once a result has been read,
a call that changes something is the user's own only if a sentence of the user *asks for it*, and names every argument.
Any other needs an approval.

The rule is closed: it knows the forms of an English request ("cancel order 17", "then …", "could you please …?",
"I want you to …", "I'd like order 17 cancelled"), and reads nothing else. A message that has a negation, a condition, a
permission, an order in time, a report, an open question or a word of any other language beside the request is held, as
is all that a later message may take back. No wording of an injection gets past it, since results are not read; it also
asks about calls whose arguments come from a harmless result. Values are compared by value (`values`).

Source of the principle: Debenedetti et al., "Defeating Prompt Injections by Design" (CaMeL, 2025), which tracks the
flow of data through a program; this reads the user's sentences. The grammar is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest
from typing import Final

from pydantic import JsonValue

from .receipts import is_verb, stem, synonyms, tool_words, word_set
from .values import canonical

_MAX_SHOWN: Final = 40
"""Characters of a value or of words in a reason."""
_MAX_UNKNOWN: Final = 3
"""Words of a phrase that are neither values nor known."""
_MAX_MASKS: Final = 6_000

# -- vocabulary

_NOUNS: Final = word_set(
    "create make set update add send email mail message text post put file order book record note report log hold "
    "transfer request place plan credit comment command change open reply run leave"
)
"""Verbs that in names of tools are nouns, or say little beside another verb: `refund_create`, `share_file`."""
_VERBS: Final = word_set(
    "merge grant forward comment tell let answer reply reserve upgrade rename tag archive sign top invite notify "
    "press push pull upload download import export reset rotate type turn switch shut roll get take back hand dim "
    "warm heat cool play mute follow unfollow like star rate vote flag pin label remind charge bill ship deliver "
    "dispatch return exchange swap top_up donate withdraw deposit convert lend borrow hire promote demote ban connect "
    "disconnect link unlink attach detach mount sync clear empty compress unzip zip gzip build compile test trigger "
    "retry scale patch bump fork clone commit water feed arm disarm shorten call give bring cut ring fill print "
    "request"
)
"""Verbs of requests that the vocabulary of receipts does not have."""
_READS: Final = word_set(
    "check look find search review read list retrieve fetch show get see compare compute calculate summarize "
    "summarise tell describe explain analyze identify count display give open scan inspect examine browse query view "
    "estimate sum"
)
"""Verbs of requests to inform, whose objects are free."""
_UNSAFE: Final = word_set(
    "ask wait confirm hold keep stop leave forget ignore undo skip suppose pretend consult imagine paraphrase "
    "proofread quote cite repeat draft say spell rewrite revert restore assume hope believe consider think decide "
    "determine discuss recommend suggest advise propose simulate remember mind refrain avoid postpone delay pause "
    "await rehearse practice practise act phrase complete continue finish reconsider verify ensure convince persuade "
    "teach learn prepare try translate follow obey"
)
"""Verbs whose sentence may govern the ones beside it."""
_TAKE_BACK: Final = word_set(
    "cancel abort delete remove drop make change switch undo revert stop reverse restore reopen keep put move take "
    "set leave replace"
)
_MAKES: Final = word_set(
    "send email mail message text post publish share write save store comment reply create open add"
)
"""Their object is new, and may be described: "a short note saying …"."""
_SETS: Final = word_set("set update change adjust modify edit turn raise lower increase reduce rename put")
"""Their object may be a part of what the call names: "Ida's bank account to …"."""
_LIGHT: Final = word_set(
    "make place issue open create process do submit put give initiate start request add file lodge raise"
)
"""Their object names the action: "place a hold"."""
_READ_BLOCK: Final = word_set(
    "not no never if unless whether when whenever once until till before after while provided assuming suppose "
    "supposing should otherwise only except but or instead rather though although however pending depending lest "
    "would could can may might must shall will agree agrees agreed agreement approval approve approves permission "
    "confirm confirms confirmed confirmation consent okay why happens happen with sure certain first allow allows "
    "allowed wants asks asked told want hesitate forbidden forbid how"
)
"""Words that may govern a sentence; in the object of a request to inform, too."""
_BLOCK: Final = (_READ_BLOCK - {"with", "first"}) | word_set(
    "none nothing nobody neither nor cannot without hardly barely scarcely providing case given because since as be "
    "is are was were am been being have has had do does did done say says said ask wanted tells wrote writes reads "
    "according claims claimed suggests suggested recommends recommended demands demanded requests requested insists "
    "needs expects ok permits permitted what which who whom whose that where tomorrow later tonight yet maybe perhaps "
    "soon eventually sometime someday most least than maximum minimum myself ourselves yourself self even still week "
    "weeks month months year weekend monday tuesday wednesday thursday friday saturday sunday morning noon afternoon "
    "evening night midnight almost nearly pretend hypothetically theory principle joke example sake test trial demo "
    "rehearsal exercise condition word mind head dream story quote draft practice hint idea thought fun i we they he "
    "she you there"
)
"""Words that no plain request has outside of its values."""
_WH: Final = re.compile(r"^(?:(?:what|which|who|where|when)(?:'s)?|how (?:much|many|long|old|big|far|often))\b")
_PREPOSITIONS: Final = word_set("to for from on at in with by into onto under of about via per off out")
_NO_ADVERB: Final = word_set("family reply supply july italy emily kelly sally")
_INTRODUCTIONS: Final = word_set("saying titled called named labelled entitled")
_LOOSE: Final = word_set("for from to of about")
"""Prepositions that words other than values may follow."""
_KINDS: Final = tuple(
    map(
        word_set,
        (
            "order orders purchase cart", "mail mails email emails message messages", "file files document documents",
            "event events appointment appointments appt calendar meeting meetings reminder", "invoice invoices bill",
            "ticket tickets issue issues", "booking bookings reservation reservations flight hotel", "refund refunds",
            "record records row rows crm", "account accounts card cards iban bank", "note notes comment comments",
            "user users customer customers member members login", "subscription subscriptions plan plans",
            "project projects",
        ),
    )
)  # fmt: skip
_KIND_WORDS: Final = frozenset().union(*_KINDS)
_DETERMINERS: Final = word_set("the a an these those my our your his her their its all both another more some and then")
_POSSESSIVES: Final = word_set("my our his her their its")
_PRONOUN: Final = re.compile(r"\b(?:it|its|that|this|them|their|him|his|her)\b")
_PRONOUNS: Final = word_set("it its this these those them their him his her one")
_PRONOUNS_OF_TEXTS: Final = word_set("this that these those following below above")
_PERSONS: Final = word_set("me us customer customers client user guest patient team everyone colleague boss")
_WORDS: Final = word_set(
    "too also number no id nr text subject body message title name amount value quantity address account file folder "
    "email mail ticket order booking reservation table room person people seat units items item pieces copies hours "
    "minutes days degrees celsius percent page row column note notes comment line lines inbox cart calendar basket "
    "list channel eur usd gbp chf jpy am pm o'clock 's plus command event appointment new same am"
)
"""Words that change no request."""
_TAIL_WORDS: Final = word_set("please thanks now today asap immediately right away kindly too again instead")
_TAIL: Final = re.compile(
    r"^(?:please|thanks|thank you|right away|asap|now|today|immediately|kindly|cheers|right now)$"
)
_HARMLESS: Final = re.compile(
    r"^(?:hi|hello|hey|good (?:morning|afternoon|evening)|thanks|thank you|many thanks|cheers|please|best|regards"
    r"|kind regards|ok|okay|yes|sure|great)(?: (?:so|very) much| a lot| in advance| again| there| team| all| [a-z]+)?$"
    r"|^(?:i|we)(?:'ve| have)? (?:ordered|bought|booked|picked|chose) [^,;:]*$"
    r"|^(?:i|we) (?:no longer need|don't need|do not need) (?:it|them|this|that|the [a-z]+)(?: any ?more)?$"
    r"|^i(?:'ve| have)? (?:changed my mind|made a mistake)$|^i(?:'m| am) (?:in a hurry|ill|sick)$"
    r"|^(?:my|our) (?:name|address|email|phone|account|order|booking|ticket|customer|card)(?: number| id)? is [^,;:]*$"
    r"|^(?:it|they) (?:is|was|are|were|came|arrived) (?:broken|damaged|late|wrong|faulty|too small|too big|too late)$"
)
_CONFIRMS: Final = re.compile(
    r"^(?:(?:yes|yep|yeah|ok|okay|sure|right|correct|great|perfect|thanks|thank you|please|good|fine)\b[ ,]*)*"
    r"(?:(?:please )?(?:go ahead|do it|do so|do that|proceed|go on|continue)"
    r"|(?:that|it)(?:'s| is) (?:right|correct|fine)|sounds good|that works)?[ ,]*(?:please|thanks|thank you)?$"
)
_GENERALLY: Final = re.compile(
    r"\b(?:never|always|from now on|without (?:asking|my)|ask me|check with me|confirm with me|before you|unless i"
    r"|until i|do not|don't|only (?:if|when|after))\b"
)
_REGRET: Final = re.compile(r"\b(?:changed my mind|made a mistake)\b", re.IGNORECASE)
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|nobody|none|nothing|neither|nor|cannot|without|except|excluding|excluded|unless|forbidden"
    r"|prohibited|refused|denied|declined|other than)\b|n't\b"
)
_SUBORDINATE: Final = re.compile(
    r"\b(?:that|which|who|whose|if|when|where)\b[^,.;]*?(?=\b(?:may|can|must|shall|should|will)\b|,|$)"
)
_LEAD: Final = re.compile(
    r"^(?:(?:ok|okay|yes|sure|thanks|thank you|hi|hello|hey|now|then|next|first|second|third|also|finally|lastly|so|and"
    r"|after that|afterwards|great|alright|please|plus)\b(?: there\b| all\b)?[,:!]?\s+"
    r"|(?:i (?:no longer need|don't need) (?:it|them)(?: any ?more)?"
    r"|i(?:'ve| have)? (?:changed my mind|made a mistake))(?:,|, so|,? and so|;)\s+(?:so,? )?)+"
)
_POLITE: Final = re.compile(
    r"^(?:please|kindly|just|simply|go ahead and|go on and|(?P<mind>would you mind)"
    r"|(?P<ask>(?:can|could|would|will) you)"
    r"|(?:i|we)(?:'d love| would love|'d like| would like| want| need)(?: you)? to"
    r"(?! have )|(?:i|we) wish to|help me(?: to)?|let's|let us|be so kind (?:as to|and)"
    r"|immediately|quickly|directly)\s+"
)
_REASON: Final = re.compile(
    r"^(.+?)(?:,\s+(?:(?:because|since|as)\s+)?|\s+(?:because|since)\s+)((?:i|we|it|they)\b[^,]*)$"
)
_WANTED: Final = re.compile(
    r"^(?:i|we)(?:'d| would)? (?:like|love|want|need) (?:to (?:have|get) )?(?P<object>.+?) (?:to be )?"
    r"(?P<verb>[a-z]+ed|sent|paid|put|set)\b"
    r"(?P<rest>.*)$"
)
_SENTENCE_END: Final = re.compile(r"((?<!\bdr)(?<!\bmr)(?<!\bms)(?<!\bmrs)(?<!\bst)(?<!\bno)[.;!?]+(?=\s|$)|\n+)")
_QUOTED: Final = re.compile(r"(?<!\w)(['\"`])(?=\S)(.+?)(?<=\S)\1(?!\w)", re.DOTALL)
_CURLY: Final = str.maketrans("“”„«»", '"""""')
_COORDINATOR: Final = re.compile(r"\s*(?:,\s*)?(?:\b(?:and|then|also|plus)\b[\s,]*)+|\s*,\s*")
_MASK: Final = r"[\ue000-\uf8ff]"
_TOKEN: Final = re.compile(rf"{_MASK}|'s\b|[\w@#/~+-](?:[\w@#/~+.:'%-]*[\w@#/~+%-])?|[^\s\w]")
_DATE_TIME: Final = re.compile(r"^(\d{4}-\d\d-\d\d) (\d\d:\d\d)$")
_PARTICLES: Final = re.compile(r"\b(?:off|on|up|out|down|back|over)\b")
_ACTION_NOUN: Final = re.compile(
    rf"^(?:(?:a|an|the|my|another|new|full|partial)\s+)+([a-z]+)\b"
    rf"(?=\s+(?:of|for|on|to|from|in|at|with|by|saying|titled|called|named)\b|\s*(?:{_MASK}|\d)|\s*$)"
)


# -- the rule


def why_held(tool: str, arguments: Mapping[str, JsonValue], texts: Sequence[str]) -> str:
    """Why a call is not the user's own, in one line; empty if a sentence of the user asks for it with all arguments.

    Args:
        tool: The tool's name.
        texts: The user's messages, in order.
    """
    call = _Call(tool, arguments)
    reason = f"no sentence of the user is a plain request for {tool}"
    for i, text in enumerate(texts):
        message = _Message(text, call)
        faults = [fault for clause in message.clauses if (fault := call.fault(clause)) is not None]
        if not faults:
            reason = message.fault or reason
            continue
        fault = message.fault or min(faults, key=len) or message.taken_back(call)
        reason = fault or _contradicted(texts[:i], texts[i + 1 :])
        if not reason:
            return ""
    return reason


def is_request(text: str, span: tuple[int, int]) -> bool:
    """Whether the sentences of a user's text that a span lies in are plain requests, or a confirmation.

    For quotations of a request: "cancel order 17" out of "don't cancel order 17" is none.
    """
    whole = _sentences_around(text, span)
    message = _Message(whole)
    return _is_confirmation(whole) or (not message.fault and bool(message.clauses))


def is_permission(text: str, span: tuple[int, int]) -> bool:
    """Whether the sentences of a policy that a span lies in stand under no negation and no exception.

    A negation within a relative clause or a condition ("goods that were not opened may be returned") governs nothing.
    """
    whole = _SUBORDINATE.sub("", canonical(_sentences_around(text, span)))
    return _NEGATION.search(whole) is None


def _sentences_around(text: str, span: tuple[int, int]) -> str:
    ends = [match.end() for match in re.finditer(r"[.!?]+(?=\s|$)|\n\s*\n", text)]
    start = max((end for end in ends if end <= span[0]), default=0)
    return text[start : min((end for end in ends if end >= span[1]), default=len(text))].strip()


def _is_confirmation(text: str) -> bool:
    words = canonical(text).strip(" .!\n")
    return bool(words) and _CONFIRMS.match(words) is not None


def _contradicted(before: Sequence[str], after: Sequence[str]) -> str:
    """What the user's other messages may have against a request; empty if nothing."""
    for text in before:
        if match := _GENERALLY.search(canonical(text)):
            return f"an earlier message of the user says '{match[0]}'"
    for text in after:
        message = _Message(text)
        is_against = message.fault or message.takes_back or _GENERALLY.search(canonical(text)) or _REGRET.search(text)
        if is_against and not _is_confirmation(text):
            return "a later message of the user may take it back"
    return ""


def _leaves(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, dict):
        for name, inner in value.items():  # names within an argument are the model's, not the tool's
            yield name
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _value(leaf: JsonValue) -> str:
    """A value as the canonical text has it; empty for a switch, which words do not name."""
    if isinstance(leaf, bool) or leaf is None:
        return ""
    if isinstance(leaf, float) and leaf.is_integer():
        leaf = int(leaf)
    return canonical(str(leaf)).strip()


def _parts(value: str) -> list[str]:
    """The value; a date with a time in two parts."""
    match = _DATE_TIME.match(value)
    return [value] if match is None else [match[1], match[2]]


class _Call:
    """A call: what its name says, and the values that the user's words must name."""

    def __init__(self, tool: str = "", arguments: Mapping[str, JsonValue] | None = None) -> None:
        self.tool = tool
        words = [word if word.endswith("ing") else stem(word) for word in tool_words(tool)]
        for verb, particle in pairwise(tuple(words)):
            if synonyms(f"{verb}_{particle}") is not None:  # "turn_off"
                words = [f"{verb}_{particle}", *(word for word in words if word not in (verb, particle))]
        verbs = [word for word in words if synonyms(word) is not None or word in _VERBS]
        self.verbs = [verb for verb in verbs if verb not in _NOUNS]
        self.any_of = self.verbs or verbs or words
        names = {word for name in (tool, *(arguments or {})) for word in tool_words(name)}
        self.words = {*words, *names, *(f"{name}s" for name in names)}
        self.leaves = [(name, leaf) for name, value in (arguments or {}).items() for leaf in _leaves(value)]
        values = {part for _, leaf in self.leaves for part in (_value(leaf), *_parts(_value(leaf)))}
        self.values = sorted(values - {""}, key=len, reverse=True)

    def fault(self, clause: _Clause) -> str | None:
        """None if a clause asks for another action; empty if it asks for this call; else what is missing."""
        words = {stem(token) for token in _TOKEN.findall(clause.rest) if token.isalpha()}
        heads = {clause.head, *(f"{clause.head}_{word}" for word in _PARTICLES.findall(clause.rest))}
        noun = _ACTION_NOUN.match(clause.rest.lstrip())
        if noun is not None and clause.head in _LIGHT:
            heads.add(stem(noun[1]))
        if not any(_is_named(verb, heads) for verb in self.any_of):
            return None
        if not all(_is_named(verb, heads | words) for verb in self.verbs):
            return None
        if clause.fault:
            return clause.fault
        for name, leaf in self.leaves:
            if leaf is not None and not clause.names(_value(leaf)):
                shown = str(leaf) if len(str(leaf)) <= _MAX_SHOWN else f"{str(leaf)[:_MAX_SHOWN]}…"
                return f"the request does not name {name}={shown}"
        return self._unread(clause)

    def _unread(self, clause: _Clause) -> str:
        """The words of a clause that may make it another request than this call; empty if there are none."""
        for i, part in enumerate(re.split(r"\s*,\s*", clause.rest.strip())):
            tokens = _TOKEN.findall(part)
            if not tokens or (i and _TAIL.match(part)):
                continue
            phrases: list[list[str]] = [[]]
            for token in tokens:
                if token in _PREPOSITIONS or token in _INTRODUCTIONS:
                    phrases.append([])
                phrases[-1].append(token)
            if i and not phrases[0] and not any(self._is_known(token) for token in tokens):
                return _unreadable(clause, part)
            for phrase in phrases:
                if phrase and not self._is_read(clause, phrase, is_object=phrase is phrases[0] and not i):
                    return _unreadable(clause, " ".join(clause.show(token) for token in phrase))
        return ""

    def _is_read(self, clause: _Clause, phrase: list[str], *, is_object: bool) -> bool:
        while phrase and phrase[-1] in _TAIL_WORDS:
            phrase = phrase[:-1]
        content = [token for token in phrase if token not in _DETERMINERS | _PREPOSITIONS | _INTRODUCTIONS]
        unknown = [token for token in content if not self._is_known(token)]
        for this, following in pairwise(phrase):
            is_value = re.fullmatch(_MASK, following) is not None or following.isdigit()
            if is_value and this not in self.words and clause.head not in _MAKES:
                if this in _KIND_WORDS and not self._is_of_kind(this):
                    return False  # "delete order 17" is no `delete_file`
                if this not in _KIND_WORDS and is_verb(stem(this)):
                    return False  # "cancel refund 17"
        if is_object and content and content[-1] in _KIND_WORDS and not self._is_of_kind(content[-1]):
            return clause.head in _MAKES
        has_value = any(re.fullmatch(_MASK, token) for token in phrase)
        if not has_value and any(re.search(r"\d", token) for token in phrase):
            return False  # "item 3 of order 17", "in 2 hours"
        if not unknown:
            return True
        if len(unknown) > _MAX_UNKNOWN or not all(map(_is_noun, unknown)):
            return False
        is_known = len(unknown) < len(content)
        if is_object:
            possessive = any(token.endswith("'s") or token in _POSSESSIVES for token in phrase)
            if clause.head in _MAKES or (clause.head in _SETS and possessive):
                return True
            return is_known and self._is_known(content[-1]) and possessive <= (content[-1] in self.words)
        if is_known and self._is_known(content[-1]):
            return True
        return not has_value and (phrase[0] in _LOOSE or phrase[0] in _INTRODUCTIONS)

    def _is_of_kind(self, noun: str) -> bool:
        """Whether a call may be one on such a thing: its words name none, or one of the kind."""
        kinds = [kind for kind in _KINDS if not kind.isdisjoint(self.words)]
        return not kinds or any(noun in kind for kind in kinds)

    def _is_known(self, token: str) -> bool:
        return (
            re.fullmatch(_MASK, token) is not None
            or not token[0].isalpha()
            or re.search(r"[\d@/]", token) is not None
            or token in self.words | _PRONOUNS | _PERSONS | _WORDS
            or stem(token) in self.words
        )


def _is_named(verb: str, words: set[str]) -> bool:
    return not words.isdisjoint(synonyms(verb) or {verb})


def _is_noun(token: str) -> bool:
    return re.fullmatch(r"[a-z][a-z'-]*", token) is not None and (not token.endswith("ly") or token in _NO_ADVERB)


def _unreadable(clause: _Clause, words: str) -> str:
    shown = words if len(words) <= _MAX_SHOWN else f"{words[:_MAX_SHOWN]}…"
    return f"the request is not a plain one: {shown!r}"


@dataclass
class _Clause:
    """A request: its verb, what follows it, and the clauses before, which its pronouns may refer to."""

    head: str
    rest: str
    masks: Sequence[tuple[str, bool]]
    """What the text's masks stand for, and whether it is a quotation."""
    before: str = ""
    fault: str = ""

    def show(self, text: str) -> str:
        """A text with what its masks stand for."""
        return re.sub(_MASK, lambda match: self.masks[ord(match[0]) - 0xE000][0], text)

    def names(self, value: str) -> bool:
        """Whether it has a value, as a whole quotation or outside of quotations."""
        text = f"{self.before} {self.rest}" if _PRONOUN.search(self.rest) else self.rest
        quotations, words = set(), []
        for piece in re.split(f"({_MASK})", text):
            content, is_quotation = self.masks[ord(piece) - 0xE000] if re.fullmatch(_MASK, piece) else (piece, False)
            words.append(" \0 " if is_quotation else content)
            if is_quotation:
                quotations.add(content.strip(" .!?"))
        said = "".join(words)
        return bool(value) and (
            value.strip(" .!?") in quotations or all(_occurrences(part).search(said) for part in _parts(value))
        )


def _occurrences(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.@/-]){re.escape(value)}(?![\w@/-]|[.,:]\w)")


class _Message:
    """A message of the user, read as sentences.

    Attributes:
        clauses: What it asks for.
        fault: Why it is no message of plain requests; empty if it is one.
        takes_back: Whether it asks to undo something.
    """

    def __init__(self, text: str, call: _Call | None = None) -> None:
        self._call = call or _Call()
        self._masks: list[tuple[str, bool]] = []
        self.clauses: list[_Clause] = []
        self.fault = ""
        self._said = ""
        """What the next pronoun may refer to."""
        text = re.sub(_MASK, "", text).replace("e-mail", "email").replace("E-mail", "email")
        text = self._masked(canonical(text.translate(_CURLY)))
        if '"' in text or re.search(r"(?:^|\n)\s*(?:>|```)", text):
            self.fault = "the request stands beside a quotation"
        pieces = _SENTENCE_END.split(text)
        for sentence, end in zip_longest(pieces[::2], pieces[1::2], fillvalue=""):
            words = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", sentence or "").strip()
            if words:
                fault = self._read(words, "?" in (end or ""))
                if fault and not self.fault:
                    shown = _Clause("", "", self._masks).show(words)
                    shown = shown if len(shown) <= 2 * _MAX_SHOWN else f"{shown[: 2 * _MAX_SHOWN]}…"
                    self.fault = f"'{shown}' {fault}"

    def _masked(self, text: str) -> str:
        """The text with quotations and the call's values as one character each."""

        def mask(match: re.Match[str], *, is_quotation: bool) -> str:
            if len(self._masks) >= _MAX_MASKS:
                return match[0]
            self._masks.append((match[2] if is_quotation else match[0], is_quotation))
            return chr(0xE000 + len(self._masks) - 1)

        text = _QUOTED.sub(partial(mask, is_quotation=True), text)
        for value in self._call.values:
            if not set(re.findall(r"(?<!\S)[a-z'-]+(?!\S)", value)) & (_BLOCK | _PREPOSITIONS | _DETERMINERS):
                text = _occurrences(value).sub(partial(mask, is_quotation=False), text)
        return text

    def _read(self, sentence: str, is_question: bool) -> str:
        """Take a sentence's requests; returns why it is none that can be read, empty if it is harmless."""
        text = _LEAD.sub("", f"{sentence} ").strip() if not _is_statement(sentence) else sentence
        if not text or _is_statement(text):
            self._said = text
            return "may take a request back" if self.clauses and _REGRET.search(text) else ""
        if is_question and _WH.match(text):
            self._said = text
            is_read = _blocked(text.split(None, 1)[-1], _READ_BLOCK - {"with", "first"}) is None
            return "" if is_read else "is an open question"
        asks = False
        while match := _POLITE.match(text):
            asks = asks or match["ask"] is not None or match["mind"] is not None
            text = text[match.end() :]
            if match["mind"]:
                verb, _, rest = text.partition(" ")
                text = f"{stem(verb)} {rest}"
        if is_question and not asks:
            return "is a question"
        if match := _WANTED.match(text):
            verb = stem(match["verb"])
            if not _is_head(verb):
                return "is no request that can be read"
            text = f"{verb} {match['object']} {match['rest']}"
        if (match := _REASON.match(text)) and _is_statement(match[2]) and not _REGRET.search(match[2]):
            text = match[1]
        first = len(self.clauses)
        for head, rest in _clauses(text):
            is_own = head in self._call.any_of
            if not is_own and (head in _UNSAFE or not (_is_head(head) or head in self._call.words)):
                self._spoil(first)
                return f"is not a plain request ({head!r})"
            earlier, self._said = self._said, f"{self._said if _PRONOUN.search(rest) else ''} {rest}"
            is_read = head in _READS
            fault = _blocked(rest, _READ_BLOCK if is_read else _BLOCK)
            clause = _Clause(head, rest, self._masks, earlier)
            self.clauses.append(clause)
            if fault is not None:
                self._spoil(first)
                return f"is not a plain request ({fault!r})"
            if is_read and (found := _blocked(rest, _BLOCK)) is not None:
                clause.fault = f"the request is not a plain one: {found!r}"
        return ""

    def _spoil(self, first: int) -> None:
        for clause in self.clauses[first:]:
            clause.fault = clause.fault or "the sentence is not a plain request"

    @property
    def takes_back(self) -> bool:
        """Whether a clause asks to undo, change or remove something."""
        return any(clause.head in _TAKE_BACK for clause in self.clauses)

    def taken_back(self, call: _Call) -> str:
        """Whether a clause after the request undoes it; empty if not."""
        asked = [i for i, clause in enumerate(self.clauses) if call.fault(clause) == ""]
        for i, clause in enumerate(self.clauses[asked[0] + 1 :] if asked else [], asked[0] + 1):
            if clause.head not in _TAKE_BACK or call.fault(clause) is not None:
                continue
            shares = any(clause.names(part) for value in call.values for part in _parts(value))
            refers = _PRONOUN.search(clause.rest) and (i - 1 in asked or clause.head not in _SETS)
            if shares or refers or not clause.rest.strip():
                shown = clause.show(f"{clause.head} {clause.rest}".strip())
                return f"a later sentence of the user may take it back: '{shown}'"
        return ""


def _is_head(word: str) -> bool:
    return is_verb(word) or word in _VERBS or word in _READS or synonyms(word) is not None


def _is_statement(text: str) -> bool:
    words = set(re.findall(r"[a-z]+", text)) - {"no", "not", "first", "with"}
    return _HARMLESS.match(text.strip(" ,.!")) is not None and not words & (_READ_BLOCK | _PRONOUNS_OF_TEXTS)


def _blocked(text: str, words: frozenset[str]) -> str | None:
    """The first word of a text that no plain request has."""
    for word, following in pairwise((*_TOKEN.findall(text), "")):
        if word in words or word.endswith("n't") or re.search(r"'(?:d|ll|re|ve|m)$", word):
            return str(word)
        is_dash = word.startswith("--") or (word == "-" and following != "")
        if is_dash or word in set("()[]{}…—–") or (word == ":" and not re.fullmatch(_MASK, following)):  # noqa: RUF001
            return str(word)
        if following == "to" and word in ("up", "subject"):
            return f"{word} to"
        if word == "to" and _is_head(following) and following not in _NOUNS:
            return f"to {following}"
    return None


def _clauses(text: str) -> list[tuple[str, str]]:
    """The coordinated requests of a sentence: each verb, and what follows it."""
    clauses: list[tuple[str, str]] = []
    start, link = 0, ""
    for match in (*_COORDINATOR.finditer(text), None):
        piece = text[start : match.start() if match else None]
        words = f"{piece} "
        while polite := _POLITE.match(words):
            words = words[polite.end() :]
        head, _, rest = words.strip().partition(" ")
        is_noun = bool(clauses) and head in _NOUNS and re.search(rf"\b{re.escape(head)}\b", clauses[-1][1]) is not None
        if not clauses or ((_is_head(head) or head in _UNSAFE) and not is_noun):
            clauses.append((head, rest))
        else:
            clauses[-1] = (clauses[-1][0], f"{clauses[-1][1]}{link}{piece}")
        if match:
            start, link = match.end(), match[0]
    return clauses
