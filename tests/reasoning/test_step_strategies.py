"""`astar`, `beam` and `particle-filter` on a model with known probabilities."""

import pytest
from reason.core.budget import Budget
from reason.core.errors import CapabilityMissing, UserError
from reason.core.events import NodesSearched
from reason.core.types import Question
from reason.reasoning.continuations import Prefix, StepOptions, StepSampler
from reason.reasoning.prompts import question_prompt, steps_instruction
from reason.reasoning.strategy import STRATEGIES, Models, create_strategy
from reason.serving.metered.scorers import MeteredReward
from reason.serving.rewards.judge import own_judge
from support.scripted_model import ScriptedModel, replies
from support.scripted_reward import ScriptedReward
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
RIGHT = "2 + 2 = 4.\n\nSo it is 4.\n\nThe answer is 4."
WRONG = "2 + 2 = 5.\n\nSo it is 5.\n\nThe answer is 5."
MOSTLY_WRONG = replies(RIGHT, WRONG, weights=[0.3, 0.7])
SIZES = {
    "astar": {"k": 10},
    "beam": {"width": 2, "k": 6},
    "beam diverse": {"width": 3, "k": 6, "diverse": True},
    "particle-filter": {"n": 16},
    "particle-filter gibbs": {"n": 12, "iterations": 2},
}
"""Parameters by the name of the strategy, with a word for its variant."""


def prefer_four(step):
    """Score fours high and fives low."""
    return 0.9 if "4" in step else 0.1


class Harness(RunHarness):
    """One run of one strategy; the same run ID resumes it."""

    def __init__(self, store, model=None, reward=prefer_four):
        super().__init__(store, model or ScriptedModel(MOSTLY_WRONG))
        self.reward = ScriptedReward(reward) if reward else None

    async def models(self, name, run_id="r", *, budget=None, seed=2, question=QUESTION):
        main = await self.begin(run_id, strategy=name, question=question, budget=budget, seed=seed)
        reward = None if self.reward is None else MeteredReward(self.reward, "reward", self.run)
        return Models(
            {"main": main},
            reward,
            lambda _role: MeteredReward(own_judge(self.model), "reward", self.run),
        )

    async def solve(self, name, run_id="r", *, budget=None, seed=2, question=QUESTION, **parameters):
        models = await self.models(name, run_id, budget=budget, seed=seed, question=question)
        kind = STRATEGIES.load(name.partition(" ")[0])
        config = kind.Config(**{"temperature": 1.0, **SIZES[name], **parameters})
        return await kind(config).solve(question, models, self.run)

    def rounds(self):
        return self.sink.of_type("search.nodes")

    def nodes(self):
        return {node.id: node for e in self.rounds() for node in e.nodes}

    def ended(self):
        (ended,) = self.sink.of_type("search.ended")
        return ended


each_search = pytest.mark.parametrize("name", SIZES)


@each_search
async def test_a_score_outweighs_what_the_model_likes_and_trace_and_run_count_the_complete_tree(store, name):
    harness = Harness(store)
    solution = await harness.solve(name)
    assert (solution.best.answer, solution.best.text) == ("4", RIGHT)
    assert [step.text for step in solution.best.steps] == RIGHT.split("\n\n")
    assert (solution.stopped, harness.run.degraded) == ("done", [])
    usage, ended = harness.spent, harness.ended()
    assert ended.cost["gen_tokens"] == usage.completion_tokens == solution.notes["search"]["tokens"]
    # equal texts are scored once, while searches count each continuation with a score
    assert 0 < usage.reward_calls <= ended.cost["prm_passes"]
    assert solution.candidates[solution.chosen].tokens == len(RIGHT) + 1

    nodes = harness.nodes()
    text, node = "", nodes[ended.chosen]
    while node.parent is not None:
        text, node = node.text + text, nodes[node.parent]
    assert text in [c.text for c in solution.candidates]
    assert all(n.parent is None or n.depth == nodes[n.parent].depth + 1 for n in nodes.values())
    assert all(set(n.values) for n in nodes.values() if n.depth)
    expanded = [i for e in harness.rounds() for i in e.expanded]
    assert len(expanded) == len(set(expanded)) == ended.cost["expansions"] + ended.cost["completions"]


async def test_many_new_nodes_are_several_events(store, monkeypatch):
    harness = Harness(store)
    await harness.solve("beam", "whole", width=3, k=3)
    whole, events = harness.nodes(), harness.rounds()
    monkeypatch.setattr("reason.reasoning.search.driver.MAX_EVENT_NODES", 2)
    harness = Harness(store)
    await harness.solve("beam", "parts", width=3, k=3)
    parts = harness.rounds()
    assert harness.nodes() == whole
    assert len(parts) > len(events)
    assert all(len(e.nodes) <= 2 for e in parts)
    assert sum(e.discarded for e in parts) == sum(e.discarded for e in events)
    assert [i for e in parts for i in e.expanded] == [i for e in events for i in e.expanded]


