"""`auto` on scripted models: who is chosen, what is told of it, and every reason to take another."""

import math
import re
from pathlib import Path

import pytest
from reason.core.budget import Budget
from reason.core.errors import CapabilityMissing, UserError
from reason.core.events import MemorySink
from reason.core.messages import Message
from reason.core.run import Run, RunConfig
from reason.core.types import Question
from reason.reasoning.knowledge import Knowledge
from reason.reasoning.strategy import Models, create_strategy
from reason.routers.auto import Auto
from reason.routers.features import ENTROPY, FeatureSpace
from reason.routers.router_files import save_router_file
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.replay import ReplayEmbedding, ReplayModel
from reason.serving.metered.scorers import MeteredEmbedding
from support.scripted_model import ScriptedModel, replies
from support.scripted_tools import WEATHER, ToolModel, calling
from support.trained_routers import BARE, SPACE, arm, auto_file, line, trained_on
from support.two_models import TwoModels
from support.word_vectors import WordVectors

SHORT = Question(text="What is 2 + 2?", kind="number")
LONG = Question(text="What is 2 + 2? " + "Think of everything. " * 20, kind="number")
REPLY = "The answer is 4."
COT = arm("cot", line(0.0, -1.0), 20, parameters={"max_tokens": 30})
VOTES = arm("self-consistency", line(0.0, 1.0), 60, parameters={"n": 3, "max_tokens": 30}, calls=1.0)
FILE = auto_file(COT, VOTES)


MODEL = ScriptedModel(replies(REPLY))
RECORDED = ReplayModel(MODEL.name, MODEL.identity, MODEL.capabilities)


class Silent(ScriptedModel):
    """Shows no distribution of a token."""

    async def next_token(self, prompts, top=20):
        raise CapabilityMissing("top_logprobs", self.name)


class Harness:
    def __init__(self, store, folder):
        self.store, self.folder, self.file = store, folder, None

    def write(self, file):
        """Save a router file, which following runs use."""
        self.file = str(self.folder / "auto.json")
        save_router_file(file, Path(self.file))

    async def solve(self, question, *, price=None, main=None, small=None, embedding=None, name="r", **kept):
        main = main or ScriptedModel(replies(REPLY))
        budget = Budget(**kept.pop("budget", {}))
        given = {"router": self.file, "price": price}
        strategy, complete = create_strategy("auto", {key: value for key, value in given.items() if value is not None})
        config = RunConfig(
            question=question, strategy="auto", parameters=complete, models={"main": main.name}, budget=budget, seed=7
        )
        if kept.get("recording", True):
            await self.store.create_run(name, config.model_dump(mode="json"))
        self.sink = MemorySink()
        self.run = Run(name, config, self.store, sinks=[self.sink], **kept)
        by_role = {"main": MeteredModel(main, "main", self.run)}
        if small is not None:
            by_role["small"] = MeteredModel(small, "small", self.run)
        metered = None if embedding is None else MeteredEmbedding(embedding, "embedding", self.run)
        models = Models(by_role, knowledge=Knowledge(embedding=metered))
        return await strategy.solve(question, models, self.run)

    @property
    def chosen(self):
        return [e.data for e in self.sink.of_type("strategy.note") if e.name == "auto.chosen"]


@pytest.fixture
def harness(store, tmp_path):
    return Harness(store, tmp_path)


async def test_best_arm_answers_and_the_reason_is_noted(harness):
    harness.write(FILE)
    short = await harness.solve(SHORT)
    assert short.notes["selected_strategy"] == "cot max_tokens=30"
    assert (short.best.answer, len(short.candidates)) == ("4", 1)
    long = await harness.solve(LONG, name="long")
    assert long.notes["selected_strategy"] == "self-consistency n=3 max_tokens=30"
    assert len(long.candidates) == 3
    assert long.confidence == 1  # the arm's own
    (told,) = harness.chosen
    assert told == long.notes["auto"]
    assert [a["arm"] for a in told["arms"]] == [VOTES.label, COT.label]
    assert re.fullmatch(
        r"0\.\d\d right for 60 tokens, worth 0\.\d{3}; next cot max_tokens=30, worth 0\.\d{3}; length \+\d\.\d\d",
        told["why"],
    )
    assert harness.run.degraded == []


async def test_price_of_the_file_can_be_overridden(harness):
    harness.write(FILE)
    free = await harness.solve(LONG, price=0.0)
    assert free.notes["selected_strategy"] == VOTES.label
    dear = await harness.solve(LONG, price=1000.0, name="dear")
    assert dear.notes["selected_strategy"] == COT.label
    assert harness.chosen[0]["price"] == 1000.0


async def test_without_a_file_cot_answers_with_a_note(harness):
    found = await harness.solve(SHORT)
    assert found.best.answer == "4"
    assert found.notes["selected_strategy"] == "cot"
    assert harness.run.degraded == ["cot was taken: no auto-router file"]


