"""The multi-hop questions of small made-up pools: what is asked, what each rule refuses, and what holds of any pool."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multihop_questions import Corpus, Sentence, build, main
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


NAMES = ["Ann Ash", "Bo Birch", "Cy Cedar", "Di Dogwood", "Ed Elm", "Flo Fir", "Gus Gum", "Hal Holly", "Ida Ivy"]
TITLES = ["Amber", "Bronze", "Copper", "Dust", "Ember", "Flint", "Glass", "Hail", "Ice", "Jade", "Kelp", "Loam"]


@st.composite
def worlds(draw):
    """People, films and who made which, and the sentences that say so, in any order."""
    born = {n: draw(st.integers(1900, 1930)) for n in draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True))}
    films = {
        t: (draw(st.integers(1950, 1960)), draw(st.sampled_from(NAMES)))
        for t in draw(st.lists(st.sampled_from(TITLES), max_size=8, unique=True))
    }
    rows = [(f"p{n}", n, f"{n} (born {y}) is a Danish film director.") for n, y in born.items()]
    rows += [(f"f{t}", f"{t} (film)", f"{t} is a {y} film directed by {n}.") for t, (y, n) in films.items()]
    rows += [(f"x{i}", None, f"Sentence {i} stands alone.") for i in range(draw(st.integers(0, 2)))]
    return born, films, draw(st.permutations(rows))


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
