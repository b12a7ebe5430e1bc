"""A run store, a scripted model and the step samplers of its runs, for tests of step sampling."""

from reason.core.messages import Prompt
from reason.core.types import Question
from reason.reasoning.continuations import Prefix, StepOptions, StepSampler

from support.scripted_model import ScriptedModel, replies
from support.stored_runs import RunHarness

QUESTION = Question(text="What is 2 + 2?", kind="number")
PROMPT = Prompt.user("What is 2 + 2?")
CHAIN = "Step 1: two.\n\nStep 2: and two.\n\nThe answer is 4."
ROOT = Prefix()


class Harness(RunHarness):
    """Creates step samplers; each belongs to the run of its name, which is started or resumed."""

    async def sampler(self, name="r", *, seed=3, prompt=PROMPT, question=QUESTION, budget=None, **options):
        model = await self.begin(name, strategy="astar", question=question, budget=budget, seed=seed)
        options = StepOptions(**{"temperature": 1.0, **options})
        return StepSampler(model, prompt, question, self.run, options)


async def walk(sampler, prefix=ROOT):
    """Sample one solution step by step."""
    steps = []
    while not prefix.terminal and len(steps) < 20:
        (expansion,) = (await sampler.expand([prefix])).expansions
        (sample,) = expansion.samples
        steps.append(sample)
        prefix = sample.after
    return steps


async def walked(store, *texts, prefix=ROOT, **options):
    """Sample one of these texts step by step; the harness and the steps."""
    harness = Harness(store, ScriptedModel(replies(*texts)))
    return harness, await walk(await harness.sampler(**options), prefix)


async def expanded(store, k, *texts, failing=frozenset(), **options):
    """Sample `k` first steps of these texts; the harness, what was made, and the expansion."""
    harness = Harness(store, ScriptedModel(replies(*texts), failing=failing))
    made = await (await harness.sampler(**options)).expand([ROOT], k)
    (expansion,) = made.expansions
    return harness, made, expansion