async def test_file_of_another_model_is_not_used(harness):
    harness.write(auto_file(COT, VOTES, trained=trained_on(engines={"main": "other@1"})))
    found = await harness.solve(LONG)
    assert found.notes["selected_strategy"] == "cot"
    assert "its main model is other@1, and this one is scripted@1" in harness.run.degraded[0]


async def test_run_does_not_resume_with_another_file(harness):
    harness.write(FILE)
    _, noted = create_strategy("auto", {"router": harness.file})
    assert noted["router_digest"] == FILE.digest
    harness.write(FILE.model_copy(update={"price": 0.5}))
    with pytest.raises(UserError, match="has changed since the run started"):
        create_strategy("auto", noted)
    with pytest.raises(UserError, match="has changed since the run started"):
        await Auto(Auto.Config.model_construct(**noted)).solve(SHORT, Models({"main": None}), None)


async def test_arm_beyond_the_budget_is_not_selected(harness):
    harness.write(FILE)
    found = await harness.solve(LONG, budget={"tokens": 40})
    assert found.notes["selected_strategy"] == COT.label
    (told,) = harness.chosen
    assert told["arms"][0]["refused"] == "it needs about 60 tokens, and 40 are left"
    assert harness.run.ledger.usage().completion_tokens <= 40
    none = await harness.solve(LONG, budget={"tokens": 10}, name="none")
    assert none.notes["selected_strategy"] == "cot"
    assert none.stopped == "budget"
    assert "no arm of the router" in harness.run.degraded[0]


@pytest.mark.parametrize("limit", [{"tokens": n} for n in (1, 5, 17, 18, 30, 60, 90)] + [{"calls": n} for n in (1, 2)])
async def test_limits_hold_and_replay_is_identical(harness, limit):
    arms = auto_file(
        arm("cot", line(0.0, -1.0, 0.0), 20, parameters={"max_tokens": 30}),
        arm("self-consistency", line(0.0, 1.0, 0.0), 60, parameters={"n": 3, "max_tokens": 30}),
        space=SPACE,
    )
    harness.write(arms)
    found = await harness.solve(LONG, budget=limit)
    usage = harness.run.ledger.usage()
    assert usage.completion_tokens <= limit.get("tokens", math.inf)
    assert usage.model_calls <= limit.get("calls", math.inf)
    again = await harness.solve(LONG, main=RECORDED, budget=limit, recording=False)
    assert again == found


async def test_arm_of_the_small_model_uses_the_small_model(harness):
    small = ScriptedModel(replies("The answer is 5."), name="little")
    own = arm("cot", line(3.0, 0.0), 20, parameters={"max_tokens": 30}, role="small")
    trained = trained_on(engines={"main": "scripted@1", "small": "little@1"})
    harness.write(auto_file(own, VOTES, trained=trained))
    found = await harness.solve(SHORT, small=small)
    assert (found.notes["selected_strategy"], found.best.answer) == ("cot max_tokens=30, small", "5")
    assert list(harness.run.ledger.usage().by_role) == ["small:little"]
    alone = await harness.solve(SHORT, name="alone")
    assert alone.notes["selected_strategy"] == VOTES.label
    assert harness.chosen[0]["arms"][0]["refused"] == "there is no small model"
    other = await harness.solve(SHORT, small=ScriptedModel(replies(REPLY), name="else"), name="other")
    assert other.notes["selected_strategy"] == VOTES.label
    assert harness.chosen[0]["arms"][0]["refused"] == "its small model is little@1, and this one is else@1"


async def test_arms_that_cannot_run_are_skipped(harness):
    needs = arm("best-of-n", line(5.0, 0.0), 20, needs=("reward",))
    gone = arm("cot", line(4.0, 0.0), 20).model_copy(update={"strategy": "gone", "label": "gone"})
    loop = arm("cot", line(3.0, 0.0), 20).model_copy(update={"strategy": "auto", "label": "auto", "parameters": {}})
    harness.write(auto_file(needs, gone, loop, COT))
    found = await harness.solve(SHORT)
    assert found.notes["selected_strategy"] == COT.label
    why = {a["arm"]: a["refused"] for a in harness.chosen[0]["arms"]}
    assert why[needs.label] == "there is no reward model"
    assert why["gone"] == "unknown strategy 'gone'"
    assert "hand it on again" in why["auto"]


async def test_arm_that_reports_while_it_runs_that_the_model_lacks_a_feature_is_skipped(harness):
    needs = arm("cot", line(5.0, 0.0), 20, parameters={"top_logprobs": 20})
    harness.write(auto_file(needs, COT))
    found = await harness.solve(SHORT, main=ScriptedModel(replies(REPLY), changed={"top_logprobs": 5}))
    assert found.notes["selected_strategy"] == COT.label
    assert [told["selected_strategy"] for told in harness.chosen] == [needs.label, COT.label]
    why = "model 'scripted' cannot do 'top_logprobs=20'"
    assert harness.chosen[1]["arms"][0]["refused"] == why
    assert harness.run.degraded == [f"{needs.label} was chosen and could not run: {why}"]


