"""Answers cut into claims by rules: hand-made answers, places, what is kept and what is left out."""

from __future__ import annotations

import pytest
from reason.core.errors import UserError
from reason.verify.claims.splitter import is_worth_checking, kind_of, split_claims

ANSWERS = [
    # one sentence, one claim
    ("The Danube flows through Vienna.", "", ["The Danube flows through Vienna."]),
    ("Oslo lies in Norway. Turku lies in Finland.", "", ["Oslo lies in Norway.", "Turku lies in Finland."]),
    ("Dr. J. K. Moss was born in St. Ives.", "", ["Dr. J. K. Moss was born in St. Ives."]),
    ("Pi is about 3.14. e is about 2.72.", "", ["Pi is about 3.14.", "e is about 2.72."]),
    # two things in a sentence
    (
        "Ada Byron was born in London and died in Marylebone.",
        "",
        ["Ada Byron was born in London", "Ada Byron died in Marylebone."],
    ),
    (
        "Kepler studied the orbit of Mars and published his laws in 1609.",
        "",
        ["Kepler studied the orbit of Mars", "Kepler published his laws in 1609."],
    ),
    ("Lead is a metal and has a high density.", "", ["Lead is a metal", "Lead has a high density."]),
    (
        "Ludo Haas wrote novels and later became a senator.",
        "",
        ["Ludo Haas wrote novels", "Ludo Haas later became a senator."],
    ),
    ("Iron is magnetic; copper is not magnetic.", "", ["Iron is magnetic", "copper is not magnetic."]),
    (
        "Bern is the capital of Switzerland, and it lies on the Aare.",
        "",
        ["Bern is the capital of Switzerland", "Bern lies on the Aare."],
    ),
    # and where it is not safe to cut
    ("Tarn was probably born in Lille and died in Metz.", "", ["Tarn was probably born in Lille and died in Metz."]),
    ("Tarn was not born in Lille and died in Metz.", "", ["Tarn was not born in Lille and died in Metz."]),
    ("Mira was born and died in Rome.", "", ["Mira was born and died in Rome."]),
    ("Lima and Quito are capitals.", "", ["Lima and Quito are capitals."]),
    ("The fort was built and destroyed by monks.", "", ["The fort was built and destroyed by monks."]),
    ("She studied art and applied mathematics.", "", ["She studied art and applied mathematics."]),
    ("If it rains, the river rises and floods the town.", "", ["If it rains, the river rises and floods the town."]),
    ("She writes novels and plays for children.", "", ["She writes novels and plays for children."]),
    ("He said that Bo was ill and was dying.", "", ["He said that Bo was ill and was dying."]),
    # pronouns
    (
        "Emil Vogt was born in Basel. He moved to Bern in 1901.",
        "",
        ["Emil Vogt was born in Basel.", "Emil Vogt moved to Bern in 1901."],
    ),
    (
        "Rosa Lund was a chemist. Her father was a baker.",
        "",
        ["Rosa Lund was a chemist.", "Rosa Lund's father was a baker."],
    ),
    ("Rosa Lund met Eva Krog. She was a chemist.", "", ["Rosa Lund met Eva Krog.", "She was a chemist."]),
    # what a sentence says what it is is what the next one is about, whatever else is named
    (
        "The Orla is a console made by Kimo to play Zed. It was released in 2004.",
        "",
        ["The Orla is a console made by Kimo to play Zed.", "The Orla was released in 2004."],
    ),
    (
        "Rosa Lund was one of the pupils of Eva Krog. She moved to Bern.",
        "",
        ["Rosa Lund was one of the pupils of Eva Krog.", "Rosa Lund moved to Bern."],
    ),
    ("Rosa Lund was seen by Eva Krog. She was ill.", "", ["Rosa Lund was seen by Eva Krog.", "She was ill."]),
    (
        "The Rijks is a museum in Amsterdam. It opened in 1885.",
        "",
        ["The Rijks is a museum in Amsterdam.", "The Rijks opened in 1885."],
    ),
    ("Vogt wrote a book. It sold well in Bern.", "", ["Vogt wrote a book.", "It sold well in Bern."]),
    (
        "Oslo is a city. It is known that winters are cold.",
        "",
        ["Oslo is a city.", "It is known that winters are cold."],
    ),
    (
        "Emil Vogt was born in Basel and died in Bern. He played chess.",
        "",
        ["Emil Vogt was born in Basel", "Emil Vogt died in Bern.", "Emil Vogt played chess."],
    ),
    # the question
    ("He died in 1931.", "When did Emil Vogt die?", ["Emil Vogt died in 1931."]),
    ("It was built in 1173.", "When was the Old Tower built?", ["The Old Tower was built in 1173."]),
    ("It is Ottawa.", "What is the capital of Canada?", ["The capital of Canada is Ottawa."]),
    ("Ottawa", "What is the capital of Canada?", ["The capital of Canada is Ottawa."]),
    ("No.", "Is Ottawa in Peru?", ["Ottawa is not in Peru."]),
    ("No.", "", []),
    # talk, questions, instructions, opinions
    ("Sure! Here is the answer: \n\nOttawa is the capital.", "", ["Ottawa is the capital."]),
    ("Great question! Let's see. Zinc is a metal. I hope this helps!", "", ["Zinc is a metal."]),
    ("Zinc is a metal. What else is a metal? Let me know.", "", ["Zinc is a metal."]),
    ("You should visit the museum. Please call ahead. It is in Bern.", "", ["It is in Bern."]),
    ("In my opinion, tea is better than coffee. Tea contains caffeine.", "", ["Tea contains caffeine."]),
    ("Bern is a beautiful city. Bern has 134,000 inhabitants.", "", ["Bern has 134,000 inhabitants."]),
    ("Note that zinc is brittle. However, tin is soft.", "", ["zinc is brittle.", "tin is soft."]),
    ("I think the capital is Canberra.", "", ["I think the capital is Canberra."]),
    # lists, headings, tables
    (
        "The largest lakes are:\n- Superior\n- Huron\n",
        "",
        ["The largest lakes are: Superior", "The largest lakes are: Huron"],
    ),
    (
        "There are three primary colours:\n* Red is one.\n* Blue",
        "",
        ["There are three primary colours", "Red is one.", "There are three primary colours: Blue"],
    ),
    (
        "# Metals\n\nTin melts at 232 °C.\n\n**Uses**\n\n1. Tin coats steel.",
        "",
        ["Tin melts at 232 °C.", "Tin coats steel."],
    ),
    ("1. **Io**: It is a moon. It has volcanoes.", "", ["Io: It is a moon.", "Io has volcanoes."]),
    ("| Metal | Symbol |\n|---|---|\n| Tin | Sn |\n", "", ["Metal: Tin; Symbol: Sn"]),
    ("> Tin is **soft** and [cheap](http://a.example/b.c?d=e).", "", ["Tin is soft and cheap."]),
    # code, formulas, quotations, lines
    ("Run this:\n```sh\nls. -a\n```\nThe shell is `a. B`. It ends.", "", ["The shell is `a. B`.", "It ends."]),
    ("We have $a. b = 2$ here. So \\(x. Y\\) is odd.", "", ["We have $a. b = 2$ here.", "So \\(x. Y\\) is odd."]),
    ("The law is\n$$\nE = m.\nC\n$$\nwhere m is mass.", "", ["The law is $$\nE = m.\nC\n$$ where m is mass."]),
    ('Caesar wrote "I came. I saw." and left.', "", ['Caesar wrote "I came. I saw." and left.']),
    ("The Rhine rises\r\nin the Alps.\r\nThe Po is long.", "", ["The Rhine rises in the Alps.", "The Po is long."]),
    ("Köln liegt am Rhein 🌊 and is old. 水は冷たい。", "", ["Köln liegt am Rhein 🌊 and is old.", "水は冷たい。"]),
]


