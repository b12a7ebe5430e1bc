"""Training of a navigator for `rlot`: Double DQN on the rewards of the blocks that it chooses.

    split the questions by a digest of their text; train on those that a direct answer gets wrong
    repeat
        choose an action for every episode in flight, in order
        run their blocks concurrently, so that the engine batches the calls
        learn from the transitions, in order

So the result follows from the seed and the completions, however long a block takes. Every problem is one run in the run
store, from which its completions are reused. An interrupted training is continued by running it again: it repeats what
it did, which generates nothing, and goes on from there.

| reward | a block after which the episode continues | the block that ends it |
| --- | --- | --- |
| `prm` | the reward model's probability that the last step is right | 1 if the answer is right, else 0 |
| `outcome` | 0 | the same |
| `potential` | gamma * Phi(s') - Phi(s) | 1 if the answer is right, else 0, less Phi(s) |

Phi is the probability that `prm` pays, 0 for the bare problem and after the end. Over an episode of T blocks the
discounted rewards of `potential` sum to gamma^(T-1) if the answer is right and to 0 if not.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, and their program; van Hasselt, Guez, Silver 2016,
arXiv:1509.06461, equation 4, for the target; Ng, Harada, Russell 1999, theorem 1, for `potential`. Differs: the maximum
over actions is over legal blocks only; `outcome` is the default; questions that are trained on are never validated on.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import Field, JsonValue, model_validator
from reason.agents.pipeline import assemble
from reason.core.concurrency import gather
from reason.core.errors import BudgetExceeded, ContextTooLong, DataError, InvalidResponse, UnknownName, UserError
from reason.core.events import Event, SampleFinished
from reason.core.extras import missing_package
from reason.core.files import question_digest, write_file
from reason.core.messages import Frozen
from reason.core.run import Run, RunConfig
from reason.core.settings import Settings
from reason.core.store.records import RunWrites
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Candidate, Solution
from reason.core.version import __version__
from reason.evals.datasets.items import ChoiceGold, Dataset, Item, LabelGold, MathGold, TextGold, is_held_out
from reason.evals.plan import derive_item_seed
from reason.evals.scoring import Scorer
from reason.reasoning.answers.extraction import read_candidate
from reason.reasoning.prompts import question_text
from reason.reasoning.rlot.assessment import State
from reason.reasoning.rlot.block_runner import BlockRunner
from reason.reasoning.rlot.blocks import LETTERS, Block, Legal, Trajectory, best_legal
from reason.reasoning.rlot.episode import Episode
from reason.reasoning.rlot.navigator import HIDDEN, DuelingNetwork, Navigator, NavigatorCard, save_navigator
from reason.reasoning.rlot.rlot import RLoT
from reason.reasoning.step_rewards import ModelStepReward
from reason.reasoning.strategy import EXAMPLE_REWARD, Models, create_strategy
from reason.serving.factory import load_model
from reason.serving.litellm.limiter import LimiterRegistry
from reason.serving.metered.model import MeteredModel
from reason.serving.metered.scorers import MeteredReward
from reason.serving.model import LanguageModel
from reason.serving.rewards.factory import load_reward_model
from reason.serving.rewards.model import RewardModel

try:
    import torch
    from torch import nn
except ModuleNotFoundError as e:
    raise missing_package("training a navigator", e.name, "train") from e

RewardKind = Literal["outcome", "prm", "potential"]
ProblemFilter = Literal["hard", "all"]

EPISODES: Final = "episodes.jsonl"
VALIDATIONS: Final = "validations.jsonl"
HELD_OUT: Final = "held_out.jsonl"
STORE: Final = "store.sqlite3"
POLICY_PARAMETERS: Final = frozenset({"policy", "navigator", "weights", "sequence", "n_votes"})
"""Parameters of `rlot` that select the policy or combine several answers: a training explores by itself."""
EPISODE_ERRORS: Final = (ContextTooLong, InvalidResponse)
"""Errors of one episode: it ends without an answer, and gets no further reward."""

T = TypeVar("T")
S = TypeVar("S")


# -- the learner


class LearningConfig(Frozen):
    """Hyperparameters of the learner; the defaults are the paper's and its program's.

    Attributes:
        gamma: Discount of the next state's value.
        lr: Initial learning rate of Adam.
        lr_halved_every: Episodes between two halvings of the learning rate.
        batch: Transitions of an update.
        capacity: Size of the replay buffer.
        learning_starts: Transitions before the first update.
        gradient_steps: Updates after each step, each with its own batch. More than the paper's 1 pay off where an
            episode takes a minute and an update a millisecond.
        sync_every: Updates between two copies of the online network to the target network.
        eps_min: Minimum share of random actions.
        eps_decay: Factor of the share, from 1 on, at each step.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9
    lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    lr_halved_every: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 64
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    learning_starts: Annotated[int, Field(ge=1)] = 500
    gradient_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    sync_every: Annotated[int, Field(ge=1)] = 50
    eps_min: Annotated[float, Field(ge=0, le=1)] = 0.0
    eps_decay: Annotated[float, Field(gt=0, le=1)] = 0.9995

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.batch <= self.learning_starts <= self.capacity:
            raise ValueError("batch must be at most learning_starts, and that at most capacity")
        return self

    def epsilon(self, steps: int) -> float:
        """The share of random actions after `steps`: max(eps_min, eps_decay^steps)."""
        return max(self.eps_min, self.eps_decay**steps)

    def learning_rate(self, episodes: int) -> float:
        """Adam's learning rate after `episodes`: lr * 0.5^floor(episodes / lr_halved_every)."""
        return self.lr * 0.5 ** (episodes // self.lr_halved_every)


class Transition(NamedTuple):
    """One step of an episode; the next state and what is legal there are undefined if the episode ended."""

    state: State
    action: int
    reward: float
    done: bool
    next_state: State
    next_legal: Legal


class TorchNavigator(nn.Module):
    """The navigator's network in torch, in double precision; the layers have the names of the authors' program."""

    def __init__(self) -> None:
        super().__init__()
        double = torch.float64
        self.Linear1 = nn.Linear(7, HIDDEN, dtype=double)
        self.Linear2_adv = nn.Linear(HIDDEN, HIDDEN, dtype=double)
        self.Linear2_val = nn.Linear(HIDDEN, HIDDEN, dtype=double)
        self.Linear3_adv = nn.Linear(HIDDEN, len(Block), dtype=double)
        self.Linear3_val = nn.Linear(HIDDEN, 1, dtype=double)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Q of each action, `[n, 5]`, in states `[n, 7]` of scores from 0 to 3."""
        shared = torch.relu(self.Linear1((states.double() - 1.5) / 1.5))
        advantage = self.Linear3_adv(torch.relu(self.Linear2_adv(shared)))
        value = self.Linear3_val(torch.relu(self.Linear2_val(shared)))
        q: torch.Tensor = value + advantage - advantage.mean(dim=1, keepdim=True)
        return q

    def network(self) -> DuelingNetwork:
        """The same network for inference."""
        return DuelingNetwork({name: tensor.detach().numpy() for name, tensor in self.state_dict().items()})


@torch.no_grad()
def double_dqn_targets(batch: Sequence[Transition], online: nn.Module, target: nn.Module, gamma: float) -> torch.Tensor:
    """R + gamma (1 - done) Q_target(s', a*) of each transition, a* the legal action of the largest Q_online."""
    done = torch.tensor([t.done for t in batch])
    next_states = torch.tensor([t.next_state for t in batch])
    illegal = ~torch.tensor([t.next_legal for t in batch])
    best = online(next_states).masked_fill(illegal, -torch.inf).argmax(dim=1, keepdim=True)
    next_values = target(next_states).gather(1, best).squeeze(1).masked_fill(done, 0.0)
    rewards = torch.tensor([t.reward for t in batch], dtype=torch.float64)
    return torch.add(rewards, next_values, alpha=gamma)


class Learner:
    """A navigator in training; all randomness follows from the seed.

    Attributes:
        online: The network that learns and chooses.
        target: The network that values next states.
        replay: The last transitions.
        steps: Actions chosen so far.
        episodes: Episodes ended so far.
        updates: Updates so far.
    """

    def __init__(self, learning: LearningConfig, seed: int = 0) -> None:
        self.learning = learning
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.online = TorchNavigator()
        self.target = copy.deepcopy(self.online)
        self.replay: deque[Transition] = deque(maxlen=learning.capacity)
        self.steps = self.episodes = self.updates = 0
        self._adam = torch.optim.Adam(self.online.parameters(), lr=learning.lr)
        self._rng = random.Random(seed)

    def act(self, state: State, legal: Legal) -> int:
        """With probability epsilon a random legal action, else the legal one of the highest value."""
        explores = self._rng.random() < self.learning.epsilon(self.steps)
        self.steps += 1
        if explores:
            return self._rng.choice([action for action in Block if legal[action]])
        with torch.no_grad():
            return best_legal(self.online(torch.tensor([state]))[0].tolist(), legal)

    def observe(self, transition: Transition) -> float | None:
        """Add a transition, and learn once enough are there.

        Returns:
            The loss before the last update; None before the first one.

        Raises:
            UserError: The training diverged.
        """
        self.replay.append(transition)
        loss = None
        if len(self.replay) >= self.learning.learning_starts:
            for _ in range(self.learning.gradient_steps):
                loss = self.learn(self._rng.sample(list(self.replay), self.learning.batch))
        return loss

    def learn(self, batch: Sequence[Transition]) -> float:
        """One update with a batch; returns the loss before it (raises as `observe`)."""
        targets = double_dqn_targets(batch, self.online, self.target, self.learning.gamma)
        q = self.online(torch.tensor([t.state for t in batch]))
        chosen = q.gather(1, torch.tensor([[t.action] for t in batch])).squeeze(1)
        loss = nn.functional.mse_loss(chosen, targets)
        if not math.isfinite(loss.item()):
            raise UserError(f"training diverged: the loss is {loss.item()}", hint="use a smaller learning rate")
        self._adam.param_groups[0]["lr"] = self.learning.learning_rate(self.episodes)
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        self.updates += 1
        if self.updates % self.learning.sync_every == 0:
            self.target.load_state_dict(self.online.state_dict())
        return loss.item()


# -- the problems


class TrainingPlan(Frozen):
    """What is trained on, and how.

    Attributes:
        episodes: Number of episodes.
        problems: "hard" trains on those training questions that a direct greedy answer gets wrong, "all" on all.
        limit: Number of items of each dataset, the first ones; None for all.
        holdout: Share of the questions that are never trained on.
        reward: The reward of a block (see the module).
        parameters: Parameters of `rlot` that differ from the settings.
        learning: Hyperparameters of the learner.
        parallel: Maximum number of episodes in flight; it changes the result, since they share one learner.
        validation: Number of held-out questions of a validation; 0 for none.
        validate_every: Episodes between two validations.
        max_tokens: The training stops once it has generated so many tokens; None for no limit.
        seed: Seed of the weights, of the exploration and of the order of problems; no sample depends on it.
    """

    episodes: Annotated[int, Field(ge=1)] = 3000
    problems: ProblemFilter = "hard"
    limit: Annotated[int, Field(ge=1)] | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    reward: RewardKind = "outcome"
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    learning: LearningConfig = LearningConfig()
    parallel: Annotated[int, Field(ge=1, le=1024)] = 8
    validation: Annotated[int, Field(ge=0)] = 32
    validate_every: Annotated[int, Field(ge=1)] = 250
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """A question that can be trained on, with its dataset's name and the digest of its text."""

    dataset: str
    item: Item
    digest: str

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and item id."""
        return self.dataset, self.item.id


def split_problems(datasets: Sequence[Dataset], plan: TrainingPlan) -> tuple[list[Problem], list[Problem]]:
    """The questions that may be trained on, and those that never are; a question's text decides.

    Raises:
        UserError: A part that is needed is empty.
        DataError: A dataset has answers that are neither right nor wrong.
    """
    parts: tuple[list[Problem], list[Problem]] = ([], [])
    for dataset in datasets:
        for item in dataset.items[: plan.limit]:
            if getattr(item.gold, "rule", "one") != "one":
                raise DataError(
                    f"answers to {dataset.full_name} are neither right nor wrong (item {item.id!r})",
                    hint="train on another dataset, or on another variant",
                )
            problem = Problem(dataset.full_name, item, question_digest(item.question.text))
            parts[is_held_out(problem.digest, plan.holdout)].append(problem)
    train, held_out = parts
    if not train:
        raise UserError("there is no training question", hint="train on more questions, or lower --holdout")
    if plan.validation and not held_out:
        raise UserError(
            "no question is held out, so there is nothing to validate on",
            hint="train on more questions, raise --holdout, or use --validation 0",
        )
    return train, held_out


def custom_record(problem: Problem) -> dict[str, JsonValue]:
    """A problem as a line of a custom dataset (`datasets.custom`)."""
    item, question, gold = problem.item, problem.item.question, problem.item.gold
    answers: Sequence[JsonValue] = ("",)
    if item.gold_positions and question.choices:
        answers = item.gold_positions[:1]
    elif isinstance(gold, MathGold):
        answers = (gold.answer, *gold.equivalents)
    elif isinstance(gold, TextGold):
        answers = gold.answers
    elif isinstance(gold, LabelGold):
        answers = (gold.label,)
    elif isinstance(gold, ChoiceGold):
        answers = [question.choices[i] for i in gold.correct]
    optional: dict[str, JsonValue] = {
        "choices": list(question.choices),
        "answer_kind": "" if question.choices or question.kind == "auto" else question.kind,
        "documents": [{"name": d.name, "text": d.text} for d in question.documents],
        "subject": item.subject,
        "group": item.group,
    }
    return {
        "id": f"{problem.dataset}/{item.id}",
        "question": question.text,
        "answer": list(answers) if len(answers) > 1 else answers[0],
        **{name: value for name, value in optional.items() if value},
    }


# -- episodes


@dataclass
class TrainingUsage:
    """What a training generated, and what the run store supplied instead."""

    tokens: int = 0
    completions: int = 0
    reused_tokens: int = 0
    reused_completions: int = 0

    def count(self, event: Event) -> None:
        """Count an event of a problem's run."""
        if isinstance(event, SampleFinished):
            made = event.completion.usage.completion_tokens
            self.reused_completions += event.replayed
            self.completions += not event.replayed
            self.reused_tokens += made if event.replayed else 0
            self.tokens += 0 if event.replayed else made


class _CallStore(SqliteStore):
    """A run store that drops events: those of a thousand episodes would fill the disk."""

    def save(self, run_id: str, writes: RunWrites) -> asyncio.Future[None]:
        writes.events.clear()
        return super().save(run_id, writes)


class EpisodeResources:
    """The models, run store and scorers that the episodes of a training share (see `open_resources`)."""

    def __init__(
        self,
        plan: TrainingPlan,
        settings: Settings,
        model: LanguageModel,
        reward: RewardModel | None,
        store: SqliteStore,
        scorer: Scorer,
    ) -> None:
        self.plan, self.settings, self.model, self.reward = plan, settings, model, reward
        self.parameters = rlot_parameters(settings, plan)
        self.config = RLoT.Config.model_validate(self.parameters)
        self.usage = TrainingUsage()
        self._store, self._scorer = store, scorer
        self._open: dict[str, Run] = {}

    async def run(self, problem: Problem, strategy: str, parameters: dict[str, JsonValue]) -> Run:
        """The run of a problem; all episodes on it continue the same one in the store.

        Raises:
            UserError: Another process uses it.
        """
        config = RunConfig(
            question=problem.item.question,
            strategy=strategy,
            parameters=parameters,
            models={"main": self.settings.model},
            local=self.settings.local,
            seed=derive_item_seed(problem.item.id, 0),  # that of an evaluation, whose completions are reused
            reuse="store",
        )
        text = json.dumps([self.settings.model, strategy, parameters, problem.key], sort_keys=True)
        run = Run(f"train-{_digest(text)}", config, self._store, sinks=(self.usage.count,))
        if run.id not in self._open:
            try:
                await self._store.get_run(run.id)
                await self._store.claim_run(run.id)
            except UnknownName:
                await self._store.create_run(run.id, config.model_dump(mode="json"))
                models = {"main": self.model} | ({} if self.reward is None else {"reward": self.reward})
                identities: dict[str, JsonValue] = {
                    role: {"identity": m.identity, "capabilities": m.capabilities.model_dump(mode="json")}
                    for role, m in models.items()
                }
                await self._store.save(run.id, RunWrites(identities=identities))
        self._open[run.id] = run
        return run

    async def score(self, problem: Problem, run: Run, candidate: Candidate) -> bool:
        """Whether an answer is right."""
        answer = assemble(run, Solution(chosen=0, candidates=(candidate,)))
        return (await self._scorer.score(problem.item, answer)).correct is True

    async def close(self) -> None:
        """Release the runs."""
        for run in self._open.values():
            await run.save()
            await self._store.end_run(run.id, "finished", None)


def rlot_parameters(settings: Settings, plan: TrainingPlan) -> dict[str, JsonValue]:
    """The complete parameters of `rlot` in a training.

    Raises:
        UserError: One of them cannot be set for a training, or is invalid.
    """
    refused = sorted(POLICY_PARAMETERS & set(plan.parameters))
    if refused:
        raise UserError(f"the parameter {refused[0]!r} of rlot cannot be set for a training, which explores by itself")
    chosen = {**settings.strategies.get(RLoT.name, {}), **plan.parameters}
    _, complete = create_strategy(RLoT.name, {n: v for n, v in chosen.items() if n not in POLICY_PARAMETERS})
    return {name: value for name, value in complete.items() if name not in POLICY_PARAMETERS}


@asynccontextmanager
async def open_resources(plan: TrainingPlan, settings: Settings, store_path: Path) -> AsyncIterator[EpisodeResources]:
    """Open the models, the run store and the scorer of a training.

    Raises:
        UserError: The reward needs a reward model and there is none, or the model cannot answer without thinking.
        StoreError: The store cannot be used.
        DataError, BackendError: A model cannot be opened.
    """
    if plan.reward != "outcome" and settings.reward_model is None:
        raise UserError(
            f"the reward {plan.reward!r} scores steps, and no reward model is set",
            hint=f"name one with --reward-model, for example {EXAMPLE_REWARD}; or use --reward outcome",
        )
    rlot_parameters(settings, plan)
    opened: dict[str, LanguageModel] = {}
    limiters = LimiterRegistry()
    async with AsyncExitStack() as stack:
        store = await _CallStore.open(store_path)
        stack.push_async_callback(store.aclose)

        async def language_model(name: str) -> LanguageModel:
            if name not in opened:
                opened[name] = await load_model(name, settings, None, limiters)
                stack.push_async_callback(opened[name].aclose)
            return opened[name]

        model = await language_model(settings.model)
        if not model.capabilities.profile.can_skip_thinking:
            raise UserError(
                f"{model.name} always thinks, and rlot writes its blocks without thinking",
                hint="train a navigator for a model that can answer without thinking",
            )
        reward: RewardModel | None = None
        if plan.reward != "outcome" and settings.reward_model is not None:
            reward = await load_reward_model(settings.reward_model, settings, None, language_model)
            stack.push_async_callback(reward.aclose)
        scorer = await stack.enter_async_context(Scorer())
        resources = EpisodeResources(plan, settings, model, reward, store, scorer)
        stack.push_async_callback(resources.close)
        yield resources


class EpisodeRewards:
    """The rewards of one episode, in order.

    Attributes:
        unscored: Blocks whose step the reward model could not score, not even without the earlier ones; they count as
            0.
    """

    def __init__(self, kind: RewardKind, gamma: float, model: MeteredReward | None, run: Run) -> None:
        self.unscored = 0
        self._kind, self._gamma = kind, gamma
        self._scores = None if model is None or kind == "outcome" else ModelStepReward(model, run)
        self._phi = 0.0

    async def step_reward(self, trajectory: Trajectory) -> float:
        """The reward of the block that led to this trajectory, from which the episode continues."""
        if self._scores is None:
            return 0.0
        before, self._phi = self._phi, await self._score(self._scores, trajectory)
        return self._phi if self._kind == "prm" else self._gamma * self._phi - before

    def final_reward(self, *, correct: bool) -> float:
        """The reward of the block that ends the episode."""
        return float(correct) - (self._phi if self._kind == "potential" else 0.0)

    async def _score(self, scores: ModelStepReward, trajectory: Trajectory) -> float:
        """The probability of the last step; if the steps are too long for the reward model, without the oldest."""
        problem = question_text(trajectory.question)
        for first in range(len(trajectory.steps)):
            (score,) = await scores.score(problem, [trajectory.steps[first:]], "last")
            if score is not None:
                return score
        self.unscored += bool(trajectory.steps)
        return 0.0


def discounted_return(rewards: Sequence[float], gamma: float) -> float:
    """The sum of gamma^t r_t, from the first reward on."""
    return math.fsum(reward * gamma**t for t, reward in enumerate(rewards))


class EpisodeRecord(Frozen):
    """One episode; no times, so that equal trainings write equal lines.

    Attributes:
        blocks: The blocks that ran, by their letters.
        length: Blocks before the answer. A reward of steps favours long chains: watch it.
        states: The self-assessments, that of the bare problem first.
        forced: Whether the answer was requested because no further block could run.
        scores_requested: Scores that the assessments should have had.
        scores_missing: Scores that could not be parsed and count as 0.
        unscored: Blocks that the reward model could not score.
        tokens: Tokens of all completions, generated or from the run store.
        calls: Model calls, likewise.
        epsilon: Probability of a random action at its end.
        loss: The last loss during it; None if there was none.
        error: What ended it before its answer; empty if nothing did.
    """

    episode: int = 0
    dataset: str
    item: str
    blocks: tuple[str, ...]
    length: int
    states: tuple[State, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    episode_return: float
    correct: bool
    answer: str | None = None
    forced: bool = False
    scores_requested: int = 0
    scores_missing: int = 0
    unscored: int = 0
    tokens: int = 0
    calls: int = 0
    epsilon: float = 0.0
    loss: float | None = None
    error: str = ""


class ValidationResult(Frozen):
    """The greedy navigator on held-out problems, after `episode` episodes; means over the problems."""

    episode: int
    problems: int
    correct: int
    episode_return: float
    length: float
    tokens: float

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.problems


class TrainingEpisode:
    """One episode on one problem.

    Attributes:
        states: Assessments so far, the bare problem's first.
        actions: Actions so far.
        rewards: Their rewards.
        done: Whether it has ended.
        correct: Whether its answer was right.
        answer: The parsed answer; None if there is none.
        error: What ended it before its answer; empty if nothing did.
        losses: Losses of the updates that its transitions led to.
    """

    def __init__(self, resources: EpisodeResources, problem: Problem, run: Run) -> None:
        self.problem = problem
        self.states: list[State] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.losses: list[float] = []
        self.done = self.correct = False
        self.answer: str | None = None
        self.error = ""
        self._resources, self._run = resources, run
        config, plan = resources.config, resources.plan
        self._runner = BlockRunner(
            MeteredModel(resources.model, "main", run),
            run,
            RLoT.limits,
            temperature=config.temperature,
        )
        self._chain = Episode(self._runner, problem.item.question, max_blocks=config.max_blocks, parity=config.parity)
        reward = None if resources.reward is None else MeteredReward(resources.reward, "reward", run)
        self._rewards = EpisodeRewards(plan.reward, plan.learning.gamma, reward, run)

    @classmethod
    async def begin(cls, resources: EpisodeResources, problem: Problem) -> Self:
        """Begin an episode: the model assesses the bare problem. A prompt that is too long ends it.

        Raises:
            StoreError, UserError: The problem's run cannot be used.
            BackendError: The model failed.
        """
        episode = cls(resources, problem, await resources.run(problem, RLoT.name, resources.parameters))
        try:
            await episode._chain.begin()
        except EPISODE_ERRORS as e:
            episode.error, episode.done = e.message, True
        episode.states.append(episode.state)
        return episode

    @property
    def state(self) -> State:
        """The last assessment."""
        return self._chain.state

    @property
    def legal(self) -> Legal:
        """Which blocks may run next."""
        return self._chain.legal

    async def act(self, action: int) -> Transition:
        """Run a block.

        Raises:
            UserError: The block may not run.
            BackendError: The model or the reward model failed.
        """
        before, chain = self.state, self._chain
        try:
            await chain.act(action)
            if chain.completion is None:
                reward = await self._rewards.step_reward(chain.trajectory)
            else:
                candidate = read_candidate(chain.completion, self.problem.item.question)
                self.answer = candidate.answer
                self.correct = await self._resources.score(self.problem, self._run, candidate)
                self.done, reward = True, self._rewards.final_reward(correct=self.correct)
        except EPISODE_ERRORS as e:
            self.error, self.done = e.message, True
            reward = self._rewards.final_reward(correct=False)
        self.actions.append(action)
        self.rewards.append(reward)
        self.states.append(self.state)
        return Transition(before, action, reward, self.done, self.state, self.legal)

    def record(self, episode: int = 0, epsilon: float = 0.0) -> EpisodeRecord:
        """The record of the episode after its end."""
        usage = self._run.ledger.usage()
        return EpisodeRecord(
            episode=episode,
            dataset=self.problem.dataset,
            item=self.problem.item.id,
            blocks=tuple(LETTERS[block] for block in self._chain.blocks),
            length=self._chain.num_blocks,
            states=tuple(self.states),
            actions=tuple(self.actions),
            rewards=tuple(self.rewards),
            episode_return=discounted_return(self.rewards, self._resources.plan.learning.gamma),
            correct=self.correct,
            answer=self.answer,
            forced=self._chain.forced,
            scores_requested=self._runner.scores_requested,
            scores_missing=self._runner.scores_missing,
            unscored=self._rewards.unscored,
            tokens=usage.completion_tokens,
            calls=usage.model_calls,
            epsilon=epsilon,
            loss=self.losses[-1] if self.losses else None,
            error=self.error,
        )


async def direct_answers(resources: EpisodeResources, problems: Sequence[Problem]) -> list[bool]:
    """Whether a direct greedy chain of thought answers each problem right."""
    strategy, parameters = create_strategy("cot", {})

    async def is_right(problem: Problem) -> bool:
        run = await resources.run(problem, "cot", parameters)
        try:
            models = Models({"main": MeteredModel(resources.model, "main", run)})
            best = (await strategy.solve(problem.item.question, models, run)).best
        except EPISODE_ERRORS:
            return False
        return best is not None and await resources.score(problem, run, best)

    return await map_concurrently(problems, is_right, resources.plan.parallel)


async def validate(
    resources: EpisodeResources, navigator: Navigator, problems: Sequence[Problem], episode: int
) -> ValidationResult:
    """Let a navigator choose all blocks greedily on at least one problem."""

    async def run(problem: Problem) -> EpisodeRecord:
        greedy = await TrainingEpisode.begin(resources, problem)
        while not greedy.done:
            await greedy.act(navigator.choose(greedy.state, greedy.legal))
        return greedy.record()

    records = await map_concurrently(problems, run, resources.plan.parallel)
    n = len(records)
    return ValidationResult(
        episode=episode,
        problems=n,
        correct=sum(r.correct for r in records),
        episode_return=sum(r.episode_return for r in records) / n,
        length=sum(r.length for r in records) / n,
        tokens=sum(r.tokens for r in records) / n,
    )


# -- the training


@dataclass(frozen=True)
class TrainedNavigator:
    """The result of a training; `is_complete` is false if `max_tokens` ended it."""

    navigator: Navigator
    records: tuple[EpisodeRecord, ...]
    validations: tuple[ValidationResult, ...]
    num_problems: int
    num_held_out: int
    usage: TrainingUsage
    is_complete: bool


async def train_navigator(
    plan: TrainingPlan,
    datasets: Sequence[Dataset],
    settings: Settings,
    run_dir: Path,
    out: Path,
    *,
    on_progress: Callable[[EpisodeRecord | ValidationResult], None] = lambda _: None,
) -> TrainedNavigator:
    """Train a navigator on a model and write it to `out`.

    The directory gets the run store, the episodes, the validations and the held-out questions. To continue an
    interrupted training, or one with more episodes, call it again.

    Args:
        on_progress: Receives each finished episode and validation.

    Raises:
        UserError: A setting is invalid, no question is hard, a split is empty, or the training diverged.
        DataError: A dataset has answers that are neither right nor wrong.
        BudgetExceeded: `max_tokens` ended it before its first episode.
        BackendError: The model failed; what it generated is in the store.
    """
    train, held_out = split_problems(datasets, plan)
    _write_lines(run_dir / HELD_OUT, map(custom_record, held_out))
    async with open_resources(plan, settings, run_dir / STORE) as resources:
        problems = train
        if plan.problems == "hard":
            right = await direct_answers(resources, train)
            problems = [problem for problem, is_right in zip(train, right, strict=True) if not is_right]
            if not problems:
                raise UserError(
                    f"the model answers all {len(train)} training questions right when it answers directly",
                    hint="train on harder questions, on more of them, or with --problems all",
                )
        learner = Learner(plan.learning, plan.seed)
        records: list[EpisodeRecord] = []
        validations: list[ValidationResult] = []
        checked = sorted(held_out, key=lambda problem: (problem.digest, problem.key))[: plan.validation]

        async def report_validation() -> None:
            if checked and (not validations or validations[-1].episode < len(records)):
                navigator = Navigator(learner.online.network())
                validations.append(await validate(resources, navigator, checked, len(records)))
                on_progress(validations[-1])

        try:
            await report_validation()
            async for record in run_episodes(resources, learner, problems):
                records.append(record)
                on_progress(record)
                if len(records) % plan.validate_every == 0:
                    await report_validation()
            await report_validation()
        finally:
            _write_lines(run_dir / EPISODES, (record.model_dump(mode="json") for record in records))
            _write_lines(run_dir / VALIDATIONS, (result.model_dump(mode="json") for result in validations))
        if not records:
            raise BudgetExceeded("tokens", resources.usage.tokens, plan.max_tokens or 0)
        card = _card(resources, datasets, problems, records, validations)
        navigator = Navigator(learner.online.network(), card)
        save_navigator(navigator, out)
        return TrainedNavigator(
            navigator,
            tuple(records),
            tuple(validations),
            len(problems),
            len(held_out),
            resources.usage,
            len(records) == plan.episodes,
        )


async def run_episodes(
    resources: EpisodeResources, learner: Learner, problems: Sequence[Problem]
) -> AsyncIterator[EpisodeRecord]:
    """Run the episodes of a training in rounds of one block each, and learn from them; yields those that ended.

    A problem is in flight once at a time, and may come again later. Ends early once `max_tokens` are generated.
    """
    plan, usage = resources.plan, resources.usage
    rng = random.Random(plan.seed)
    in_flight: list[TrainingEpisode] = []
    begun = finished = 0
    while finished < plan.episodes and (plan.max_tokens is None or usage.tokens < plan.max_tokens):
        busy = {episode.problem.key for episode in in_flight}
        free = [problem for problem in problems if problem.key not in busy]
        num_new = min(plan.parallel - len(in_flight), plan.episodes - begun, len(free))
        new = rng.sample(free, num_new)
        begun += num_new
        in_flight += await gather([TrainingEpisode.begin(resources, problem) for problem in new])
        acting = [episode for episode in in_flight if not episode.done]
        actions = [learner.act(episode.state, episode.legal) for episode in acting]
        transitions = await gather([e.act(action) for e, action in zip(acting, actions, strict=True)])
        for episode, transition in zip(acting, transitions, strict=True):
            loss = learner.observe(transition)
            episode.losses += [] if loss is None else [loss]
        for episode in [episode for episode in in_flight if episode.done]:
            in_flight.remove(episode)
            finished += 1
            learner.episodes += 1
            yield episode.record(finished, plan.learning.epsilon(learner.steps))


def _card(
    resources: EpisodeResources,
    datasets: Sequence[Dataset],
    problems: Sequence[Problem],
    records: Sequence[EpisodeRecord],
    validations: Sequence[ValidationResult],
) -> NavigatorCard:
    """The card of a trained navigator: all training questions by digest, used in an episode or not, and its results."""
    plan, config, settings, last = resources.plan, resources.config, resources.settings, records[-100:]
    requested = sum(r.scores_requested for r in records)
    notes: dict[str, JsonValue] = {
        "learning": plan.learning.model_dump(mode="json"),
        "parallel": plan.parallel,
        "held_out_share": plan.holdout,
        "last_episodes": {
            "episodes": len(last),
            "return": sum(r.episode_return for r in last) / len(last),
            "accuracy": sum(r.correct for r in last) / len(last),
            "length": sum(r.length for r in last) / len(last),
        },
        "missing_scores": sum(r.scores_missing for r in records) / requested if requested else 0.0,
        "validation": validations[-1].model_dump(mode="json") if validations else None,
        "warnings": [dataset.warning for dataset in datasets if dataset.warning],
    }
    names = [dataset.name for dataset in datasets]
    return NavigatorCard(
        name=f"{settings.model.rpartition('/')[2]}-{'+'.join(names)}-{plan.reward}",
        model=settings.model,
        model_identity=resources.model.identity,
        reward=plan.reward,
        reward_model=(settings.reward_model or "") if resources.reward is not None else "",
        datasets=tuple(dataset.full_name for dataset in datasets),
        episodes=len(records),
        steps=sum(len(r.actions) for r in records),
        problems=len(problems),
        seed=plan.seed,
        gamma=plan.learning.gamma,
        max_blocks=config.max_blocks,
        parity=config.parity,
        parameters=resources.parameters,
        trained_on=tuple(sorted({problem.digest for problem in problems})),
        created=datetime.now(UTC).date().isoformat(),
        version=__version__,
        notes=notes,
    )


async def map_concurrently(items: Iterable[S], work: Callable[[S], Awaitable[T]], concurrency: int) -> list[T]:
    """The result of each item, in order, with up to `concurrency` in flight."""
    free = asyncio.Semaphore(concurrency)

    async def limited(item: S) -> T:
        async with free:
            return await work(item)

    return await gather([limited(item) for item in items])


def _write_lines(path: Path, lines: Iterable[Any]) -> None:
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_file(path, content.encode("utf-8", "surrogatepass"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]
