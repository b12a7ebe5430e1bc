"""What of files is text: every kind, every broken encoding, and files that are none."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.retrieval.readers import UnreadableFile, extract_text


def texts(name, content):
    read = extract_text(name, content if isinstance(content, bytes) else content.encode())
    return [(p.name, p.text) for p in read.parts]


def notes(name, content):
    return extract_text(name, content if isinstance(content, bytes) else content.encode()).notes


@pytest.mark.parametrize("name", ["a.txt", "README", "a.py", "a.rst", "a.unheard-of", "a.md"])
def test_whatever_looks_like_text_is_read_as_it_is(name):
    text = "# Zürich\n\n\tdef f(x): ...\n"
    (part,) = extract_text(name, text.encode()).parts
    assert (part.text, part.name, part.headings) == (text, "", name.endswith(".md"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbfmark", "mark"),
        ("Zürich".encode("utf-16"), "Zürich"),
        (b"\xfe\xff" + "Zürich".encode("utf-16-be"), "Zürich"),
        (b"Z\xfcrich costs 5 \x80", "Zürich costs 5 €"),
    ],
)
def test_encodings(content, text):
    assert texts("a.txt", content) == [("", text)]


def test_a_broken_encoding_is_told():
    assert notes("a.txt", b"Z\xfcrich") == ["byte 2 is not UTF-8; read as Windows-1252"]
    assert notes("a.txt", b"plain") == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", b"text\0text", "binary"),
        ("a", bytes(range(1, 9)) * 10, "binary"),
        ("a.txt", b"\xff\xfea", "UTF-16"),
        ("a.pdf", b"%PDF-1.4 garbage", "PDF"),
        ("a.pdf", b"", "PDF"),
    ],
)
def test_what_is_no_text_says_why(name, content, why):
    with pytest.raises(UnreadableFile, match=why):
        extract_text(name, content)


@pytest.mark.parametrize("name", ["a.txt", "a.html", "a.json", "a.jsonl", "a.csv", "a.md"])
def test_empty_files_have_no_parts(name):
    assert texts(name, "") == texts(name, " \n ") == []


def test_html_is_what_a_reader_sees():
    page = """<!DOCTYPE html><html><head><title>Moon</title><style>p {}</style>
    <script>var x = "<p>no</p>";</script></head>
    <body><h1>The  <b>Moon</b></h1><p>It is <i>far</i>,&nbsp;says&#32;A&amp;B.<br>Very.<p>Second
    paragraph.</p><ul><li>one<li>two</ul><svg><text>no</text></svg><template>no</template>
    <table><tr><td>a</td><td>b</td></tr></table></body></html>"""
    assert texts("a.html", page) == [
        (
            "",
            "Moon\n\n# The Moon\n\nIt is far, says A&B.\nVery.\n\nSecond paragraph.\n\none\ntwo\n\na\nb",
        )
    ]


@pytest.mark.parametrize("page", ["<p>a<script>b", "<<p>>a", "<![CDATA[x", "<!doctype [", "</p>" * 1000, "<a " * 1000])
def test_broken_html_is_read_as_far_as_it_goes_or_refused(page):
    with contextlib.suppress(UnreadableFile):
        extract_text("a.html", page.encode())


def test_deep_html_is_no_deep_recursion():
    assert texts("a.html", "<div>" * 20_000 + "deep") == [("", "deep")]


def test_json():
    assert texts("a.json", json.dumps([{"text": "one"}, "two", {"x": 1}])) == [("1", "one"), ("2", "two")]
    assert texts("a.json", json.dumps({"text": "all"})) == [("", "all")]
    assert texts("a.json", '{"port": 80}') == [("", '{"port": 80}')]
    assert texts("a.json", "{broken") == [("", "{broken")]
    assert notes("a.json", "{broken") == ["invalid JSON, read as plain text"]
    assert notes("a.json", "[" * 100_000) == notes("a.json", "9" * 10_000) == notes("a.json", "{broken")


def test_tables():
    assert texts("a.csv", 'name,year\nMoon,1969\n"A, B",\n,\nx,1,extra\n') == [
        ("1", "name: Moon; year: 1969"),
        ("2", "name: A, B"),
        ("4", "name: x; year: 1; column 3: extra"),
    ]
    assert texts("a.tsv", "a\tb\n1\t2") == [("1", "a: 1; b: 2")]
    assert "line" in notes("a.csv", "a\n" + "x" * 200_000)[0]


def test_pdf(tmp_path):
    pypdf = pytest.importorskip("pypdf")
    writer = pypdf.PdfWriter()
    for text in ("The Moon is far.", "", "The Sun is hot."):
        page = writer.add_blank_page(200, 200)
        stream = pypdf.generic.DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
        name = pypdf.generic.NameObject
        font = pypdf.generic.DictionaryObject(
            {name("/Type"): name("/Font"), name("/Subtype"): name("/Type1"), name("/BaseFont"): name("/Helvetica")}
        )
        fonts = pypdf.generic.DictionaryObject({name("/F1"): font})
        page[name("/Resources")] = pypdf.generic.DictionaryObject({name("/Font"): fonts})
        page[name("/Contents")] = writer._add_object(stream)
    writer.write(tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert texts("a.pdf", content) == [("1", "The Moon is far."), ("3", "The Sun is hot.")]
    with pytest.raises(UnreadableFile, match="damaged PDF"):
        extract_text("a.pdf", content[: len(content) // 3])


def test_without_the_package_a_pdf_says_which(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(UnreadableFile, match="invalid UTF-16"):
        extract_text("a.txt", b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile, match="pip install pypdf"):
        extract_text("a.pdf", b"%PDF-1.4")


@given(st.binary(max_size=200), st.sampled_from(["a.txt", "a.html", "a.json", "a.jsonl", "a.csv", "a.md", "a.pdf"]))
def test_any_bytes_are_read_or_refused(content, name):
    try:
        read = extract_text(name, content)
    except UnreadableFile:
        return
    assert all(part.text.strip() for part in read.parts)
