"""Datasets of claims as rows, what is shown in each setting, and which claims the judge has not seen."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from cases import normalize_claim, read_cases, split_cases
from labelled_claims import (
    oracle_padded,
    read_claims,
    read_evaluation_sets,
    read_passages,
    search_documents,
    trained_claims,
    unseen_claims,
)
from reason.core.errors import DataError, UserError
from support.labelled_claims import write_fever, write_lines

PLAIN = Path(__file__).parents[2] / "benchmarks" / "data" / "plain_claims"


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
    with pytest.raises(DataError, match="too few"):
        oracle_padded(short, {}, 5)


def test_claims_of_the_pools(tmp_path):
    fm2 = {
        "question_id": "q1",
        "claim": "C",
        "label": "refuted",
        "title": "P",
        "evidence": [{"text": "One."}, {"text": "Two."}],
        "split_group": "fm2:P",
    }
    (a,) = read_claims("fm2", write_lines(tmp_path / "f.jsonl", [fm2]))
    assert (a.gold, a.group, [(p.title, p.text) for p in a.passages]) == ("refutes", "fm2:P", [("P", "One. Two.")])
    lines = ["(meta data) TITLE: News", "(meta data) AUTHOR: x", "First sentence here.", "", "Second sentence there."]
    wice = {
        "question_id": "w",
        "claim": "C",
        "label": "partially_supported",
        "evidence": [{"i": i, "text": t} for i, t in enumerate(lines)],
        "split_group": "wice:P",
    }
    (b,) = read_claims("wice", write_lines(tmp_path / "w.jsonl", [wice]))
    assert (b.gold, b.passages[0].title) == ("neutral", "News")
    assert "First sentence here." in b.passages[0].text
    assert "AUTHOR" not in b.passages[0].text
    fact = {
        "question_id": "x",
        "claim": "C",
        "label": "supported",
        "label_given_evidence": "supported",
        "evidence": [{"text": "T", "stance": "irrelevant"}, {"text": "U", "stance": "supports"}],
        "split_group": "factcheck_gpt:0",
    }
    (c,) = read_claims(
        "factcheck_gpt",
        write_lines(tmp_path / "g.jsonl", [fact]),
    )
    assert (c.gold, c.right_ids, len(c.passages)) == ("supports", {"x:1"}, 2)


async def test_plain_claims_are_searched_in_their_own_document():
    rows = await search_documents(read_claims("plain_claims", PLAIN), 2)
    assert len(rows) == 60
    assert all(len(r.passages) <= 2 and (r.passages or r.gold == "neutral") for r in rows)
    assert all(p.source == r.group for r in rows for p in r.passages)
    receipts = next(r for r in rows if "receipt" in r.claim)
    assert "Receipts are required" in receipts.passages[0].text


def test_unseen_claims_are_those_outside_of_the_training_split(tmp_path):
    def line(i, claim, case):
        return {"id": f"v{i}", "case_id": case, "claim": claim, "label": "SUPPORTS", "evidence": "E", "page": "P"}

    path = write_lines(tmp_path / "v.jsonl", [line(i, f"vitamin {i}", f"case{i // 4}") for i in range(400)])
    corpus = write_lines(tmp_path / "sentences.jsonl", [{"id": "s", "page": "P", "text": "T"}])
    trained = trained_claims({"vitaminc": path}, corpus)
    splits = split_cases(read_cases("vitaminc", path))
    assert trained == {normalize_claim(case.claim) for case in splits.train}
    rows = read_claims("vitaminc", path)
    unseen = unseen_claims(rows, trained)
    assert {r.name for r in unseen} == {case.name for case in (*splits.validation, *splits.test)}
    assert all(n == 4 for n in Counter(r.group for r in unseen).values())  # whole cases
    others = [replace(r, source="wice", claim=r.claim.upper()) for r in rows]
    assert [r.name for r in unseen_claims(others, trained)] == [r.name for r in unseen]  # by words, of any dataset
    with pytest.raises(UserError, match="none of"):
        unseen_claims([r for r in rows if r not in unseen], trained)


async def test_evaluation_sets_are_samples_of_unseen_claims(tmp_path):
    data, corpus = write_fever(tmp_path, claims=300)
    paths = {"fever": data, "plain_claims": PLAIN}
    sets = await read_evaluation_sets(paths, corpus, trained={"fever": data}, limit=30)
    assert [(s.key, s.two_labels, s.is_fitted) for s in sets] == [
        ("fever_two", True, True),
        ("fever_oracle", False, True),
        ("fever_retrieved", False, True),
        ("plain_claims", False, False),
    ]
    trained = trained_claims({"fever": data}, corpus)
    assert all(normalize_claim(r.claim) not in trained for s in sets for r in s.rows)
    assert [len(s.rows) for s in sets[1:]] == [30, 30, 30]
    assert {r.name for r in sets[0].rows} == {r.name for r in sets[1].rows if r.gold != "neutral"}
    again = await read_evaluation_sets(paths, corpus, trained={"fever": data}, limit=30)
    assert again == sets
    other = await read_evaluation_sets(paths, corpus, trained={"fever": data}, limit=30, seed=1)
    assert other[1].rows != sets[1].rows
    with pytest.raises(UserError, match="no evaluation set of 'fevre'"):
        await read_evaluation_sets({"fevre": data}, corpus, trained={})
