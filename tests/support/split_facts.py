"""Facts that stand on one worker's page alone, and what the other worker writes when it is asked for them."""

from __future__ import annotations

from reason.core.messages import Prompt
from reason.serving.worker_group import GroupStep, Layout, SupportsWorkers, WorkerGroupConfig, WorkerInput

FACTS = (
    ("The vault of the bank opens with the number", "7391"),
    ("The captain of the ship Marigold is called", "Zelinka"),
    ("The red boat left the harbour at", "17:43"),
)
"""The beginning of a sentence, and its end, which nobody could guess."""

OTHERS, OWN = "\n\nNotes of the other:\n", "\n\nNotes of mine:\n"
HEADERS: dict[Layout, dict[str, str]] = {
    "combined": {"others": OTHERS, "own": OWN},
    "contiguous": {"own": OWN},
    "interleaved": {},
}


async def written_by_a(model: SupportsWorkers, layout: Layout, page_of_b: str, beginning: str) -> str:
    """How worker A goes on with a beginning, while page B lies beside it and is never moved."""
    opening = WorkerGroupConfig(
        prompt=Prompt(text="Two people write down what they know."), layout=layout, temperature=0, **HEADERS[layout]
    )
    group = await model.start_workers(opening)
    try:
        await group.advance(GroupStep(feeds=(WorkerInput(text="I write: "), WorkerInput(text=page_of_b))))
        text, reads = "", WorkerInput(text=beginning)
        for _ in range(7):
            drawn, _ = await group.advance(GroupStep(feeds=(reads, None)))
            assert drawn is not None
            text, reads = text + drawn.text, WorkerInput(token=drawn.token)
        return text
    finally:
        await group.aclose()


async def quotes(model: SupportsWorkers, layout: Layout) -> dict[str, tuple[bool, bool]]:
    """For each fact: whether A writes it while it stands on B's page, and while something else stands there."""
    found = {}
    for beginning, end in FACTS:
        seen = await written_by_a(model, layout, f"{beginning} {end}.", beginning)
        unseen = await written_by_a(model, layout, "The weather is fine today.", beginning)
        found[end] = (end in seen, end in unseen)
    return found
