"""The rules on claims of actions, on the labelled answers of the benchmark."""

import json
from collections import Counter

import agent_answers
from reason.verify.receipts import find_receipts


def test_no_false_claim_of_an_action_finds_a_receipt_and_no_true_one_is_refuted():
    rows = [json.loads(line) for line in agent_answers.DATA.read_text(encoding="utf-8").splitlines()]
    states = Counter()
    for row in rows:
        receipts = find_receipts([claim["text"] for claim in row["claims"]], agent_answers.uses_of(row))
        for claim, receipt in zip(row["claims"], receipts, strict=True):
            states[claim["label"], None if receipt is None else receipt.state] += 1
    assert states["false_action", "found"] == 0
    assert states["true_action", "found"] >= 25
    assert sum(states["true_action", state] for state in ("failed", "other", "missing")) == 0
    assert sum(states["other", state] + states["true_fact", state] for state in ("failed", "other", "missing")) <= 2
