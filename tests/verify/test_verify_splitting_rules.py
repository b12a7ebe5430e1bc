"""Answers cut into claims by rules: hand-made answers, places, what is kept and what is left out."""

import pytest
from reason.core.errors import UserError
from reason.core.types import Question
from reason.verify.claims import question_text, split_claims

ANSWERS = [
    # a sentence is a claim, as it is written
    ("Oslo lies in Norway. Turku lies in Finland.", "", ["Oslo lies in Norway.", "Turku lies in Finland."]),
    ("Dr. J. K. Moss was born in St. Ives.", "", ["Dr. J. K. Moss was born in St. Ives."]),
    ("Pi is about 3.14. e is about 2.72.", "", ["Pi is about 3.14.", "e is about 2.72."]),
    ("Tarn was born in Lille and died in Metz.", "", ["Tarn was born in Lille and died in Metz."]),
    ("Emil Vogt was born in Basel. He died in Bern.", "", ["Emil Vogt was born in Basel.", "He died in Bern."]),
    # a short answer is read with its question
    ("Ottawa", "What is the capital of Canada?", ["The capital of Canada is Ottawa."]),
    ("It is Ottawa.", "What is the capital of Canada?", ["The capital of Canada is Ottawa."]),
    ("The answer is: Ottawa", "What is the capital of Canada?", ["The capital of Canada is Ottawa."]),
    ("The answer is 22.", "What is 10 + 11?", ["10 + 11 = 22."]),
    ("Iron.", "What is the tower made of?", ["What is the tower made of? Iron."]),
    ("In 1931.", "He was born in 1880. When did Emil Vogt die?", ["When did Emil Vogt die? In 1931."]),
    ("No.", "Is Ottawa in Peru?", ["Is Ottawa in Peru? No."]),
    ("No.", "", []),
    ("No. Ottawa is in Canada.", "Is Ottawa in Peru?", ["Is Ottawa in Peru? No.", "Ottawa is in Canada."]),
    ("No, that is not so.", "Is Ottawa in Peru?", ["Is Ottawa in Peru? No, that is not so."]),
    ("**Ottawa**", "What is the capital of Canada?", ["The capital of Canada is Ottawa."]),
    ("\\boxed{21}", "What is 10 + 11?", ["10 + 11 = \\boxed{21}."]),
    ("No refunds are given.", "Are refunds given?", ["No refunds are given."]),
    ("Tin is hard. No: tin is soft.", "", ["Tin is hard.", "tin is soft."]),
    (
        "Yes, the standard warranty of the machine covers the batteries for twelve months.",
        "Are batteries covered?",
        ["the standard warranty of the machine covers the batteries for twelve months."],
    ),
    # talk, questions
    ("Sure! Here is the answer: \n\nOttawa is the capital.", "", ["Ottawa is the capital."]),
    ("Great question! Let's see. Zinc is a metal. I hope this helps!", "", ["Zinc is a metal."]),
    ("Zinc is a metal. What else is a metal? Let me know.", "", ["Zinc is a metal."]),
    ("Note that zinc is brittle. However, tin is soft.", "", ["zinc is brittle.", "tin is soft."]),
    ("I think the capital is Canberra.", "", ["I think the capital is Canberra."]),
    # what only begins like talk is checked
    (
        "Thanks to a heater of 9,000 watts, it takes a minute.",
        "",
        ["Thanks to a heater of 9,000 watts, it takes a minute."],
    ),
    ("Forget what the manual says: it lasts ten years.", "", ["Forget what the manual says: it lasts ten years."]),
    ("You should know that it lasts ten years.", "", ["You should know that it lasts ten years."]),
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
    ("1. **Io**: It is a moon. It has volcanoes.", "", ["Io: It is a moon.", "It has volcanoes."]),
    ("| Metal | Symbol |\n|---|---|\n| Tin | Sn |\n", "", ["Metal: Tin; Symbol: Sn"]),
    ("| A \\| B | C |\n|---|---|\n| x \\| y | z |\n", "", ["A \\| B: x \\| y; C: z"]),
    ("> Tin is soft.\n> Zinc is hard.", "", ["Tin is soft.", "Zinc is hard."]),
    ("> Tin is **soft** and [cheap](http://a.example/b.c?d=e).", "", ["Tin is soft and cheap."]),
    # code, formulas, quotations, lines
    ("Run this:\n```sh\nls. -a\n```\nThe shell is `a. B`. It ends.", "", ["The shell is `a. B`.", "It ends."]),
    ("We have $a. b = 2$ here. So \\(x. Y\\) is odd.", "", ["We have $a. b = 2$ here.", "So \\(x. Y\\) is odd."]),
    ("The law is\n$$\nE = m.\nC\n$$\nwhere m is mass.", "", ["The law is $$ E = m. C $$ where m is mass."]),
    ('Caesar wrote "I came. I saw." and left.', "", ['Caesar wrote "I came. I saw." and left.']),
    ("The Rhine rises\r\nin the Alps.\r\nThe Po is long.", "", ["The Rhine rises in the Alps.", "The Po is long."]),
    ("2*3*4 = 24 holds.", "", ["2*3*4 = 24 holds."]),
    ("Köln liegt am Rhein 🌊 and is old. 水は冷たい。", "", ["Köln liegt am Rhein 🌊 and is old.", "水は冷たい。"]),
]


@pytest.mark.parametrize(("answer", "question", "wanted"), ANSWERS)
def test_an_answer_becomes_these_claims(answer, question, wanted):
    claims = split_claims(answer, question)
    assert [claim.text for claim in claims] == wanted
    for before, claim in zip([None, *claims], claims, strict=False):
        assert answer[claim.start : claim.end].strip() == answer[claim.start : claim.end] != ""
        assert before is None or before.end <= claim.start


def test_a_letter_stands_for_the_option_of_its_question():
    question = Question(text="Which planet is largest?", choices=("Mars", "Jupiter", "Venus"))
    assert question_text(question) == "Which planet is largest?\nA) Mars\nB) Jupiter\nC) Venus"
    (claim,) = split_claims("The answer is B.", question_text(question))
    assert claim.text == "Which planet is largest? Jupiter"
    assert question_text(Question(text="Why?")) == "Why?"


def test_no_more_claims_than_wanted_and_each_once():
    assert len(split_claims("Tin is soft. Zinc is hard. Lead is grey.", max_claims=2)) == 2
    assert len(split_claims("Tin is soft. Tin is soft.")) == 1
    with pytest.raises(UserError, match="max_claims must be at least 1"):
        split_claims("Tin is soft.", max_claims=0)


@pytest.mark.parametrize("answer", ["", " \r\n\t", "```", "\ud800", "*", "- ", "|", ":", "?", "\ue000"])
def test_next_to_nothing_is_survived(answer):
    assert all(c.end <= len(answer) for c in split_claims(answer, answer))


HOSTILE = ["**a ", "`", '"a', "[a](", "|-", "x: "]
ALSO_HOSTILE = ["a. ", "```\n", "!", "?\n", "*", "$a", "- \n", "\\[", "https://", "!)", "> ", "_a", "(a ", "A.B."]


@pytest.mark.parametrize("unit", [*HOSTILE, *(pytest.param(unit, marks=pytest.mark.nightly) for unit in ALSO_HOSTILE)])
@pytest.mark.timeout(90)
def test_hostile_text_is_split(unit):  # what is not linear runs into the limit
    text = unit * (200_000 // len(unit))
    ends = 0
    for claim in split_claims(text, "What?"):
        assert ends <= claim.start <= claim.end <= len(text)
        ends = claim.start
