"""The contestants of `engine.py`, each in a process of its own that reads jobs as JSON lines and answers with seconds.

    python benchmarks/engine_workers.py CONTESTANT MODEL_DIRECTORY THREADS

A contestant is `reason FORMAT`, `transformers FORMAT`, `llama.cpp FILE.gguf` or `vllm bf16`. It imports nothing of the
others, so that each can run under an interpreter that has its packages. All decode greedily, and none turns tokens
into text.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

Window = tuple[int, int]
"""First and last of the decoding steps that are timed, counted from 1."""
Moment = tuple[float, float]
"""Wall clock and processor seconds of this process."""

MAX_SEQUENCES = 64
MAX_CONTEXT = 4608
DEPTH, KEEP, WIDTH, STEP_TOKENS, TEMPERATURE = 6, 2, 4, 40, 0.7
"""The beam search: depth, beams kept, samples of a beam, tokens a step."""


class Contestant(Protocol):
    """One engine with one model."""

    def decode(self, prompt: list[int], sequences: int, tokens: int) -> list[Moment]:
        """Decode `tokens` tokens of each of `sequences` samples of a prompt; the moment after each step."""

    def prefill(self, prompt: list[int]) -> None:
        """Compute the distribution after a prompt of which nothing is cached."""

    def search(self, prompt: list[int]) -> None:
        """A beam search; NotImplementedError where the engine offers no way."""


def now() -> Moment:
    """This moment."""
    return time.perf_counter(), time.process_time()


class Reason:
    """The embedded engine, through its public interface; steps are timed where its thread runs them."""

    def __init__(self, directory: Path, weight_format: str, threads: int) -> None:
        import asyncio

        from reason.core.settings import load_settings
        from reason.serving.local.engine import LocalModel
        from reason.serving.model_files.find import find_model

        self._loop = asyncio.new_event_loop()
        self._model: Any = LocalModel.load(
            find_model(f"local/{directory}", cache_dir=load_settings().cache_dir),
            weight_format=weight_format,  # type: ignore[arg-type]
            threads=threads,
            max_num_seqs=MAX_SEQUENCES,
            kv_cache_bytes=2 << 30,
            speculative_decoding="off",  # no contestant drafts
        )
        scheduler = self._model._scheduler
        step = scheduler.step
        self._steps: list[tuple[int, Moment]] = []

        def timed_step() -> Any:
            stats = step()
            self._steps.append((stats.decoded, now()))
            return stats

        scheduler.step = timed_step

    def decode(self, prompt: list[int], sequences: int, tokens: int) -> list[Moment]:
        self._evict()
        self._steps.clear()
        self._generate([prompt], sequences, tokens + 1, temperature=0)  # the first token needs no step
        return [moment for decoded, moment in self._steps if decoded == sequences]

    def prefill(self, prompt: list[int]) -> None:
        self._evict()
        self._loop.run_until_complete(self._model.next_token([self._prompt(prompt)]))

    def search(self, prompt: list[int]) -> None:
        self._evict()
        beams = [(0.0, prompt)]
        for depth in range(DEPTH):
            options = {"temperature": TEMPERATURE, "seed": depth}
            results = self._generate([ids for _, ids in beams], WIDTH, STEP_TOKENS, **options)
            grown = [
                (score + (c.logprob or 0.0), [*ids, *c.token_ids])
                for (score, ids), completions in zip(beams, results, strict=True)
                for c in completions
            ]
            beams = sorted(grown, key=lambda b: -b[0])[:KEEP]

    def _generate(self, prompts: Sequence[list[int]], samples: int, tokens: int, **options: Any) -> Any:
        from reason.core.messages import Request, SamplingParams

        sampling = SamplingParams(max_tokens=tokens, n=samples, ignore_eos=True, **options)
        requests = [Request(prompt=self._prompt(ids), sampling=sampling) for ids in prompts]
        return self._loop.run_until_complete(self._model.generate(requests))

    def _prompt(self, ids: list[int]) -> Any:
        """A prompt of as many tokens: one character's token, then the rest as prefix."""
        from reason.core.messages import Prompt

        return Prompt(text="a", prefix=tuple(ids[1:]))

    def _evict(self) -> None:
        self._model._scheduler.prefix_cache.evict_idle()


