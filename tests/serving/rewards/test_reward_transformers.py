"""Reward models through transformers, against computations that share nothing with them but the weights."""

import asyncio

import pytest
import tiny_rewards
import torch
import transformers
from reason.core.errors import BackendUnavailable, DataError, UnknownName, UserError
from reason.core.settings import RewardSettings, Settings
from reason.serving.rewards.factory import load_reward_model
from reason.serving.rewards.model import RewardModel
from safetensors.torch import load_file

PROBLEM = "What is 2 + 3 * 4?"
SOLUTIONS = [["3 * 4 = 12.", "2 + 12 = 14."], ["The answer is 20."], ["a", "bb " * 30, "c", "d"]]
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


async def opened(folder, tmp_path, **settings):
    name = f"local/{folder}"
    rewards = {name: RewardSettings(**settings)} if settings else {}
    return await load_reward_model(name, Settings(cache_dir=tmp_path / "cache", rewards=rewards))


def chatml(*turns):
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


def process_odds(folder, steps, system=SYSTEM):
    """One solution alone, in plain matrix arithmetic from the body's states on."""
    answer = "".join(f"{s}<extra_0>" for s in steps)
    text = chatml(*([("system", system)] if system else []), ("user", PROBLEM), ("assistant", answer))
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    weights = load_file(folder / "model.safetensors")
    body = transformers.Qwen2Model(transformers.Qwen2Config.from_pretrained(folder)).eval()
    body.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
    with torch.no_grad():
        states = body(input_ids=ids).last_hidden_state[0].double()
    hidden = (states @ weights["score.0.weight"].double().T + weights["score.0.bias"].double()).clamp(min=0)
    logits = hidden @ weights["score.2.weight"].double().T + weights["score.2.bias"].double()
    tag = transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<extra_0>")
    chances = logits.softmax(-1)[ids[0] == tag]
    return (chances[:, 1].log() - chances[:, 0].log()).tolist()


async def test_process_model(tiny_reward, tmp_path):
    folder = tiny_reward("process")
    model = await opened(folder, tmp_path)
    assert isinstance(model, RewardModel)
    assert (model.capabilities.kind, model.capabilities.one_pass, model.capabilities.context_tokens) == (
        "process",
        True,
        512,
    )
    scores = await model.score_steps(PROBLEM, SOLUTIONS)
    for steps, found in zip(SOLUTIONS, scores, strict=True):
        assert found.log_odds == pytest.approx(process_odds(folder, steps), abs=2e-4)
        assert (found.passes, found.ok) == (1, True)
    lasts = await model.score_steps(PROBLEM, SOLUTIONS, "last")
    assert [s.log_odds for s in lasts] == [pytest.approx(s.log_odds[-1:], abs=2e-4) for s in scores]
    assert len({s.log_odds[-1] for s in scores}) == 3, "the tiny model tells nothing apart"
    await model.aclose()


async def test_scores_do_not_depend_on_the_batch(tiny_reward, tmp_path):
    folder = tiny_reward("process")
    whole = await opened(folder, tmp_path)
    single = await opened(folder, tmp_path, batch_tokens=1)
    a = await whole.score_steps(PROBLEM, SOLUTIONS)
    b = await single.score_steps(PROBLEM, SOLUTIONS[::-1])
    assert whole.identity == single.identity
    assert [s.log_odds for s in a] == [pytest.approx(s.log_odds, abs=2e-4) for s in b[::-1]]
    assert [s.usage for s in a] == [s.usage for s in b[::-1]]
    await whole.aclose()
    await single.aclose()


async def test_another_system_message_is_another_model(tiny_reward, tmp_path):
    folder = tiny_reward("process")
    plain, none = await opened(folder, tmp_path), await opened(folder, tmp_path, system="")
    assert plain.identity != none.identity
    [scores] = await none.score_steps(PROBLEM, SOLUTIONS[:1])
    assert scores.log_odds == pytest.approx(process_odds(folder, SOLUTIONS[0], system=""), abs=2e-4)
    await plain.aclose()
    await none.aclose()


