"""Labelled pairs from synthetic documents, so that a judge learns what claims in plain English state about small texts.

A document is a list of facts of which some are written. A claim about a fact that the evidence contains is supported or
refuted; the same claim is neutral where the evidence leaves the fact out. So a claim by itself says nothing about its
label, nor does a value that occurs in both: false and neutral claims take the values of other facts of the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from zlib import crc32

from document_facts import (
    Choice,
    Clock,
    Date,
    Document,
    Fact,
    LabelledPair,
    Measure,
    Money,
    Value,
    alternatives,
    toggled,
)
from document_kinds import KINDS
from reason.verify.types import Label, Pair

SHARES: Final[dict[Label, float]] = {"supports": 0.38, "refutes": 0.32, "neutral": 0.30}
"""Share of every label."""

_COMPARATIVES: Final = {
    "money": (("is higher than", "exceeds"), ("is lower than", "is below")),
    "count": (("is larger than", "is higher than"), ("is smaller than", "is lower than")),
    "percent": (("is higher than", "exceeds"), ("is lower than", "is below")),
    "length": (("is greater than", "exceeds"), ("is less than", "is smaller than")),
    "weight": (("is greater than", "exceeds"), ("is less than", "is smaller than")),
    "volume": (("is greater than", "exceeds"), ("is less than", "is smaller than")),
    "time": (("is longer than", "takes more time than"), ("is shorter than", "takes less time than")),
    "term": (("is longer than", "exceeds"), ("is shorter than", "is less than")),
    "age": (("is longer than", "exceeds"), ("is shorter than", "is less than")),
    "date": (("came after", "was later than"), ("came before", "was earlier than")),
    "clock": (("is later than", "comes after"), ("is earlier than", "comes before")),
}
_LABELS: Final[dict[str, Label]] = {"S": "supports", "R": "refutes", "N": "neutral"}
_CODES: Final = {label: code for code, label in _LABELS.items()}
_DETAILS: Final = (
    "after a long debate",
    "against the advice of experts",
    "because of a legal dispute",
    "because of a change in the law",
    "for financial reasons",
    "without any ceremony",
    "with the help of volunteers",
    "at the request of the neighbours",
    "to general surprise",
    "despite bad weather",
    "in the presence of the president",
    "as a result of a bet",
)
_NEGATIVE = 0.25
_BOUND = 0.22
_SWAPPED = 0.7
_CONTRAST = 0.35
_OTHER_SUBJECT = 0.15
_TRIES = 20


def document_pairs(count: int, rng: random.Random) -> Iterator[LabelledPair]:
    """`count` labelled pairs; those of one document follow each other and share their group."""
    made = number = 0
    prefix = f"{rng.getrandbits(40):010x}"
    while made < count:
        make = rng.choice(KINDS)
        for one in _of_document(make, f"document/{prefix}-{number}", rng):
            yield one
            made += 1
            if made == count:
                return
        number += 1


@dataclass(frozen=True)
class _View:
    """A part of a document as evidence."""

    text: str
    title: str
    shown: tuple[Fact | Choice, ...]
    form: str


@dataclass(frozen=True)
class _Claim:
    """A claim about a document."""

    text: str
    how: str
    fact: Fact | Choice | None = None
    truth: Label = "neutral"
    value: Value | None = None
    is_exact: bool = False
    codes: str = ""


def _of_document(make: Callable[[random.Random], Document], group: str, rng: random.Random) -> Iterator[LabelledPair]:
    document = make(rng)
    facts = [_with_detail(fact, rng) for fact in document.facts]
    document = replace(document, facts=tuple(facts))
    written = sorted(rng.sample(range(len(facts)), min(len(facts) - 1, rng.randint(3, 9))))
    if rng.random() < 0.3:
        rng.shuffle(written)
    stated = [facts[i] for i in written]
    seen: set[str] = set()
    for _ in range(rng.randint(2, 3)):
        part, form = _part(stated, rng)
        seed = rng.getrandbits(40)
        view = _view(document, part, form, seed)
        for _ in range(rng.randint(2, 3)):
            label = rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
            for _ in range(_TRIES):
                claim = _claim(document, view, label, rng)
                if claim is None:
                    continue
                text = _claim_text(document, claim, rng)
                if text in seen:
                    continue
                seen.add(text)
                kind = f"document: {document.kind}"
                yield LabelledPair(Pair(view.text, text, view.title), label, f"{kind}: {claim.how}", group)
                if label != "neutral" and claim.fact and "$S" in claim.text and rng.random() < _OTHER_SUBJECT:
                    stranger = replace(document, name=make(rng).name)
                    if stranger.name != document.name:
                        pair = Pair(view.text, _claim_text(stranger, claim, rng), view.title)
                        yield LabelledPair(pair, "neutral", f"{kind}: other subject", group)
                for other, changed, how in _contrasts(document, view, claim, label, seed, rng):
                    yield LabelledPair(Pair(changed.text, text, changed.title), other, f"{kind}: {how}", group)
                break


def _with_detail(fact: Fact | Choice, rng: random.Random) -> Fact | Choice:
    if not (isinstance(fact, Fact) and isinstance(fact.value, Date) and _takes_detail(fact.says)):
        return fact
    return replace(fact, detail=rng.choice(_DETAILS)) if rng.random() < 0.5 else fact


def _takes_detail(templates: str) -> bool:
    return all(template.endswith("$v.") for template in alternatives(templates))


def _claim_text(document: Document, claim: _Claim, rng: random.Random) -> str:
    text = _capitalized(claim.text.replace("$S", document.name).replace("$P", _possessive(document.name)))
    return text.rstrip(".") if rng.random() < 0.08 else text


def _contrasts(
    document: Document, view: _View, claim: _Claim, label: Label, seed: int, rng: random.Random
) -> Iterator[tuple[Label, _View, str]]:
    """The same claim with a text that leaves its fact out, states it, or states another one."""
    fact = claim.fact
    if fact is None:
        return
    is_shown = any(f.key == fact.key for f in view.shown)
    if not is_shown:
        if claim.truth != "neutral" and rng.random() < _CONTRAST:
            at = rng.randint(0, len(view.shown))
            shown = (*view.shown[:at], fact, *view.shown[at:])
            yield claim.truth, _view(document, shown, view.form, seed), "fact added"
        return
    if label == "neutral":
        return
    if len(view.shown) > 1 and rng.random() < _CONTRAST * 0.45:
        left = [f for f in view.shown if f.key != fact.key]
        yield "neutral", _view(document, left, view.form, seed), "fact left out"
    if rng.random() < _CONTRAST:
        made = _exchanged(fact, claim, rng)
        if made is not None:
            new, other = made
            shown = tuple(new if f.key == fact.key else f for f in view.shown)
            yield other, _view(document, shown, view.form, seed), "fact exchanged"


def _exchanged(fact: Fact | Choice, claim: _Claim, rng: random.Random) -> tuple[Fact | Choice, Label] | None:
    """Another fact in its place, and the claim's label then."""
    if isinstance(fact, Choice):
        states = [i for i, code in enumerate(claim.codes) if code != claim.codes[fact.state]]
        if not states:
            return None
        state = rng.choice(states)
        return replace(fact, state=state), _LABELS[claim.codes[state]]
    if not claim.is_exact:
        return None
    value = claim.value
    if value is None:
        value = fact.value.other(rng)
        while not fact.value.excludes(value):
            value = fact.value.other(rng)
    if isinstance(value, Measure) and value.foreign:
        return None
    return replace(fact, value=value), "refutes" if claim.truth == "supports" else "supports"