@pytest.mark.parametrize(("answer", "question", "wanted"), ANSWERS)
def test_an_answer_becomes_these_claims(answer: str, question: str, wanted: list[str]) -> None:
    claims = split_claims(answer, question)
    assert [claim.text for claim in claims] == wanted
    for before, claim in zip([None, *claims], claims, strict=False):
        assert answer[claim.start : claim.end].strip() == answer[claim.start : claim.end] != ""
        assert before is None or before.end <= claim.start


def test_the_table_is_large_enough() -> None:
    assert len(ANSWERS) >= 40


def test_a_place_is_the_part_that_is_restated() -> None:
    answer = "Well, **Emil Vogt** was born in Basel and died in Bern.\r\n\r\nHe played chess."
    places = [answer[c.start : c.end] for c in split_claims(answer)]
    assert places == ["**Emil Vogt** was born in Basel", "died in Bern.", "He played chess."]


def test_no_more_claims_than_wanted_and_each_once() -> None:
    assert len(split_claims("Tin is soft. Zinc is hard. Lead is grey.", max_claims=2)) == 2
    assert len(split_claims("Tin is soft. Tin is soft.")) == 1
    with pytest.raises(UserError, match="max_claims must be at least 1"):
        split_claims("Tin is soft.", max_claims=0)


@pytest.mark.parametrize("answer", ["", " \r\n\t", "```", "\ud800", "*", "- ", "|", ":", "?", "\ue000"])
def test_next_to_nothing_is_survived(answer: str) -> None:
    assert all(c.end <= len(answer) for c in split_claims(answer, answer))


def test_the_first_line_of_an_answer_in_halves_of_characters() -> None:
    (claim,) = split_claims("Tin is \ud83c soft.")
    assert claim.text == "Tin is ? soft."


HOSTILE = [
    "!",
    "?\n",
    "a. ",
    "*",
    "**a ",
    "`",
    "$a",
    '"a',
    "[a](",
    "- \n",
    "\\[",
    "|-",
    "```\n",
    "https://",
    "!)",
    "> ",
    "x: ",
]


@pytest.mark.parametrize("unit", [*HOSTILE, "_a", "(a ", "A.B."])
@pytest.mark.timeout(90)
def test_hostile_text_is_split(unit: str) -> None:  # what is not linear runs into the limit
    text = unit * (200_000 // len(unit))
    ends = 0
    for claim in split_claims(text, "What?"):
        assert ends <= claim.start <= claim.end <= len(text)
        ends = claim.start


KINDS = [
    ("Is it?", "question"), ("Zinc is a metal.", "statement"), ("Add two eggs.", "instruction"), ("Thanks!", "talk"),
    ("Lund wrote a book called Who Is Afraid?", "statement"), ("Is tin soft?", "question"),
    ("Tin is soft, isn't it?", "question"),
    ("I Love Tea is a song of 1990.", "statement"), ("Does water boil?", "question"),
    ("I love tea.", "opinion"), ("...", "nothing"), ("Blue", "fragment"), ("Use of lead was banned.", "statement"),
    ("Don't touch it.", "instruction"), ("As an AI, I cannot see.", "talk"),
    ("Alexander the Great was a king.", "statement"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "kind"), KINDS)
def test_kinds_of_sentences(sentence: str, kind: str) -> None:
    assert kind_of(sentence) == kind
    assert is_worth_checking(sentence) == (kind in ("statement", "fragment"))
