"""Facts that are only on one worker's page, and what the other worker writes about them."""

from __future__ import annotations

from collections.abc import Sequence

from reason.core.messages import Prompt
from reason.serving.worker_group import GroupStep, Layout, SupportsWorkers, WorkerGroupConfig, WorkerInput

FACTS = (
    ("The vault of the bank opens with the number", "7391"),
    ("The captain of the ship Marigold is called", "Zelinka"),
    ("The red boat left the harbour at", "17:43"),
)
"""The start of a sentence, and its unpredictable end."""

OTHERS, OWN = "\n\nNotes of the other:\n", "\n\nNotes of mine:\n"
HEADERS: dict[Layout, dict[str, str]] = {
    "combined": {"others_header": OTHERS, "own_header": OWN},
    "contiguous": {"own_header": OWN},
    "interleaved": {},
}


async def written_by_a(model: SupportsWorkers, layout: Layout, page_of_b: str, start: str) -> str:
    """How worker A continues a sentence while it sees page B, which is never moved."""
    config = WorkerGroupConfig(
        prompt=Prompt(text="Two people write down what they know."), layout=layout, temperature=0, **HEADERS[layout]
    )
    group = await model.start_workers(config)
    try:
        await group.advance(GroupStep(inputs=(WorkerInput(text="I write: "), WorkerInput(text=page_of_b))))
        text, reads = "", WorkerInput(text=start)
        for _ in range(7):
            sampled, _ = await group.advance(GroupStep(inputs=(reads, None)))
            assert sampled is not None
            text, reads = text + sampled.text, WorkerInput(token=sampled.token)
        return text
    finally:
        await group.aclose()


async def quotes(
    model: SupportsWorkers, layout: Layout, facts: Sequence[tuple[str, str]] = FACTS
) -> list[tuple[bool, bool]]:
    """For each fact: whether A writes it while it is on B's page, and while something else is there."""
    results = []
    for start, end in facts:
        seen = await written_by_a(model, layout, f"{start} {end}.", start)
        unseen = await written_by_a(model, layout, "The weather is fine today.", start)
        results.append((end in seen, end in unseen))
    return results