def _part(stated: Sequence[Fact | Choice], rng: random.Random) -> tuple[list[Fact | Choice], str]:
    form = rng.choices(("document", "sentence", "passage"), (0.5, 0.2, 0.3))[0]
    chosen = list(stated)
    if form == "sentence":
        chosen = [rng.choice(chosen)]
    elif form == "passage":
        size = rng.randint(2, 4)
        first = rng.randint(0, max(0, len(chosen) - size))
        chosen = chosen[first : first + size]
    return chosen, form


def _view(document: Document, shown: Sequence[Fact | Choice], form: str, seed: int) -> _View:
    """The facts as a text; facts that two views share are stated in the same words where the seed is the same."""
    rng = random.Random(seed)
    title = document.title if rng.random() < 0.6 else ""
    text = _written(document, shown, bool(title), form != "sentence", seed, rng)
    if not title and document.name and document.name.casefold() not in text.casefold():
        title = document.title
    return _View(text, title, tuple(shown), form)


def _written(
    document: Document,
    facts: Sequence[Fact | Choice],
    is_titled: bool,
    may_have_asides: bool,
    seed: int,
    rng: random.Random,
) -> str:
    templates = [_sentence(fact, random.Random(seed ^ crc32(fact.key.encode()))) for fact in facts]
    if may_have_asides and document.asides and rng.random() < 0.4:
        templates.insert(rng.randint(0, len(templates)), rng.choice(document.asides))
    sentences: list[str] = []
    is_named, is_topic = is_titled and rng.random() < 0.8, False
    for template in _joined(templates, document, rng):
        name, owner = document.name, _possessive(document.name)
        starts = template.startswith(("$S", "$P"))
        if document.nouns and is_named:
            form = rng.random()
            if document.pronoun[0] and form < 0.45 and (is_topic or (is_titled and not sentences)) and starts:
                name, owner = document.pronoun
            elif form < 0.8:
                name = rng.choice(document.nouns)
                owner = _possessive(name)
        if "$S" in template or "$P" in template:
            is_named = True
        is_topic = starts
        if "$S" in template:
            head, _, rest = template.partition("$S")
            later = document.pronoun if document.pronoun[0] else (name, owner)
            if "$P" not in head:
                template = head + name + rest.replace("$S", later[0]).replace("$P", later[1])
        sentences.append(_capitalized(template.replace("$S", name).replace("$P", owner)))
    return " ".join(sentences)


