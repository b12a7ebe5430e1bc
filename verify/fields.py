"""Fields of tool results, as sentences that a judge can read, and claims that a field states.

A result is JSON, lines of "name: value", or a table; a claim about it is English. `statements` writes the fields of
each object as one sentence with their path ("order 4471: total is 59.90 EUR; status is cancelled"). `stated_by` finds
the field that states a claim by its value: each number, date, amount and name of the claim is one of an object's
values, bound by the name of its field, and no other word is left over. Everything else is left to the judge, as is a
field that has different values in several objects or calls. The rules are our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.decoder import py_scanstring as scanstring  # type: ignore[attr-defined]
from typing import Final

from ..core.types import Evidence
from .entailment.embedded_features import stem
from .receipts import tool_words, word_set
from .types import Claim, ClaimReport
from .values import canonical, short_dates
from .verifier import ToolUse

_MAX_CHARS: Final = 20_000
"""Characters of a result that are read."""
_MAX_FIELDS: Final = 2_000
_MAX_DEPTH: Final = 40

# -- fields of a text


@dataclass(frozen=True)
class Field:
    """A named value.

    Attributes:
        path: Names of the objects around it, and its own; empty of a bare value.
        value: As the text has it; "true", "false" and "null" of JSON.
        start: First character of the value in the text.
        end: One past the last.
        record: Number of its object; an object's fields follow one another.
        parents: Numbers of the objects around that.
    """

    path: tuple[str, ...]
    value: str
    start: int
    end: int
    record: int
    parents: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path[-1] if self.path else ""


class _Json:
    """The fields of a JSON text with their positions, which the standard parser does not tell."""

    _SPACE: Final = re.compile(r"[ \t\n\r]*")
    _SCALAR = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")

    def __init__(self, text: str) -> None:
        self._text, self.fields, self._records = text, list[Field](), 0

    def read(self) -> list[Field] | None:
        """The fields; None if the text is no JSON object or array."""
        start = self._skip(0)
        if self._text[start : start + 1] not in ("{", "["):
            return None
        try:
            while start < len(self._text):  # several values: JSON lines
                start = self._skip(self._value(start, (), ()))
        except (ValueError, IndexError):
            return None
        return self.fields

    def _skip(self, at: int) -> int:
        match = self._SPACE.match(self._text, at)
        return at if match is None else match.end()

    def _value(self, at: int, path: tuple[str, ...], records: tuple[int, ...]) -> int:
        text = self._text
        end: int
        if len(path) > _MAX_DEPTH or len(self.fields) > _MAX_FIELDS:
            raise ValueError("too large")
        if text[at] in "{[":
            return self._container(at, path, records)
        if text[at] == '"':
            value, end = scanstring(text, at + 1, False)
            span = at + 1, end - 1
        elif match := self._SCALAR.match(text, at):
            value, end = match[0], match.end()
            span = match.span()
        else:
            raise ValueError("no JSON")
        self.fields.append(Field(path, value, *span, records[-1] if records else 0, records[:-1]))
        return end

    def _container(self, at: int, path: tuple[str, ...], records: tuple[int, ...]) -> int:
        text, is_object, start, count = self._text, self._text[at] == "{", at, 0
        if is_object:
            self._records += 1
            records = (*records, self._records)
        at = self._skip(at + 1)
        while text[at] not in "}]":
            own = path
            if is_object:
                name, at = scanstring(text, at + 1, False)
                at = self._skip(at)
                if text[at] != ":":
                    raise ValueError("no JSON")
                own, at = (*path, str(name)), self._skip(at + 1)
            at = self._skip(self._value(at, own, records))
            count += 1
            if text[at] == ",":
                at = self._skip(at + 1)
        if not is_object and path and records:  # the number of its elements
            self.fields.append(Field(path, str(count), start, at + 1, records[-1], records[:-1]))
        return at + 1


_LINE: Final = re.compile(
    r"^[ \t]*(?P<name>[A-Za-z][\w ./-]{0,40}?)[ \t]*[:=][ \t]+(?P<value>\S.*?)[ \t]*$", re.MULTILINE
)
_ROW: Final = re.compile(r"^.*\S.*$", re.MULTILINE)
_CELL: Final = re.compile(r"[^|\t]+")


def fields_of(text: str) -> list[Field]:
    """The fields of a text in order; none of prose."""
    text = text[:_MAX_CHARS]
    found = _Json(text).read()
    if found is not None:
        return found
    table = _table(text)
    return table or [Field((match["name"],), match["value"], *match.span("value"), 1) for match in _LINE.finditer(text)]


def _table(text: str) -> list[Field]:
    """The cells of a table with a header, whose columns are separated by | or tabs."""
    rows: list[list[re.Match[str]]] = []
    for row in _ROW.finditer(text):
        cells = [cell for cell in _CELL.finditer(text, *row.span()) if cell[0].strip()]
        if len(cells) > 1 and not all(re.fullmatch(r"\s*:?-+:?\s*", cell[0]) for cell in cells):
            rows.append(cells)
    if len(rows) < 2 or len({len(row) for row in rows}) > 1 or any(re.search(r"\d", cell[0]) for cell in rows[0]):
        return []
    names = [cell[0].strip() for cell in rows[0]]
    found = []
    for number, cells in enumerate(rows[1:], 1):
        for name, cell in zip(names, cells, strict=True):
            start = cell.start() + len(cell[0]) - len(cell[0].lstrip())
            found.append(Field((name,), cell[0].strip(), start, start + len(cell[0].strip()), number))
    return found


# -- statements


@dataclass(frozen=True)
class Statement:
    """A sentence about one object, and its characters in the text that it is about."""

    text: str
    start: int
    end: int


_IDENTITY: Final = word_set("id name title no number key ref code login path sku uuid locator reference")


def statements(text: str) -> list[Statement]:
    """The fields of a text as sentences, one for each object; none of prose."""
    results = []
    for fields in _by_record(fields_of(text)).values():
        named = [f for f in fields if _IDENTITY.intersection(tool_words(f.name))][: len(fields) > 1]
        subject = " ".join((*tool_words(" ".join(fields[0].path[:-1])), *(f.value for f in named)))
        parts = [_stated(f) for f in fields if f not in named]
        prefix = f"{subject}: " if subject else ""
        start, end = min(f.start for f in fields), max(f.end for f in fields)
        results.append(Statement(f"{prefix}{'; '.join(parts)}.", start, end))
    return results


def _by_record(fields: Sequence[Field]) -> dict[int, list[Field]]:
    found: dict[int, list[Field]] = {}
    for field in fields:
        found.setdefault(field.record, []).append(field)
    return found


def _stated(field: Field) -> str:
    name = " ".join(tool_words(field.name)) or field.name
    if not name:
        return field.value
    if field.value in ("true", "false"):
        return f"{name} is {'yes' if field.value == 'true' else 'no'}"
    if field.value in ("null", "", "[]"):
        return f"there is no {name}"
    return f"{name} is {field.value}" if field.value != "0" else f"{name} is 0, there is no {name}"


def readable(use: ToolUse) -> str:
    """A call for a judge: the statements of its result, or the result itself; with the call if it changed something."""
    own = statements(use.result)
    text = "\n".join(statement.text for statement in own) if own else use.result
    if use.effect == "read":
        return text
    name = " ".join(tool_words(use.tool)) or use.tool
    given = " ".join(statement.text for statement in statements(use.arguments)) or use.arguments
    return f"{name} succeeded, with {given}\n{text}"


def as_cited(evidence: Evidence, use: ToolUse) -> Evidence:
    """A span of `readable` as the characters of the result that it was made from; the whole result of a call itself."""
    own, text = statements(use.result), readable(use)
    if text == use.result or evidence.start is None or evidence.end is None:
        return evidence
    spans, at = [], len(text) - len("\n".join(statement.text for statement in own) if own else use.result)
    for one in own or [Statement(use.result, 0, len(use.result))]:
        if at < evidence.end and evidence.start < at + len(one.text):
            spans.append((one.start, one.end))
        at += len(one.text) + 1
    start, end = (min(spans)[0], max(end for _, end in spans)) if spans else (0, len(use.result))
    return evidence.model_copy(update={"text": use.result[start:end], "start": start, "end": end})


# -- claims that a field states

_TOKEN: Final = re.compile(r"--\d\d-\d\d|\d+(?:[.:/-]\d+)*|[^\W\d_][\w@]*(?:[-./@][\w@]+)*|n't\b|%")
_PLAIN: Final = word_set(
    "the a an is are was were be been being it its he she they your you i we our my me us his her their of for in on "
    "at to by with and has have had there this that these those will now currently also just as comes come shows show "
    "holds hold contains contain includes include lists list carries got get gets costs cost s re 've ve stands stated "
    "says reads set listed shown recorded from"
)
"""Words that bind nothing."""
_KINDS: Final = word_set(
    "order booking reservation account ticket invoice file record customer user item parcel package shipment flight "
    "room event meeting document row card subscription table project task issue repository system service city"
)
"""What objects are, in whatever words their tools call them."""
_NEGATIONS: Final = word_set("no not never none without neither nor zero n't nothing")
_NAMES: Final = tuple(
    map(
        word_set,
        (
            "total sum amount come came comes price cost costs", "status state", "count number quantity qty",
            "departure departs depart leaves leave dep", "arrival arrives arrive eta arr", "expiry expires expire",
            "start starts begins begin opens", "end ends until closes", "name called named title", "mail email",
            "owner owned assignee assigned owns", "seats seat capacity", "available balance left remaining",
            "temperature temp degrees celsius", "duration takes take lasts", "weight weighs", "created opened",
            "due deadline", "size large", "address located location city", "author written wrote by", "phone call",
        ),
    )
)  # fmt: skip
"""Words of claims that name the same field."""
_UNITS: Final = word_set("currency unit units")
_STATES: Final = word_set("status state result condition stage outcome tier plan type kind priority severity level")
"""Names that a claim need not say: "order 17 is cancelled"."""


@dataclass(frozen=True)
class StatedBy:
    """The call that states a claim, and the characters of the field in its result."""

    use: ToolUse
    start: int
    end: int


def stated_by(claims: Sequence[str], uses: Sequence[ToolUse]) -> list[StatedBy | None]:
    """The field of a successful call that states each claim; None if there is none, or several differ."""
    records = [record for use in uses if use.ok for record in _records(use)] if claims else []
    return [_stated_by(claim, records) for claim in claims]


def _stated_by(claim: str, records: Sequence[_Record]) -> StatedBy | None:
    tokens = _tokens(claim)
    if not tokens or claim.rstrip().endswith("?"):
        return None
    for i in reversed(range(len(records))):
        facts = records[i].facts(tokens)
        if facts and not any(
            _differs(records[i], facts, other, tokens) for other in records if other is not records[i]
        ):
            return StatedBy(records[i].use, min(f.start for f in facts), max(f.end for f in facts))
    return None


def field_report(claim: Claim, stated: StatedBy) -> ClaimReport:
    """The report on a claim that a field states, which is its evidence."""
    use, text = stated.use, stated.use.result[stated.start : stated.end]
    report = ClaimReport.by_program(claim, holds=True, shown=text, result="a tool's result states it", backend="fields")
    evidence = Evidence(source=use.source, text=text, start=stated.start, end=stated.end)
    return report.model_copy(update={"evidence": (evidence,)})


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(short_dates(canonical(text)))


def _records(use: ToolUse) -> Iterator[_Record]:
    found = _by_record(fields_of(use.result))
    arguments = _Json(use.arguments).read() or []
    for own in found.values():
        around = [field for parent in own[0].parents for field in found.get(parent, ()) if field.value != ""]
        yield _Record(use, own, [*around, *arguments])


class _Record:
    """An object of a result with the fields around it and the call's arguments."""

    def __init__(self, use: ToolUse, own: Sequence[Field], around: Sequence[Field]) -> None:
        self.use, self.own = use, own
        self._words = {stem(word) for word in tool_words(use.tool)}
        self._words |= {stem(word) for field in (*own, *around) for name in field.path for word in tool_words(name)}
        self.identity = {token for field in around for token in _tokens(field.value)}
        self._values = [(field, _tokens(field.value)) for field in own]
        for number, (field, tokens) in enumerate(self._values):
            words = set(tool_words(field.name))
            is_first = number == 0 < len(own) - 1 and not re.fullmatch(r"[\d.]*|true|false|null", field.value)
            if words & (_IDENTITY | _UNITS) or (is_first and not words & _STATES):
                self.identity.update(tokens)

    def facts(self, claim: Sequence[str]) -> list[Field]:
        """The fields that state a claim; none if a word is left over, or a value is not bound to its field."""
        names = {i: [f for f in self.own if _is_name(token, f)] for i, token in enumerate(claim)}
        covered = {i for i, token in enumerate(claim) if self._is_covered(token) or names[i]}
        facts: list[Field] = []
        for field, tokens in self._values:
            if field.value in ("true", "false", "null", "0", "") and self._states_none(field, claim, names, covered):
                facts.append(field)
                continue
            at = _position(tokens, claim)
            if at is None or set(tokens) <= self.identity:
                continue
            if not self._is_bound(field, range(at, at + len(tokens)), claim, names):
                continue
            covered.update(range(at, at + len(tokens)))
            facts.append(field)
        negations = {i for i, token in enumerate(claim) if token in _NEGATIONS}
        if not facts or not negations <= covered or len(covered) < len(claim):
            return []
        return facts

    def _is_covered(self, token: str) -> bool:
        if token in _NEGATIONS:
            return False
        return token in _PLAIN or token in self.identity or token in _KINDS or stem(token) in self._words

    def _states_none(
        self, field: Field, claim: Sequence[str], names: dict[int, list[Field]], covered: set[int]
    ) -> bool:
        """Whether a claim says of a field that it is so, or that there is none: "no bags", "not refundable"."""
        at = [i for i, fields in names.items() if field in fields and _has_name(claim[i], field)]
        if not at:
            return False
        negations = [i for i in range(max(0, at[0] - 3), at[0]) if claim[i] in _NEGATIONS]
        is_negative = field.value != "true"
        if len(negations) != int(is_negative) or any(claim[i][0].isdigit() for i in range(at[0] + 1, len(claim))):
            return False
        covered.update(negations)
        return True

    def _is_bound(self, field: Field, at: range, claim: Sequence[str], names: dict[int, list[Field]]) -> bool:
        """Whether the nearest name of a field before or after a value is its own; a state needs none.

        A name itself counts before another word for it.
        """
        mentions = {
            i: [f for f in fields if not _IDENTITY.intersection(tool_words(f.name))]
            for i, fields in names.items()
            if i not in at
        }
        mentions = {i: fields for i, fields in mentions.items() if fields}
        exact = {i: own for i, fields in mentions.items() if (own := [f for f in fields if _has_name(claim[i], f)])}
        mentions = exact or mentions
        if not mentions:
            return bool(_STATES.intersection(tool_words(field.name))) and not re.search(r"\d", field.value)
        distance = {i: at.start - i if i < at.start else i - at.stop + 1 for i in mentions}
        nearest = min(distance.values())
        named = next(fields for i, fields in mentions.items() if distance[i] == nearest)
        others = (other for other in named if other.name != field.name)
        return field in named and all(canonical(other.value) == canonical(field.value) for other in others)


def _has_name(token: str, field: Field) -> bool:
    return any(stem(token) == stem(word) for word in tool_words(field.name))


def _is_name(token: str, field: Field) -> bool:
    words = tool_words(field.name)
    return _has_name(token, field) or any(token in group and not group.isdisjoint(words) for group in _NAMES)


def _position(value: Sequence[str], claim: Sequence[str]) -> int | None:
    """Where a claim has a value; a date without a year is one of any year."""
    if not value:
        return None
    for at in range(len(claim) - len(value) + 1):
        if all(own == said or own[4:] == said[1:] != "" for own, said in zip(value, claim[at:], strict=False)):
            return at
    return None


def _differs(record: _Record, facts: Sequence[Field], other: _Record, claim: Sequence[str]) -> bool:
    """Whether another object may be meant, in which a field of the name has another value."""
    named = {token for token in claim if token in record.identity and token not in _PLAIN | _KINDS}
    if named and not named <= other.identity:
        return False
    values = {field.name: canonical(field.value) for field in facts}
    return any(field.name in values and canonical(field.value) != values[field.name] for field in other.own)
