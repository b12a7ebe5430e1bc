"""Where several answers differ."""

from reason.reasoning.disagreements import describe_results, find_disagreements


def test_sentences_about_the_same_thing_with_other_numbers_differ():
    texts = {
        0: "The tower in Paris is 330 metres tall. It is made of iron.",
        1: "It is made of iron. The tower in Paris is 324 metres tall.",
        2: "Nobody knows.",
    }
    (pair,) = find_disagreements(texts, 8)
    assert pair.authors == (0, 1)
    assert pair.sentences == ("The tower in Paris is 330 metres tall.", "The tower in Paris is 324 metres tall.")
    assert pair.overlap == 1.0


def test_a_negation_differs_and_an_omission_does_not():
    affirmed = "The wall can be seen from space with bare eyes."
    denied = "The wall can not be seen from space with bare eyes."
    assert [pair.sentences for pair in find_disagreements({0: affirmed, 1: denied}, 8)] == [(affirmed, denied)]
    vague = "The old tower in Paris is tall."
    exact = "The old tower in Paris is 330 metres tall."
    assert find_disagreements({0: vague, 1: exact}, 8) == []


def test_other_subjects_do_not_differ():
    texts = {0: "The tower has 3 floors.", 1: "The bridge over the river has 5 lanes for cars."}
    assert find_disagreements(texts, 8) == []


def test_a_sentence_is_listed_once_and_the_closest_pair_first():
    texts = {
        0: "The long bridge over the river Tay opened in 1887.",
        1: "The long bridge over the river Tay opened in 1878.",
        2: "A bridge over the Tay river that is very long opened to trains in 1888.",
    }
    pairs = find_disagreements(texts, 8)
    assert [pair.authors for pair in pairs] == [(0, 1)]
    assert len(find_disagreements(texts, 0)) == 0


def test_results_are_named_with_the_answers_that_come_to_them():
    assert describe_results([("4", ["A", "C"])]) == ""
    assert (
        describe_results([("4", ["A", "C"]), ("5", ["B"])])
        == "They come to different results: answers A and C come to 4; answer B comes to 5."
    )
