"""Which problems are trained on: split that never meet, hard ones, and the held-out ones as a dataset of one's own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError, UserError
from reason.core.files import question_digest
from reason.core.types import Answer, Document, Question, RunUsage
from reason.evals.datasets.items import (
    ChoiceGold,
    Dataset,
    Item,
    LabelGold,
    MathGold,
    TextGold,
    TruthfulGold,
    fingerprint,
    is_held_out,
)
from reason.evals.datasets.loading import load_dataset
from reason.evals.scoring import Scorer
from reason.evals.task import make_task
from reason.evals.training.navigator.plan import (
    ProblemSplit,
    as_problems,
    make_navigator_plan,
    read_problems,
    split_by_digest,
    split_problems,
    write_held_out,
    write_problems,
)
from reason.evals.training.navigator.training import hard_problems
from support.eval_tasks import TextJudge, sums, sums_task
from support.navigation_model import plan_of, settings_of

TEXT = st.text(min_size=1, max_size=12).filter(str.strip)
BLANKS = st.sampled_from([" ", "  ", "\n", "\t ", " "])


@st.composite
def rewritten(draw, text):
    """The same question in other letters and with other blanks."""
    words = [
        draw(st.sampled_from([w, w.upper().lower() if w.upper().casefold() == w.casefold() else w]))
        for w in text.split()
    ]
    cased = [w.upper() if draw(st.booleans()) and w.upper().casefold() == w.casefold() else w for w in words]
    inside = "".join(w + draw(BLANKS) for w in cased)
    return draw(st.sampled_from(["", " ", "\n"])) + inside


@st.composite
def question_lists(draw):
    """Questions, some of them twice: as they are, in other letters, with other blanks; in any order."""
    texts = draw(st.lists(TEXT, min_size=1, max_size=8))
    again = [draw(rewritten(text)) for text in texts if draw(st.booleans())]
    return draw(st.permutations([*texts, *again]))


def problems(texts, dataset="d"):
    items = [
        Item(id=f"{i}", question=Question(text=text), gold=TextGold(answers=("yes",))) for i, text in enumerate(texts)
    ]
    return as_problems(dataset, items)


def plain(text):
    return " ".join(text.casefold().split())


@given(question_lists(), question_lists(), st.floats(0, 0.99))
def test_the_splits_are_disjoint(ours, theirs, share):
    """No training question is held out: not in other letters, with other blanks, or in another dataset."""
    split = split_by_digest([*problems(ours), *problems(theirs, "e")], share)
    trained = {plain(p.item.question.text) for p in split.train}
    held = {plain(p.item.question.text) for p in split.held_out}
    assert trained & held == set()
    assert {p.digest for p in split.train} & {p.digest for p in split.held_out} == set()
    assert len(split.train) + len(split.held_out) == len(ours) + len(theirs)


@given(question_lists(), st.permutations(range(12)), st.floats(0, 0.99))
def test_the_split_depends_only_on_the_text(texts, order, share):
    def training(listed):
        return {p.item.question.text for p in split_by_digest(problems(listed), share).train}

    mixed = [texts[i] for i in order if i < len(texts)]
    assert training(mixed) == training(texts) & set(mixed)


@given(st.text("0123456789abcdef", min_size=16, max_size=16), st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_larger_share_only_adds(digest, a, b):
    low, high = sorted((a, b))
    assert not is_held_out(digest, low) or is_held_out(digest, high)
    assert not is_held_out(digest, 0.0)
    assert is_held_out("0" * 16, low) == (low > 0)
    assert not is_held_out("f" * 16, low)


def test_the_held_out_share_is_approximate():
    split = split_by_digest(problems([f"question {i}" for i in range(4000)]), 0.3)
    assert 0.27 < len(split.held_out) / 4000 < 0.33


def test_a_limit_applies_before_the_split(tmp_path):
    plan, task = plan_of(tmp_path, questions=20, limit=6)
    split = split_problems(plan, [task])
    assert {p.item.id for p in (*split.train, *split.held_out)} == {f"sum-{i:03}" for i in range(6)}
    whole = split_problems(plan.model_copy(update={"limit": None}), [task])
    assert {p.key for p in split.train} <= {p.key for p in whole.train}


def test_an_empty_split_is_refused(tmp_path):
    one, task = plan_of(tmp_path, questions=1, holdout=0.0)
    with pytest.raises(UserError, match="nothing to validate on") as e:
        split_problems(one, [task])
    assert "--validation 0" in e.value.hint
    alone = one.model_copy(update={"validation": 0})
    assert len(split_problems(alone, [task]).train) == 1
    digest = question_digest(next(iter(task.items.values())).question.text)
    share = (int(digest[:13], 16) + 1) / 16**13
    with pytest.raises(UserError, match="none of the 1 questions is in the training split"):
        split_problems(alone.model_copy(update={"holdout": share}), [task])


def test_hard_problems_are_those_with_wrong_direct_answers():
    some = problems(["a", "b", "c"])
    right = {p.key: p.item.question.text == "b" for p in some}
    assert [p.item.question.text for p in hard_problems(some, right)] == ["a", "c"]
    with pytest.raises(UserError, match="answers all 3 training questions right") as e:
        hard_problems(some, dict.fromkeys(right, True))
    assert "--problems all" in e.value.hint


def test_invalid_plans_are_refused(tmp_path):
    task = sums_task(3)
    settings = settings_of(tmp_path)
    with pytest.raises(UserError, match="no dataset to train on"):
        make_navigator_plan([], settings)
    with pytest.raises(UserError, match="sums is named twice"):
        make_navigator_plan([task, sums_task(4)], settings)
    for reward in ("prm", "potential"):
        with pytest.raises(UserError, match="no reward model is set") as e:
            make_navigator_plan([task], settings, reward=reward)
        assert "--reward-model" in e.value.hint
    with pytest.raises(UserError, match="reuses its own completions"):
        make_navigator_plan([task], settings_of(tmp_path, reuse="none"))
    with pytest.raises(UserError, match="'policy' of rlot cannot be set"):
        make_navigator_plan([task], settings, parameters={"policy": "fixed"})
    with pytest.raises(UserError, match="max_blocks"):
        make_navigator_plan([task], settings, parameters={"max_blocks": 0})
    gold = TruthfulGold(best="a", correct=("a",), incorrect=("b",))
    items = (Item(id="t", question=Question(text="True?"), gold=gold),)
    truthful = Dataset(
        name="truthful", source="", licence="", warning="", items=items, size=1, fingerprint=fingerprint(items)
    )
    with pytest.raises(DataError, match="neither right nor wrong"):
        make_navigator_plan([make_task(truthful, TextJudge)], settings)


def test_the_digest_covers_what_decides_a_training(tmp_path):
    plan, _ = plan_of(tmp_path)
    again, _ = plan_of(tmp_path)
    assert plan.digest == again.digest
    for change in ({"seed": 1}, {"parallel": 5}, {"holdout": 0.4}, {"problems": "hard"}, {"limit": 3}):
        other, _ = plan_of(tmp_path, **change)
        ((name, value),) = change.items()
        assert other.digest != plan.digest
        assert plan.differences(other).startswith(f"{name} ")
        assert plan.differences(other).endswith(json.dumps(value))
    elsewhere = plan.model_copy(update={"local": plan.local.model_copy(update={"device": "cuda"})})
    assert elsewhere.digest != plan.digest
    assert (
        plan.differences(elsewhere) == 'local.device null → "cuda"'
    )  # as of plans that were made before it could be said
    # settings may say who navigates, and a training does not care
    settings = settings_of(tmp_path, strategies={"rlot": {"policy": "random", "max_blocks": 3}})
    reported = make_navigator_plan([sums_task(3)], settings)
    assert reported.parameters["max_blocks"] == 3
    assert "policy" not in reported.parameters


def items_of_all_kinds():
    yield Item(id="m", question=Question(text="1 + 1?", kind="math"), gold=MathGold(answer="2", equivalents=("2.0",)))
    yield Item(
        id="c", question=Question(text="Which?", choices=("x", "y", "z"), kind="choice"), gold=ChoiceGold(correct=(2,))
    )
    documents = (Document(name="a", text="Rome."), Document(name="b", text="Oslo."))
    yield Item(
        id="t",
        question=Question(text="Where?", documents=documents),
        gold=TextGold(answers=("Rome", "Roma")),
        subject="slots",
        group="g",
    )
    yield Item(
        id="l",
        question=Question(text="True?", choices=("Yes", "No"), kind="choice"),
        gold=LabelGold(label="no", labels=("yes", "no"), shown=("yes", "no")),
    )


@pytest.mark.parametrize("item", list(items_of_all_kinds()), ids=lambda item: item.id)
async def test_held_out_problems_can_be_evaluated_on(item, tmp_path):
    """What was right stays right, and what was wrong wrong, in the file that is written of them."""
    path = tmp_path / "held_out.jsonl"
    (problem,) = as_problems("kinds", [item])
    write_held_out(path, [problem])
    read = load_dataset(str(path), seed=None).items[0]
    assert read.id == f"kinds/{item.id}"
    assert read.question.text == item.question.text
    assert read.question.choices == item.question.choices
    assert read.question.documents == item.question.documents
    assert (read.subject, read.group) == (item.subject, item.group)
    async with Scorer() as scorer:
        for said in ("2", "2.0", "3", "A", "B", "C", "Rome", "Roma", "Oslo", None):
            answer = Answer(
                answer=said,
                text=said or "",
                strategy="cot",
                model="m",
                confidence=None,
                stopped="done",
                candidates=(),
                verification=None,
                usage=RunUsage(),
                run_id="r",
                seed=0,
            )
            assert (await scorer.score(read, answer)).correct == (await scorer.score(item, answer)).correct, said


def test_selected_problems_are_read_again(tmp_path):
    some = as_problems("sums", sums(10).items)
    split = ProblemSplit(tuple(some[:6]), tuple(some[6:]))
    path = tmp_path / "problems.jsonl"
    assert read_problems(path, split) is None
    direct = {p.key: i % 2 == 0 for i, p in enumerate(some[:6])}
    write_problems(path, split, direct, some[1:6:2])
    assert read_problems(path, split) == tuple(some[1:6:2])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["split"] for line in lines] == ["train"] * 6 + ["held-out"] * 4
    assert [line["direct"] for line in lines] == [True, False] * 3 + [None] * 4
    with pytest.raises(DataError, match="not of the questions of this training"):
        read_problems(path, ProblemSplit(tuple(some[6:]), tuple(some[:6])))
    path.write_text("{\n")
    with pytest.raises(DataError, match="damaged"):
        read_problems(path, split)
