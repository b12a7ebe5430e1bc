"""The main features of the SDK: a vote under a budget with streamed events, verification, and replay.

    python examples/streamed_and_verified.py

Four chains vote on the answer under a budget of 160 generated tokens. The verifier `davinci` then checks the answer
against a document. At the end the run is loaded from the store and replayed without a model. Needs the extra `[local]`.
"""

from __future__ import annotations

import asyncio

from reason import Document, Reasoner
from reason.core.events import BudgetExhausted, CandidateAdded, Event, VerificationFinished, VoteUpdated

QUESTION = "What is the capital of France?"
NOTES = Document(name="notes", text="Paris is the capital and largest city of France. It lies on the river Seine.")


def print_event(event: Event) -> None:
    """Print the main events; a sink must be quick, since the run waits for it."""
    match event:
        case CandidateAdded(index=index, answer=answer):
            print(f"chain {index + 1} answers {answer}")
        case VoteUpdated(votes=votes, total=total):
            print(f"votes of {total} chains: {votes}")
        case BudgetExhausted(kind=kind, used=used, limit=limit):
            print(f"budget exhausted: {used:g} of {limit:g} {kind}")
        case VerificationFinished(verification=verification):
            for claim in verification.claims:
                print(f"{claim.verdict}: {claim.text} {[span.text for span in claim.evidence]}")


async def main() -> None:
    """Answer the question, then replay the run."""
    async with Reasoner(
        strategy="self-consistency",
        parameters={"n": 4, "max_tokens": 64},
        budget={"tokens": 160},
        verify=["davinci"],
        repairs=0,  # an answer that fails verification is not repaired
        seed=1,
    ) as reasoner:
        answer = await reasoner.aask(QUESTION, documents=[NOTES], sinks=[print_event])
        verdict = answer.verification.verdict if answer.verification else "unchecked"
        print(
            f"answer: {answer.answer} ({verdict}), {answer.usage.completion_tokens} tokens, stopped: {answer.stopped}"
        )

        store = await reasoner.open_store()
        record = await store.get_run(answer.run_id)
        print(f"run {record.id} is {record.status}, with {len(await store.list_events(record.id))} events")

        again = await reasoner.areplay(record.id)
        print(f"replayed: {again.answer}, {again.usage.replayed_tokens} tokens, all of them from the store")


if __name__ == "__main__":
    asyncio.run(main())
