"""The verifier `execution` and `best-of-n` with score=tests, on scripted answers; code really runs in the sandbox."""

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from reason.agents.verification import averify_text
from reason.core.errors import SandboxUnavailable
from reason.core.events import MemorySink
from reason.core.settings import Settings
from reason.core.types import CodeTest, Question
from reason.reasoning.execution import sandbox
from support.scripted_model import ScriptedModel, replies

RIGHT = "It adds.\n```python\ndef add(a, b):\n    return a + b\n```"
WRONG = "It adds.\n```python\ndef add(a, b):\n    return a - b\n```"
TESTS = (CodeTest(name="two", code="assert add(1, 1) == 2"), CodeTest(name="zero", code="assert add(0, 0) == 0"))
QUESTION = Question(text="Write add(a, b).", tests=TESTS)


@pytest.fixture(autouse=True)
async def isolation():
    try:
        await sandbox.require_sandbox()
    except SandboxUnavailable as e:
        pytest.skip(str(e))


@pytest.fixture
def asking(monkeypatch, tmp_path):
    """Asks a model with some answers; returns the answer, the model and the events. A replay gives the same."""

    async def ask(script, question=QUESTION, **options):
        model = ScriptedModel(script)

        async def load_model(*_):
            return model

        monkeypatch.setattr(reasoner_module, "load_model", load_model)
        settings = Settings(model="scripted", store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache", seed=5)
        sink = MemorySink()
        async with Reasoner(settings=settings, **options) as reasoner:
            answer = await reasoner.aask(question, sinks=[sink])
            with monkeypatch.context() as patch:  # a replay runs nothing, and needs no sandbox
                patch.setattr(sandbox, "MACHINES", ())
                patch.setattr(sandbox, "_is_tried", False)
                again = await reasoner.areplay(answer.run_id)
            assert again.model_dump(exclude={"usage"}) == answer.model_dump(exclude={"usage"})
        return answer, model, sink

    return ask


async def test_passed_tests_support_the_answer(asking):
    answer, _, sink = await asking(replies(RIGHT), verify=["execution"])
    assert answer.answer == "def add(a, b):\n    return a + b"
    verification = answer.verification
    assert (verification.verdict, verification.support, verification.verifiers) == ("supported", 1.0, ("execution",))
    assert [c.text for c in verification.claims] == ["The code passes the test: two", "The code passes the test: zero"]
    assert verification.claims[0].evidence[0].text == "assert add(1, 1) == 2"
    assert answer.text[verification.claims[0].start : verification.claims[0].end].startswith("def add")
    assert [e.index for e in sink.of_type("claim.checked")] == [0, 1]


async def test_a_failed_test_refutes_it_with_its_values_and_output(asking):
    wrong = WRONG.replace("    return", "    print('here')\n    return")
    answer, _, _ = await asking(replies(wrong), verify=["execution"], repairs=0)
    first, second = answer.verification.claims
    assert (answer.verification.verdict, answer.verification.support) == ("refuted", 0.0)
    assert (first.verdict, second.verdict) == ("refuted", "supported")
    assert first.note == "AssertionError: 0 == 2 is false"
    assert "It printed: here" in first.evidence[0].text


async def test_failing_code_goes_back_with_its_lines_and_the_failed_test(asking):
    def script(text):
        return replies(RIGHT if "<check>" in text else WRONG)(text)

    answer, model, _ = await asking(script, verify=["execution"], repairs=1)
    assert answer.verification.verdict == "supported"
    assert "return a + b" in answer.answer
    _, second = [prompt for prompt, _ in model.made]
    assert "Earlier answer:\n    def add(a, b):\n        return a - b\n- wrong: The code passes the test: two" in second
    assert "evidence: AssertionError: 0 == 2 is false" in second


async def test_code_that_does_not_load_is_one_refuted_claim(asking):
    answer, _, _ = await asking(replies("```python\ndef add(a, b: return\n```"), verify=["execution"], repairs=0)
    (claim,) = answer.verification.claims
    assert (claim.text, claim.verdict) == ("The code runs without an error.", "refuted")
    assert claim.note.startswith('File "answer.py", line 1') or "SyntaxError" in claim.evidence[0].text


async def test_an_answer_without_code_is_refuted(asking):
    answer, _, _ = await asking(replies("Use the plus sign."), verify=["execution"], repairs=0)
    (claim,) = answer.verification.claims
    assert (claim.text, claim.verdict) == ("The answer has Python code.", "refuted")


async def test_without_tests_the_examples_of_the_question_are_the_tests(asking):
    question = Question(text="Write add.\n>>> add(1, 2)\n3\n", kind="code")
    answer, _, _ = await asking(replies(RIGHT), question, verify=["execution"])
    assert answer.verification.verdict == "supported"
    question = Question(text="Write add.", kind="code")
    answer, _, _ = await asking(replies(RIGHT), question, verify=["execution"])
    (claim,) = answer.verification.claims
    assert claim.verdict == "not_enough_evidence"
    assert "--tests FILE" in claim.note


async def test_without_a_sandbox_nothing_is_asked(asking, monkeypatch):
    monkeypatch.setattr(sandbox, "_is_tried", False)
    monkeypatch.setattr(sandbox, "MACHINES", ())
    for options in ({"verify": ["execution"]}, {"strategy": "best-of-n", "parameters": {"score": "tests"}}):
        with pytest.raises(SandboxUnavailable):
            await asking(replies(RIGHT), **options)


async def test_a_given_text_is_verified_without_documents_and_models(tmp_path):
    settings = Settings(store=tmp_path / "runs.sqlite3", cache_dir=tmp_path / "cache")
    verified = await averify_text(WRONG, verifier="execution", tests=TESTS, settings=settings)
    assert [r.verdict for r in verified.reports] == ["refuted", "supported"]
    assert verified.usage.model_calls == 0


async def test_best_of_n_takes_the_sample_that_passes_most_tests(asking):
    script = replies(WRONG, RIGHT, "No code.", weights=[0.5, 0.2, 0.3])
    answer, _, sink = await asking(script, strategy="best-of-n", parameters={"n": 12, "score": "tests"})
    assert "return a + b" in answer.answer
    assert answer.confidence == 1.0
    scores = {c.text: c.score for c in answer.candidates}
    assert scores == {RIGHT: 1.0, WRONG: 0.5, "No code.": 0.0}
    (note,) = [e for e in sink.of_type("strategy.note") if e.name == "samples.scored"]
    assert note.data == {"score": "tests", "unscored": 0, "tests": 2}


async def test_best_of_n_without_tests_says_so_and_takes_the_majority(asking):
    question = Question(text="Write add.", kind="code")
    answer, _, _ = await asking(replies(RIGHT), question, strategy="best-of-n", parameters={"n": 2, "score": "tests"})
    assert "the question has no tests, and no examples (>>>) in its text" in answer.degraded
    assert "return a + b" in answer.answer


async def test_tests_after_the_end_of_the_time_are_unchecked(asking, clock):
    clock.flows = True  # over while the code sleeps, however long the steps before it take
    slow = "```python\nimport time\ntime.sleep(60)\ndef add(a, b):\n    return a + b\n```"
    answer, _, _ = await asking(replies(slow), verify=["execution"], budget={"seconds": 1})
    assert answer.verification.verdict == "unchecked"
    assert any("the budget was exhausted" in note for note in answer.degraded)
