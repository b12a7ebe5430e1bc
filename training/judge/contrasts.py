"""Contrasts by rule: claims changed so that their label changes, or written otherwise so that it stays."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from reason.verify.types import Label, Pair


class LabelledPair(NamedTuple):
    """A text and a claim with their label; pairs of one group differ in little and belong into one batch."""

    pair: Pair
    label: Label
    kind: str
    group: str


# fmt: off
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)
_NUMBERS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)
# fmt: on

_NEGATION = re.compile(r"\b(?:not|never|no|none|neither|nor|nobody|nothing|without|cannot)\b|n't\b", re.I)
_MONTH = "|".join(MONTHS)
_DATED = re.compile(rf" (?:{_MONTH}|\d)")
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}}) ({_MONTH})(?: (\d{{4}}))?\b")
_MONTH_FIRST = re.compile(rf"\b({_MONTH}) (\d{{1,2}})(?:, (\d{{4}}))?\b(?!,? \d)")
_NAME = r"[A-Z][\w'-]*(?: (?:of |the |de |van |von )?[A-Z][\w'-]*){0,4}"

# fmt: off
_ANTONYMS: Final = (
    ("increased", "decreased"), ("rose", "fell"), ("accepted", "rejected"), ("opened", "closed"),
    ("northern", "southern"), ("eastern", "western"), ("north", "south"), ("east", "west"), ("larger", "smaller"),
    ("largest", "smallest"), ("longer", "shorter"), ("longest", "shortest"), ("higher", "lower"),
    ("highest", "lowest"), ("older", "younger"), ("oldest", "youngest"), ("taller", "shorter"),
    ("tallest", "shortest"), ("faster", "slower"), ("fastest", "slowest"), ("heavier", "lighter"),
    ("earlier", "later"), ("best", "worst"), ("better", "worse"), ("male", "female"), ("alive", "dead"),
    ("before", "after"), ("above", "below"), ("inside", "outside"), ("always", "never"), ("positive", "negative"),
    ("legal", "illegal"), ("winner", "loser"), ("majority", "minority"), ("more than", "less than"),
    ("richest", "poorest"), ("upper", "lower"), ("increase", "decrease"), ("guilty", "innocent"),
    ("hottest", "coldest"), ("brother", "sister"), ("husband", "wife"), ("king", "queen"),
)
_ONE_WAY: Final = (
    (r"^All of the\b", "None of the"), (r"^All (?=[a-z]+s\b)", "No "), (r"^Every\b", "No"),
    (r"^Most of the\b", "None of the"), (r"^Some of the\b", "None of the"), (r"^Both of\b", "Neither of"),
    (r"^(?:Many|Several|Some) (?=[a-z]+s\b)", "No "),
)
_UNITS: Final = (
    ("kilometers", "miles"), ("kilometres", "miles"), ("km", "miles"), ("metres", "feet"), ("meters", "feet"),
    ("kilograms", "pounds"), ("kg", "lb"),
    ("minutes", "hours"), ("hours", "days"), ("days", "weeks"), ("weeks", "months"), ("months", "years"),
    ("million", "billion"), ("thousand", "million"),
    ("hectares", "square kilometres"),
)
_PAST: Final = {
    "won": "win", "lost": "lose", "wrote": "write", "directed": "direct", "founded": "found", "played": "play",
    "starred": "star", "became": "become",
    "began": "begin", "made": "make", "released": "release", "died": "die", "left": "leave", "joined": "join",
    "moved": "move", "received": "receive",
    "produced": "produce", "married": "marry", "attended": "attend", "appeared": "appear", "worked": "work",
    "served": "serve", "sold": "sell",
    "recorded": "record", "published": "publish", "created": "create", "took": "take", "opened": "open",
    "closed": "close", "designed": "design",
    "defeated": "defeat", "acquired": "acquire", "bought": "buy", "composed": "compose", "reached": "reach",
    "graduated": "graduate", "lived": "live",
    "signed": "sign", "scored": "score", "earned": "earn", "ended": "end", "started": "start", "ran": "run",
    "grew": "grow", "came": "come",
    "went": "go", "gave": "give", "met": "meet", "built": "build", "led": "lead", "held": "hold", "had": "have",
    "debuted": "debut",
}
_TRANSITIVE: Final = {
    "defeated": "defeated", "beat": "beaten", "acquired": "acquired", "bought": "bought", "founded": "founded",
    "directed": "directed", "wrote": "written",
    "composed": "composed", "invaded": "invaded", "conquered": "conquered", "discovered": "discovered",
    "produced": "produced", "designed": "designed",
    "created": "created", "killed": "killed", "taught": "taught", "portrayed": "portrayed", "replaced": "replaced",
    "succeeded": "succeeded",
    "published": "published", "developed": "developed", "built": "built", "invented": "invented",
    "employed": "employed", "nominated": "nominated",
}
_CONTRACTIONS: Final = {
    "is not": "isn't", "was not": "wasn't", "are not": "aren't", "were not": "weren't", "did not": "didn't",
    "does not": "doesn't",
    "has not": "hasn't", "had not": "hadn't", "do not": "don't", "cannot": "can't", "will not": "won't",
    "would not": "wouldn't",
}
# fmt: on
_EXPANSIONS: Final = {short: full for full, short in _CONTRACTIONS.items()}
_OPPOSITES: Final[dict[str, str]] = {
    **dict(_ANTONYMS),
    **{b: a for a, b in _ANTONYMS},
    "eldest": "youngest",
    "won": "lost",
    "approved": "rejected",
    "fewer than": "more than",
}
_OPPOSITE = re.compile(rf"\b({'|'.join(sorted(_OPPOSITES, key=len, reverse=True))})\b")
_BOUNDED = re.compile(
    r"\b(?:by|as of|before|after|since|until|during|more|less|fewer|over|under|above|below|least|most|about|around"
    r"|nearly|almost|up to|exceed\w*|between)\b",
    re.I,
)
_ACTIVE = re.compile(rf"^({_NAME}) ({'|'.join(_TRANSITIVE)}) ({_NAME})(?=\.$|$| in \d{{4}}\.?$)")
_PARTICIPLES: Final = {participle: past for past, participle in _TRANSITIVE.items()}
_PASSIVE = re.compile(rf"^({_NAME}) (?:was|is) ({'|'.join(_PARTICIPLES)}) by ({_NAME})(?=\.$|$| in \d{{4}}\.?$)")
_IN_YEAR = re.compile(r"\bin (1[0-9]{3}|20[0-9]{2})\b(?! and\b| to\b|[-\u2013,])")
_SINGLE = re.compile(
    r"\b(?:born|died|released|founded|opened|published|built|completed|formed|established|premiered|created|launched)\b"
)
_COUNTED = re.compile(
    r"\b(?:has|have|had|contains|includes|sold|won|scored|employs|comprises) (\d[\d,]*)(?= [a-z]+s\b)"
)
_PAST_VERB = re.compile(rf"^({_NAME}) ({'|'.join(_PAST)})\b")

Rule = Callable[[Pair, random.Random], str | None]


def changed_claims(pair: Pair, label: Label, kind: str, group: str, rng: random.Random) -> Iterator[LabelledPair]:
    """At most two pairs with another claim: one with another label, one with the same.

    A pair whose text supports the claim gives one that the text refutes; a refuted claim gives a supported one only by
    a negation. All others keep their label.
    """
    if label != "neutral":
        rules = _REFUTING if label == "supports" else _DENIALS
        other: Label = "refutes" if label == "supports" else "supports"
        made = _first(rules, pair, rng)
        if made is not None:
            yield LabelledPair(pair._replace(claim=made[1]), other, f"{kind}: {made[0]}", group)
    made = _first(_LOOSENING if label == "supports" and rng.random() < 0.4 else _REWRITES, pair, rng)
    if made is not None:
        yield LabelledPair(pair._replace(claim=made[1]), label, f"{kind}: {made[0]}", group)


def _first(rules: dict[str, Rule], pair: Pair, rng: random.Random) -> tuple[str, str] | None:
    """The name and the claim of the first rule, in random order, that applies."""
    for name in rng.sample(list(rules), len(rules)):
        claim = rules[name](pair, rng)
        if claim is not None and claim != pair.claim:
            return name, claim
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _opposite(pair: Pair, rng: random.Random) -> str | None:
    """One word of the claim, which the text has too, by its opposite, which the text does not have."""
    if _NEGATION.search(pair.claim):
        return None
    known = set(_words(pair.evidence))
    matches = [
        m
        for m in _OPPOSITE.finditer(pair.claim)
        if m.start() > 0 and (" " in m[1] or m[1] in known) and _OPPOSITES[m[1]] not in known
    ]
    # one bound of several may become true together with the others
    matches = [m for m in matches if not _may_hold_still(pair.claim, m)]
    if not matches:
        return None
    match = rng.choice(matches)
    return pair.claim[: match.start()] + _OPPOSITES[match[1]] + pair.claim[match.end() :]


def _may_hold_still(claim: str, match: re.Match[str]) -> bool:
    """Whether the word may be part of a name, or bounds something that other bounds qualify."""
    rest = claim[match.end() :]
    if match[1] in ("before", "after", "more than", "less than", "fewer than", "earlier", "later", "above", "below"):
        bounds = _BOUNDED.findall(claim)
        return len(bounds) > 1 or (match[1] in ("before", "after") and _DATED.match(rest) is None)
    return re.match(r" [A-Z]|-", rest) is not None and match[1] != "won"


def _quantifier(pair: Pair, rng: random.Random) -> str | None:
    """Quantifiers by "none"."""
    if _NEGATION.search(pair.claim) or " except " in pair.claim:
        return None
    made = [re.sub(pattern, new, pair.claim, count=1) for pattern, new in _ONE_WAY if re.search(pattern, pair.claim)]
    return rng.choice(made) if made else None


def _unit(pair: Pair, rng: random.Random) -> str | None:
    """A number of one unit by the same number of another."""
    if _NEGATION.search(pair.claim) or _BOUNDED.search(pair.claim):
        return None
    made = []
    for a, b in _UNITS:
        for one, other in ((a, b), (b, a)):
            match = re.search(rf"(?<![\d.,])(\d[\d.,]*) {one}\b", pair.claim)
            has_other = re.search(rf"\b{other}\b", pair.evidence) is not None
            if match is not None and match[0] in pair.evidence and not has_other:
                made.append(f"{pair.claim[: match.start()]}{match[1]} {other}{pair.claim[match.end() :]}")
    return rng.choice(made) if made else None


def _date(pair: Pair, rng: random.Random) -> str | None:
    """A date of the claim that the text has too, with another day or month."""
    if _NEGATION.search(pair.claim) or _BOUNDED.search(pair.claim):
        return None
    for pattern, day_at, month_at in ((_DAY_FIRST, 1, 2), (_MONTH_FIRST, 2, 1)):
        match = pattern.search(pair.claim)
        if match is None or not 1 <= int(match[day_at]) <= 28:
            continue
        day, month = match[day_at], match[month_at]
        if not re.search(rf"\b{day} {month}\b|\b{month} {day}\b", pair.evidence):
            continue
        if rng.random() < 0.5:
            new = rng.choice([m for m in MONTHS if m != month and m not in pair.evidence])
            start, end = match.span(month_at)
        else:
            new = rng.choice([str(d) for d in range(1, 29) if str(d) not in _words(pair.evidence)] or [day])
            start, end = match.span(day_at)
        return pair.claim[:start] + new + pair.claim[end:]
    return None


def _roles(pair: Pair, rng: random.Random) -> str | None:
    """Who did something to whom, the other way round."""
    for pattern in (_ACTIVE, _PASSIVE):
        match = pattern.search(pair.claim)
        if match is not None and match[1] != match[3]:
            verb = pair.claim[match.end(1) : match.start(3)]
            return f"{match[3]}{verb}{match[1]}{pair.claim[match.end() :]}"
    return None


def _denied(pair: Pair, rng: random.Random) -> str | None:
    """The claim denied by its main verb."""
    if _NEGATION.search(pair.claim) or re.search(r"\b(?:only|all|every|any|and|or|but|at least|most)\b", pair.claim):
        return None
    match = _PAST_VERB.search(pair.claim)
    if match is not None:
        rest = pair.claim[match.end() :]
        if rest.startswith((" been", " to ", " already")) or (match[2] == "had" and re.match(r" \w+(?:ed|en)\b", rest)):
            return None
        if rng.random() < 0.3:
            return f"{match[1]} never {match[2]}{rest}"
        return f"{match[1]} {rng.choice(('did not', 'did not', 'didn' + chr(39) + 't'))} {_PAST[match[2]]}{rest}"
    match = re.search(rf"^({_NAME}) (is|was|are|were|has been|will be|can be)\b(?= [a-z\d])", pair.claim)
    if match is None:
        return None
    first, _, more = match[2].partition(" ")
    adverb = "never" if first in ("was", "were", "has") and rng.random() < 0.3 else "not"
    return f"{match[1]} {first} {adverb}{' ' + more if more else ''}{pair.claim[match.end() :]}"


def _falsely_ordered(pair: Pair, rng: random.Random) -> str | None:
    """A year that the text has too, by one before or after it that excludes it."""
    match = _year(pair)
    if match is None:
        return None
    year, gap = int(match[1]), rng.choice((1, 2, 3, 5, 8, 12, 20))
    new = f"before {year - gap}" if rng.random() < 0.5 else f"after {year + gap}"
    return pair.claim[: match.start()] + new + pair.claim[match.end() :]


def _ordered(pair: Pair, rng: random.Random) -> str | None:
    """A year that the text has too, by a period in which it lies."""
    match = _year(pair)
    if match is None:
        return None
    year, gap = int(match[1]), rng.choice((1, 2, 3, 5, 8, 12, 20))
    new = rng.choice((f"before {year + gap}", f"after {year - gap}", f"in the {year // 10 * 10}s"))
    return pair.claim[: match.start()] + new + pair.claim[match.end() :]


def _year(pair: Pair) -> re.Match[str] | None:
    """The only year of a claim that states that something happened then."""
    years = re.findall(r"\b(?:1[0-9]{3}|20[0-9]{2})\b", pair.claim)
    if len(years) != 1 or _NEGATION.search(pair.claim) or years[0] not in pair.evidence:
        return None
    if re.search(r"\b(?:only|until|since|first|last|best|most|every|all|before|after)\b|est\b", pair.claim):
        return None
    match = _IN_YEAR.search(pair.claim)
    if match is None or re.search(rf"(?:{_MONTH})\W*$", pair.claim[: match.start()]):
        return None
    # "a film in 1994" may be one of several; "was released in 1994" is one event
    return match if _SINGLE.search(pair.claim) else None


def _number(pair: Pair) -> tuple[re.Match[str], int] | None:
    """The only count of a claim, which the text has too."""
    found = re.findall(r"\d[\d,.]*", pair.claim)
    if len(found) != 1 or _NEGATION.search(pair.claim) or re.search(r"\b(?:only|just|exactly)\b", pair.claim):
        return None
    match = _COUNTED.search(pair.claim)
    if match is None or not re.search(rf"(?<![\d,.]){match[1]}(?![\d,.]\d)", pair.evidence):
        return None
    number = int(match[1].replace(",", ""))
    return (match, number) if number > 3 else None


def _compared(pair: Pair, rng: random.Random) -> str | None:
    """A count by a comparison that holds."""
    return _with_bound(pair, rng, True)


def _falsely_compared(pair: Pair, rng: random.Random) -> str | None:
    """A count by a comparison that does not hold."""
    return _with_bound(pair, rng, False)


def _with_bound(pair: Pair, rng: random.Random, holds: bool) -> str | None:
    found = _number(pair)
    if found is None:
        return None
    match, number = found
    gap = max(1, round(number * rng.choice((0.05, 0.1, 0.25, 0.5))))
    is_lower = rng.random() < 0.5
    bound = number - gap if is_lower == holds else number + gap
    words = (
        rng.choice(("more than", "at least", "over")) if is_lower else rng.choice(("fewer than", "at most", "under"))
    )
    return f"{pair.claim[: match.start(1)]}{words} {bound:,}{pair.claim[match.end(1) :]}"


def _numerals(pair: Pair, rng: random.Random) -> str | None:
    """A small number in words, or a number word in digits."""
    match = re.search(r"\b[a-z]+ (\d{1,2})(?= [a-z]+s\b)", pair.claim)
    is_followed = match is not None and re.match(
        r" (?:percent|per cent|million|billion|a\.m|p\.m|am\b|pm\b)", pair.claim[match.end() :]
    )
    if match is not None and not is_followed and int(match[1]) < len(_NUMBERS):
        return pair.claim[: match.start(1)] + _NUMBERS[int(match[1])] + pair.claim[match.end() :]
    for number in range(20, 1, -1):
        new = re.sub(rf"(?<=[a-z] ){_NUMBERS[number]}(?= [a-z])", str(number), pair.claim, count=1)
        if new != pair.claim:
            return new
    return None


def _date_format(pair: Pair, rng: random.Random) -> str | None:
    """A date in another order."""
    match = _DAY_FIRST.search(pair.claim)
    if match is not None:
        new = f"{match[2]} {match[1]}" + (f", {match[3]}" if match[3] else "")
    else:
        match = _MONTH_FIRST.search(pair.claim)
        if match is None:
            return None
        new = f"{match[2]} {match[1]}" + (f" {match[3]}" if match[3] else "")
    return pair.claim[: match.start()] + new + pair.claim[match.end() :]


def _contraction(pair: Pair, rng: random.Random) -> str | None:
    """A contraction written out, or the other way round."""
    for table in (_CONTRACTIONS, _EXPANSIONS):
        for old, new in table.items():
            match = re.search(rf"\b{re.escape(old)}\b", pair.claim)
            if match is not None:
                return pair.claim[: match.start()] + new + pair.claim[match.end() :]
    return None


def _voice(pair: Pair, rng: random.Random) -> str | None:
    """Active by passive, or the other way round."""
    match = _ACTIVE.search(pair.claim)
    if match is not None:
        return f"{match[3]} was {_TRANSITIVE[match[2]]} by {match[1]}{pair.claim[match.end() :]}"
    match = _PASSIVE.search(pair.claim)
    if match is not None:
        return f"{match[3]} {_PARTICIPLES[match[2]]} {match[1]}{pair.claim[match.end() :]}"
    return None


def _lower_case(pair: Pair, rng: random.Random) -> str | None:
    """Everything in small letters."""
    return pair.claim.lower() if rng.random() < 0.5 else None


def _punctuation(pair: Pair, rng: random.Random) -> str | None:
    """Without the full stop, hyphens or commas, or with more of them."""
    claim = pair.claim
    what = rng.random()
    if what < 0.4:
        return claim[:-1] if claim.endswith(".") else f"{claim}."
    if what < 0.6:
        return re.sub(r"(?<=[a-z])-(?=[a-z])", " ", claim)
    if what < 0.8:
        return claim.replace(",", "") if not re.search(r"\d,\d", claim) else None
    return claim.replace("'", "\u2019") if "'" in claim else None


_DENIALS: Final[dict[str, Rule]] = {"denied": _denied}
_REFUTING: Final[dict[str, Rule]] = {
    "opposite": _opposite,
    "quantifier": _quantifier,
    "unit": _unit,
    "date": _date,
    "roles": _roles,
    "denied": _denied,
    "false period": _falsely_ordered,
    "false comparison": _falsely_compared,
}
_LOOSENING: Final[dict[str, Rule]] = {"period": _ordered, "comparison": _compared}
_REWRITES: Final[dict[str, Rule]] = {
    "numerals": _numerals,
    "date format": _date_format,
    "contraction": _contraction,
    "voice": _voice,
    "small letters": _lower_case,
    "punctuation": _punctuation,
}