async def test_training_question_is_reported(harness):
    harness.write(auto_file(COT, VOTES, trained=trained_on(SHORT.text)))
    await harness.solve(SHORT)
    assert harness.run.degraded == ["the router was trained on this question: its answer shows nothing about others"]


async def test_entropy_is_measured_if_the_file_uses_it(harness):
    unsure = ScriptedModel(replies(REPLY, "Who knows. The answer is 4."))
    by_entropy = auto_file(
        arm("cot", line(0.0, 0.0, -1.0), 20, parameters={"max_tokens": 30}),
        arm("self-consistency", line(0.0, 0.0, 1.0), 60, parameters={"n": 3, "max_tokens": 30}),
        space=SPACE.model_copy(update={"means": (4.0, 0.3)}),
    )
    harness.write(by_entropy)
    sure = await harness.solve(SHORT, name="sure")
    assert sure.notes["selected_strategy"] == COT.label
    assert f"{ENTROPY} +1.20" in harness.chosen[0]["why"]  # an entropy of 0 is 1.2 deviations below the mean
    assert harness.run.ledger.usage().model_calls == 2
    found = await harness.solve(SHORT, main=unsure, name="unsure")
    assert found.notes["selected_strategy"] == VOTES.label
    hidden = await harness.solve(SHORT, main=Silent(replies(REPLY)), name="hidden")
    assert hidden.best.answer == "4"
    assert harness.run.degraded == [f"the {ENTROPY} is not available for this question, and counts as average"]
    # one call alone: it is kept for the answer
    last = await harness.solve(SHORT, budget={"calls": 1}, name="last")
    assert last.best.answer == "4"


async def test_embedding_is_a_feature_and_replay_needs_no_model(harness):
    words = WordVectors(dimension=53)
    (vector,) = await words.embed([SHORT.text])
    space = FeatureSpace(
        names=BARE.names,
        means=BARE.means,
        scales=BARE.scales,
        embedding=words.name,
        embedding_identity=words.identity,
        centre=(0.0,) * 53,
        axes=(tuple(map(float, vector)),),
        spreads=(0.5,),
    )
    like = VOTES.model_copy(update={"right": VOTES.right.model_copy(update={"named": (0.0,), "components": (2.0,)})})
    harness.write(auto_file(COT, like, space=space))
    found = await harness.solve(SHORT, embedding=words)
    assert found.notes["selected_strategy"] == VOTES.label
    assert "embedding +4.00" in harness.chosen[0]["why"]
    absent = ReplayEmbedding(words.name, words.identity, 53, None)
    assert await harness.solve(SHORT, main=RECORDED, embedding=absent, recording=False) == found
    other = WordVectors(dimension=53, identity="words-2")
    await harness.solve(SHORT, embedding=other, name="other")
    assert harness.run.degraded == [
        "the embedding of test/words is not available for this question, and counts as average"
    ]


async def test_with_tools_one_arm_that_takes_them_makes_all_turns(store, tmp_path):
    main = ToolModel(lambda text: replies(REPLY if "24" in text else calling(city="Rome"))(text), name="scripted")
    small = ScriptedModel(replies(REPLY), name="small")
    votes = arm("self-consistency", line(0.0, 1.0), 60, parameters={"n": 3})
    better = arm("beam", line(5.0, 1.0), 60), arm("cot", line(4.0, 1.0), 60, role="small")
    path = tmp_path / "auto.json"
    save_router_file(
        auto_file(
            *better,
            votes,
            trained=trained_on(
                models={"main": "scripted", "small": "small"}, engines={"main": "scripted@1", "small": "small@1"}
            ),
        ),
        path,
    )
    runs = TwoModels(store, small, main)
    question = SHORT.model_copy(update={"tools": (WEATHER,)})
    first = await runs.solve(strategy="auto", question=question, router=str(path))
    assert (first.notes["selected_strategy"], len(main.made)) == (votes.label, 3)
    refused = {row["arm"]: row["refused"] for row in first.notes["auto"]["arms"]}
    assert refused["beam"] == "strategy beam does not support tools"
    assert refused[better[1].label] == "model 'small' cannot do 'tools'"
    result = Message(role="tool", content="24", tool_call_id=first.best.tool_calls[0].id)
    later = LONG.model_copy(update={"tools": (WEATHER,), "continuation": (first.best.message, result)})
    second = await runs.solve(strategy="auto", question=later, router=str(path), price=1000.0)
    assert (second.best.answer, second.notes["auto"]) == ("4", first.notes["auto"])
    assert runs.sink.of_type("strategy.note") == []  # nothing was chosen again
    save_router_file(auto_file(better[0], arm("logprob", line(0.0), 60)), path)
    with pytest.raises(UserError, match=r"no arm of the router .* supports tools"):
        await runs.solve("s", strategy="auto", question=question, router=str(path))