def _joined(templates: Sequence[str], document: Document, rng: random.Random) -> Iterator[str]:
    """The sentences; some neighbours as one."""
    i = 0
    while i < len(templates):
        one, two = templates[i], templates[i + 1] if i + 1 < len(templates) else ""
        both = document.pronoun[0] and one.startswith("$S ") and two.startswith("$S ")
        if both and not one.count(",") and rng.random() < 0.2:
            rest = two[3:]
            if rng.random() < 0.6:
                yield f"{one.rstrip('.')}, and {document.pronoun[0]} {rest}"
            else:
                yield f"$S, {'which' if document.pronoun[0] in ('it', 'they') else 'who'} {rest.rstrip('.')}, {one[3:]}"
            i += 2
        else:
            yield one
            i += 1


def _sentence(fact: Fact | Choice, rng: random.Random) -> str:
    if isinstance(fact, Choice):
        return rng.choice(alternatives(fact.states[fact.state]))
    template = rng.choice(alternatives(fact.says)).replace("$v", fact.value.stated(rng))
    return f"{template.rstrip('.')} {fact.detail}." if fact.detail else template


def _claim(document: Document, view: _View, label: Label, rng: random.Random) -> _Claim | None:
    """A claim with the label; None if the first try made none."""
    form = rng.random()
    if form < (0.04 if label == "neutral" else 0.1):
        return _comparison(document, view, label, rng)
    if form < (0.14 if label == "neutral" else 0.27):
        return _conjunction(document, view, label, rng)
    if form < (0.18 if label == "neutral" else 0.37):
        return _indirect(document, view, label, rng)
    return _simple(document, view, label, rng)