@pytest.mark.parametrize("name", ["astar", "beam", "beam diverse", "particle-filter"])
async def test_a_search_of_one_is_plain_sampling(store, name):
    size = {size: 1 for size in ("width", "k", "n") if size in SIZES[name]}
    for seed in range(3):
        harness = Harness(store)
        solution = await harness.solve(name, f"{name}-{seed}", seed=seed, **size)
        models = await harness.models("plain", f"plain-{name}-{seed}", seed=seed)
        prompt = question_prompt(QUESTION, steps_instruction(QUESTION))
        sampler = StepSampler(models.main, prompt, QUESTION, harness.run, StepOptions(temperature=1.0))
        prefix = Prefix()
        while not prefix.terminal:
            (expansion,) = (await sampler.expand([prefix])).expansions
            prefix = expansion.samples[0].after
        assert [c.text for c in solution.candidates] == [prefix.text]


DEFAULT_SIZES = {
    "astar": {"k": 4},
    "beam": {"width": 4, "k": 4},
    "beam diverse": {"width": 4, "k": 4},
    "particle-filter": {"n": 16},
    "particle-filter gibbs": {"n": 16, "iterations": 4},
}


@each_search
@pytest.mark.parametrize("tokens", [100, 400])
async def test_a_budget_that_covers_no_full_round_narrows_the_search(store, name, tokens):
    harness = Harness(store)
    solution = await harness.solve(name, budget=Budget(tokens=tokens), **DEFAULT_SIZES[name])
    assert solution.notes["search"]["expansions"] >= (2 if tokens == 400 else name != "particle-filter gibbs")
    assert harness.spent.completion_tokens <= tokens
    assert solution.best.answer in ("4", "5")
    assert any(note.startswith("the search was narrowed to ") for note in harness.run.degraded)
    made = len(harness.model.made)
    assert await harness.solve(name, budget=Budget(tokens=tokens), **DEFAULT_SIZES[name]) == solution
    assert len(harness.model.made) == made


@each_search
async def test_a_budget_without_room_for_a_step_is_spent_on_the_answer(store, name):
    harness = Harness(store, ScriptedModel(replies("Therefore, the answer (a number) is 4. ")))
    solution = await harness.solve(name, budget=Budget(tokens=8), **DEFAULT_SIZES[name])
    assert solution.best.answer == "4"
    harness = Harness(store)
    solution = await harness.solve(name, "one", budget=Budget(tokens=1), **DEFAULT_SIZES[name])
    assert (solution.stopped, harness.spent.completion_tokens) == ("budget", 1)
    assert solution.best is None or solution.best.answer is None


async def test_the_confidence_of_a_forced_answer_is_the_weight_of_its_particle(store):
    harness = Harness(store, ScriptedModel(replies("Hm.\n\nTherefore, the answer (a number) is 4. ")))
    limits = {"gen_tokens": 60, "finish_tokens": 30, "min_step_tokens": 4}
    solution = await harness.solve("particle-filter", max_step_tokens=5, max_depth=1, n=4, limits=limits)
    assert (solution.best.answer, solution.confidence) == ("4", pytest.approx(0.25))


@each_search
async def test_a_budget_of_passes_ends_the_search_and_not_the_answer(store, name):
    harness = Harness(store)
    solution = await harness.solve(name, budget=Budget(reward_calls=3))
    assert harness.spent.reward_calls <= 3
    assert solution.stopped == "budget"
    assert solution.best.answer in ("4", "5")


@each_search
async def test_at_the_depth_limit_the_answer_is_forced(store, name):
    harness = Harness(store, ScriptedModel(replies("Hm 4.\n\n" * 40)))
    size = {"n": 2} if name.startswith("particle") else {}
    best = (await harness.solve(name, max_depth=2, limits={"finish_tokens": 40}, **size)).best
    assert best.text.startswith("Hm 4.\n\nHm 4.\n\nHm 4.")
    assert "Therefore, the answer (a number) is" in best.text
    ended = harness.ended()
    assert harness.nodes()[ended.chosen].forced
    assert ended.cost["completions"] >= 1
    assert ended.cost["gen_tokens"] == harness.spent.completion_tokens


async def test_the_arithmetic_of_steps_is_a_score(store):
    harness = Harness(store, reward=None)
    solution = await harness.solve("astar", score="arithmetic")
    assert (solution.best.answer, harness.spent.reward_calls) == ("4", 0)
    assert [step.scores["reward"] for step in solution.best.steps] == [1.0, 1.0, 1.0]


