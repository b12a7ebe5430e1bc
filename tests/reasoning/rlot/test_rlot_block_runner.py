"""Blocks on a scripted model: requests of each, what enters the trajectory, fallbacks, and what reaches the model."""

from types import SimpleNamespace

import pytest
from reason.core.messages import Message, ToolCall
from reason.core.types import Document, Question
from reason.reasoning.rlot import prompts
from reason.reasoning.rlot.attempts import _FIXED_BYTES, _max_usd
from reason.reasoning.rlot.block_runner import BlockLimits
from reason.reasoning.rlot.blocks import Block, Trajectory, legal_blocks
from reason.serving.model import Capabilities
from support.block_model import QUESTION, BlockRuns, BlockWorld

ONE = Trajectory(QUESTION, ("a first step.",))


async def runner_in(store, world, **options):
    return await BlockRuns(store, world).runner(**options)


def kinds(world):
    return [kind for kind, _, _ in world.seen]


def of_subtasks(m, **said):
    return BlockWorld(split=lambda steps: [f"part {i}" for i in range(m)], **said)


@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("block", list(Block)[:-1], ids=lambda block: block.name.lower())
async def test_number_of_requests_per_block(store, block, m):
    world = of_subtasks(m)
    runs = BlockRuns(store, world)
    runner = await runs.runner(f"{block}/{m}")
    after = await runner.run(block, ONE)
    await runner.assess_and_check(after)
    wanted = {Block.REASON: 3, Block.REFINE: 3, Block.DEBATE: 5, Block.DECOMPOSE: m + 4}[block]
    assert runner.calls == wanted == len(world.seen) == runs.run.ledger.used("calls")
    assert kinds(world)[-2:] == ["assess", "finished"]
    assert len(runs.calls()) == wanted - 1  # those two are one call
    assert runner.max_calls(block) >= wanted
    assert runner.max_tokens(block) >= runner.tokens == runs.run.ledger.used("tokens")


async def test_steps_added_per_block(store):
    runs = BlockRuns(store, BlockWorld())
    runner = await runs.runner()
    added = {block: (await runner.run(block, ONE)).steps[1:] for block in Block}
    assert added == {
        Block.REASON: ("reasoned 2.",),
        Block.DECOMPOSE: ("summed up 2.",),
        Block.DEBATE: ("guess\nfollowed 2.",),
        Block.REFINE: ("refined 1.",),
        Block.TERMINATE: (),
    }


async def test_refine_without_steps_reasons(store):
    world = BlockWorld()
    runner = await runner_in(store, world)
    assert (await runner.run(Block.REFINE, Trajectory(QUESTION))).steps == ("reasoned 1.",)
    assert kinds(world) == ["reason"]


async def test_subtasks_see_previous_results(store):
    world = of_subtasks(3, solve=lambda steps: "x" * 30 + "the end.")
    runner = await runner_in(store, world, limits=BlockLimits(carried_chars=12))
    await runner.run(Block.DECOMPOSE, ONE)
    solved = [text for kind, _, text in world.seen if kind == "solve"]
    assert [text.count("Result of subtask") for text in solved] == [1, 2, 3]  # its own prefix begins the response
    for number, text in enumerate(solved, 1):
        assert f"Solve only subtask {number}: part {number - 1}\n" in text
    (summary,) = [text for kind, _, text in world.seen if kind == "summary"]
    assert [line for line in summary.splitlines() if line.startswith("Result")] == [
        f"Result of subtask {i}: xxxxthe end." for i in (1, 2, 3)
    ]


async def test_excess_subtasks_are_dropped(store):
    world = of_subtasks(9)
    runner = await runner_in(store, world, limits=BlockLimits(subtasks=3))
    await runner.run(Block.DECOMPOSE, ONE)
    assert kinds(world).count("solve") == 3


async def test_unparsed_completions_have_fallbacks_and_are_counted(store):
    texts = {"split": "1. ", "plans": "1. ", "compare": "of my own", "finished": "yesterday", "choose": "?"}
    world = BlockWorld(**{kind: lambda steps, text=text: text for kind, text in texts.items()})
    runner = await runner_in(store, world)
    await runner.run(Block.DECOMPOSE, ONE)
    after = await runner.run(Block.DEBATE, ONE)
    assert await runner.check(ONE) is False
    assert await runner.choose_block(ONE, legal_blocks(1, 5, "none")) is None
    assert runner.unparsed == {"subtasks": 1, "plans": 1, "pick": 1, "finished": 1, "choice": 1}
    assert after.steps[1] == f"{prompts.GENERIC_PLAN}\nfollowed 2."
    assert any(prompts.GENERIC_SUBTASK in text for kind, _, text in world.seen if kind == "solve")


