"""`reason chat`: messages from standard input, commands, and conversations that are resumed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from support.agent_model import AgentModel, call

TURNS = ["The answer is hello.", [call("note", text="a")], "The answer is noted.", "The answer is bye."]


def note(text: str) -> str:
    """Write a note."""
    return "written"


@pytest.fixture
def chat(cli, monkeypatch, home):
    """Runs the command with these lines as standard input."""
    (home / "work" / "chat_tools.py").write_text(
        "def note(text: str) -> str:\n    return 'written'\n", encoding="utf-8"
    )

    async def load_model(*_):
        return AgentModel(TURNS)

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)

    def run(*lines, flags=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return cli("chat", *flags)

    return run


TOOL = ("--tool", "chat_tools:note", "--approve", "never")


def conversation_of(err):
    return re.search(r"reason chat --resume (conv-\S+)", err)[1]


def test_answers_are_on_standard_output_and_the_conversation_is_resumed(chat):
    status, out, err = chat("hi", "", "write a", flags=TOOL)
    assert (status, out) == (0, "The answer is hello.\nThe answer is noted.\n")
    assert '→ note(text="a")' in err
    status, out, err = chat("thanks", flags=("--resume", conversation_of(err), *TOOL))
    assert (status, out) == (0, "The answer is bye.\n")
    assert "you: hi" in err
    assert "model: The answer is noted." in err
    status, out, _ = chat(flags=("--resume", "last"))
    assert (status, out) == (0, "")


def test_commands(chat):
    status, out, err = chat(
        "hi", "write a", "/undo", "/undo", "/undo", "/resume", "/what", "/quit", "never", flags=TOOL
    )
    assert status == 0
    assert out.count("The answer is") == 2
    assert 'note({"text": "a"}) was executed, and is not undone' in err
    assert "undone: 1 questions are left" in err
    assert "error: the conversation has no question to undo" in err
    assert "error: no run of the conversation is unfinished" in err
    assert "commands: /undo, /resume, /save FILE, /quit" in err


def test_a_conversation_is_saved_as_json_or_text(chat, tmp_path):
    _, _, err = chat("hi", "/save chat.json", "/save chat.txt", "/save none/chat.txt", flags=("--system", "Be brief."))
    assert [m["content"] for m in json.loads(Path("chat.json").read_text())] == [
        "Be brief.",
        "hi",
        "concluded",
    ]
    assert Path("chat.txt").read_text() == "system: Be brief.\n\nuser: hi\n\nassistant: concluded\n"
    assert "error: cannot write none/chat.txt: No such file or directory" in err


def test_a_waiting_question_is_named_with_what_continues_it(chat):
    _, _, err = chat("hi", "write a", "more", flags=("--tool", "chat_tools:note", "--approve", "writes"))
    assert 'waiting: note(text="a") (write) needs an approval' in err
    assert "of the conversation has not ended" in err


@pytest.mark.parametrize("name", ["last", "conv-none"])
def test_an_unknown_conversation_is_refused(chat, name):
    status, _, err = chat(flags=("--resume", name))
    assert status == 2
    assert f"unknown conversation '{name}'" in err


def test_the_budget_is_that_of_the_conversation(chat):
    _, out, err = chat("hi", "more", flags=("--budget", "calls=1"))
    assert out == "concluded\n"
    assert "error: the budget of 1 calls is spent" in err
