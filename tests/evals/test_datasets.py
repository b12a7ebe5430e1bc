"""Each family of datasets, on rows written for these tests in the sources' shapes."""

import json

import pytest
from reason.core.errors import DataError, UserError
from reason.evals.datasets.loading import load_dataset


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def load(tmp_path):
    """The items of rows in a file: `load("gsm8k", row, ...)`."""

    def load(name, *rows, **options):
        return load_dataset(name, data=write(tmp_path / "rows.jsonl", *rows), **options).items

    return load


# -- mathematics


def problem(year, part, number, answer=7):
    return {
        "id": f"aime-{year}-{part}-{number}",
        "year": year,
        "part": part,
        "number": number,
        "problem": f"Find n of {year}.",
        "answer": answer,
    }


def test_aime_selects_years_from_both_directories(tmp_path):
    write(tmp_path / "aime" / "dev.jsonl", problem(2024, "I", 3, 204))
    write(tmp_path / "aime_hist" / "dev.jsonl", problem(1983, "", 1), problem(1999, "", 2), problem(2000, "II", 15))
    ids = {v: [i.id for i in load_dataset(f"aime:{v}", data=tmp_path).items] for v in ("all", "2024", "1983-1999")}
    assert ids["all"] == ["aime-2024-I-3", "aime-1983-1", "aime-1999-2", "aime-2000-II-15"]
    assert ids["2024"] == ["aime-2024-I-3"]
    assert ids["1983-1999"] == ["aime-1983-1", "aime-1999-2"]
    (item,) = load_dataset("aime:2024", data=tmp_path).items
    assert (item.gold.answer, item.question.kind, item.subject) == ("204", "math", "2024")
    with pytest.raises(DataError, match="has no item of aime:1990"):
        load_dataset("aime:1990", data=tmp_path)


@pytest.mark.parametrize("answer", [1000, -1, "many", 3.5])
def test_an_invalid_aime_answer_is_refused(load, answer):
    with pytest.raises(DataError, match=r"rows\.jsonl line 1"):
        load("aime", problem(2001, "I", 1, answer))


def test_math500_and_gsm8k(load):
    row = {"id": "test/x/1.json", "problem": "P", "answer": "\\frac{1}{2}", "subject": "Algebra"}
    (item,) = load("math500", row)
    assert (item.id, item.gold.answer, item.gold.kind, item.subject) == (row["id"], row["answer"], "math", "Algebra")
    one, two = load(
        "gsm8k", {"id": "g1", "question": "Q", "answer": "18"}, {"question": "Q", "answer": "…\n#### 1,234"}
    )
    assert (one.gold.answer, two.gold.answer, two.id) == ("18", "1234", "gsm8k-test-0002")
    assert one.question.kind == one.gold.kind == "number"


def levelled(number, **level):
    return {"id": f"p{number}", "problem": "P", "answer": "1", "subject": "Algebra"} | level


def test_math500_selects_levels(tmp_path):
    rows = [levelled(i, level=level) for i, level in enumerate((3, 5, "1", "Level 3", 2))]
    path = write(tmp_path / "math500" / "dev.jsonl", *rows)
    ids = {v: [i.id for i in load_dataset(f"math500{v}", data=tmp_path).items] for v in ("", ":3", ":1-3", ":5-5")}
    assert ids == {
        "": ["p0", "p1", "p2", "p3", "p4"], ":3": ["p0", "p3"], ":1-3": ["p0", "p2", "p3", "p4"], ":5-5": ["p1"],
    }  # fmt: skip
    chosen = load_dataset("math500:1-3", data=path)
    assert (chosen.variant, chosen.size) == ("1-3", 4)
    assert [(i.subject, i.level) for i in chosen.items] == [("Algebra", level) for level in ("3", "1", "3", "2")]
    with pytest.raises(DataError, match="has no item of math500:4"):
        load_dataset("math500:4", data=tmp_path)


@pytest.mark.parametrize("variant", ["0", "6", "3-1", "1-", "-3", "hard", "1,2", "03", "all"])
def test_invalid_math500_levels_are_refused(tmp_path, variant):
    write(tmp_path / "dev.jsonl", levelled(1, level=1))
    for data in (tmp_path, None):  # None would be the hub, which is not asked
        with pytest.raises(UserError, match=f"math500:{variant} names no levels") as caught:
            load_dataset(f"math500:{variant}", data=data)
        assert "math500:1-3" in caught.value.hint