async def test_empty_completion_adds_no_step(store):
    runner = await runner_in(store, BlockWorld(reason=lambda steps: ""))
    assert await runner.run(Block.REASON, ONE) == ONE


@pytest.mark.parametrize("begins", [True, False])
async def test_answer_includes_its_prefix(store, begins):
    runner = await runner_in(store, BlockWorld(begins=begins))
    assert (await runner.answer(ONE)).text == "Therefore, the answer (a number) is 7."
    assert (await runner.assess(ONE)).missing == 0
    assert (await runner.run(Block.REASON, ONE)).steps == ("a first step.", "reasoned 2.")


async def test_model_chooses_among_legal_blocks(store):
    world = BlockWorld(choose=lambda steps: "4")
    runner = await runner_in(store, world)
    assert await runner.choose_block(Trajectory(QUESTION), legal_blocks(0, 5, "none")) is Block.TERMINATE
    assert await runner.choose_block(ONE, legal_blocks(1, 5, "none")) is Block.REFINE
    assert "4. Give the final answer." in world.seen[0][2]


ASKED = Question(
    text="Which fruit is it?",
    choices=("apple", "pear"),
    documents=(Document(name="notes", text="It is round."),),
    kind="choice",
    metadata={"gold": "the secret", "answer": "B"},
)


async def everything(runner, trajectory):
    for block in list(Block)[:-1]:
        await runner.run(block, trajectory)
    await runner.assess_and_check(trajectory)
    await runner.answer(trajectory)
    await runner.choose_block(trajectory, legal_blocks(1, 5, "none"))


async def test_prompts_contain_only_question_steps_and_templates(store):
    seen = []
    for place, metadata in enumerate(({"gold": "the secret", "answer": "B"}, {"gold": "another"}, {})):
        world = BlockWorld()
        question = ASKED.model_copy(update={"metadata": metadata})
        runner = await runner_in(store, world, name=str(place), question=question)
        await everything(runner, Trajectory(question, ("marked one.", "marked two.")))
        seen.append([text for _, _, text in world.seen])
    assert seen[0] == seen[1] == seen[2]  # metadata, a gold answer included, makes no difference
    head = (
        "user: Document «notes»:\nIt is round.\n\nWhich fruit is it?\n\nA) apple\nB) pear\n\n"
        "Step 1: marked one.\n\nStep 2: marked two.\n\n"
    )
    other = BlockWorld()
    runner = await runner_in(store, other, name="other")
    await everything(runner, Trajectory(QUESTION, ("another one.", "another two.")))
    for text, (kind, _, elsewhere) in zip(seen[0], other.seen, strict=True):
        assert text.startswith(head)
        if kind not in ("answer",):  # its form is the question's kind
            behind = elsewhere.split("another two.\n\n")[1]
            assert text[len(head) :] == behind


async def test_steps_are_sampled_and_judgements_greedy(store):
    world = BlockWorld()
    runs = BlockRuns(store, world)
    runner = await runs.runner(temperature=0.8, sample_index=3)
    await everything(runner, ONE)
    asked = [request for call in runs.model.generate_calls for request in call]
    heat = {}
    for (kind, _, _), request in zip(world.seen, asked, strict=True):
        sampling = request.sampling
        set_by_user = sampling.temperature is not None
        heat.setdefault(kind, set()).add(sampling.temperature if set_by_user else sampling.default_temperature)
        assert request.sample_indices == (3,)
    judged = {"assess", "finished", "answer", "choose", "compare"}
    assert heat == {kind: {0.0 if kind in judged else 0.8} for kind in heat}
    assert len(heat) == 12


async def test_fixed_prompt_text_is_within_its_bound(store):
    world = BlockWorld()
    runner = await runner_in(store, world)
    await everything(runner, ONE)
    own = len(QUESTION.text) + sum(map(len, ONE.steps))
    limits = runner.limits
    written = limits.plan_tokens + limits.subtasks * limits.subtask_tokens  # what the block itself has put there
    assert max(len(text) for _, _, text in world.seen) < own + _FIXED_BYTES + written
    assert len(prompts.assess(has_steps=True)) < _FIXED_BYTES


def test_maximum_price_includes_tool_calls():
    priced = Capabilities(usd_per_prompt_token=1.0, usd_per_completion_token=0.0)
    runner = SimpleNamespace(client=SimpleNamespace(model=SimpleNamespace(capabilities=priced)))
    call = ToolCall(name="look_up", arguments='{"word": "' + "x" * 100 + '"}')

    def most(*calls):
        turns = (Message(role="assistant", content="Yes.", tool_calls=calls),)
        return _max_usd(runner, Trajectory(QUESTION.model_copy(update={"conversation": turns})), 1, 1)

    assert most(call, call) - most() >= 2 * 100
