"""Datasets of claims as rows, what is shown in each setting, and which claims the judge has not seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError, UserError
from reason.evals.training.entailment.data import ClaimCase, split_cases
from reason.evals.verification.claims import (
    LabelledClaim,
    first_passages,
    fold_of,
    is_test_claim,
    merge_pages,
    oracle_padded,
    oracle_two,
    random_sentences,
    ranked,
    read_claims,
    read_passages,
    replace_passages,
    retrieve_passages,
    unseen_claims,
)
from reason.evals.verification.metrics import recall_at
from reason.reasoning.retrieval.retriever import HybridRetriever
from reason.verify.metrics import claim_label
from support.labelled_claims import passage, row, write_fever, write_lines

REAL = Path("/work/shared/data")


def fever(tmp_path):
    data, corpus = write_fever(tmp_path)
    passages = read_passages(corpus)
    return read_claims("fever", data, passages), passages


def test_fever_shows_what_was_retrieved_in_its_order(tmp_path):
    rows, _ = fever(tmp_path)
    assert len(rows) == 60
    assert Counter(r.gold for r in rows) == {"supports": 20, "refutes": 20, "neutral": 20}
    one = rows[1]
    assert [p.id for p in one.passages] == [f"s1-{j}" for j in range(5)]
    assert [p.score for p in one.passages] == [1 / (60 + r) for r in range(1, 6)]
    assert (one.right_ids, one.sets, one.group) == ({"s1-1"}, (("s1-1",),), "topic1 is number1")
    assert one.passages[0].title == one.passages[0].source == "Page 1 0"
    assert rows[2].right == rows[2].sets == ()


def test_fever_refuses_what_the_corpus_lacks(tmp_path):
    data, _ = write_fever(tmp_path)
    with pytest.raises(DataError, match="'retrieved' names 's0-0'"):
        read_claims("fever", data, {})
    with pytest.raises(UserError, match="no dataset of claims 'fevre'"):
        read_claims("fevre", data)
    bad = write_lines(tmp_path / "bad.jsonl", [{"id": 1, "claim": "c", "label": "MAYBE", "evidence": []}])
    with pytest.raises(DataError, match=r"bad.jsonl line 1.*'MAYBE'"):
        read_claims("fever", bad)
    bad = write_lines(
        tmp_path / "b.jsonl", [{"id": 1, "claim": "c", "label": "REFUTES", "evidence": [], "evidence_sets": [[0]]}]
    )
    with pytest.raises(DataError, match="evidence_sets"):
        read_claims("fever", bad)


def test_climate_fever_is_right_where_its_sentences_say_what_the_claim_is(tmp_path):
    def sentence(name, label):
        return {"doc_id": name, "page": "P", "text": f"text {name}", "label": label}

    def line(name, label, *labels):
        return {
            "id": name,
            "claim": f"c {name}",
            "label": label,
            "evidence": [sentence(f"{name}{i}", x) for i, x in enumerate(labels)],
        }

    s, r, n = "SUPPORTS", "REFUTES", "NOT_ENOUGH_INFO"
    path = write_lines(
        tmp_path / "c.jsonl", [line("a", "DISPUTED", s, r, s, n), line("b", "REFUTES", n, r), line("c", n, n, n)]
    )
    a, b, c = read_claims("climate_fever", path)
    assert (a.gold, a.right_ids, a.sets) == ("disputed", {"a0", "a1", "a2"}, (("a0", "a1"), ("a2", "a1")))
    assert (b.gold, b.right_ids, b.sets) == ("refutes", {"b1"}, (("b1",),))
    assert (c.gold, c.right, c.sets) == ("neutral", (), ())


def test_the_label_of_insufficient_evidence(tmp_path):
    base = {"claim": "c", "evidence": [{"page": "P", "text": "t"}], "label_full": "SUPPORTED"}
    lines = [base | {"id": "x", "sufficiency": "NOT ENOUGH"}, base | {"id": "y", "sufficiency": "ENOUGH -- REPEATED"}]
    x, y = read_claims("sufficient_facts", write_lines(tmp_path / "s.jsonl", lines))
    assert (x.gold, y.gold) == ("neutral", "supports")


def test_every_class_is_padded_to_the_same_number(tmp_path):
    rows, passages = fever(tmp_path)
    short = [replace(r, passages=r.passages[:2]) for r in rows]  # the deciding one is often not among them
    shown = oracle_padded(short, passages, 5)
    assert {len(r.passages) for r in shown} == {5}
    assert all(r.right_ids <= {p.id for p in r.passages} for r in shown)
    assert all(len({p.id for p in r.passages}) == 5 for r in shown)
    # in the order of the retriever, what it did not find last
    one = next(r for r in shown if r.right and r.name == "9")
    assert [p.id for p in one.passages][:2] == ["s9-0", "s9-1"]
    assert shown == oracle_padded(short, passages, 5)
    assert recall_at(shown, 5) == (1.0, 1.0, 40, 40)
    with pytest.raises(DataError, match="too few"):
        oracle_padded(short, {}, 5)


def test_a_sufficient_set_comes_before_other_deciding_sentences():
    ps = [passage(f"p{i}", f"text {i}") for i in range(4)]
    one = LabelledClaim("fever", "1", "c", "supports", ranked(ps[:1]), tuple(ps[1:]), (("p1", "p2"), ("p3",)), "c")
    (shown,) = oracle_padded([one], {}, 1)
    assert [p.id for p in shown.passages] == ["p3"]


def test_two_label_oracle_shows_only_deciding_sentences(tmp_path):
    rows, _ = fever(tmp_path)
    shown = oracle_two(rows)
    assert {r.gold for r in shown} == {"supports", "refutes"}
    assert all({p.id for p in r.passages} == r.right_ids for r in shown)


def test_recall_counts_complete_sets_and_skips_claims_without():
    one = row("a", "supports", ["hm", "yes", "yes"])
    both = replace(one, sets=(("a-1", "a-2"),))
    assert recall_at([one], 1) == (0.0, 0.0, 1, 1)
    assert recall_at([one], 2) == (1.0, 1.0, 1, 1)
    assert recall_at([both], 2) == (0.0, 1.0, 1, 1)
    assert recall_at([both, row("n", "neutral", ["hm"])], 3) == (1.0, 1.0, 1, 1)
    assert recall_at([row("n", "neutral", ["hm"])], 3) == (None, None, 0, 0)
    twin = replace(one, passages=ranked([passage("other", "yes")]), right=(passage("a-1", "yes"),))
    assert recall_at([twin], 1).any == 1.0  # the same sentence under another id


def test_random_sentences_follow_seed_and_claim(tmp_path):
    rows, passages = fever(tmp_path)
    a = random_sentences(rows, passages, 3, seed=1)
    assert a == random_sentences(rows, passages, 3, seed=1)
    assert [r.passages for r in a] != [r.passages for r in random_sentences(rows, passages, 3, seed=2)]
    assert random_sentences(rows[5:6], passages, 3, seed=1)[0] == a[5]


def test_replaced_evidence_is_of_other_claims_and_only_grows(tmp_path):
    rows, _ = fever(tmp_path)
    assert [r.passages for r in replace_passages(rows, 0.0)] == [r.passages for r in rows]
    some, more = replace_passages(rows, 0.3), replace_passages(rows, 0.5)
    changed = 0
    for r, a, b in zip(rows, some, more, strict=True):
        for p, x, y in zip(r.passages, a.passages, b.passages, strict=True):
            assert x.id == p.id or (x.id, y.id) == (y.id, x.id)
            assert x.id == p.id or not x.id.startswith(f"s{r.name}-")
            assert x.score == p.score
            changed += x.id != p.id
    assert 0.2 < changed / 300 < 0.4
    with pytest.raises(DataError, match="two claims"):
        replace_passages(rows[:1], 0.5)


def test_pages_are_texts_of_several_sentences():
    ps = ranked([passage("a", "one yes", "P"), passage("b", "two hm", "Q"), passage("c", "three hm", "P")])
    (shown,) = merge_pages([LabelledClaim("fever", "1", "c", "supports", ps, ps[:1], (("a",),), "c")])
    assert [(p.id, p.text) for p in shown.passages] == [("page:P", "one yes three hm"), ("page:Q", "two hm")]
    assert (shown.right_ids, shown.sets) == ({"page:P"}, (("page:P",),))


async def test_a_retriever_supplies_passages_in_the_order_of_claims(tmp_path):
    rows, passages = fever(tmp_path)
    retriever = await HybridRetriever.build(list(passages.values()))
    result = await retrieve_passages([replace(r, passages=None) for r in rows[:4]], retriever, 5)
    assert [{p.id.split("-")[0] for p in r.passages} for r in result] == [{f"s{i}"} for i in range(4)]
    with pytest.raises(DataError, match="nothing was retrieved"):
        first_passages([replace(rows[0], passages=None)], 1)


def test_unseen_claims_are_the_test_claims_of_the_training():
    rows = [row(str(i), "supports", ["yes"], claim=f"claim number {i}") for i in range(400)]
    vitamin = [
        row(f"v{i}", "supports", ["yes"], claim=f"vitamin {i}", group=f"case{i // 4}", source="vitaminc")
        for i in range(400)
    ]
    climate = [row(f"c{i}", "supports", ["yes"], source="climate_fever") for i in range(5)]
    cases = [
        ClaimCase(source=r.source, name=r.name, claim=r.claim, label="supports", case=r.group if r in vitamin else "")
        for r in (*rows, *vitamin)
    ]
    held = {case.name for case in split_cases(cases).test}
    assert (
        {r.name for r in unseen_claims(rows)}
        == {r.name for r in rows if is_test_claim(r.claim)}
        == held & {r.name for r in rows}
    )
    assert {r.name for r in unseen_claims(vitamin)} == held & {r.name for r in vitamin}
    assert all(n == 4 for n in Counter(r.group for r in unseen_claims(vitamin)).values())  # whole cases
    assert unseen_claims(climate) == climate  # never trained on
    assert 40 < len(held & {r.name for r in rows}) < 120
    with pytest.raises(UserError, match="none of"):
        unseen_claims([r for r in rows if not is_test_claim(r.claim)])


def test_a_contrast_group_takes_claims_of_other_datasets_along():
    vitamin = [
        row(f"v{i}", "supports", ["yes"], claim=f"vitamin {i}", group=f"case{i // 2}", source="vitaminc")
        for i in range(200)
    ]
    facts = [replace(r, source="sufficient_facts", group=r.claim) for r in vitamin]
    beside = {r.name for r in unseen_claims(facts, other_rows=vitamin)}
    assert beside == {r.name for r in unseen_claims(vitamin)}
    assert beside != {r.name for r in unseen_claims(facts)}


@given(st.text(), st.floats(0.05, 0.5))
def test_a_larger_share_holds_out_more(claim, share):
    assert is_test_claim(claim, 0.9) or not is_test_claim(claim, share)


def test_folds_are_independent_of_the_split():
    names = [f"claim {i}" for i in range(5000)]
    kept = Counter(fold_of(n) for n in names if is_test_claim(n))
    assert set(kept) == set(range(5))
    assert max(kept.values()) < 1.25 * min(kept.values())


@pytest.mark.skipif(not REAL.is_dir(), reason="the development data is not here")
def test_the_development_data_is_read_completely():
    climate = read_claims("climate_fever", REAL / "climate_fever")
    assert Counter(r.gold for r in climate) == {"supports": 338, "refutes": 128, "neutral": 237, "disputed": 80}
    assert all((r.gold == "neutral") == (not r.right) for r in climate)
    symmetric = read_claims("fever_symmetric", REAL / "fever_symmetric")
    assert Counter(r.gold for r in symmetric) == {"supports": 340, "refutes": 340}
    assert claim_label(["supports", "refutes"]) == "disputed"
