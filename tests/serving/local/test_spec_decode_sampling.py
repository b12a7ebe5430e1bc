"""Verification of draft tokens, on a model that is a table: texts are those without drafts, in no more passes.

The table's keys are the tokens themselves, so what is read of a cache is what is in its slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from reason.core.messages import Chunk, Completion, Prompt, Request, SamplingParams
from reason.serving.local.attention import TokenChunk
from reason.serving.local.kv_cache import KVCache, SlotTable
from reason.serving.local.scheduler import Scheduler
from reason.serving.local.sequence import GenerateTask, RunningSequence
from reason.serving.local.spec_decode import DraftTree, NgramSpeculator
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.model_files.find import ModelFiles
from reason.serving.structured_output import SCHEMA, GrammarCompiler

VOCAB, END = 264, 2
WORDS = tuple(range(40, 45))
"""Tokens that have nearly all probability in the table, and END."""
PROMPT = (40, 41, 42)


class Table:
    """A `CausalLM` whose distribution follows from the last two tokens of a sequence."""

    slot_bytes, max_invariant_rows = 8, 128

    def __init__(self, ends: float = 0.0) -> None:
        generator = np.random.default_rng(11)
        self._table = generator.dirichlet([0.5] * len(WORDS), (VOCAB, VOCAB)) * (1 - ends)
        self._ends, self.passes = ends, 0

    def odds(self, text: Sequence[int]) -> dict[int, float]:
        """Probabilities after a text."""
        row = self._table[text[-2], text[-1]]
        return dict(zip(WORDS, row.tolist(), strict=True)) | {END: self._ends}

    def new_kv_cache(self, capacity: int) -> KVCache:
        """An empty cache."""
        return KVCache(1, 1, 1, torch.float32, capacity)

    def forward(self, chunks: Sequence[TokenChunk]) -> torch.Tensor:
        """Write the tokens and return the logits after them."""
        self.passes += 1
        rows: list[torch.Tensor] = []
        for chunk in chunks:
            slots = chunk.cache.allocate(len(chunk.token_ids))
            chunk.cache.kv[0][0, 0, slots.start : slots.stop, 0] = torch.tensor([float(i) for i in chunk.token_ids])
            known = tokens_of(chunk.cache, chunk.table)
            if chunk.parents is None:
                chunk.cache.append(chunk.table, slots)
                texts = [[*known, *chunk.token_ids[: i + 1]] for i in range(len(chunk.token_ids))]
            else:
                texts = []
                for token, parent in zip(chunk.token_ids, chunk.parents, strict=True):
                    texts.append([*(known if parent < 0 else texts[parent]), token])
            for place in chunk.logit_indices:
                row = torch.full((VOCAB,), -30.0)
                for token, chance in self.odds(texts[place]).items():
                    row[token] = math.log(max(chance, 1e-12))
                rows.append(row)
        return torch.stack(rows) if rows else torch.empty(0, VOCAB)


class Fixed(NgramSpeculator):
    """Drafts by a function of the sequence."""

    def __init__(self, guess: Callable[[RunningSequence], DraftTree]) -> None:
        super().__init__((), "on")
        self._guess = guess
        self.told: list[tuple[int, int]] = []

    def draft(self, sequences: Any, max_invariant: Sequence[int]) -> list[DraftTree]:
        """Drafts of the sequences that may have some."""
        return [self._guess(row) if row.max_draft_tokens > 1 else DraftTree() for row in sequences]

    def observe(self, rows: int, drafts: Sequence[DraftTree], accepted: int, seconds: float) -> None:
        """Keep what came of each step."""
        super().observe(rows, drafts, accepted, seconds)
        self.told.append((rows, accepted))


def tokens_of(cache: KVCache, table: SlotTable) -> list[int]:
    return [int(cache.kv[0][0, 0, c, 0]) for c in table.slots]


@pytest.fixture(scope="module")
def tokenizer(tiny_files: Callable[[str], ModelFiles]) -> Tokenizer:
    return Tokenizer(tiny_files("llama").directory, "table")


class SchedulerRun:
    """A scheduler on the table, and what came of its tasks."""

    def __init__(
        self, tokenizer: Tokenizer, guess: Callable[[RunningSequence], DraftTree] | None, ends: float = 0.0
    ) -> None:
        self.table, self._tokenizer = Table(ends), tokenizer
        self.look = NgramSpeculator((), "off") if guess is None else Fixed(guess)
        self.scheduler = Scheduler(self.table, 8 << 16, 16, self.look)
        self.made: dict[tuple[int, int], Completion] = {}
        self.heard: list[Chunk] = []

    def task(self, place: int = 0, hooks: Sequence[tuple[str, Any]] = (), **sampling: Any) -> GenerateTask:
        """A task, not yet started."""
        chosen = {"max_tokens": 20, "seed": 3, "ignore_eos": False} | sampling

        def tell(chunk: Chunk) -> None:
            self.heard.append(chunk)
            if chunk.completion is not None:
                self.made[chunk.request, chunk.sample_index] = chunk.completion

        def failed(error: Exception) -> None:
            raise error

        return GenerateTask(
            request=Request(prompt=Prompt(text="x"), sampling=SamplingParams(**chosen)),
            position=place,
            prompt_ids=PROMPT,
            eos=frozenset((END,)),
            processors=hooks,
            tokenizer=self._tokenizer,
            on_chunk=tell,
            on_error=failed,
        )

    def run(self, *tasks: GenerateTask) -> dict[tuple[int, int], Completion]:
        """Work to the end; afterwards no sequence is left in any log."""
        for task in tasks:
            self.scheduler.submit(task)
        while self.scheduler.has_work:
            self.scheduler.step()
        assert not [b for tree in self.scheduler.prefix_cache.trees for b in tree.cache.tables]
        return self.made


def knowing(texts: dict[tuple[int, int], Completion], wrong: int = 0) -> Callable[[RunningSequence], DraftTree]:
    """Drafts the complete rest of an earlier text, each token after as many wrong ones."""

    def guess(row: RunningSequence) -> DraftTree:
        rest = texts[row.task.position, row.index].token_ids[len(row.sampler.generated) :]
        tokens: list[int] = []
        parents: list[int] = []
        last = -1
        for token in rest[: row.max_draft_tokens - 1]:
            for other in [t for t in (*WORDS, END) if t != token][:wrong]:
                tokens.append(other)
                parents.append(last)
            tokens.append(token)
            parents.append(last)
            last = len(tokens) - 1
        return DraftTree(tuple(tokens), tuple(parents), (1.0,) * len(tokens))

    return guess


def fixed(row: RunningSequence) -> DraftTree:
    """Two levels of arbitrary draft tokens."""
    return DraftTree((40, 41, 42, 43, 40), (-1, -1, 0, 0, 1), (1.0,) * 5)


@pytest.mark.parametrize("guess", ["fixed", "knowing", "beside wrong ones"])
@pytest.mark.parametrize("ends", [0.0, 0.1])
def test_texts_are_plain_and_passes_are_no_more_than_tokens(tokenizer, guess, ends):
    requested = [
        {"n": 2, "temperature": 1.0},
        {"temperature": 0.0, "top_logprobs": 3},
        {"temperature": 1.0, "seed": 8, "stop": ("*+", "H")},
        {"temperature": 1.0, "seed": 9, "max_tokens": 1},
        {"temperature": 1.0, "seed": 9, "max_tokens": 2},
        {"temperature": 0.5, "seed": 9, "max_tokens": 3, "ignore_eos": True},
        {"temperature": 1.0, "seed": 12, "ignore_eos": True, "n": 2},
    ]
    plain = SchedulerRun(tokenizer, None, ends)
    expected = plain.run(*(plain.task(i, **sampling) for i, sampling in enumerate(requested)))
    counts = plain.look.counters
    emitted = sum(c.usage.completion_tokens - 1 for c in expected.values())
    assert (counts.passes, counts.tokens, counts.drafted) == (emitted, emitted, 0)
    ways = {"fixed": fixed, "knowing": knowing(expected), "beside wrong ones": knowing(expected, wrong=2)}
    ahead = SchedulerRun(tokenizer, ways[guess], ends)
    made = ahead.run(*(ahead.task(i, **sampling) for i, sampling in enumerate(requested)))
    assert {k: c.model_copy(update={"usage": expected[k].usage}) for k, c in made.items()} == expected
    counts = ahead.look.counters
    assert counts.tokens == emitted
    assert counts.passes + counts.accepted == emitted
    assert counts.passes <= emitted
    if guess != "fixed":
        # one step for everybody, and for the longest at most one more
        assert ahead.table.passes <= 3
    for key, completion in made.items():
        reported = [c for c in ahead.heard if (c.request, c.sample_index) == key]
        assert [t for c in reported for t in c.token_ids] == list(completion.token_ids)
        assert "".join(c.text for c in reported) == completion.text
        assert END not in completion.token_ids[:-1] or requested[key[0]].get("ignore_eos")


def test_a_logits_processor_that_fails_during_verification_ends_only_its_sample(tokenizer):
    def broken(row: Any, state: Any) -> Any:
        if len(state.generated_ids) == 4:
            raise ValueError("no more")
        return row

    def work(
        guess: Callable[[RunningSequence], DraftTree] | None,
    ) -> tuple[SchedulerRun, dict[tuple[int, int], Completion]]:
        harness = SchedulerRun(tokenizer, guess)
        return harness, harness.run(
            harness.task(0, [("broken", broken)], temperature=1.0), harness.task(1, temperature=1.0)
        )

    _, expected = work(None)
    complete = dict(expected)
    complete[0, 0] = expected[1, 0]  # with the same seed it would have gone on like its neighbour
    harness, made = work(knowing(complete))
    assert {k: c.model_copy(update={"usage": expected[k].usage}) for k, c in made.items()} == expected
    assert made[0, 0].failure is not None
    assert (len(made[0, 0].token_ids), made[0, 0].usage.completion_tokens) == (4, 4)
    assert harness.table.passes <= 3


def test_a_sample_cancelled_during_verification_leaves_nothing(tokenizer):
    plain = SchedulerRun(tokenizer, None)
    expected = plain.run(plain.task(0, temperature=1.0), plain.task(1, temperature=1.0, seed=4))
    harness = SchedulerRun(tokenizer, lambda row: knowing(expected)(row).cut(4))
    first = harness.task(0, temperature=1.0)
    tell = first.on_chunk

    def cancelling(chunk: Chunk) -> None:
        tell(chunk)
        first.cancelled = first.cancelled or sum(c.request == 0 for c in harness.heard) == 4

    first.on_chunk = cancelling
    made = harness.run(first, harness.task(1, temperature=1.0, seed=4))
    assert (0, 0) not in made
    assert made[1, 0].token_ids == expected[1, 0].token_ids
    for tree in harness.scheduler.prefix_cache.trees:
        for node in tree.nodes():
            assert int(tree.cache.kv[0][0, 0, node.slot, 0]) == node.token


def test_rejected_draft_tokens_are_not_stored(tokenizer):
    plain = SchedulerRun(tokenizer, None)
    expected = plain.run(plain.task(0, temperature=1.0, n=3))
    harness = SchedulerRun(tokenizer, lambda row: knowing(expected, wrong=1)(row).cut(7))
    harness.run(harness.task(0, temperature=1.0, n=3))
    (tree,) = harness.scheduler.prefix_cache.trees
    for completion in expected.values():
        complete = [*PROMPT, *completion.token_ids[:-1]]
        assert [int(tree.cache.kv[0][0, 0, c, 0]) for c in tree.match(complete)] == complete
    assert tree.cache.used == sum(1 for _ in tree.nodes())


@pytest.mark.parametrize(("wrong", "temperature"), [(0, 0.0), (2, 1.0)])
def test_a_grammar_sees_one_token_at_a_time(tokenizer, wrong, temperature):
    grammars = GrammarCompiler(tokenizer, VOCAB, (END,), "table")
    grammar = grammars.of({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4})

    def work(
        guess: Callable[[RunningSequence], DraftTree] | None,
    ) -> tuple[SchedulerRun, dict[tuple[int, int], Completion]]:
        seen = []

        def watching(row: Any, state: Any) -> Any:
            seen.append(tuple(state.generated_ids))
            return row

        harness = SchedulerRun(tokenizer, guess)
        hooks = [("watching", watching), (SCHEMA, grammar)]
        free = harness.task(1, temperature=1.0, max_tokens=12)
        made = harness.run(harness.task(0, hooks, temperature=temperature, max_tokens=60), free)
        assert seen == [made[0, 0].token_ids[:i] for i in range(len(made[0, 0].token_ids))]
        return harness, made

    _, expected = work(None)
    assert (expected[0, 0].finish_reason, expected[0, 0].text[:1], expected[0, 0].text[-1:]) == ("stop", "[", "]")
    harness, made = work(knowing(expected, wrong))
    assert {k: c.model_copy(update={"usage": expected[k].usage}) for k, c in made.items()} == expected
    assert harness.look.counters.accepted > 5
    assert harness.table.passes <= 3