@pytest.mark.parametrize("level", [{}, {"level": None}, {"level": "Level ?"}, {"level": 7}, {"level": [3]}])
def test_a_problem_without_a_level_is_refused_if_levels_are_selected(load, level):
    rows = levelled(1, level=3), levelled(2, **level)
    assert [i.level for i in load("math500", *rows)] == ["3", ""]
    with pytest.raises(DataError, match=r"rows\.jsonl line 2: the record has no level from 1 to 5") as caught:
        load("math500:1-5", *rows)
    assert "--map level=" in caught.value.hint


def test_a_level_does_not_change_the_fingerprint(tmp_path):
    with_it = load_dataset("math500", data=write(tmp_path / "a.jsonl", levelled(1, level=3)))
    without = load_dataset("math500", data=write(tmp_path / "b.jsonl", levelled(1)))
    assert with_it.fingerprint == without.fingerprint


# -- TruthfulQA


def truth(**changes):
    return {
        "id": "t1",
        "question": "What is the sky made of?",
        "category": "Nature",
        "best_answer": "Air",
        "correct_answers": ["Air", "Gases"],
        "incorrect_answers": ["Glass", "Water"],
        "mc1": {"choices": ["Glass.", "Air.", "Water."], "labels": [0, 1, 0]},
        "mc2": {"choices": ["Glass.", "Air.", "Gases.", "Water."], "labels": [0, 1, 1, 0]},
    } | changes


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_truthfulqa_shuffles_choices_and_records_the_right_ones(load, seed):
    (mc1,) = load("truthfulqa", truth(), seed=seed)
    assert [mc1.question.choices[i] for i in mc1.gold_positions] == ["Air."]
    (mc2,) = load("truthfulqa:mc2", truth(), seed=seed)
    shown = mc2.question.choices
    assert {shown[i] for i in mc2.gold_positions} == {"Air.", "Gases."}
    assert {shown[i] for i in mc2.gold.mc1} == {"Glass.", "Air.", "Water."}
    assert shown[mc2.gold.mc1_correct] == "Air."
    if seed is None:
        assert shown == ("Glass.", "Air.", "Gases.", "Water.")


def test_the_shuffle_depends_only_on_seed_and_item(load):
    rows = [truth(id=f"t{i}") for i in range(40)]
    items = {i.id: i for i in load("truthfulqa", *rows)}
    assert len({i.question.choices for i in items.values()}) == 6  # all orders of three
    assert {i.id: i for i in load("truthfulqa", *reversed(rows))} == items
    assert {i.id: i for i in load("truthfulqa", *rows, seed=1)} != items


def test_truthfulqa_from_the_hub_and_with_other_choices_in_mc1(load):
    row = truth()
    (item,) = load("truthfulqa:mc2", {"question": "Q?", "mc1_targets": row["mc1"], "mc2_targets": row["mc2"]})
    assert (item.id, len(item.gold.correct), item.subject) == ("tqa-0001", 2, "")
    (item,) = load("truthfulqa:mc2", truth(mc1={"choices": ["Elsewhere.", "Air."], "labels": [0, 1]}))
    assert (item.gold.mc1, item.gold.mc1_correct) == ((), None)


@pytest.mark.parametrize(
    ("mc1", "message"),
    [
        ({"choices": ["a", "b"], "labels": [1, 1]}, "exactly one right choice, not 2 right of 2"),
        ({"choices": ["a", "b"], "labels": [0, 0]}, "exactly one right choice, not 0 right of 2"),
        ({"choices": ["a", "b"], "labels": [1]}, "2 zeros and ones"),
        ({"choices": ["a", "b"], "labels": [1, 2]}, "2 zeros and ones"),
        ({"choices": ["a"], "labels": [1]}, "fewer than 2"),
        ("a, b", "must be a record"),
    ],
)
def test_invalid_targets_are_refused(tmp_path, load, mc1, message):
    with pytest.raises(DataError, match=message) as caught:
        load("truthfulqa", truth(mc1=mc1))
    assert f"{tmp_path / 'rows.jsonl'} line 1" in str(caught.value)


# -- claims


def corpus(root, count=12):
    write(
        root / "corpus" / "sentences.jsonl",
        *({"id": f"s{i}", "page": f"Page {i}" if i % 2 else None, "text": f"Text {i}."} for i in range(count)),
    )