class Transformers:
    """transformers' `generate`; samples of a prompt are rows of a batch."""

    def __init__(self, directory: Path, weight_format: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        dtype = torch.float32 if weight_format == "fp32" else torch.bfloat16
        self._model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()

    def decode(self, prompt: list[int], sequences: int, tokens: int) -> list[Moment]:
        import torch

        moments: list[Moment] = []

        def note(_ids: Any, scores: Any) -> Any:
            moments.append(now())
            return scores

        self._generate(torch.tensor([prompt] * sequences), tokens + 1, do_sample=False, logits_processor=[note])
        return moments[1:]  # the first token comes from the prompt

    def prefill(self, prompt: list[int]) -> None:
        import torch

        with torch.inference_mode():
            self._model(torch.tensor([prompt]), logits_to_keep=1)

    def search(self, prompt: list[int]) -> None:
        """The beams are prefilled again at every step: `generate` keeps nothing between calls."""
        import torch

        beams = [(0.0, torch.tensor(prompt))]
        for _ in range(DEPTH):
            out = self._generate(
                torch.stack([ids for _, ids in beams]),
                STEP_TOKENS,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                top_p=1.0,
                num_return_sequences=WIDTH,
                return_dict_in_generate=True,
                output_scores=True,
            )
            gained = self._model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True).sum(-1)
            before = [score for score, _ in beams for _ in range(WIDTH)]
            grown = [(b + g, s) for b, g, s in zip(before, gained.tolist(), out.sequences, strict=True)]
            beams = sorted(grown, key=lambda b: -b[0])[:KEEP]

    def _generate(self, batch: Any, tokens: int, **options: Any) -> Any:
        import torch

        return self._model.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=0,
            **options,
        )


class LlamaCpp:
    """llama.cpp, through the low-level interface of its Python package."""

    def __init__(self, gguf: Path, threads: int) -> None:
        from llama_cpp import llama_cpp

        self._lib: Any = llama_cpp
        self._threads = threads
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(silent, None)
        self._silent = silent
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load {gguf}")
        self._num_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def decode(self, prompt: list[int], sequences: int, tokens: int) -> list[Moment]:
        lib = self._lib
        context = self._context(sequences, len(prompt) + tokens + 8)
        memory = lib.llama_get_memory(context)
        next_ids = self._decode(context, [(token, i, [0]) for i, token in enumerate(prompt)], [len(prompt) - 1])
        for sequence in range(1, sequences):
            lib.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
        next_ids *= sequences
        moments: list[Moment] = []
        for position in range(len(prompt), len(prompt) + tokens):
            batch = [(next_ids[s], position, [s]) for s in range(sequences)]
            next_ids = self._decode(context, batch, range(sequences))
            moments.append(now())
        lib.llama_free(context)
        return moments

    def prefill(self, prompt: list[int]) -> None:
        context = self._context(1, len(prompt) + 8)
        self._decode(context, [(token, i, [0]) for i, token in enumerate(prompt)], [len(prompt) - 1])
        self._lib.llama_free(context)

    def search(self, prompt: list[int]) -> None:
        raise NotImplementedError

    def _context(self, sequences: int, tokens: int) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_ctx = sequences * (-(-tokens // 256) * 256)
        params.n_batch = max(tokens, sequences)
        params.n_ubatch = 512
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = self._threads
        params.kv_unified = False  # each sequence reads its own slots only
        params.no_perf = True
        context = self._lib.llama_init_from_model(self._model, params)
        if not context:
            raise SystemExit(f"llama.cpp refuses a context of {sequences} sequences of {tokens} tokens")
        return context

    def _decode(self, context: Any, tokens: list[tuple[int, int, list[int]]], outputs: Sequence[int]) -> list[int]:
        """Run a batch of (token, position, sequences); the most likely next tokens of the outputs."""
        import numpy as np

        lib = self._lib
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        wanted = set(outputs)
        for i, (token, position, sequences) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0] = sequences[0]
            batch.logits[i] = i in wanted
        if lib.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
        best = []
        for i in outputs:
            logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), shape=(self._num_vocab,))
            best.append(int(logits.argmax()))
        lib.llama_batch_free(batch)
        return best