def _simple(document: Document, view: _View, label: Label, rng: random.Random) -> _Claim | None:
    shown = {f.key for f in view.shown}
    facts: Sequence[Fact | Choice] = view.shown
    if label == "neutral":
        form = rng.random()
        if form < 0.3:
            return _left_open(view, rng)
        if form < 0.36:
            return _with_unstated_detail(view, rng)
        facts = [f for f in document.facts if f.key not in shown]
    if label != "supports" and rng.random() < (0.65 if label == "neutral" else 0.5):
        # values of other facts of the text can be taken for these
        sorts = {f.value.sort: f.key for f in view.shown if isinstance(f, Fact)}
        facts = [f for f in facts if isinstance(f, Fact) and sorts.get(f.value.sort, f.key) != f.key] or facts
    fact = rng.choice(facts)
    if isinstance(fact, Choice):
        code = _CODES[label]
        claims = [(text, codes) for text, codes in fact.claims if label == "neutral" or codes[fact.state] == code]
        if not claims:
            return None
        text, codes = rng.choice(claims)
        how = "silent" if label == "neutral" else "state"
        return _Claim(rng.choice(alternatives(text)), how, fact, _LABELS[codes[fact.state]], codes=codes)
    return _of_fact(fact, view, label, rng, fact.claims)


def _left_open(view: _View, rng: random.Random) -> _Claim | None:
    """A claim that says more than a fact of the evidence."""
    fact = rng.choice(view.shown)
    if isinstance(fact, Choice):
        claims = [(text, codes) for text, codes in fact.claims if codes[fact.state] == "N"]
        if not claims:
            return None
        text, codes = rng.choice(claims)
        return _Claim(rng.choice(alternatives(text)), "stronger than stated", fact, codes=codes)
    finer = fact.value.finer(rng)
    if finer is None:
        return None
    template, _ = _template(fact.claims, rng)
    return _Claim(template.replace("$v", finer.claimed(rng)), "more exact than stated")


def _with_unstated_detail(view: _View, rng: random.Random) -> _Claim | None:
    """A claim about a fact of the evidence with a circumstance that the evidence does not mention."""
    facts = [f for f in view.shown if isinstance(f, Fact) and _takes_detail(f.claims) and isinstance(f.value, Date)]
    if not facts:
        return None
    fact = rng.choice(facts)
    template = toggled(rng.choice(alternatives(fact.claims)), False)
    detail = rng.choice([d for d in _DETAILS if d != fact.detail])
    return _Claim(f"{template.replace('$v', fact.value.claimed(rng)).rstrip('.')} {detail}.", "circumstance not stated")


def _template(claims: str, rng: random.Random) -> tuple[str, bool]:
    template = rng.choice(alternatives(claims))
    is_negative = "[" in template and rng.random() < _NEGATIVE
    return toggled(template, is_negative), is_negative


def _of_fact(fact: Fact, view: _View, label: Label, rng: random.Random, claims: str) -> _Claim:
    template, is_negative = _template(claims, rng)
    is_date, is_silent = isinstance(fact.value, Date), label == "neutral"
    if is_silent:
        # events have an order, which another date or time could contradict
        states_value, how = isinstance(fact.value, (Date, Clock)) or rng.random() < 0.5, "silent"
    else:
        states_value, how = (label == "supports") != is_negative, "true" if label == "supports" else "false"
    text, value, is_exact = "", None, False
    is_ordered = is_silent and is_date and any(isinstance(f, Fact) and isinstance(f.value, Date) for f in view.shown)
    if ((fact.has_bounds and not is_negative) or is_date) and not is_ordered and rng.random() < _BOUND:
        text = fact.value.bound(rng, states_value)
        how += " bound"
    if not text:
        is_exact = True
        if not states_value:
            others = [
                f.value
                for f in view.shown
                if isinstance(f, Fact) and f.value.sort == fact.value.sort and fact.value.excludes(f.value)
            ]
            is_swapped = bool(others) and rng.random() < _SWAPPED
            value = rng.choice(others) if is_swapped else fact.value.other(rng)
            how += " swapped" if is_swapped else ""
        text = (value or fact.value).claimed(rng)
    how += " negated" if is_negative else ""
    if fact.detail and not is_negative and not is_silent and template.endswith("$v.") and rng.random() < 0.5:
        return _Claim(f"{template.replace('$v', text).rstrip('.')} {fact.detail}.", f"{how} circumstance")
    truth: Label = "supports" if states_value != is_negative else "refutes"
    return _Claim(template.replace("$v", text), how, fact, truth, value, is_exact)


