"""The examples of the SDK, on the default model, as their docstrings say that they are run."""

import re

import pytest
from reason.core.events import BudgetExhausted, VerificationFinished
from reason.core.store.sqlite import SqliteStore

pytestmark = pytest.mark.real


@pytest.mark.nightly
async def test_ask_prints_both_answers(example, capsys):
    await example("ask").main()
    one, vote = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"one chain: Paris \(\d+ tokens\)", one)
    assert re.fullmatch(r"vote: .+, confidence (0\.\d+|1\.0), stopped: (budget|done)", vote)


async def test_own_strategy_answers_and_reports_the_entropy(example, capsys):
    await example("own_strategy").main()
    (message,) = capsys.readouterr().out.splitlines()
    payload = re.fullmatch(r".+  \(\{'first_token_entropy': (\S+)\}, (\d+) tokens\)", message)
    assert payload is not None
    assert 0 <= float(payload[1]) < 11  # of a vocabulary of 49152: at most ln 49152
    assert 0 < int(payload[2]) <= 4 * 48


@pytest.mark.nightly
async def test_vote_is_streamed_bounded_verified_and_replayed(example, home, capsys):
    await example("streamed_and_verified").main()
    message = capsys.readouterr().out.splitlines()
    store = await SqliteStore.open(home / "runs.sqlite3")
    (listed,) = await store.list_runs()
    record = await store.get_run(listed.id)
    events = await store.list_events(record.id)
    await store.aclose()
    (spent,) = [e for e in events if isinstance(e, BudgetExhausted)]
    (verified,) = [e for e in events if isinstance(e, VerificationFinished)]
    claims = verified.verification.claims
    assert claims
    # four chains of at most 64 tokens want 256: the budget of 160 ends them; how much is left to chains that are still
    # being generated then depends on their order
    assert (spent.kind, spent.limit) == ("tokens", 160)
    assert spent.used <= 160
    # which chains have come to an answer by then is the model's affair, and differs from processor to processor
    payload = [line[:15] for line in message if line.startswith("chain ")]
    assert 1 <= len(payload) == len(set(payload))
    assert set(payload) <= {f"chain {i} answers" for i in (1, 2, 3, 4)}
    assert f"budget exhausted: {spent.used:g} of 160 tokens" in message
    assert [line for line in message if line.startswith(("supported: ", "refuted: ", "not_enough_evidence: "))] == [
        f"{c.verdict}: {c.text} {[span.text for span in c.evidence]}" for c in claims
    ]
    # a chain that ends early leaves its share of the budget unused
    answer, tokens = record.answer["answer"], record.answer["usage"]["completion_tokens"]
    assert spent.used <= tokens <= 160
    assert message[-3] == f"answer: {answer} ({verified.verification.verdict}), {tokens} tokens, stopped: budget"
    assert message[-2] == f"run {record.id} is finished, with {len(events)} events"
    assert message[-1] == f"replayed: {answer}, {tokens} tokens, all of them from the store"
