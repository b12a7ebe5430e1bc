"""Comparisons become yes-no questions with the right answers."""

from yes_no_questions import yes_no


def row(n, question, answer, kind="comparison"):
    return {"id": f"q{n}", "question": question, "answer": [answer], "subject": "compare", "kind": kind}


def test_answer_is_right_in_either_order():
    asked = [row(n, "Who was born later, Ann Lee or Bob Orr?", "Bob Orr") for n in range(40)]
    made = {(r["question"], r["answer"]) for r in yes_no(asked)}
    assert made == {("Was Ann Lee born later than Bob Orr?", "no"), ("Was Bob Orr born later than Ann Lee?", "yes")}


def test_first_is_earlier_and_quoted_titles_are_found():
    ((question, answer),) = {
        (r["question"], r["answer"])
        for r in yes_no([row(0, 'Which film was released first, "Up or Down" or "Left"?', "Left")])
    }
    ways = {
        'Was the film "Left" released earlier than the film "Up or Down"?': "yes",
        'Was the film "Up or Down" released earlier than the film "Left"?': "no",
    }
    assert ways[question] == answer


def test_yes_no_questions_stay_and_others_are_dropped():
    asked = "Were both films directed by the same person?"
    rows = [
        row(0, asked, "no"),
        row(1, "When was the director born?", "1965", kind="bridge"),
        row(2, "Who was born later, Ann or Bob?", "Cid"),
        row(3, "Which river is longer, the Po or the Rhine?", "Rhine"),
    ]
    assert [(r["question"], r["answer"]) for r in yes_no(rows)] == [(asked, "no")]
