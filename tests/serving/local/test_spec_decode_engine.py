"""Speculative decoding in the engine: the same texts, logits and cache as without, in fewer steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from reason.core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.local.attention import TokenChunk, group_by_cache
from reason.serving.local.engine import LocalModel
from reason.serving.local.model import Decoder
from reason.serving.model_files.find import ModelFiles

REPEATED = "one two three four. one two three four. one two three four. one two"


def load(files: ModelFiles, mode: str = "on", **settings: object) -> LocalModel:
    options: dict[str, object] = {"weight_format": "fp32", "threads": 1, "kv_cache_bytes": 64 << 20}
    return LocalModel.load(files, speculative_decoding=mode, **(options | settings))


def reported(completions: Sequence[Sequence[Completion]]) -> list[object]:
    return [
        (c.token_ids, c.text, c.finish_reason, c.stop_reason, [t[0].token_id for t in c.top_logprobs or ()])
        for group in completions
        for c in group
    ]


def requests() -> list[Request]:
    def ask(text: str, **sampling: object) -> Request:
        chosen: dict[str, object] = {
            "max_tokens": 40,
            "seed": 3,
            "ignore_eos": True,
            "logprobs": True,
            "top_logprobs": 2,
        } | sampling
        return Request(prompt=Prompt(text=text), sampling=SamplingParams(**chosen))

    return [
        ask(REPEATED, temperature=0),
        ask(REPEATED, temperature=0.3, n=3),
        ask("abcabcabcabc", temperature=1.0, top_p=0.9, n=2),
        ask(
            REPEATED,
            temperature=0,
            logits_processors=(LogitsProcessorSpec(name="forbid_tokens", args={"ids": [50, 51]}),),
        ),
        ask("xyxyxyxy", temperature=0, ignore_eos=False, stop=("\n", "y")),
        ask("a", temperature=0, max_tokens=1),
    ]


@pytest.mark.parametrize("variant", ["llama", "gemma3"])
async def test_texts_are_the_same_with_and_without(tiny_files, variant):
    plain, ahead = load(tiny_files(variant), "off"), load(tiny_files(variant))
    for some in ([requests()[0]], requests()):
        expected, got = await plain.generate(some), await ahead.generate(some)
        assert reported(got) == reported(expected)
        for a, b in zip((c for g in got for c in g), (c for g in expected for c in g), strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
            assert a.usage.completion_tokens == b.usage.completion_tokens
    counts = ahead.spec_decode
    assert counts.tokens == counts.passes + counts.accepted
    assert counts.accepted > 0
    assert plain.spec_decode.drafted == 0
    assert plain.spec_decode.tokens == plain.spec_decode.passes
    await plain.aclose()
    await ahead.aclose()


async def test_repeated_text_takes_few_steps(tiny_files):
    model = load(tiny_files("llama"))
    requested = Request(
        prompt=Prompt(text=REPEATED), sampling=SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    )
    first = await model.generate([requested])
    before = model.spec_decode
    assert reported(await model.generate([requested])) == reported(first)
    again = model.spec_decode - before
    assert (again.tokens, again.passes <= 12) == (59, True)
    before = model.spec_decode
    other = requested.model_copy(update={"prompt": requested.prompt.with_cache_salt("somebody else")})
    assert reported(await model.generate([other])) == reported(first)
    assert (model.spec_decode - before).passes > again.passes  # another's texts suggest nothing
    await model.aclose()


async def test_drafts_are_dropped_before_samples_are_preempted(tiny_files):
    tight = 150 * load(tiny_files("llama"))._scheduler._model.slot_bytes
    plain, ahead = load(tiny_files("llama"), "off"), load(tiny_files("llama"), kv_cache_bytes=tight)
    requested = requests()[1]
    assert reported(await ahead.generate([requested])) == reported(await plain.generate([requested]))
    await plain.aclose()
    await ahead.aclose()


@pytest.mark.parametrize("variant", ["llama", "gemma3"])
def test_logits_at_every_guess_are_those_of_its_path(tiny_files, variant):
    from reason.serving.local.engine import _load_model

    forward = _load_model(tiny_files(variant), "fp32")
    ids, last = [5, 9, 30, 41, 8] * 4, 77  # nearly as long as a sliding window of 24
    parents = [-1, -1, 0, 0, 2, 1, 5]
    tokens = [11, 12, 13, 14, 15, 16, 17]
    with torch.inference_mode():
        log = forward.new_kv_cache(96)
        one, two = log.new_table(), log.new_table()
        forward.forward([TokenChunk(log, one, ids, [])])
        forward.forward([TokenChunk(log, two, ids[:18], [])])
        spans = [
            TokenChunk(log, one, [last], [0]),
            TokenChunk(log, one, tokens, range(7), parents),
            TokenChunk(log, two, [21], [0]),
            TokenChunk(log, two, [22, 23], range(2), [-1, 0]),
        ]
        ordered = group_by_cache(spans)
        assert [s.parents is None for s in ordered] == [True, True, False, False]
        logits = forward.forward(ordered)
        assert (len(one), len(two)) == (21, 19)

        def single(text: Sequence[int]) -> torch.Tensor:
            fresh = forward.new_kv_cache(96)
            return forward.forward([TokenChunk(fresh, fresh.new_table(), list(text), [len(text) - 1])])[0]

        spelled = []
        for token, parent in zip(tokens, parents, strict=True):
            spelled.append([*(spelled[parent] if parent >= 0 else []), token])
        expected = [single([*ids, last]), single([*ids[:18], 21])]
        expected += [single([*ids, last, *path]) for path in spelled]
        expected += [single([*ids[:18], 21, 22]), single([*ids[:18], 21, 22, 23])]
    assert torch.allclose(logits, torch.stack(expected), atol=1e-4)


@pytest.mark.parametrize("number_format", ["fp32", "bf16", "int4"])
def test_a_single_path_changes_no_bit(tiny_files, number_format):
    decoder = Decoder.load(tiny_files("llama").directory, number_format)
    assert decoder.max_invariant_rows
    ids = torch.randint(3, 264, (60,), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.inference_mode():
        for begun in (20, 44):
            log, other = decoder.new_kv_cache(64), decoder.new_kv_cache(64)
            one, two = log.new_table(), other.new_table()
            decoder.forward([TokenChunk(log, one, ids[:begun], [])])
            decoder.forward([TokenChunk(other, two, ids[:begun], [])])
            plain = [decoder.forward([TokenChunk(log, one, [token], [0])])[0] for token in ids[begun : begun + 6]]
            guessed = TokenChunk(other, two, ids[begun + 1 : begun + 6], range(5), range(-1, 4))
            ahead = decoder.forward([TokenChunk(other, two, ids[begun : begun + 1], [0]), guessed])
            assert torch.equal(ahead, torch.stack(plain))


async def test_nothing_is_drafted_where_bits_may_change_unless_requested(
    tiny_files,
):
    for variant, steady in (("llama", True), ("gpt_neox", False)):
        model = load(tiny_files(variant), "auto")
        budget = model._scheduler.speculator._budget
        budget.num_draft_tokens = lambda rows, odds: len(odds)
        requested = Request(
            prompt=Prompt(text=REPEATED), sampling=SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
        )
        for _ in range(2):  # the second time, all of it was generated before
            await model.generate([requested])
        assert (model.spec_decode.drafted > 0) is steady
        guessed = model.spec_decode.drafted
        await model.generate([requested, requested])
        assert model.spec_decode.drafted == guessed
        await model.aclose()


def test_slots_of_accepted_drafts_stay_and_the_others_are_reused(
    tiny_files,
):
    decoder = Decoder.load(tiny_files("llama").directory, "fp32")
    with torch.inference_mode():
        log = decoder.new_kv_cache(64)
        branch = log.new_table()
        decoder.forward([TokenChunk(log, branch, [5, 9, 30], [])])
        spans = [TokenChunk(log, branch, [4], [0]), TokenChunk(log, branch, [6, 7, 8], range(3), [-1, -1, 1])]
        decoder.forward(spans)
        settled = log.keep_tail(3, [5, 6])
        assert (list(settled), log.used) == ([4, 5], 6)
        log.append(branch, settled)
        after = decoder.forward([TokenChunk(log, branch, [3], [0])])
        fresh = decoder.new_kv_cache(64)
        complete = decoder.forward([TokenChunk(fresh, fresh.new_table(), [5, 9, 30, 4, 7, 8, 3], [6])])
    assert torch.allclose(after, complete, atol=1e-4)
    for mine, theirs in zip(log.kv, fresh.kv, strict=True):
        assert torch.allclose(mine[:, :, :7], theirs[:, :, :7], atol=1e-4)