async def test_several_sources_are_one(store):
    harness = Harness(store)
    solution = await harness.solve("astar", score="arithmetic+reward")
    # a correct calculation is a factor of 1, a wrong one of 0, also for the steps after it
    assert [step.scores["reward"] for step in solution.best.steps] == pytest.approx([0.9] * 3)
    wrong = [c for c in solution.candidates if c.answer == "5"]
    assert all(c.score == 0 for c in wrong)


def test_invalid_parameters_have_readable_errors():
    with pytest.raises(UserError, match=r"score = 'fancy\+judge': unknown source 'fancy'; use auto, or reward, judge"):
        create_strategy("astar", {"score": "fancy+judge"})
    with pytest.raises(UserError, match=r"^particle-filter parameters: systematic resampling around a .* biased$"):
        create_strategy("particle-filter", {"iterations": 2, "resampling": "systematic"})


async def test_without_a_reward_model_the_model_judges_itself(store):
    def script(text):
        if "Is the last step right?" in text.rpartition("user: ")[2]:
            shown = text.rpartition("Solution:")[2]
            return {"Y": 0.9, "N": 0.1} if "= 4" in shown else {"Y": 0.2, "N": 0.8}
        return MOSTLY_WRONG(text)

    class WholeWords(ScriptedModel):
        async def next_token(self, prompts, top=20):
            distributions = await super().next_token(prompts, top)
            words = {"Y": "Yes", "N": "No"}
            return [t.model_copy(update={"tokens": tuple(words.get(x, x) for x in t.tokens)}) for t in distributions]

    harness = Harness(store, WholeWords(script), reward=None)
    solution = await harness.solve("astar")
    assert (solution.best.answer, solution.confidence) == ("4", pytest.approx(0.9))
    assert harness.spent.reward_calls == solution.notes["search"]["prm_passes"]
    assert harness.run.degraded == []


async def test_a_named_reward_model_that_is_missing_is_an_error(store):
    harness = Harness(store, reward=None)
    with pytest.raises(UserError, match="needs a reward model"):
        await harness.solve("astar", score="reward")
    assert harness.model.made == []


async def test_without_any_signal_self_consistency_answers_and_is_reported(store):
    hidden = {"logprobs": False, "scoring": False, "top_logprobs": 0}
    harness = Harness(store, ScriptedModel(MOSTLY_WRONG, changed=hidden), reward=None)
    solution = await harness.solve("astar", k=9)
    assert len(solution.candidates) == 9
    assert harness.run.degraded == ["nothing can score the steps of scripted; used self-consistency of 9 chains"]
    with pytest.raises(CapabilityMissing):
        await harness.solve("astar", "s", score="judge")


async def test_a_vote_of_particles_adds_their_weights_up(store):
    harness = Harness(store)
    solution = await harness.solve("particle-filter", n=8)
    weights = solution.notes["weights"]
    assert sum(weights.values()) == pytest.approx(1.0)
    assert solution.confidence == pytest.approx(weights["4"])
    assert len(solution.notes["ess"][0]) == 3
    one = await harness.solve("particle-filter", "one", n=8, parity="reference")
    assert one.best.answer in weights
    assert one.confidence == one.best.score


async def test_select_chooses_among_several_solutions(store):
    # the wrong one ends better, after a bad step
    wrong = {"2": 0.9, "S": 0.1, "T": 0.7}
    harness = Harness(store, reward=lambda step: 0.6 if "4" in step else wrong[step[0]])
    f, score, vote = [
        (await harness.solve("astar", select, select=select, m=2, k=8)).best for select in ("f", "score", "vote")
    ]
    assert (f.answer, score.answer, vote.answer) == ("4", "5", "5")
    assert score.score == pytest.approx(0.7)


async def test_a_cancelled_search_has_offered_its_best_solution(store):
    harness = Harness(store)
    models = await harness.models("beam")
    kind = STRATEGIES.load("beam")
    strategy = kind(kind.Config(temperature=1.0, width=4, k=4, max_depth=30))
    run, offered = harness.run, []
    original = run.emit

    def emit(event, parent=None):
        if isinstance(event, NodesSearched) and run.best is not None:
            offered.append(run.best)
        return original(event, parent)

    run.emit = emit
    await strategy.solve(QUESTION, models, run)
    assert offered
    assert all(solution.best.answer in ("4", "5") for solution in offered)


async def test_choices_and_documents_reach_the_step_reward(store):
    question = Question(text="Which is 2 + 2?", choices=("four", "five"))
    harness = Harness(store, ScriptedModel(replies("Step.\n\nThe answer is A.")), lambda _: 0.5)
    await harness.solve("astar", question=question, k=2)
    assert "A) four" in harness.reward.asked[0][0]
    assert "blank line" not in harness.reward.asked[0][0]  # only a judge sees the prompt of the model
