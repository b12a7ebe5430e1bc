"""The multi-hop questions of small made-up pools: what is asked, what each rule refuses, and what holds of any pool."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multihop_questions import Corpus, Sentence, build, main, read_corpus, write_documents
from reason.core.errors import DataError
from reason.evals.datasets.loading import load_dataset
from reason.evals.scoring import squad_words

POOL = [
    ("f1", "Blue Lake (film)", "Blue Lake is a 1999 American drama film directed by Ann Poe and starring Bo Fox."),
    ("f2", "Blue Lake (film)", "The film won an award."),
    ("p1", "Ann Poe", "Ann Poe (born May 2, 1960) is an American film director."),
    ("p2", "Ann Poe", "She lives by the sea."),
]
QUESTIONS = {
    'In which year was the director of the 1999 film "Blue Lake" born?',
    'On what date was the director of the 1999 film "Blue Lake" born?',
}


def pool(*rows):
    return Corpus(tuple(Sentence(*row) for row in rows))


def test_bridge_question(tmp_path):
    path, out = tmp_path / "pool.jsonl", tmp_path / "made" / "questions.jsonl"
    path.write_text("".join(json.dumps({"id": i, "page": p, "text": t}) + "\n" for i, p, t in POOL))
    main(["--corpus", str(path), "--out", str(out)])
    (row,) = map(json.loads, out.read_text().splitlines())
    year = "year" in row["question"]
    assert row.pop("question") in QUESTIONS
    assert row.pop("id").startswith("mh-")
    assert row == {
        "answer": ["1960"] if year else ["May 2, 1960", "2 May 1960"],
        "subject": "director, birth year" if year else "director, birth day",
        "kind": "bridge",
        "bridge": "Ann Poe",
        "gold_sentences": ["f1", "p1"],
        "gold_pages": ["Blue Lake (film)", "Ann Poe"],
        "hops": [
            {"page": "Blue Lake (film)", "relation": "director", "sentence": POOL[0][2]},
            {"page": "Ann Poe", "relation": "birth year" if year else "birth day", "sentence": POOL[2][2]},
        ],
    }
    (item,) = load_dataset("file", data=out).items
    assert (item.gold.type, list(item.gold.answers)) == ("text", ["1960"] if year else ["May 2, 1960", "2 May 1960"])


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("the question names the bridge", {"f1": "Poe Lake is a 1999 film directed by Ann Poe."}),
        ("the first sentence holds the answer already", {"f1": POOL[0][2][:-1] + ", set on May 2, 1960."}),
        ("the bridge is not the only one", {"f2": "The film was directed by Cy Gray."}),
        ("the bridge is not the only one", {"f2": "It was directed by Cy Gray."}),
        ("one sentence is enough", {"f2": "Its director was born on May 2, 1960."}),
        ("one sentence is enough", {"p2": "Poe, born May 2, 1960, made Blue Lake."}),
        ("one sentence is enough", {"p1": "Ann Poe (born May 2, 1960) is a film director who made Blue Lake."}),
        ("another sentence contradicts it", {"p2": "Ann Poe (born May 3, 1961) is an American film director."}),
        ("another sentence contradicts it", {"p2": "Poe was born in Akron, Ohio, in 1961."}),
        ("a second page fits the bridge", {"x": ("Ann Poe (actress)", "Ann Poe (born May 4, 1970) is an actress.")}),
        ("a second page fits the question", {"x": ("Blue Lake (Ohio film)", "Blue Lake is a 1999 film.")}),
        ("its words would be read as mathematics", {"f1": "Factor is a 1999 film directed by Ann Poe."}),
    ],
)  # fmt: skip
def test_rule_refuses(why, changed):
    rows = []
    for name, page, text in POOL:
        new = changed.get(name, text)
        title = new.split(" is a ")[0] if name == "f1" else None
        rows.append((name, page if title is None or title.startswith("Blue") else title, new))
    rows += [(name, *of) for name, of in changed.items() if isinstance(of, tuple)]
    questions, refused, _ = build(pool(*rows), 10, 10)
    # the date and the year are refused alike; other rules may not have been asked first
    assert refused[why] >= 1, refused
    assert not [q for q in questions if q.bridge == "Ann Poe" and q.type == "director, birth day"]


def test_accepted_candidates():
    for extra in [
        ("x", "Ann Poe (footballer)", "Ann Poe (born May 4, 1970) is a Danish footballer."),  # no maker of films
        ("x", "Blue Lake (2015 film)", "Blue Lake is a 2015 film."),  # the question names the year
        ("x", "Blue Lake", "Blue Lake is a lake."),
        ("x", None, "Ann Poe was born on May 2, 1960."),
    ]:
        (question,), _, _ = build(pool(*POOL, extra), 10, 10)
        assert question.question in QUESTIONS


def test_gold_sentences_are_of_the_requested_collections():
    rows = [(*row, "good" if row[0] != "p1" else "other") for row in POOL]
    assert len(build(pool(*rows), 10, 10)[0]) == 1
    assert build(pool(*rows), 10, 10, ["good"])[0] == []
    assert len(build(pool(*rows), 10, 10, ["good", "other"])[0]) == 1


def test_pages_are_compared():
    rows = [
        ("a", "Ann Poe", "Ann Poe (born May 2, 1960) is an American film director."),
        ("b", "Bo Fox", "Bo Fox (born May 2, 1940) is an American film director."),
        ("c", "Nine Lives", "Nine Lives is an American rock band formed in 1984."),
        ("d", "Red Dogs", "Red Dogs is an English rock band formed in 1994."),
        ("e", "Blue", "Blue is a 1999 film directed by Cy Gray."),
        ("f", "Pink", "Pink is a 2009 film directed by Cy Gray."),
        ("g", "Gold", "Gold is a 2019 film directed by Di Ray."),
        ("h", "Mint", "Mint is a 2018 film directed by Ed Sun."),
    ]
    questions, _, _ = build(pool(*rows), 40, 10)
    asked = {q.type: q for q in questions}
    assert all(q.is_comparison and q.bridge == "" for q in questions)
    people, bands = asked["compare people"], asked["compare bands"]
    assert people.answers == (("Bo Fox",) if "first" in people.question else ("Ann Poe",))
    assert bands.answers == (("Nine Lives",) if "first" in bands.question else ("Red Dogs",))
    films = {x: q for x, q in asked.items() if x.startswith("compare directors")}
    for kind, titles in (("yes", {"Blue", "Pink"}), ("no", {"Gold", "Mint"})):
        one = films.get(f"compare directors, {kind}")
        if one is not None:  # the films may be in a question about their years
            assert (set(one.pages), one.answers) == (titles, (kind,))
    assert len({page for q in questions for page in q.pages}) == 2 * len(questions)
    # namesakes outside the pool, whom a bracket tells of, and names with a common word
    for other in (("b", "Bo Fox (director)", rows[1][2]), ("b", "Bo Poe", rows[1][2].replace("Fox", "Poe"))):
        assert build(pool(rows[0], other), 40, 10)[0] == []


NAMES = ["Ann Ash", "Bo Birch", "Cy Cedar", "Di Dogwood", "Ed Elm", "Flo Fir", "Gus Gum", "Hal Holly", "Ida Ivy"]
TITLES = ["Amber", "Bronze", "Copper", "Dust", "Ember", "Flint", "Glass", "Hail", "Ice", "Jade", "Kelp", "Loam"]


@st.composite
def worlds(draw):
    """People, films and who made which, and the sentences that say so, in any order."""
    born = {n: draw(st.integers(1900, 1930)) for n in draw(st.lists(st.sampled_from(NAMES), unique=True))}
    films = {
        t: (draw(st.integers(1950, 1960)), draw(st.sampled_from(NAMES)))
        for t in draw(st.lists(st.sampled_from(TITLES), unique=True))
    }
    rows = [(f"p{n}", n, f"{n} (born {y}) is a Danish film director.") for n, y in born.items()]
    rows += [(f"f{t}", f"{t} (film)", f"{t} is a {y} film directed by {n}.") for t, (y, n) in films.items()]
    rows += [(f"x{i}", None, f"Sentence {i} stands alone.") for i in range(draw(st.integers(0, 2)))]
    return born, films, draw(st.permutations(rows))


@settings(deadline=None, max_examples=60)
@given(worlds(), st.integers(1, 12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_properties_of_any_pool(world, count, most, rng):
    born, films, rows = world
    questions, refused, candidates = build(pool(*rows), count, most)
    assert len(questions) + sum(refused.values()) == candidates
    assert len(questions) <= count
    assert all(n <= most for n in Counter(q.type for q in questions).values())
    assert [q.id for q in questions] == sorted({q.id for q in questions})
    assert len({page for q in questions for page in q.pages}) == 2 * len(questions)
    for q in questions:
        first, second = q.sentences
        titles = [p.removesuffix(" (film)") for p in q.pages]
        if q.is_comparison and q.answers[0] in ("yes", "no"):
            assert q.answers == ("yes" if films[titles[0]][1] == films[titles[1]][1] else "no",)
        elif q.is_comparison:
            years = [born[t] if t in born else films[t][0] for t in titles]
            assert years[0] != years[1]
            pick = min if "first" in q.question else max
            assert q.answers == (titles[years.index(pick(years))],)
        else:
            assert q.bridge == second.page == films[titles[0]][1]
            assert q.answers[0] == ("Danish" if "nationality" in q.type else str(born[q.bridge]))
            assert q.bridge in first.text
            assert q.answers[0] in second.text
            words = set(squad_words(q.question))
            assert not words & set(squad_words(f"{q.bridge} {q.answers[0]}"))
            assert titles[0] in q.question
    rng.shuffle(shuffled := list(rows))
    assert build(pool(*shuffled), count, most)[0] == questions


def test_pool_is_written_as_documents(tmp_path):
    rows = [
        *POOL,
        ("p3", "Ann Poe", POOL[2][2]),  # said twice
        ("n1", None, "Nobody knows where this stood."),
        ("u1", "ANN POE", "Shouted."),
        ("u2", "Ann/Poe?", "A page of signs."),
        ("u3", "Raven-Symoné (" + "x" * 200 + ")", "A long one."),
    ]
    directory = tmp_path / "docs"
    assert write_documents(pool(*rows), directory) == len(list(directory.iterdir())) == 6
    texts = {p.read_text(encoding="utf-8") for p in directory.iterdir()}
    assert f"Ann Poe\n\n{POOL[2][2]}\nShe lives by the sea.\n" in texts
    assert "Nobody knows where this stood.\n" in texts
    names = [p.name for p in directory.iterdir()]
    assert len({n.casefold() for n in names}) == 6
    assert all(len(n) < 80 and n.endswith(".txt") for n in names)
    assert write_documents(pool(*rows), directory) == 6  # again
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"1 other files \(notes\.txt"):
        write_documents(pool(*rows), directory)


def test_titles_are_the_same_however_their_letters_are_stored(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps({"id": "a", "page": "Zoe\u0301", "text": "Zo\u00e9 sings."}) + "\n\n")
    assert list(read_corpus(path).pages) == ["Zo\u00e9"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "a", "text": "x"}\n{"id": "a"}\n', "line 2: no record with id and text"),
        ('{"id": "a", "text": 7}\n', "line 1: no record"),
        ("[1]\n", "line 1: no record"),
        ("{\n", "line 1: no record"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}\n', "line 2: the id 'a' occurs twice"),
        ("\n", "holds no sentence"),
    ],
)
def test_bad_pool_is_reported(tmp_path, content, message):
    path = tmp_path / "pool.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_corpus(path)