def claim(label="SUPPORTS", gold=("s1",), retrieved=("s1", "s2", "s3", "s4", "s5"), sets=None, **changes):
    return {
        "id": 11,
        "claim": "A claim.",
        "label": label,
        "evidence": [{"doc_id": g, "page": "Page", "sent_id": 0, "text": f"Text of {g}."} for g in gold],
        "evidence_sets": sets,
        "retrieved": list(retrieved),
    } | changes


def fever(root, variant, *rows, **options):
    path = write(root / "fever" / "dev.jsonl", *rows)
    return load_dataset(f"fever:{variant}", data=path, options=options).items


def test_fever_oracle_shows_the_same_number_of_sentences_for_every_class(tmp_path):
    corpus(tmp_path)
    rows = (
        claim(id=1),
        claim("NOT ENOUGH INFO", gold=(), id=2),
        claim("REFUTES", gold=("s6", "s7", "s8"), sets=[[0, 1], [2]], id=3),
        claim(id=4, retrieved=("s2",)),
        claim(id=5, gold=tuple(f"s{i}" for i in range(12)), sets=[list(range(12)), [11]]),
    )
    items = fever(tmp_path, "oracle", *rows)
    assert [len(i.question.documents) for i in items] == [5] * 5
    for item in items:
        shown = {d.name for d in item.question.documents}
        assert set(item.gold.evidence.names) <= shown
        assert all(set(s) <= shown for s in item.gold.evidence.sets)
    assert items[1].gold.evidence.names == ()
    assert items[2].gold.evidence.sets == (("s6", "s7"), ("s8",))
    assert "s11" in {d.name for d in items[4].question.documents}  # the smallest sufficient set comes first


def test_fever_oracle_does_not_show_gold_first_and_maps_choices_to_labels(tmp_path):
    corpus(tmp_path)
    items = fever(tmp_path, "oracle", *(claim(id=i) for i in range(60)))
    assert {[d.name for d in i.question.documents].index("s1") for i in items} == set(range(5))
    for item in items:
        (position,) = item.gold_positions
        assert item.question.choices[position] == "The documents support the claim."
        assert item.gold.shown[position] == item.gold.label


def test_fever_without_a_corpus(tmp_path):
    rows = claim(), claim("NOT ENOUGH INFO", gold=(), id=2)
    (item,) = fever(tmp_path, "oracle-sr", *rows)
    assert (item.gold.labels, len(item.question.choices)) == (("SUPPORTS", "REFUTES"), 2)
    assert [d.name for d in item.question.documents] == ["s1"]
    alone, _ = fever(tmp_path, "claim-only", *rows)
    assert (alone.question.documents, alone.gold.evidence, len(alone.question.choices)) == ((), None, 3)
    with pytest.raises(DataError, match="corpus/sentences.jsonl"):
        fever(tmp_path, "oracle", claim())
    with pytest.raises(UserError, match="fever:oracle-sr"):
        load_dataset("fever")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (claim("MAYBE"), "the field 'label' is 'MAYBE'"),
        (claim(gold=()), "has no evidence"),
        (claim(sets=[[0, 1]]), "positions within 'evidence'"),
        (claim(retrieved=("s99",)), "'s99', which the corpus does not have"),
    ],
)
def test_bad_rows_of_fever_are_named(tmp_path, row, message):
    corpus(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        fever(tmp_path, "oracle", row)
    assert "dev.jsonl line 1" in str(caught.value)


def test_fever_from_the_hub(tmp_path):
    evidence = [["A_-LRB-film-RRB-", "3", "It -LRB-really-RRB- is."]]
    (item,) = fever(tmp_path, "oracle-sr", {"id": 5, "claim": "C", "label": "REFUTES", "evidence": evidence})
    assert [(d.name, d.text) for d in item.question.documents] == [("A_-LRB-film-RRB-:3", "A (film): It (really) is.")]


def test_gpqa_from_csv(tmp_path):
    path = tmp_path / "gpqa.csv"
    path.write_text(
        "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\n"
        'r1,"Which,\nthen?"," right ",w1,w2,w3,Physics\n'
    )
    (item,) = load_dataset("gpqa", data=path).items
    choices = item.question.choices
    assert (item.question.text, item.subject, len(choices)) == ("Which,\nthen?", "Physics", 4)
    assert choices[item.gold.correct[0]] == "right"
