"""Synthetic documents for the training of entailment: labels, determinism, and that claims alone tell nothing."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter

import pytest
from document_facts import (
    Choice,
    Clock,
    Count,
    Date,
    Document,
    Fact,
    Measure,
    Money,
    Name,
    Person,
    Value,
    alternatives,
    number_words,
    toggled,
)
from document_kinds import KINDS
from documents import SHARES, _of_document, document_pairs

PAIRS = list(document_pairs(12_000, random.Random(7)))
VALUES: list[Value] = [
    Count(8),
    Count(340),
    Count(12_000),
    Money(450),
    Measure(1500, "length"),
    Measure(90, "time"),
    Measure(21, "term"),
    Date(1926),
    Date(1926, 6, 12),
]


def test_same_seed_gives_the_same_pairs() -> None:
    assert list(document_pairs(300, random.Random(7))) == PAIRS[:300]
    assert list(document_pairs(300, random.Random(8))) != PAIRS[:300]


def test_count_is_exact_and_pairs_of_a_document_are_neighbours() -> None:
    assert len(PAIRS) == 12_000
    groups = [p.group for p in PAIRS]
    runs = [g for i, g in enumerate(groups) if i == 0 or groups[i - 1] != g]
    assert len(runs) == len(set(runs))


def test_labels_have_their_shares() -> None:
    counts = Counter(p.label for p in PAIRS)
    for label, share in SHARES.items():
        assert abs(counts[label] / len(PAIRS) - share) < 0.03, label


def test_every_kind_of_document_occurs() -> None:
    assert len({p.kind.split(": ")[1] for p in PAIRS}) == len(KINDS)


def test_no_template_mark_and_no_empty_text_is_left() -> None:
    for one in PAIRS:
        for text in (one.pair.evidence, one.pair.claim):
            assert text.strip() == text
            assert len(text) > 8
            assert not re.search(r"[$][A-Za-z]|\[|\]|\.\.|  |\{|\}", text), text
            assert text[0].isupper() or not text[0].isalpha(), text


@pytest.mark.parametrize(
    "pattern",
    [r"\b(?:not|never|no|none|nobody|cannot|neither)\b", r"\d", r"\b(?:all|every|only)\b", r"\b(?:may|might)\b"],
)
def test_claims_of_every_label_have_the_same_words(pattern: str) -> None:
    shares = []
    for label in SHARES:
        claims = [p.pair.claim for p in PAIRS if p.label == label]
        shares.append(sum(bool(re.search(pattern, c, re.I)) for c in claims) / len(claims))
    assert max(shares) - min(shares) < 0.06, shares


def test_claims_and_texts_of_every_label_have_the_same_length() -> None:
    for field in ("claim", "evidence"):
        means = []
        for label in SHARES:
            texts = [getattr(p.pair, field) for p in PAIRS if p.label == label]
            means.append(sum(len(t.split()) for t in texts) / len(texts))
        assert max(means) < 1.15 * min(means), (field, means)


def test_words_of_a_claim_do_not_predict_its_label() -> None:
    """The most frequent label of a claim's rarest known word pair is hardly better than a guess."""
    cut = len(PAIRS) * 3 // 4
    seen: dict[str, Counter[str]] = {}
    for one in PAIRS[:cut]:
        for pair in _word_pairs(one.pair.claim):
            seen.setdefault(pair, Counter())[one.label] += 1
    right = total = 0
    for one in PAIRS[cut:]:
        known = [seen[pair] for pair in _word_pairs(one.pair.claim) if pair in seen and seen[pair].total() >= 20]
        if known:
            total += 1
            votes: Counter[str] = Counter()
            for counts in known:
                for label, n in counts.items():
                    votes[label] += n / counts.total()  # type: ignore[assignment]
            right += votes.most_common(1)[0][0] == one.label
    assert total > 2000
    assert right / total < 0.46


def _word_pairs(claim: str) -> set[tuple[str, str]] | set[str]:
    words = re.findall(r"[a-z]+", claim.lower())
    return {f"{a} {b}" for a, b in itertools.pairwise(words)}


def _document(*facts: Fact | Choice) -> Document:
    return Document("test", "Harrow Bridge", "the Harrow Bridge", ("the bridge",), ("it", "its"), facts)


OPENED = Fact("opened", Date(1926, 6, 12), "$S was opened $v.", "$S [was/was not] opened $v.")
DESIGNER = Fact("designer", Person("Elena", "Ortega", True), "$v designed $S.", "$v [designed/did not design] $S.")
ROOMS = Fact("rooms", Count(12), "$S has $v arches.", "$S [has/does not have] $v arches.", "", True)
FLOOD = Choice(
    "flood",
    0,
    ("$S was damaged.", "$S was not damaged."),
    (("$S was damaged.", "SR"), ("$S was not damaged.", "RS")),
)


def test_labels_follow_from_the_text() -> None:
    """Each claim of a fixed document is checked by its own rule."""
    checked: Counter[str] = Counter()
    for seed in range(400):
        rng = random.Random(seed)
        for one in _of_document(lambda _: _document(OPENED, DESIGNER, ROOMS, FLOOD), "g", rng):
            claim, text = one.pair.claim, one.pair.evidence
            if " and " in claim or "other subject" in one.kind or "Harrow" not in f"{text} {one.pair.title}":
                continue
            expected = _flood(claim, text) or _designer(claim, text) or _arches(claim, text)
            if expected:
                assert one.label == expected, one
                checked[expected] += 1
    assert min(checked.values()) > 100
    assert set(checked) == set(SHARES)