def _indirect(document: Document, view: _View, label: Label, rng: random.Random) -> _Claim | None:
    """A claim that names somebody by what another sentence states of them."""
    facts = [f for f in document.facts if isinstance(f, Fact) and f.via]
    shown = {f.key for f in view.shown}
    facts = [f for f in facts if (f.key in shown and f.via in shown) != (label == "neutral")]
    if label == "neutral":
        facts = [f for f in facts if f.key in shown or f.via in shown] or facts
    if not facts:
        return None
    fact = rng.choice(facts)
    made = _of_fact(fact, view, label, rng, fact.via_claims)
    return _Claim(made.text, f"two sentences {made.how}")


def _comparison(document: Document, view: _View, label: Label, rng: random.Random) -> _Claim | None:
    """A comparison of two facts."""
    shown = {f.key for f in view.shown}
    facts = [f for f in document.facts if isinstance(f, Fact) and f.noun and f.value.sort in _COMPARATIVES]
    ours = [f for f in facts if f.key in shown]
    theirs = [f for f in facts if f.key not in shown] if label == "neutral" else ours
    pairs = [
        (a, b)
        for a in ours
        for b in theirs
        if a is not b and a.value.sort == b.value.sort and a.value.size != b.value.size
    ]
    if not pairs:
        return None
    a, b = rng.choice(pairs)
    if isinstance(a.value, Money) and isinstance(b.value, Money) and a.value.currency != b.value.currency:
        return None
    if rng.random() < 0.5:
        a, b = b, a
    is_more = (a.value.size or 0) > (b.value.size or 0)
    if label == "refutes" or (label == "neutral" and rng.random() < 0.5):
        is_more = not is_more
    more, less = _COMPARATIVES[a.value.sort]
    return _Claim(f"{a.noun} {rng.choice(more if is_more else less)} {b.noun}.", "comparison")


_SMALL = re.compile(r"(?:The|There|A|An|It|No|Some|Every|All|Each|Members|Employees|Visitors|Drivers|Nobody|Children) ")


def _conjunction(document: Document, view: _View, label: Label, rng: random.Random) -> _Claim | None:
    """Two claims in one."""
    labels: list[Label] = ["supports", label]
    if label == "refutes" and rng.random() < 0.15:
        labels[0] = "refutes"
    rng.shuffle(labels)
    first, second = (_simple(document, view, one, rng) for one in labels)
    if first is None or second is None or first.fact is None or second.fact is None:
        return None
    if first.fact.key == second.fact.key:
        return None
    if any(word in claim.text for claim in (first, second) for word in (" and ", ", ", " because ")):
        return None
    start, end = first.text.rstrip("."), second.text
    how = f"both {first.how}, {second.how}"
    if start.startswith("$S ") and end.startswith("$S ") and rng.random() < 0.8:
        return _Claim(f"{start} and {end[3:]}", how)
    if end.startswith("$S ") or _SMALL.match(end):
        return _Claim(f"{start}{rng.choice((',', ''))} and {end if end[0] == '$' else end[0].lower() + end[1:]}", how)
    return None


_WORDS = re.compile(r"\w")


def _capitalized(sentence: str) -> str:
    found = _WORDS.search(sentence)
    if found is None:
        return sentence
    at = found.start()
    return sentence[:at] + sentence[at].upper() + sentence[at + 1 :].replace(".m..", ".m.")


def _possessive(name: str) -> str:
    return f"{name}'" if name.endswith("s") else f"{name}'s"
