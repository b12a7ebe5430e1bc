"""The SDK in one piece: a vote under a budget, told as it happens, verified, and found again in the run store.

    python examples/streamed_and_verified.py

Four chains vote on the answer, and together they generate 160 tokens at most. The verifier `davinci` then holds the
text of the answer against a document. At the end the run is looked up in the store and taken through its strategy
again, this time without a model. Needs the extra `[local]`.
"""

from __future__ import annotations

import asyncio

from reason import Document, Reasoner
from reason.core.events import BudgetExhausted, CandidateFound, EventFields, Verified, VoteUpdated

QUESTION = "What is the capital of France?"
NOTES = Document(name="notes", text="Paris is the capital and largest city of France. It lies on the river Seine.")


def tell(event: EventFields) -> None:
    """Print what happens while it happens, as far as a reader cares; a sink must be quick, since the run waits."""
    match event:
        case CandidateFound(index=index, answer=answer):
            print(f"chain {index + 1} answers {answer}")
        case VoteUpdated(votes=votes, total=total):
            print(f"votes of {total} chains: {votes}")
        case BudgetExhausted(kind=kind, used=used, limit=limit):
            print(f"the budget is spent: {used:g} of {limit:g} {kind}")
        case Verified(verification=verification):
            for claim in verification.claims:
                print(f"{claim.verdict}: {claim.text} {[span.text for span in claim.evidence]}")


async def main() -> None:
    """Ask, then look the run up."""
    async with Reasoner(
        strategy="self-consistency",
        parameters={"n": 4, "max_tokens": 64},
        budget={"tokens": 160},
        verify=["davinci"],
        repairs=0,  # an answer that does not pass is told as it is, instead of being asked for once more
        seed=1,
    ) as reasoner:
        answer = await reasoner.aask(QUESTION, documents=[NOTES], sinks=[tell])
        verdict = answer.verification.verdict if answer.verification else "unchecked"
        print(
            f"answer: {answer.answer} ({verdict}), {answer.usage.completion_tokens} tokens, stopped: {answer.stopped}"
        )

        store = await reasoner.open_store()
        record = await store.get_run(answer.run_id)
        print(f"run {record.id} is {record.status}, with {len(await store.events(record.id))} events")

        again = await reasoner.areplay(record.id)
        print(f"replayed: {again.answer}, {again.usage.replayed_tokens} tokens, all of them from the store")


if __name__ == "__main__":
    asyncio.run(main())
