"""TruthfulQA MC1 and MC2 by log-probability: `reason` and lm-evaluation-harness on the same weights, prompt and rows.

    pip install '.[local,eval]' 'lm_eval[hf]'
    python benchmarks/truthfulqa_against_lm_eval.py --model DIRECTORY --data truthfulqa/dev.jsonl --threads 1

Both run in this process one after the other, in the same number format and with the same threads. lm-evaluation-harness
runs its own tasks `truthfulqa_mc1` and `truthfulqa_mc2` on its `hf` backend; only the location of the rows is changed.
Its time is that of `loglikelihood`, without task building and metrics; ours is from the question to the score, run
store included. Loading of models counts for neither. Markdown goes to standard output.

A long run can be split: `--rows 0:40 --part a.json`, `--rows 40:80 --part b.json`; `--merge a.json b.json`. `--memo`
lets lm-evaluation-harness score a choice of both tasks once (its own `use_cache`): only to compare scores, since
seconds are then left out of the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reporting import processor

TASKS = ("mc1", "mc2")


def main() -> None:
    """Run, merge or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="directory of the weights")
    parser.add_argument("--data", type=Path, help="rows of TruthfulQA as JSON lines")
    parser.add_argument("--rows", default=":", help="which rows, as A:B")
    parser.add_argument("--format", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="batch size of lm-evaluation-harness (its default is 1)")
    parser.add_argument("--concurrency", type=int, default=8, help="questions in flight in reason")
    parser.add_argument("--part", type=Path, help="write what was measured there instead of the table")
    parser.add_argument("--memo", action="store_true", help="lm-evaluation-harness scores what both tasks have once")
    parser.add_argument("--merge", type=Path, nargs="+", help="print the table of these parts; nothing is run")
    args = parser.parse_args()
    if args.merge:
        print(table([json.loads(p.read_text()) for p in args.merge]))
        return
    if not args.model or not args.data:
        parser.error("--model and --data are needed")
    part = measure(args)
    if args.part:
        args.part.write_text(json.dumps(part))
    else:
        print(table([part]))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run both on the rows."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS=str(args.threads))
    import torch

    torch.set_num_threads(args.threads)
    begin, end = (int(x) if x else None for x in args.rows.split(":"))
    lines = args.data.read_text(encoding="utf-8").splitlines()[begin:end]
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        (here / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        ours = asyncio.run(run_reason(args, here))
        theirs = run_lm_eval(args, [json.loads(line) for line in lines], here)
    return {
        "setting": {
            "model": args.model.name,
            "format": args.format,
            "threads": args.threads,
            "batch": args.batch,
            "concurrency": args.concurrency,
            "data": f"{args.data.parent.name}/{args.data.name}",
            "processor": processor(),
            "versions": {p: version(p) for p in ("torch", "transformers", "lm_eval", "reason-orchestrator")},
        },
        "memo": args.memo,
        "ours": ours,
        "theirs": theirs,
    }


async def run_reason(args: argparse.Namespace, here: Path) -> dict[str, Any]:
    """Our numbers: per task the seconds, and per item the score and each choice's log-probability."""
    from reason.agents.reasoner import Reasoner
    from reason.core.settings import LocalSettings, load_settings
    from reason.evals.datasets.loading import load_dataset
    from reason.evals.scoring import Scorer

    settings = load_settings(
        model=f"local/{args.model.resolve()}",
        store=here / "runs.sqlite3",
        local=LocalSettings(weight_format=args.format, threads=args.threads),
    )
    results: dict[str, Any] = {}
    async with (
        Reasoner(strategy="logprob", parameters={"prompt": "truthfulqa"}, settings=settings, seed=0) as reasoner,
        Scorer() as scorer,
    ):
        # opens the model; with another prompt, so that the six examples are not in its cache yet
        opening = await reasoner.variant(parameters={"prompt": "qa"})
        await opening.aask("Is it open?", choices=("yes", "no"))
        for task in TASKS:
            dataset = load_dataset(f"truthfulqa:{task}", data=here / "rows.jsonl")
            gate = asyncio.Semaphore(args.concurrency)

            async def ask(item: Any, gate: asyncio.Semaphore = gate) -> tuple[str, dict[str, Any]]:
                async with gate:
                    answer = await reasoner.aask(item.question)
                    score = await scorer.score(item, answer)
                logprobs = {c.text: c.logprob for c in answer.candidates}
                return item.id, {"score": score.value, "logprobs": logprobs}

            started, cpu = time.perf_counter(), time.process_time()
            items = dict(await asyncio.gather(*(ask(item) for item in dataset.items)))
            seconds = {"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu}
            results[task] = {"seconds": seconds, "items": items}
    return results


def run_lm_eval(args: argparse.Namespace, rows: list[dict[str, Any]], here: Path) -> dict[str, Any]:
    """Their numbers in the same shape."""
    os.environ["HF_DATASETS_CACHE"] = str(here / "cache")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    (here / "hub.jsonl").write_text("".join(json.dumps(as_on_the_hub(row)) + "\n" for row in rows), encoding="utf-8")
    stock = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa"
    for task in TASKS:
        (here / f"{task}.yaml").write_text(
            f"include: {stock}/truthfulqa_{task}.yaml\ntask: truthfulqa_{task}_local\ndataset_path: json\n"
            f"dataset_name: null\ndataset_kwargs:\n  data_files:\n    validation: {here}/hub.jsonl\n"
        )
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[args.format]
    model = HFLM(pretrained=str(args.model), device="cpu", dtype=dtype, batch_size=args.batch)
    seconds: list[dict[str, float]] = []
    model.loglikelihood = timed(model.loglikelihood, seconds)  # type: ignore[method-assign]
    manager = TaskManager(include_path=str(here))
    results: dict[str, Any] = {}
    for task in TASKS:
        name = f"truthfulqa_{task}_local"
        result = lm_eval.simple_evaluate(
            model=model,
            tasks=[name],
            task_manager=manager,
            num_fewshot=0,
            log_samples=True,
            bootstrap_iters=0,
            use_cache=str(here / "replies") if args.memo else None,
        )
        assert result is not None
        items = {}
        for sample in result["samples"][name]:
            doc = sample["doc"]
            logprobs = [float(r[0]) for r in sample["filtered_resps"]]
            texts = doc[f"{task}_targets"]["choices"]
            items[doc["id"]] = {"score": float(sample["acc"]), "logprobs": dict(zip(texts, logprobs, strict=True))}
        took = seconds[-1] if seconds else {"wall": 0.0, "cpu": 0.0}
        results[task] = {"seconds": took, "items": items, "printed": result["results"][name]["acc,none"]}
    return results


def timed(work: Callable[..., Any], seconds: list[dict[str, float]]) -> Callable[..., Any]:
    """The same, noting how long each call took."""

    def call(*args: Any, **options: Any) -> Any:
        started, cpu = time.perf_counter(), time.process_time()
        try:
            return work(*args, **options)
        finally:
            seconds.append({"wall": time.perf_counter() - started, "cpu": time.process_time() - cpu})

    return call


def as_on_the_hub(row: dict[str, Any]) -> dict[str, Any]:
    """A row in the hub's shape: the right choices first, which the task `truthfulqa_mc1` takes for granted."""
    shaped = {"id": row["id"], "question": row["question"]}
    for task in TASKS:
        pairs = sorted(zip(row[task]["labels"], row[task]["choices"], strict=True), key=lambda pair: -pair[0])
        shaped[f"{task}_targets"] = {"choices": [c for _, c in pairs], "labels": [label for label, _ in pairs]}
    return shaped


def table(parts: list[dict[str, Any]]) -> str:
    """Markdown over all parts."""
    setting = parts[0]["setting"]
    if any(p["setting"] != setting for p in parts):
        sys.exit("the parts were made under different settings")
    rows = {task: [p["ours"][task]["items"] for p in parts] for task in TASKS}
    lines = [
        f"{setting['model']} on {sum(map(len, rows['mc1']))} rows of {setting['data']}, {setting['format']}, "
        f"{setting['threads']} thread(s), {setting['processor']}, in {len(parts)} part(s); lm-evaluation-harness with "
        f"batches of {setting['batch']}, reason with {setting['concurrency']} questions at once; "
        + ", ".join(f"{p} {v}" for p, v in setting["versions"].items()),
        "",
        "| | choices | reason | lm-evaluation-harness | items that differ | largest difference of an item | largest "
        "difference of a log-probability (nats) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    timed_parts = [p for p in parts if not p.get("memo")]
    timed_rows = sum(len(p["ours"]["mc1"]["items"]) for p in timed_parts)
    head = f"| seconds, {timed_rows} rows | reason | lm-evaluation-harness | ratio |"
    times = ["", head, "| --- | --- | --- | --- |"]
    differing: list[str] = []
    spent = {kind: [0.0, 0.0] for kind in ("wall", "cpu")}
    for task in TASKS:
        ours = {k: v for items in rows[task] for k, v in items.items()}
        theirs = {k: v for p in parts for k, v in p["theirs"][task]["items"].items()}
        if ours.keys() != theirs.keys():
            sys.exit("the two did not score the same rows")
        gaps = {i: abs(ours[i]["score"] - theirs[i]["score"]) for i in ours}
        off = [i for i, gap in gaps.items() if gap > (0.0 if task == "mc1" else 1e-4)]
        nats = max(abs(ours[i]["logprobs"][c] - logprob) for i in ours for c, logprob in theirs[i]["logprobs"].items())
        means = [sum(v["score"] for v in side.values()) / len(side) for side in (ours, theirs)]
        lines.append(
            f"| {task.upper()} | {sum(len(v['logprobs']) for v in ours.values())} | {means[0]:.6f} | {means[1]:.6f} | "
            f"{len(off)} | {max(gaps.values()):.1e} | {nats:.1e} |"
        )
        differing += [f"- {task.upper()} {i}: {describe_difference(ours[i], theirs[i])}" for i in off]
        for kind, total in spent.items():
            both = [sum(p[side][task]["seconds"][kind] for p in timed_parts) for side in ("ours", "theirs")]
            spent[kind] = [a + b for a, b in zip(total, both, strict=True)]
            times.append(timing(f"{task.upper()}, {kind}", both))
    times += [timing(f"both, {kind}", total) for kind, total in spent.items()]
    lines += [*times, "", "Items that differ (MC1: at all; MC2: by more than 1e-4):", "", *(differing or ["- none"])]
    return "\n".join(lines)


def timing(name: str, both: list[float]) -> str:
    """A row of seconds."""
    ratio = f"{both[1] / both[0]:.1f}" if both[0] else "not timed"
    return f"| {name} | {both[0]:.1f} | {both[1]:.1f} | {ratio} |"


def describe_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Why an item differs: both scores, and the two choices that lead on either side."""
    best = [sorted(side["logprobs"].items(), key=lambda pair: -pair[1])[:2] for side in (ours, theirs)]
    margins = [pair[0][1] - pair[1][1] for pair in best]
    return (
        f"{ours['score']:.4f} and {theirs['score']:.4f}; the likeliest choice leads by {margins[0]:.4f} and "
        f"{margins[1]:.4f} nats"
    )


if __name__ == "__main__":
    main()
