"""What the patterns of the multi-hop questions read, and what they leave alone."""

import pytest
from multihop_questions import (
    Corpus,
    Sentence,
    all_facts_of,
    definitions_of,
    facts_of,
    links_of,
    name_at,
    person_of,
)


def said(text, page="Ann Poe"):
    return Sentence("s", page, text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ann Poe.", "Ann Poe"),
        ("Ann Poe and starring Bo Fox.", "Ann Poe"),
        ("Ann Poe, and starring Bo Fox.", "Ann Poe"),
        ("Ann Poe that follows a dog.", "Ann Poe"),
        ("Ann Poe, in her debut.", "Ann Poe"),
        ("American singer and record producer Ann Poe, released in May.", "Ann Poe"),
        ("American rapper French Montana.", "French Montana"),
        ("the British rock band Queen, released in May.", "Queen"),
        ("American R&B / funk singer Chaka Khan.", "Chaka Khan"),
        ("Lars von Trier.", "Lars von Trier"),
        ("H. P. Lovecraft in 1928.", "H. P. Lovecraft"),
        ("Bo Fox, Jr. in 1928.", "Bo Fox, Jr."),
        ("Ann Poe and Bo Fox.", ""),
        ("Ann Poe & Bo Fox.", ""),
        ("Ann Poe, Bo Fox and Cy Gray.", ""),
        ("Ann Poe with Bo Fox.", ""),
        ("Ann Poe featuring Bo Fox.", ""),
        ("Ann Poe's cousin.", ""),
        ("nobody at all.", ""),
    ],
)
def test_name_is_read_if_it_is_the_only_one(text, name):
    assert name_at(f"It is by {text}", 9) == name


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "Ann Poe (born May 2, 1960) is an American actress.",
            {"birth year": ("1960",), "birth day": ("May 2, 1960", "2 May 1960")},
        ),
        (
            'Ann "Annie" Poe ([ˈæn] born Anna Rose Poet; 2 May 1960 -- 3 June 2010) was an English singer.',
            {
                "birth year": ("1960",),
                "birth day": ("2 May 1960", "May 2, 1960"),
                "birth name": ("Anna Rose Poet",),
                "death day": ("3 June 2010", "June 3, 2010"),
                "death year": ("2010",),
                "nationality": ("English", "British"),
            },
        ),
        (
            "Ann Poe (born 1960) is a Danish film director.",
            {"birth year": ("1960",), "nationality": ("Danish",)},
        ),
        ("Ann Poe (born 1960 or 1961) is an actress.", {}),
        ("Ann Poe (born May 32, 1960) is an actress.", {}),
        ("Ann Poe (May 1, 1960, May 3, 1960, May 5, 1960) is an actress.", {}),
        ("Ann Poe (born May 2, 1960) is a lake.", {}),
        ("Bo Fox (born May 2, 1960) is an actor.", {}),  # somebody else's first sentence
        ("Ann Poe is an American actress.", {}),
        # two nations are none
        ("Ann Poe (born 1960) is a Danish-American actress.", {"birth year": ("1960",)}),
    ],
)
def test_facts_of_a_person(text, facts):
    assert {f.attribute: f.answers for f in facts_of(said(text))} == facts
    assert (person_of(said(text)) is not None) == bool(facts)


def read(*sentences):
    """All links and facts of a small pool."""
    corpus = Corpus(tuple(Sentence(str(i), page, text) for i, (page, text) in enumerate(sentences)))
    definitions = definitions_of(corpus)
    links = [x for s in corpus.sentences for x in links_of(s, corpus, definitions)]
    facts = [x for s in corpus.sentences for x in all_facts_of(s, definitions)]
    return {(x.relation, x.name, x.description) for x in links}, {(f.attribute, f.answers[0]) for f in facts}


FILM = ("Blue", "Blue is a 1999 film.")
THE_FILM = 'the 1999 film "Blue"'


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("The film was directed by Ann Poe.", {("director", "Ann Poe", f"the director of {THE_FILM}")}),
        ("It was directed by Ann Poe.", set()),  # who "it" is, the sentence does not say
        ("The film was co-directed by Ann Poe.", set()),
        (
            "The film is directed by Ann Poe, written by Bo Fox and starring Cy Gray.",
            {
                ("director", "Ann Poe", f"the director of {THE_FILM}"),
                ("writer", "Bo Fox", f"the person who wrote {THE_FILM}"),
            },
        ),
        ("The film is written and directed by Ann Poe.", {("director", "Ann Poe", f"the director of {THE_FILM}")}),
        ("The film is directed by Ann Poe and Bo Fox.", set()),
        (
            "Bo Fox stars as Max Kay, alongside Cy Gray as Jo Kay.",
            {
                ("actor of Max Kay", "Bo Fox", f"the actor who plays Max Kay in {THE_FILM}"),
                ("actor of Jo Kay", "Cy Gray", f"the actor who plays Jo Kay in {THE_FILM}"),
            },
        ),
        (
            "It follows Max Kay (played by Bo Fox), a boy.",
            {("actor of Max Kay", "Bo Fox", f"the actor who plays Max Kay in {THE_FILM}")},
        ),
        (
            "The film is based on Ann Poe's 1980 novel of the same name.",
            {("author of the source", "Ann Poe", f"the author of the work that {THE_FILM} is based on")},
        ),
    ],
)
def test_links_from_a_film(text, links):
    result, _ = read(FILM, ("Blue", text))
    assert result == links
