"""A strategy of `reason` as the solver of an Inspect task, with Inspect's dataset, scorer and log around it.

    inspect eval examples/inspect_task.py --model none
    inspect eval examples/inspect_task.py --model none -T strategy=cot
    inspect eval examples/inspect_task.py --model none --solver reason/best-of-n -S n=4

The strategy asks its own model, hence `--model none`. Whatever it did for a sample is in the sample's metadata under
"reason": the extracted answer, its confidence, the candidates, what it cost, and the name of the run in the run store.
Every strategy is registered with Inspect as `reason/<strategy>`. Needs the extras `[local,inspect]`.
"""

from __future__ import annotations

from inspect_ai import Task, eval, task  # noqa: A004
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState
from reason.evals.inspect_solvers import strategy_solver

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}


@scorer(metrics=[accuracy(), stderr()])
def extracted() -> Scorer:
    """Whether the answer that the strategy extracted, and not just any word of its text, is the target."""

    async def score(state: TaskState, target: Target) -> Score:
        found = state.metadata["reason"]
        right = found["answer"] is not None and found["answer"].casefold() == target.text.casefold()
        return Score(
            value=CORRECT if right else INCORRECT, answer=found["answer"], explanation=f"run {found['run_id']}"
        )

    return score


@task
def capitals(strategy: str = "self-consistency", n: int = 4, tokens: int = 400) -> Task:
    """Three capitals; each sample is one run under a budget of `tokens` generated tokens."""
    chains = {} if strategy == "cot" else {"n": n}
    return Task(
        dataset=[
            Sample(id=country, input=f"What is the capital of {country}? Answer with one word.", target=city)
            for country, city in CAPITALS.items()
        ],
        solver=strategy_solver(strategy, seed=1, parameters={"max_tokens": 64, **chains}, budget={"tokens": tokens}),
        scorer=extracted(),
    )


if __name__ == "__main__":
    (log,) = eval(capitals(), model="none/none")
    print(log.status, log.location)
