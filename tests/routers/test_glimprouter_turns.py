"""`glimprouter` with tools: each turn by one model, by the first tokens that the small one would write."""

import math

import pytest
from reason.core.budget import Budget
from reason.core.errors import CapabilityMissing
from reason.core.messages import Message, ToolCall
from reason.core.types import Question
from reason.reasoning.thinking import require_suitable_thinking
from reason.routers.glimprouter import CALL_TOKENS
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.scripted_tools import WEATHER, ToolModel, calling
from support.two_models import Probed, TwoModels

NEWS = WEATHER.model_copy(update={"name": "news"})
QUESTION = Question(text="Is it warm in Rome?", tools=(WEATHER, NEWS))
ROME = calling(city="Rome")
LARGE = calling(city="Rome, Italy")


def pair(store, *texts, weights=None, kind=ToolModel, **options):
    return TwoModels(
        store,
        kind(replies(*texts, weights=weights), name="s/small", **options),
        ToolModel(replies(LARGE), name="s/large"),
    )


async def turn(runs, name="r", question=QUESTION, **given):
    solution = await runs.solve(name, question=question, **{"threshold": 0.5, **given})
    calls = [call.parsed_arguments["city"] for call in solution.best.tool_calls]
    return solution.notes["writers"], solution.notes["entropies"], calls or solution.best.text


def requests(model):
    return [request for call in model.generate_calls for request in call]


async def test_the_least_certain_token_up_to_the_tools_name_decides(store):
    unsure = pair(store, ROME, calling("news", city="Rome"), weights=[0.7, 0.3])
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert await turn(unsure) == (["large"], [pytest.approx(entropy)], ["Rome, Italy"])
    probe, *others = requests(unsure.small)
    assert (probe.sampling.max_tokens, probe.sampling.stop, others) == (CALL_TOKENS, ('"arguments"',), [])
    (request,) = requests(unsure.large)
    assert (request.prompt, request.prompt.tools) == (probe.prompt, QUESTION.tools)
    sure = pair(store, ROME)
    assert await turn(sure, "sure") == (["small"], [0.0], ["Rome"])
    assert requests(sure.large) == []
    (routed,) = sure.sink.of_type("step.routed")
    assert (routed.role, routed.entropy, routed.threshold, routed.kind) == ("small", 0, 0.5, "top_k")
    assert sure.run.degraded == []


async def test_arguments_do_not_count(store):
    # a name of one letter leaves room for the arguments within the probe's tokens
    question = QUESTION.model_copy(update={"tools": (WEATHER.model_copy(update={"name": "w"}),)})
    texts = [f'{{"name": "w", "arguments": {{"city": "{city}"}}}}' for city in ("A", "B", "C")]
    writers, entropies, _ = await turn(pair(store, *texts), question=question)
    assert (writers, entropies) == (["small"], [0])


@pytest.mark.parametrize(("texts", "entropy"), [(["Yes.", "You"], 0), (["Yes.", "No."], math.log(2))])
async def test_only_the_first_token_of_a_text_counts(store, texts, entropy):
    writers, entropies, _ = await turn(pair(store, *texts))
    assert (writers, entropies) == (["large" if entropy else "small"], [pytest.approx(entropy)])


async def test_each_turn_is_routed_by_itself(store):
    call = ToolCall(id="1", name="weather", arguments='{"city": "Rome"}')
    since = (Message(role="assistant", tool_calls=(call,)), Message(role="tool", content="24", tool_call_id="1"))
    runs = pair(store, "It is warm.")
    runs.small._script = lambda text: replies(*["It is warm."] if "tool: " in text else [ROME, "No."])(text)
    assert await turn(runs) == (["large"], [pytest.approx(math.log(2))], ["Rome, Italy"])
    later = QUESTION.model_copy(update={"continuation": since})
    assert await turn(runs, question=later) == (["small"], [0], "It is warm.")
    assert runs.sink.of_type("step.routed")[0].index == 1
    replayed = await runs.solve(question=later, threshold=0.5, replay=True)
    assert replayed.best.text == "It is warm."


async def test_calls_without_log_probabilities_are_the_large_models(store):
    class Hiding(ToolModel):
        """As OpenAI's API: log-probabilities of texts only, and a call that was cut is still a call."""

        async def generate(self, requests, listener=None):
            call = ToolCall(id="1", name="weather", arguments='{"ci')
            return [
                [one.model_copy(update={"text": "", "tool_calls": (call,), "logprobs": None, "top_logprobs": None})]
                for (one,) in await super().generate(requests)
            ]

    runs = pair(store, ROME, kind=Hiding)
    assert await turn(runs) == (["large"], [None], ["Rome, Italy"])
    (report,) = runs.run.degraded
    assert report.startswith("s/small returns no log-probabilities of tool calls")


async def test_the_entropy_over_the_vocabulary_is_of_the_same_tokens(store):
    class ProbedTools(Probed, ToolModel):
        @property
        def capabilities(self):
            return Probed.capabilities.fget(self).model_copy(update={"tools": True})

        def measured(self, request, completion):
            (processor,) = request.sampling.logits_processors or (None,)
            if processor is None:
                return completion
            assert processor.args == {"first": CALL_TOKENS}
            report = {"positions": [0, 1, 2], "entropy": [0.1, 0.9, 0.2]}
            return completion.model_copy(update={"extras": {"entropy_probe": report}, "top_logprobs": None})

    assert (await turn(pair(store, ROME, kind=ProbedTools)))[:2] == (["large"], [0.9])
    assert (await turn(pair(store, "Yes.", kind=ProbedTools), "text"))[:2] == (["small"], [0.1])


@pytest.mark.parametrize(("policy", "city"), [("large", "Rome, Italy"), ("small", "Rome")])
async def test_baselines_probe_nothing(store, policy, city):
    runs = pair(store, ROME, "No.", weights=[0.9, 0.1])
    assert await turn(runs, threshold=None, policy=policy) == ([policy], [None], [city])
    assert len(requests(runs.small)) + len(requests(runs.large)) == 1


async def test_a_small_model_without_tools_is_refused_before_anything_is_paid(store):
    runs = pair(store, ROME, kind=ScriptedModel)
    with pytest.raises(CapabilityMissing, match="tools"):
        await turn(runs)
    assert requests(runs.small) == []


async def test_a_thinking_small_model_is_probed_in_its_thought_and_any_model_may_be_the_large_one(store):
    runs = pair(store, "x", profile=THINKS)
    runs.small._script = thinking("Hm.", "The answer is yes.")
    runs.large.profile = THINKS.model_copy(update={"prefix": "none"})
    await runs.begin(question=QUESTION)
    require_suitable_thinking(runs.strategy, runs.models, runs.run)  # it cannot continue the small one's thought
    assert await turn(runs) == (["small"], [0], "The answer is yes.")
    probe = requests(runs.small)[0]
    assert (probe.sampling.thinking_tokens, probe.prompt.thought.closed) == (1, False)


async def test_a_spent_budget_buys_no_turn(store):
    runs = pair(store, ROME)
    solution = await runs.solve(question=QUESTION, threshold=0.5, budget=Budget(calls=1))
    assert (solution.chosen, solution.stopped, requests(runs.small)) == (None, "budget", [])
