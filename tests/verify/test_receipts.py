"""Claims of actions: what states one, and which calls are its receipt."""

from __future__ import annotations

import json

import pytest
from reason.verify.receipts import find_receipts
from reason.verify.verifier import ToolUse


def find_receipt(claim, uses):
    return find_receipts([claim], uses)[0]


def use(tool, arguments, *, ok=True, result="ok", effect="write", description=""):
    text = json.dumps(arguments)
    return ToolUse(tool, tool, description, text, effect, ok, result)


CALLS = (
    use("get_order", {"id": "4411"}, effect="read", result='{"status": "delivered", "refundable": true}'),
    use("cancel_order", {"order_id": "4411"}),
    use("sendEmail", {"to": "ann@x.org", "subject": "Hello"}, ok=False, result="Error: mailbox full"),
    use("calendar-create", {"title": "Review", "start": "2026-05-03T15:00", "guests": ["Tom"]}),
)


@pytest.mark.parametrize(
    ("claim", "state"),
    [
        ("I cancelled order 4411.", "found"),
        ("I’ve gone ahead and called off order 4411 for you.", "found"),
        ("Your order has now been cancelled.", "found"),
        ("I managed to cancel order 4411.", "found"),
        ("I got order 4411 cancelled.", "found"),
        ("Your cancellation has been processed.", "found"),
        ("Order 4411 is no more: I cancelled it.", "unclear"),
        ("I cancelled both order 4411 and order 4412.", "other"),
        ("I've scheduled your review with Tom at 3 pm.", "found"),
        ("I've cancelled order 4412.", "other"),
        ("I've scheduled your review with Bob at 3 pm.", "unclear"),
        ("I scheduled your review for 4 pm.", "unclear"),
        ("We have emailed ann@x.org.", "failed"),
        ("Cancelled order 4411 and emailed ann@x.org.", "failed"),
        ("I refunded $50 to your card.", "unclear"),
        ("Your refund has been processed.", "unclear"),
    ],
)
def test_a_claim_of_an_action_is_shown_by_a_call_that_did_it_to_what_it_names(claim, state):
    receipt = find_receipt(claim, CALLS)
    assert receipt.state == state
    assert all(one in CALLS for one in receipt.uses)


@pytest.mark.parametrize(
    "claim",
    [
        "I could not cancel the order, because it has shipped.",
        "I will cancel order 4411.",
        "I can cancel it if you like.",
        "Would you like me to say that I cancelled it?",
        "If I cancelled it, you would pay a fee.",
        "I haven't cancelled order 4411.",
        "I checked order 4411.",
        "No refund has been issued.",
        "I added 3 and 4.",
        "The refund was issued by the airline.",
        "The total is $50.",
    ],
)
def test_other_claims_state_no_action(claim):
    assert find_receipt(claim, CALLS) is None


def test_a_passive_that_a_result_states_is_a_fact():
    assert find_receipt("Your order was already delivered.", (CALLS[0],)) is None
    assert find_receipt("Your order has already been cancelled.", (CALLS[0],)).state == "missing"


def test_a_read_does_what_its_name_orders():
    add = use("add", {"a": 350, "b": 410}, effect="read", result="760")
    assert find_receipt("I added your 350 and 410.", (add,)).state == "found"
    policy = use("get_cancellation_policy", {}, effect="read", result="cancel within 24 hours")
    assert find_receipt("I cancelled your booking.", (policy,)).state == "missing"
