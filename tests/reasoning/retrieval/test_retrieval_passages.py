"""Documents as passages: exact places, titles, JSON lines, and every way a path can be wrong."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError, UserError
from reason.core.types import Document
from reason.reasoning.retrieval import passages as module
from reason.reasoning.retrieval.passages import (
    ChunkOptions,
    document_passages,
    list_source_files,
    read_passages,
    text_title,
)

SMALL = ChunkOptions(words=12, overlap=5)


@given(st.text(alphabet="ab. \n#É東。'", max_size=300), st.integers(1, 9), st.booleans())
def test_places_are_exact_and_no_word_is_lost(text, words, markdown):
    name = "a.md" if markdown else "a.txt"
    made = document_passages([Document(name=name, text=text)], ChunkOptions(words=words, overlap=words // 2))
    for passage in made:
        assert passage.start is not None
        assert text[passage.start : passage.start + len(passage.text)] == passage.text
    assert len({passage.id for passage in made}) == len(made)
    if not markdown:
        covered = {i for p in made for i in range(p.start or 0, (p.start or 0) + len(p.text))}
        assert all(i in covered for i, c in enumerate(text) if not c.isspace())


def test_windows_share_sentences():
    text = "One two three four five. Six seven eight nine ten. Eleven twelve thirteen. Fourteen fifteen."
    made = document_passages([Document(name="n.txt", text=text)], SMALL)
    assert [p.text for p in made] == [
        "One two three four five. Six seven eight nine ten.",
        "Six seven eight nine ten. Eleven twelve thirteen. Fourteen fifteen.",
    ]
    assert [(p.id, p.source, p.title, p.start) for p in made] == [
        ("n.txt:0-50", "n.txt", "n.txt", 0),
        ("n.txt:25-92", "n.txt", "n.txt", 25),
    ]


def test_documents_of_one_name_are_told_apart():
    made = document_passages([Document(name="same", text="One."), Document(name="same", text="Two.")])
    assert [(p.source, p.text) for p in made] == [("same", "One."), ("same~2", "Two.")]


def test_titles_are_headings_pages_or_file_names(tmp_path):
    (tmp_path / "a.md").write_text("Intro here.\n\n# Moon\n\nIt is far.\n\n## Phases\n\nIt waxes.\n")
    (tmp_path / "b.html").write_text("<h1>Sun</h1><p>It is &amp; stays hot.</p>")
    (tmp_path / "c.txt").write_text("Plain words.")
    found = read_passages([tmp_path]).passages
    assert [(p.source.partition("/")[2], p.title, p.text) for p in found] == [
        ("a.md", "a.md", "Intro here."),
        ("a.md", "Moon", "It is far."),
        ("a.md", "Moon > Phases", "It waxes."),
        ("b.html", "Sun", "It is & stays hot."),
        ("c.txt", "c.txt", "Plain words."),
    ]


def test_each_json_line_is_a_passage(tmp_path):
    rows = [
        {"id": "fev-1", "page": "Golf", "text": "It is played on a course. It has holes."},
        {"id": 7, "title": "Mars", "page": "x", "text": "Red."},
        {"page": None, "text": "No title."},
        "A text alone.",
        {"id": "blank", "text": "  "},
        {"id": "fev-1", "text": "An id again."},
        {"text": "half \ud800 a pair"},
    ]
    file = tmp_path / "s.jsonl"
    file.write_text("\ufeff" + "".join(json.dumps(row) + "\n" for row in rows) + "\n")
    gathered = read_passages([file])
    assert [(p.id, p.source, p.title, p.text, p.start) for p in gathered.passages] == [
        ("fev-1", "s.jsonl#1", "Golf", "It is played on a course. It has holes.", 0),
        ("7", "s.jsonl#2", "Mars", "Red.", 0),
        ("s.jsonl#3", "s.jsonl#3", "", "No title.", 0),
        ("s.jsonl#4", "s.jsonl#4", "", "A text alone.", 0),
        ("s.jsonl#6:0-12", "s.jsonl#6", "", "An id again.", 0),
        ("s.jsonl#7", "s.jsonl#7", "", "half ? a pair", 0),
    ]
    assert [note.reason for note in gathered.notes] == ["1 lines have an empty text"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": 3}\n', "line 2 is no passage: text: Input should be a valid string"),
        (b'{"text": "a"}\n{"text": "b"\n', "line 2 is no passage: "),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: byte 11 is not UTF-8"),
        (b'{"text": "a", "title": 4}', "line 1 is no passage: title: "),
        (b'{"text": "a", "id": [4]}', "line 1 is no passage: id."),
        (b"[" * 100_000, "line 1 is no passage: maximum recursion depth"),
    ],
)
def test_lines_that_are_no_passages(tmp_path, content, said):
    file = tmp_path / "s.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_passages([file])
    assert said in caught.value.message
    assert str(file) in caught.value.message


def test_nothing_is_found(tmp_path):
    with pytest.raises(DataError, match="absent does not exist"):
        read_passages([tmp_path / "absent"])
    with pytest.raises(DataError, match="there is no text in"):
        read_passages([tmp_path])
    (tmp_path / "x.bin").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"1 files were skipped, the first: .*x.bin: .*a binary file"):
        read_passages([tmp_path])


def test_large_files_belong_into_an_index(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("words " * 40)
    with pytest.raises(DataError) as caught:
        read_passages([file], max_file_bytes=100)
    assert "more than the 100 bytes" in caught.value.message
    assert "reason index build" in caught.value.hint
    assert module.MAX_FILE_BYTES == 64 << 20
    with pytest.raises(UserError) as refused:
        read_passages([file], ChunkOptions(words=3, overlap=0), max_passages=5)
    assert "reason index build" in refused.value.hint
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    with pytest.raises(UserError, match="'big'"):
        document_passages([Document(name="big", text="x" * 101)])


def test_files_are_found_once_and_folders_of_one_name_are_told_apart(tmp_path):
    for place in ("one/docs", "two/docs"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.txt").write_text("Words.")
    (tmp_path / "one/docs/.hidden.txt").write_text("No.")
    paths = [tmp_path / "one/docs", tmp_path / "two/docs", tmp_path / "one/docs/a.txt"]
    found = list_source_files(paths, [])
    assert [(f.source, f.is_named) for f in found] == [
        ("docs/a.txt", False),
        ((tmp_path / "two/docs/a.txt").resolve().as_posix(), False),
    ]


def test_names_and_texts_that_are_no_unicode(tmp_path):
    (tmp_path / "a.json").write_text('{"text": "half \\ud800 a pair"}')
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xff.txt")).write_text("Words.")
    for passage in read_passages([tmp_path]).passages:
        passage.model_dump_json().encode("utf-8")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("City Museum\n\nGuests pay five euros.", "City Museum"),
        ("\n  City   Museum\n\n", "City Museum"),
        ("City Museum\r\n\r\nGuests pay.", "City Museum"),
        ("Guests pay five euros.\n\nThey pay at the door.", ""),
        ("City Museum\nGuests pay five euros.", ""),
        ("# City Museum\n\nGuests pay.", ""),
        ("City Museum", ""),
        (f"{'word ' * 13}\n\nGuests pay.", ""),
        ("", ""),
    ],
)
def test_a_short_first_line_before_a_blank_one_is_the_title_of_a_text(text, title):
    assert text_title(text) == title


def test_passages_of_a_text_have_its_title_before_the_name_of_its_file():
    documents = (Document(name="a.txt", text="City Museum\n\nGuests pay."), Document(name="b.txt", text="Guests pay."))
    assert [p.title for p in document_passages(documents)] == ["City Museum", "b.txt"]
