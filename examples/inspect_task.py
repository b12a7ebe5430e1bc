"""A strategy of `reason` as the solver of an Inspect task, with Inspect's dataset, scorer and log around it.

    inspect eval examples/inspect_task.py --model none
    inspect eval examples/inspect_task.py --model none -T strategy=cot
    inspect eval examples/inspect_task.py --model none --solver reason/best-of-n -S n=4

The strategy calls its own model, hence `--model none`. The metadata of a sample has, under "reason", the extracted
answer, its confidence, the candidates, the usage, and the ID of the run in the run store.
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
    """Whether the extracted answer, not only a word of the text, equals the target."""

    async def score(state: TaskState, target: Target) -> Score:
        result = state.metadata["reason"]
        right = result["answer"] is not None and result["answer"].casefold() == target.text.casefold()
        return Score(
            value=CORRECT if right else INCORRECT, answer=result["answer"], explanation=f"run {result['run_id']}"
        )

    return score


@task
def capitals(strategy: str = "self-consistency", n: int = 4, tokens: int = 400) -> Task:
    """Three capitals; each sample is one run with a budget of `tokens` generated tokens."""
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
