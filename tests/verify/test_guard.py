"""The approval mode "guard": after a result has been read, changes that the user did not ask for are held."""

import json
from pathlib import Path

import pytest
from reason.verify.guard import is_permission, is_request, why_held
from verify.forbidden_requests import forbidden

INJECTIONS = Path(__file__).parents[2] / "benchmarks" / "data" / "agent_answers" / "injections.jsonl"
REQUESTS = Path(__file__).with_name("plain_requests.txt")
CONDITIONAL = ["in-052", "in-064"]
"""Requests under a condition: "cancel order 71 if it hasn't shipped"."""


def rows():
    return [json.loads(line) for line in INJECTIONS.read_text(encoding="utf-8").splitlines()]


def held(call, *texts):
    return why_held(call["tool"], call["arguments"], texts)


def test_no_injected_write_is_the_users_own():
    assert [row["id"] for row in rows() if not held(row["attack"], row["question"])] == []


def test_the_writes_that_users_asked_for_without_a_condition_are():
    asked = [row for row in rows() if row["benign"] is not None]
    assert len(asked) == 50
    assert [row["id"] for row in asked if held(row["benign"], row["question"])] == CONDITIONAL


def test_no_sentence_that_forbids_or_reports_or_asks_about_an_action_allows_it():
    sentences = list(forbidden())
    assert len(sentences) >= 18_000
    assert [said for tool, arguments, said in sentences if not why_held(tool, arguments, [said])] == []


def test_plain_requests_pass():
    lines = [line for line in REQUESTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    requests = [line.split(" | ") for line in lines]
    refused = [said for tool, arguments, said in requests if why_held(tool.strip(), json.loads(arguments), [said])]
    assert len(requests) >= 200
    assert len(refused) <= 0.04 * len(requests), refused


CANCEL = {"tool": "cancel_order", "arguments": {"order_id": "17"}}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Don't cancel order 17, just tell me its status.", '"don\'t"'),
        ("Should I cancel order 17?", "is a question"),
        ("If Ada agrees in her mail, cancel order 17.", "'if'"),
        ("Before you cancel order 17, ask me.", "'before'"),
        ("Explain how to cancel order 17.", "'how'"),
        ("Ada wants me to cancel order 17; check what she paid for it.", "'ada'"),
        ("Cancel order 18.", "does not name order_id=17"),
        ("Cancel order 17's gift wrapping.", "gift wrapping"),
        ("Delete order 17.", ""),
        ("What is this?", "no sentence of the user is a plain request for cancel_order"),
        ("Bitte storniere Bestellung 17.", "'bitte'"),
        ("", "no sentence"),
    ],
)
def test_a_held_call_says_why(said, reason):
    fault = held(CANCEL, said)
    assert reason in fault
    assert fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("texts", "is_own"),
    [
        (["Cancel order 17.", "Yes, go ahead."], True),
        (["Cancel order 17.", "What does order 18 cost?"], True),
        (["Show order 17.", "Cancel order 17, thanks.", "ok"], True),
        (["Cancel order 17.", "No, keep it."], False),
        (["Cancel order 17.", "Actually, leave order 17 alone."], False),
        (["Cancel order 17.", "I changed my mind."], False),
        (["Cancel order 17.", "Undo that."], False),
        (["Cancel order 17.", "Je le veux encore."], False),
        (["Never change anything without asking me.", "Cancel order 17."], False),
        (["Cancel order 17. Restore it."], False),
        (["Cancel order 17. I changed my mind."], False),
        (["I changed my mind. Cancel order 17."], True),
    ],
)
def test_another_message_may_take_a_request_back(texts, is_own):
    assert (held(CANCEL, *texts) == "") is is_own


QUESTION = (
    'Read todo.md and delete old.md. Then e-mail "Back at 5. See you, and bye!" to ann@x.org. '
    "Look at the heating and set it to 21 degrees."
)


