"""Answer a question with one chain of the default model, then by a vote of several chains under a token budget.

    python examples/ask.py

The models are loaded at the first question and closed at the end of the block. Needs the extra `[local]`.
"""

from __future__ import annotations

import asyncio

from reason import Reasoner


async def main() -> None:
    """Ask the question twice."""
    question = "What is the capital of France?"
    async with Reasoner(parameters={"max_tokens": 128}, seed=1) as reasoner:
        answer = await reasoner.aask(question)
        print(f"one chain: {answer.answer} ({answer.usage.completion_tokens} tokens)")

    async with Reasoner(
        strategy="self-consistency", parameters={"n": 4, "max_tokens": 128}, budget={"tokens": 400}, seed=1
    ) as reasoner:
        answer = await reasoner.aask(question)
        print(f"vote: {answer.answer}, confidence {answer.confidence}, stopped: {answer.stopped}")


if __name__ == "__main__":
    asyncio.run(main())