def _flood(claim: str, text: str) -> str:
    if "damaged" not in claim:
        return ""
    if "damaged" not in text:
        return "neutral"
    return "supports" if ("not damaged" in claim) == ("not damaged" in text) else "refutes"


def _designer(claim: str, text: str) -> str:
    match = re.match(r"(.*) (designed|did not design) the", claim)
    if match is None:
        return ""
    stated = re.search(r"(\S+) designed", text)
    if stated is None:
        return "neutral"
    return "supports" if match[1].endswith(stated[1]) == (match[2] == "designed") else "refutes"


def _arches(claim: str, text: str) -> str:
    words = {number_words(n): n for n in range(100)}
    match = re.search(r"(has|does not have) ([a-z-]+|[\d,]+) arches", claim)
    stated = re.search(r"has ([a-z-]+|[\d,]+) arches", text)
    if match is None:
        return ""
    if stated is None:
        return "neutral"
    a, b = (words[t] if t in words else int(t.replace(",", "")) for t in (match[2], stated[1]))
    return "supports" if (a == b) == (match[1] == "has") else "refutes"


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_another_value_differs_and_can_be_told_apart(value: Value) -> None:
    rng = random.Random(1)
    for _ in range(200):
        other = value.other(rng)
        assert other != value
        assert other.sort == value.sort
        assert other.claimed(rng) != value.stated(rng)


@pytest.mark.parametrize(
    ("number", "text", "holds"),
    [
        (8, "more than 5", True),
        (8, "at least 8", True),
        (8, "over 8", False),
        (8, "no fewer than 9", False),
        (8, "fewer than 9", True),
        (8, "at most 8", True),
        (8, "under 8", False),
        (8, "no more than 7", False),
    ],
)
def test_the_check_of_bounds(number: int, text: str, holds: bool) -> None:
    assert _holds(number, text) is holds


def test_bounds_hold_or_do_not_as_requested() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        number, holds = rng.randint(2, 5000), rng.random() < 0.5
        text = Count(number).bound(rng, holds)
        if text:
            assert _holds(number, text) is holds, (number, text)


def _holds(number: int, text: str) -> bool:
    words, _, last = text.rpartition(" ")
    known = {number_words(n): n for n in range(100)}
    bound = known[last] if last in known else int(last.replace(",", ""))
    return {
        "more than": number > bound,
        "over": number > bound,
        "at least": number >= bound,
        "no fewer than": number >= bound,
        "fewer than": number < bound,
        "under": number < bound,
        "at most": number <= bound,
        "no more than": number <= bound,
    }[words]


def test_bounds_of_dates_hold_or_do_not_as_requested() -> None:
    rng = random.Random(3)
    for _ in range(2000):
        year, holds = rng.randint(1801, 2099), rng.random() < 0.5
        text = Date(year).bound(rng, holds)
        number = int(re.findall(r"\d+", text)[0])
        actual = (
            year < number
            if text.startswith("before")
            else year > number
            if text.startswith("after")
            else year // 10 * 10 == number
            if text.endswith("s")
            else (year - 1) // 100 + 1 == number
        )
        assert actual is holds, (year, text)


def test_a_finer_date_agrees_with_the_coarse_one() -> None:
    rng = random.Random(4)
    finer = Date(1926, 6).finer(rng)
    assert isinstance(finer, Date)
    assert (finer.year, finer.month) == (1926, 6)
    assert finer.day > 0
    assert Date(1926, 6, 12).finer(rng) is None


def test_values_are_stated_in_several_ways() -> None:
    rng = random.Random(5)

    def forms(value: Value) -> set[str]:
        return {value.stated(rng) for _ in range(200)}

    assert forms(Money(450)) == {"£450", "450 pounds", "GBP 450"}
    assert {"1.5 km", "1.5 kilometres", "1,500 metres", "1,500 m"} <= forms(Measure(1500, "length"))
    assert {"90 minutes", "1.5 hours"} <= forms(Measure(90, "time"))
    assert {"3 weeks", "three weeks", "21 days"} <= forms(Measure(21, "term"))
    assert forms(Date(1926, 6, 12)) == {"on 12 June 1926", "on June 12, 1926", "on 1926-06-12"}
    assert forms(Clock(18 * 60 + 30)) == {"18:30", "6:30 p.m."}
    assert forms(Name("teal", "colour", lambda r: "red")) == {"teal"}


def test_every_claim_of_a_choice_has_a_letter_for_each_state() -> None:
    for make in KINDS:
        for seed in range(12):
            document = make(random.Random(seed))
            keys = [f.key for f in document.facts]
            assert len(keys) == len(set(keys)), (document.kind, keys)
            for fact in document.facts:
                if isinstance(fact, Choice):
                    assert 0 <= fact.state < len(fact.states)
                    for text, codes in fact.claims:
                        assert len(codes) == len(fact.states), (document.kind, fact.key, text)
                        assert set(codes) <= set("SRN"), (document.kind, fact.key, text)
                elif fact.via:
                    assert fact.via in keys, (document.kind, fact.key)


def test_every_template_of_a_fact_has_its_value() -> None:
    for make in KINDS:
        for fact in make(random.Random(0)).facts:
            if isinstance(fact, Fact):
                for template in (*alternatives(fact.says), *alternatives(fact.claims)):
                    assert template.count("$v") == 1, template
                    assert template.endswith("."), template
                    assert toggled(template, True).count("[") == 0, template