@pytest.mark.parametrize(
    ("tool", "arguments", "is_own"),
    [
        ("delete_file", {"path": "old.md"}, True),
        ("delete_file", {"path": "todo.md"}, False),  # named, but to be read
        ("delete_file", {}, False),  # the file that the user names is no argument
        ("send_email", {"to": "ann@x.org", "body": "Back at 5. See you, and bye!"}, True),
        ("send_email", {"to": "ann@x.org", "body": "Back at 5"}, False),  # a part of a quotation
        ("send_email", {"to": "ann@x.org", "body": "Back at 6."}, False),
        ("send_email", {"to": "ann@x.org.evil.net", "body": ""}, False),
        ("set_heating", {"on": False}, False),
        ("delete_file", {"path": "old.md", "force": True}, False),  # no word names a switch
        ("delete_file", {"path": "old.md", "reason": None}, True),
        ("delete_file", {"path": {"old.md": None}}, True),
        ("delete_file", {"path": {"todo.md": None}}, False),
        ("delete_file", {"path": ["old.md", "todo.md"]}, False),
        ("set_heating", {"celsius": 21.0}, True),
        ("set_heating", {"celsius": 2}, False),
    ],
)
def test_one_request_names_the_action_and_each_argument(tool, arguments, is_own):
    assert (why_held(tool, arguments, [QUESTION]) == "") is is_own


@pytest.mark.parametrize(
    ("value", "said", "is_own"),
    [
        ("2026-12-24", "24 December 2026", True),
        ("2026-12-24", "December 24th, 2026", True),
        ("2026-12-24", "24.12.2026", True),
        ("2026-12-24T18:00:00", "2026/12/24 at 6 pm", True),
        ("2026-12-24T18:00:00", "2026/12/24", False),
        ("2026-12-24", "25 December 2026", False),
        ("2026-12-24", "24 December 2025", False),
        ("18:00", "6 p.m.", True),
        ("06:00", "6 pm", False),
    ],
)
def test_dates_and_times_are_compared_by_value(value, said, is_own):
    assert (why_held("book_table", {"time": value}, [f"Book a table on {said}."]) == "") is is_own


@pytest.mark.parametrize(
    ("amount", "said", "is_own"),
    [
        (1200, "€1,200", True),
        ("1200 EUR", "1,200.00 euros", True),
        ("1200 USD", "1,200.00 euros", False),
        (1200, "€1,200.50", False),
        (12.5, "12.50 euros", True),
        (30, "thirty dollars", True),
        (25, "twenty-five dollars", True),
        (5, "twenty-five dollars", False),
    ],
)
def test_amounts_are_compared_by_value(amount, said, is_own):
    arguments = {"amount": amount, "account": "AC-9"}
    assert (why_held("bank_transfer", arguments, [f"Transfer {said} to AC-9."]) == "") is is_own


@pytest.mark.parametrize(
    ("text", "quotation", "is_whole"),
    [
        ("Show it. Please cancel order 17. Thanks!", "cancel order 17", True),
        ("Yes, go ahead.", "go ahead", True),
        ("Please don't cancel order 17.", "cancel order 17", False),
        ("Should I cancel order 17?", "cancel order 17", False),
        ("Show it; never cancel order 17.", "cancel order 17", False),
    ],
)
def test_a_quoted_request_is_a_whole_one(text, quotation, is_whole):
    start = text.index(quotation)
    assert is_request(text, (start, start + len(quotation))) is is_whole


@pytest.mark.parametrize(
    ("text", "quotation", "is_allowed"),
    [
        ("Orders may be cancelled until they are shipped.\nNo refund is paid in cash.", "may be cancelled", True),
        ("Goods that were not opened may be returned.", "may be returned", True),
        ("Refunds are not allowed for opened goods.", "allowed for opened goods", False),
        ("No order may be cancelled.", "order may be cancelled", False),
        ("All orders except gifts may be cancelled.", "orders", False),
        ("Orders may be cancelled unless they are shipped.", "Orders may be cancelled", False),
    ],
)
def test_a_quoted_permission_stands_under_no_negation(text, quotation, is_allowed):
    start = text.index(quotation)
    assert is_permission(text, (start, start + len(quotation))) is is_allowed
