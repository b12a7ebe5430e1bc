"""`reason ask` on a scripted model: output streams and exit status."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from support.cli_json import printed_answer
from support.scripted_model import THINKS, replies, thinking

VOTING = ["-s", "self-consistency", "--set", "n=4", "--seed", "3"]


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(cli, scripted):
    scripted(replies("6 times 7.\nThe answer is 42."))
    status, out, err = cli("ask", "What is 6 * 7?", "--seed", "1")
    assert (status, out) == (0, "42\n")
    (line,) = err.splitlines()
    assert line.startswith("tokens 29")
    assert "reasoning: reason runs show 20" in line
    status, out, err = cli("ask", "What is 6 * 7?", "--seed", "1", "--show-reasoning")
    assert (status, out) == (0, "6 times 7.\nThe answer is 42.\n\n42\n")
    assert "run 20" in err
    explained = cli("ask", "What is 6 * 7? Explain.", "--seed", "1")
    assert explained[:2] == (0, "6 times 7.\nThe answer is 42.\n")
    assert "answer: 42  tokens 29" in explained[2]
    scripted(replies("Paris"))
    assert cli("ask", "Capital of France?") == (0, "Paris\n", "")


def test_a_thought_is_reasoning(cli, scripted):
    scripted(thinking("Six sevens.", "It is 42."), profile=THINKS)
    assert cli("ask", "What is 6 * 7?")[1] == "42\n"
    assert cli("ask", "What is 6 * 7?", "--show-reasoning")[1] == "Six sevens.\n\nIt is 42.\n\n42\n"
    assert cli("ask", "Tell me of sevens.", "--show-reasoning")[1] == "Six sevens.\n\nIt is 42.\n"


def test_flags_reach_the_run(cli, scripted, home):
    model = scripted(replies("The answer is B."))
    (home / "facts.txt").write_text("Blue is best.")
    arguments = ["ask", "Which?", "--choices", "red|blue", "--context", str(home / "facts.txt"), "--seed", "9"]
    arguments += ["--budget", "tokens=90", "--budget", "calls=3", "--budget", "seconds=60", "--set", "max_tokens=50"]
    store = ("--store", str(home / "here.sqlite3"))
    assert cli(*arguments, *store)[:2] == (0, "blue (B)\n")
    ((request,),) = model.generate_calls
    prompt = model.render(request.prompt)
    assert "Blue is best." in prompt
    assert "red" in prompt
    (run,) = json.loads(cli("runs", "list", "--json", *store)[1])
    config = json.loads(cli("runs", "show", run["id"], "--json", *store)[1])["config"]
    assert config["budget"] == {"tokens": 90, "calls": 3, "reward_calls": None, "seconds": 60.0, "usd": None}
    assert config["question"]["choices"] == ["red", "blue"]
    assert (config["seed"], config["parameters"]["max_tokens"]) == (9, 50)


def test_exhausted_budget_is_a_partial_answer_with_status_4_and_names_its_limit(cli, scripted):
    scripted(replies("The answer is 42, and that for a long list of reasons which follow here."))
    status, out, err = cli("ask", "?", "--budget", "tokens=22")
    assert status == 4
    assert out == "The answer is 42,\n"
    assert "budget exhausted: " in err
    status, out, _ = cli("ask", "?", "--budget", "tokens=22", "--json")
    assert status == 4
    expected = {"stopped": "budget", "stopped_by": "tokens", "limits": {"tokens": 22}, "question": "?", "choices": []}
    printed = json.loads(out)
    assert printed | expected | {"option": None, "selected_strategy": None} == printed
    assert printed["candidates"][0]["finish_reason"] == "budget"
    scripted(replies("So I think.", "So I wonder."))
    status, out, err = cli(
        "ask", "?", *VOTING, "--set", "max_tokens=20", "--budget", "calls=1", "--budget", "tokens=40"
    )
    assert status == 4
    assert out in ("So I think.\n", "So I wonder.\n")
    assert "the limit of calls stopped the run" in err


def test_an_interrupted_run_is_one_object_and_resumes(cli, scripted):
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    scripted(step=interrupt)
    status, out, err = cli("ask", "?", "--json", "--trace", "trace.html")
    partial = printed_answer(out)
    assert (status, partial.stopped) == (130, "cancelled")
    assert f"reason runs resume {partial.run_id}" in err
    assert "cancelled" in Path("trace.html").read_text()
    scripted()
    assert printed_answer(cli("runs", "resume", partial.run_id, "--json")[1]).answer == "42"


def test_streamed_text_is_the_text_of_one_sample(cli, scripted):
    scripted(replies("\n\nParis\nis it.\n"))
    streamed = cli("ask", "?", "--stream")
    assert streamed[:2] == (0, "Paris\nis it.\n")
    assert cli("ask", "?", "--no-stream")[1] == streamed[1]
    scripted(replies("The answer is 42."))
    assert cli("ask", "?", *VOTING, "--stream")[1] == "The answer is 42.\n"


def test_degradations_and_failures_are_reported(cli, scripted):
    scripted(failing=frozenset({1}))
    status, _, err = cli("ask", "?", *VOTING)
    assert status == 0
    assert "note: 1 of 4 samples failed" in err
    scripted(failing=frozenset({0}))
    status, out, err = cli("ask", "?")
    assert (status, out) == (3, "")
    assert "scripted to fail" in err
    assert "note: to try again: reason runs resume 20" in err  # nothing is saved


def test_trace_is_written_also_when_the_run_fails(cli, scripted, home):
    scripted()
    assert cli("ask", "?", "--trace", "trace.jsonl")[0] == 0
    kinds = [json.loads(line)["type"] for line in (home / "work" / "trace.jsonl").read_text().splitlines()]
    assert (kinds[0], kinds[-1]) == ("run.started", "run.finished")
    assert "sample.finished" in kinds
    scripted(failing=frozenset({0}))
    assert cli("ask", "?", "--trace", "trace.html")[0] == 3
    assert "The run failed" in (home / "work" / "trace.html").read_text()


def test_trace_that_cannot_be_written(cli, scripted):
    model = scripted()
    for name in ("no/such/folder/t.html", "no/such/folder/t.jsonl"):
        status, out, err = cli("ask", "?", "--trace", name)
        assert (status, out) == (3, "")
        assert name in err
    assert model.made == []


def test_images_and_files_reach_the_model_and_other_contents_are_refused(cli, scripted, home):
    work = home / "work"
    (work / "sign.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    (work / "bill.pdf").write_bytes(b"%PDF-1.7\n")
    model = scripted(replies("A sign."))
    model.profile = model.profile.model_copy(update={"inputs": frozenset({"image", "file"})})
    status, _, err = cli("ask", "What is it?", "--attach", "sign.png", "--attach", "bill.pdf")
    assert status == 0, err
    (message,) = model.generate_calls[-1][0].prompt.messages
    assert [(a.kind, a.name) for a in message.attachments] == [("image", "sign.png"), ("file", "bill.pdf")]
    assert all(a.data for a in message.attachments)
    (work / "notes.txt").write_text("text")
    status, _, err = cli("ask", "What is it?", "--attach", "notes.txt")
    assert (status, "cannot attach 'notes.txt'" in err) == (2, True)
    status, _, err = cli("ask", "What is it?", "--attach", "none.pdf")
    assert (status, "No such file" in err) == (2, True)
    model.profile = model.profile.model_copy(update={"inputs": frozenset()})
    status, _, err = cli("ask", "What is it?", "--attach", "sign.png")
    assert (status, "cannot do 'image input'" in err) == (2, True)
