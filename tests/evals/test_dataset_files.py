"""Bad input: what is wrong is told with file and line, and nothing comes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError, UnknownName, UserError
from reason.evals.datasets.custom import parse_map
from reason.evals.datasets.loading import load_dataset
from reason.evals.datasets.spec import DATASETS, ReadOptions

GOOD = '{"question": "What is 1 + 1?", "answer": "2"}'


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (f'{GOOD}\n{{"question": "Q?"}}\n', 2, "the field 'answer' is missing"),
        (f'{GOOD}\n{{"question": " ", "answer": "1"}}\n', 2, "the field 'question' is empty"),
        (f'{GOOD}\n{{"question": ["Q"], "answer": "1"}}\n', 2, "the field 'question' is a list, not a text"),
        (f'{GOOD}\n{{"question": null, "answer": "1"}}\n', 2, "the field 'question' is missing"),
        (f"{GOOD}\n\n{GOOD[:-7]}", 3, "the file ends within this record"),
        (f"{GOOD}\n{GOOD[:-7]}\n{GOOD}\n", 2, "this is no JSON"),
        (f"{GOOD}\n[1, 2]\n", 2, "this is no JSON object"),
        (f'{GOOD}\n{{"question": "Q?", "answer": NaN}}\n', 2, "NaN is not a number in JSON"),
        (f'{GOOD}\n{{"question": "Q?", "answer": NaN}}', 2, "NaN is not a number in JSON"),  # whole, without a newline
        (GOOD.encode() + b'\n{"question": "caf\xe9?", "answer": "1"}\n', 2, "byte 18 is not UTF-8"),
        (GOOD.encode("utf-16"), 1, "byte 1 is not UTF-8"),
        (f"{GOOD}\n{'[' * 100_000}", 2, "nested too deep"),
        ('{"question": "Q?", "answer": "x", "choices": ["a"]}', 1, "has 1 entries, fewer than 2"),
        ('{"question": "Q?", "answer": "c", "choices": ["a", "b"]}', 1, "'c' is none of the 2 choices"),
        ('{"question": "Q?", "answer": 2, "choices": ["a", "b"]}', 1, "'2' is none of the 2 choices"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, line, message):
    path = write(tmp_path / "mine.jsonl", content)
    with pytest.raises(DataError) as caught:
        load_dataset(str(path))
    assert f"{path} line {line}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("question,answer\nQ?,1,2\n", 2, "3 cells where the header names 2 columns"),
        ('question,answer\n"Q\nmore?",1\nP?\n', 4, "1 cells where the header names 2 columns"),
        ("question,question\nQ?,1\n", 1, "two columns have the same name"),
        ("question,answer\nQ?,\n", 2, "the field 'answer' is missing"),
        ('question,answer\n"Q?,1\n', 2, "this is no CSV"),
        (b"question,answer\nQ?,1\nK\xf6ln?,2\n", 3, "byte 2 is not UTF-8"),
    ],
)
def test_a_bad_line_of_csv_is_named(tmp_path, content, line, message):
    path = write(tmp_path / "mine.csv", content)
    with pytest.raises(DataError) as caught:
        load_dataset("file", data=path)
    assert f"{path} line {line}" in str(caught.value)
    assert message in str(caught.value)


def test_duplicate_ids_are_both_named(tmp_path):
    rows = [{"id": x, "question": "Q?", "answer": "1"} for x in ("a", "b", "a")]
    path = write(tmp_path / "mine.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"line 3: the id 'a' is that of .*mine\.jsonl line 1 already"):
        load_dataset(str(path))


@pytest.mark.parametrize("content", ["", "\n\n", "question,answer\n"])
def test_a_file_without_items_is_refused(tmp_path, content):
    path = write(tmp_path / ("mine.csv" if "," in content else "mine.jsonl"), content)
    with pytest.raises(DataError, match="has no question in it"):
        load_dataset(str(path))


def test_invalid_options_are_refused(tmp_path):
    path = write(tmp_path / "mine.jsonl", GOOD)
    for options, error, message in [
        ({"name": "gsm9k"}, UnknownName, "did you mean 'gsm8k'"),
        ({"name": "truthfulqa:mc3", "data": path}, UnknownName, "known: mc1, mc2"),
        ({"name": "aime:1950", "data": path}, UserError, "names no years"),
        ({"name": "aime:2024-2020", "data": path}, UserError, "names no years"),
        ({"name": "file", "data": path, "options": {"knd": "text"}}, UnknownName, "did you mean 'kind'"),
        ({"name": "file", "data": path, "options": {"kind": "poem"}}, UserError, "unknown kind of answer 'poem'"),
        ({"name": "file", "data": path, "mapping": {"questoin": "q"}}, UnknownName, "did you mean 'question'"),
        ({"name": "file"}, UserError, "file is not on the hub"),
        ({"name": "file", "data": tmp_path / "none.jsonl"}, DataError, "there is no file"),
        ({"name": "gsm8k", "data": tmp_path}, DataError, "holds no gsm8k/dev.jsonl"),
        ({"name": "file", "data": path, "mapping": {"answer": "gold.text"}}, DataError, "no field 'gold.text'"),
    ]:
        with pytest.raises(error) as caught:
            load_dataset(**options)
        assert message in str(caught.value), options


def test_a_map_of_fields_is_read():
    assert parse_map("question=q, answer = meta.gold,choices=A|B") == {
        "question": "q",
        "answer": "meta.gold",
        "choices": "A|B",
    }
    for bad in ("question", "=q", "question=", "question=a,question=b"):
        with pytest.raises(UserError):
            parse_map(bad)


def test_custom_questions_with_a_map(tmp_path):
    path = write(
        tmp_path / "quiz.csv", "\ufeffno,ask,A,B,C,right,topic\n7,Which?,one,two,three,b,x\n8,What?,u,v,w,w,y\n"
    )
    dataset = load_dataset(
        "file", data=path, mapping=parse_map("id=no,question=ask,choices=A|B|C,answer=right,subject=topic")
    )
    assert (dataset.name, dataset.size, dataset.source) == ("quiz", 2, str(path))
    assert dataset.options["map"]["answer"] == "right"
    for item, right in zip(dataset.items, ("two", "w"), strict=True):
        (position,) = item.gold_positions
        assert item.question.choices[position] == right
    assert [i.id for i in dataset.items] == ["7", "8"]
    assert [i.subject for i in dataset.items] == ["x", "y"]


def test_custom_answers_of_every_kind(tmp_path):
    rows = [
        {"question": "How many legs has a spider?", "answer": 8},
        {"question": "Who wrote Faust?", "answer": ["Goethe", "Johann Wolfgang von Goethe"]},
        {"question": "Is ice cold?", "answer": True, "documents": "Ice is frozen water."},
        {"question": "Which?", "choices": ["x", "y", "z"], "answer": 2, "documents": [{"name": "d", "text": "t"}]},
        {"question": "Simplify $x+x$.", "answer": "2x", "documents": ["one", "two"], "group": "g"},
    ]
    path = write(tmp_path / "mine.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    items = load_dataset(str(path)).items
    assert [i.gold.type for i in items] == ["math", "text", "text", "choice", "math"]
    assert items[0].gold.answer == "8"
    assert items[0].gold.kind == "number"
    assert items[1].gold.answers == ("Goethe", "Johann Wolfgang von Goethe")
    assert items[2].gold.answers == ("yes",)
    assert items[2].question.documents[0].text == "Ice is frozen water."
    assert items[3].question.choices[items[3].gold.correct[0]] == "z"
    assert items[4].gold.kind == "math"
    assert [d.name for d in items[4].question.documents] == [
        "document 1",
        "document 2",
    ]
    assert [i.id for i in items] == ["1", "2", "3", "4", "5"]


def test_a_row_can_state_its_answer_kind(tmp_path):
    rows = [
        {"question": "Is it?", "answer": "yes", "answer_kind": "yes_no"},
        {"question": "How much?", "answer": "\\frac12", "answer_kind": "math"},
        {"question": "How many?", "answer": "3"},
    ]
    path = write(tmp_path / "mine.jsonl", "\n".join(map(json.dumps, rows)))
    kinds = [item.question.kind for item in load_dataset("file", data=path, options={"kind": "number"}).items]
    assert kinds == ["yes_no", "math", "number"]
    write(path, json.dumps(rows[0] | {"answer_kind": "yes-no"}))
    with pytest.raises(DataError, match=r"mine.jsonl line 1: unknown kind of answer 'yes-no'"):
        load_dataset("file", data=path)


def test_a_map_renames_the_fields_of_a_known_dataset(tmp_path):
    path = write(tmp_path / "g.jsonl", '{"prompt": "1 + 2?", "meta": {"gold": "so it is 3 #### 1,003"}}')
    dataset = load_dataset("gsm8k", data=path, mapping={"question": "prompt", "answer": "meta.gold"})
    assert dataset.items[0].question.text == "1 + 2?"
    assert dataset.items[0].gold.answer == "1003"


def test_the_fingerprint_is_that_of_the_items(tmp_path):
    path = write(
        tmp_path / "mine.jsonl", "\n".join(json.dumps({"question": f"Q{i}?", "answer": "1"}) for i in range(5))
    )
    whole = load_dataset(str(path))
    assert load_dataset(str(path)).fingerprint == whole.fingerprint
    other = write(tmp_path / "other.jsonl", path.read_text().replace("Q4", "Q5"))
    assert load_dataset(str(other)).fingerprint != whole.fingerprint


@given(st.integers(0, 40), st.integers(0, 1000), st.text(max_size=20))
def test_an_order_is_a_permutation_of_seed_and_id(count, seed, name):
    order = ReadOptions("x", seed=seed).order(name, count)
    assert sorted(order) == list(range(count))
    assert order == ReadOptions("y", variant="z", seed=seed).order(name, count)
    assert ReadOptions("x", seed=None).order(name, count) == list(range(count))


def test_every_registered_dataset_loads_and_has_metadata():
    names = DATASETS.names()
    assert {"aime", "math500", "gsm8k", "truthfulqa", "fever", "gpqa", "file"} <= set(names)
    for name in names:
        recipe = DATASETS.load(name)
        assert recipe.name == name
        assert recipe.summary
        assert recipe.licence
        for source in [
            s
            for v in recipe.variants or [""]
            if not (name == "fever" and v in ("oracle", "retrieval"))
            for s in recipe.hub(v)
        ]:
            assert source.revision == "" or len(source.revision) == 40