async def test_scalar_model_scores_prefixes(tiny_reward, tmp_path):
    folder = tiny_reward("scalar")
    model = await opened(folder, tmp_path)
    assert (model.capabilities.kind, model.capabilities.one_pass) == ("outcome", False)
    [scores] = await model.score_steps(PROBLEM, SOLUTIONS[:1])
    weights = load_file(folder / "model.safetensors")
    body = transformers.Qwen2Model(transformers.Qwen2Config.from_pretrained(folder)).eval()
    body.load_state_dict({k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")})
    expected = []
    for answer in (SOLUTIONS[0][0], "\n\n".join(SOLUTIONS[0])):
        text = chatml(("system", SYSTEM), ("user", PROBLEM), ("assistant", answer))
        ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            state = body(input_ids=ids).last_hidden_state[0, -1]
        hidden = torch.relu(weights["score.0.weight"] @ state + weights["score.0.bias"])
        expected.append(float((weights["score.2.weight"] @ hidden + weights["score.2.bias"])[0]))
    assert scores.log_odds == pytest.approx(expected, abs=2e-4)
    assert scores.passes == 2
    await model.aclose()


@pytest.mark.parametrize("kind", ["decoder", "decoder-2", "encoder"])
async def test_classifiers_are_outcome_models(kind, tiny_reward, tmp_path):
    folder = tiny_reward(kind)
    model = await opened(folder, tmp_path)
    assert (model.capabilities.kind, model.capabilities.one_pass) == ("outcome", False)
    scores = await model.score_steps(PROBLEM, SOLUTIONS)
    assert [s.passes for s in scores] == [2, 1, 4]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for steps, found in zip(SOLUTIONS, scores, strict=True):
        answer = "\n\n".join(steps)
        if kind == "encoder":
            ids = tokenizer(PROBLEM, answer, return_tensors="pt")
        else:
            ids = tokenizer(chatml(("user", PROBLEM), ("assistant", answer)), return_tensors="pt")
        with torch.no_grad():
            [logits] = network(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits.tolist()
        expected = logits[0] if len(logits) == 1 else logits[1] - logits[0]
        assert found.log_odds[-1] == pytest.approx(expected, abs=1e-5)
    await model.aclose()


async def test_failures_of_single_solutions(tiny_reward, tmp_path):
    model = await opened(tiny_reward("process"), tmp_path)
    solutions = [["fine"], ["x" * 600], ["a<extra_0>b"]]
    fine, long, tagged = await model.score_steps(PROBLEM, solutions)
    assert fine.ok
    assert long.failure.code == "context_too_long"
    assert (tagged.failure.code, tagged.passes) == ("user_error", 0)
    assert "<extra_0>" in tagged.failure.message
    with pytest.raises(UserError, match="solution 1 has no steps"):
        await model.score_steps(PROBLEM, [["a"], []])
    assert await model.score_steps(PROBLEM, []) == []
    await model.aclose()
    await model.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await model.score_steps(PROBLEM, SOLUTIONS)


async def test_cancelling_stops_between_batches(tiny_reward, tmp_path):
    model = await opened(tiny_reward("process"), tmp_path, batch_tokens=1)
    task = asyncio.create_task(model.score_steps(PROBLEM, [["step"]] * 2000))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [scores] = await model.score_steps(PROBLEM, [["step"]])  # the thread is free again
    assert scores.ok
    await model.aclose()


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"form": "outcome"}, DataError, "'qwen'"),
        ({"step_tag": "no such tag"}, DataError, "tokens of this model"),
        ({"form": "judge"}, UserError, "judge/local/"),
    ],
)
async def test_settings_that_do_not_fit(settings, error, says, tiny_reward, tmp_path):
    with pytest.raises(error, match=says):
        await opened(tiny_reward("process"), tmp_path, **settings)


async def test_plain_language_model_is_suggested_as_a_judge(tmp_path, one_thread):
    folder = tiny_rewards.speaking_model(tmp_path / "plain")
    with pytest.raises(DataError, match="judge/local/"):
        await opened(folder, tmp_path)


async def test_missing_weights_are_reported(tmp_path, one_thread):
    folder = tiny_rewards.process_model(tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    del weights["score.2.bias"]
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks weights, for example score\.2\.bias"):
        await opened(folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("locale/x", "local/x"),
        ("judges/local/smollm2-135m", "judge/local/smollm2-135m"),
        ("smollm2-135m", "judge/local/smollm2-135m"),
    ],
)
async def test_near_misses(name, near, tmp_path):
    with pytest.raises(UnknownName) as told:
        await load_reward_model(name, Settings(cache_dir=tmp_path))
    assert near in told.value.nearest


@pytest.mark.parametrize("name", ["judge/", "local/", "hosted_vllm_pooling/"])
async def test_unknown_names(name, tmp_path):
    with pytest.raises(UserError, match="names no model"):
        await load_reward_model(name, Settings(cache_dir=tmp_path))