class Vllm:
    """vLLM for CPUs, its engine core in this process."""

    def __init__(self, directory: Path, threads: int) -> None:
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "2"
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        from vllm import LLM

        model = LLM(
            str(directory),
            dtype="bfloat16",
            max_model_len=MAX_CONTEXT,
            max_num_seqs=MAX_SEQUENCES,
            enable_prefix_caching=True,
            skip_tokenizer_init=True,
        )
        self._engine: Any = model.llm_engine
        self._count = 0

    def decode(self, prompt: list[int], sequences: int, tokens: int) -> list[Moment]:
        # The prompt first, by itself: the samples then find it in the prefix cache.
        self._add(prompt, 1)
        self._run()
        for _ in range(sequences):
            self._add(prompt, tokens + 2)
        moments = self._run()
        return moments[-(tokens + 1) :][:tokens]

    def prefill(self, prompt: list[int]) -> None:
        self._add(prompt, 1)
        self._run()

    def search(self, prompt: list[int]) -> None:
        raise NotImplementedError

    def _add(self, prompt: list[int], tokens: int) -> None:
        from vllm import SamplingParams

        self._count += 1
        sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        self._engine.add_request(str(self._count), {"prompt_token_ids": prompt}, sampling)

    def _run(self) -> list[Moment]:
        moments = []
        while self._engine.has_unfinished_requests():
            self._engine.step()
            moments.append(now())
        return moments


def load(contestant: str, directory: Path, threads: int) -> Contestant:
    """The contestant, loaded."""
    name, _, rest = contestant.partition(" ")
    if name == "reason":
        return Reason(directory, rest, threads)
    if name == "transformers":
        return Transformers(directory, rest, threads)
    if name == "llama.cpp":
        return LlamaCpp(Path(rest), threads)
    return Vllm(directory, threads)


def seconds(work: Callable[[], object]) -> Moment:
    """Wall and processor seconds of a piece of work."""
    start = now()
    work()
    end = now()
    return end[0] - start[0], end[1] - start[1]


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids of no meaning, the same for every contestant."""
    import random

    generator = random.Random(seed)
    return [generator.randrange(100, 20_000) for _ in range(count)]


def run_job(contestant: Contestant, job: dict[str, Any]) -> Any:
    """Seconds: of each window a step (`decode`), or of all (`prefill`, `search`)."""
    prompt = random_ids(job["prompt_tokens"], job["seed"])
    if job["kind"] == "decode":
        windows: list[Window] = job["windows"]
        moments = contestant.decode(prompt, job["sequences"], windows[-1][1])
        return [
            [(moments[last - 1][i] - moments[first - 1][i]) / (last - first) for i in (0, 1)] for first, last in windows
        ]
    if job["kind"] == "prefill":
        return seconds(lambda: contestant.prefill(prompt))
    return seconds(lambda: contestant.search(prompt))


def peak_mib() -> int:
    """Peak resident memory of this process, in MiB."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM:")]
    return int(line.split()[1]) // 1024


def main() -> None:
    """Load, then answer jobs until the input ends."""
    contestant, directory, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    loaded = load(contestant, directory, threads)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        result = peak_mib() if job["kind"] == "memory" else run_job(loaded, job)
        print(json.dumps(result), file=answers, flush=True)
    os._exit(0)  # some engines take long to end, or print


if __name__ == "__main__":
    main()
