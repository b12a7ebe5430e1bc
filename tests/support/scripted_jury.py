"""Scripted jurors, and juries of them on one run store.

What a scripted juror is asked is read off the prompt: an opinion, a review, the chair's answer. It
finds options and candidates by their words, since the letters are another reader's every time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reason.core.events import MemorySink
from reason.core.types import Question
from reason.reasoning.strategy import Models, create_strategy
from reason.serving.metered.model import MeteredModel

from support.scripted_model import CLOSE, END, ScriptedModel, thinking
from support.stored_runs import RunHarness, recorded

CAPITAL = Question(text="What is the capital of Australia?", choices=("Sydney", "Canberra", "Melbourne", "Perth"))
OPEN = Question(text="Who wrote the ferry timetable?", kind="text")

Marks = tuple[int, int, int]


def last_turn(prompt: str) -> str:
    """What was asked last."""
    return prompt.rpartition("user: ")[2]


def kind_of(prompt: str) -> str:
    """What a prompt asks for: "opinion", "review" or "chair"."""
    for words, kind in (
        ("Others have answered this question", "review"),
        ("Several people have answered this question", "chair"),
    ):
        if words in prompt:
            return kind
    return "opinion"


def answers_in(prompt: str) -> dict[str, str]:
    """The quoted answers by letter, with what each comes to in front."""
    found = re.findall(r"^Answer (\w{1,2})([^\n]*):\n((?:> ?[^\n]*\n?)*)", prompt, re.MULTILINE)
    return {letter: f"{head} {body}" for letter, head, body in found}


def letter_of(prompt: str, option: str) -> str:
    """The letter under which a prompt shows an option."""
    match = re.search(rf"^([A-Z])\) {re.escape(option)}$", prompt, re.MULTILINE)
    assert match, f"{option} is no option here: {prompt}"
    return match[1]


def says(option: str, why: str = "That is how it is.") -> Callable[[str], str]:
    """An opinion that chooses an option by its words; the reason alone where there are no options."""
    return lambda prompt: f"{why}\nAnswer: {letter_of(prompt, option)}" if f") {option}\n" in prompt else why


@dataclass
class ScriptedJuror:
    """What a scripted juror does.

    Attributes:
        opinion: Its answer, or a function of the prompt.
        mark: The marks of an answer by its text.
        issues: Kind and detail of the issues that it has with an answer, by its text.
        review: Its whole review instead, a function of the prompt.
        chair: Its whole answer as the chair, a function of the prompt.
        end: The answer alone, where it is asked for behind its text.
    """

    opinion: str | Callable[[str], str] = "I cannot say."
    mark: Callable[[str], Marks] = lambda text: (5, 5, 5)
    issues: Callable[[str], list[tuple[str, str]]] = lambda text: []
    review: Callable[[str], str] | None = None
    chair: Callable[[str], str] | None = None
    end: Callable[[str], str] | None = None

    def reply(self, prompt: str, prefix: str) -> str:
        """The whole reply, what it was given to begin with included."""
        kind = kind_of(prompt)
        if kind == "review":
            return (self.review or self.marks)(prompt)
        if kind == "chair":
            assert self.chair is not None, "this juror was asked to be the chair"
            return self.chair(prompt)
        said = self.opinion if isinstance(self.opinion, str) else self.opinion(prompt)
        asked = re.match(r".*Therefore, the [^\n]*? is(?: \()?", prefix, re.DOTALL)
        if asked and not said.startswith(prefix):
            return asked[0] + ("" if self.end is None else self.end(prompt))
        return said

    def marks(self, prompt: str) -> str:
        """A review in the form that is asked for."""
        answers = answers_in(prompt)
        if '"scores"' not in last_turn(prompt):
            return "\n".join(f"{letter}: {' '.join(map(str, self.mark(text)))}" for letter, text in answers.items())
        names = ("accuracy", "insight", "clarity")
        by_letter = {letter: dict(zip(names, self.mark(text), strict=True)) for letter, text in answers.items()}
        listed = [{"candidate": letter, **marks} for letter, marks in by_letter.items()]
        scores = by_letter if "of each answer, by its letter" in last_turn(prompt) else listed
        issues = [
            {"candidate": letter, "kind": kind, "detail": detail}
            for letter, text in answers.items()
            for kind, detail in self.issues(text)
        ]
        return json.dumps({"scores": scores, "issues": issues, "keep": []})

    def script(self, text: str) -> Mapping[str, float]:
        """A script for a `ScriptedModel`; what is written behind a thought."""
        prompt, _, written = text.rpartition("assistant: ")
        written = written.rpartition(CLOSE)[2]
        whole = self.reply(prompt, written) + END
        if not whole.startswith(written):
            return {END: 1.0}
        return {whole[len(written)]: 1.0}


def rules(answer: Callable[[str], str] | str, choice: str | None = None, **more) -> Callable[[str], str]:
    """A chair that answers in JSON; `choice` is an option's words."""

    def chair(prompt: str) -> str:
        said = answer if isinstance(answer, str) else answer(prompt)
        picked = {} if choice is None else {"choice": letter_of(prompt, choice)}
        return json.dumps({"answer": said, **picked, "rationale": [], **more})

    return chair


class JuryRuns(RunHarness):
    """Runs of a strategy of several models on one run store; `run`, `sink` and `models` are of the run begun last.

    Args:
        store: The run store.
        by_role: Models by role: "main", "judge", "juror-1", …
        entailment: What a strategy gets to compare texts with.
        strategy: The strategy's name.
    """

    def __init__(self, store, by_role, entailment=None, strategy="edgejury"):
        super().__init__(store)
        self.strategy_name, self.by_role, self.entailment = strategy, dict(by_role), entailment

    async def solve(self, name="r", *, question=CAPITAL, budget=None, seed=7, replay=False, limit=None, **given):
        """Put a question before the jury; a run whose name is given again goes on; `limit` is that of each thought."""
        self.strategy, parameters = create_strategy(self.strategy_name, given)
        self.sink, models = MemorySink(), self.by_role
        self.run = await self.start(
            name,
            question=question,
            strategy=self.strategy_name,
            parameters=parameters,
            models={role: model.name for role, model in models.items()},
            budget=budget,
            seed=seed,
            thinking_tokens=limit,
            replay=replay,
        )
        if replay:
            models = {role: recorded(m, budget) for role, m in models.items()}
        self.models = Models(
            {role: MeteredModel(model, role, self.run) for role, model in models.items()}, entailment=self.entailment
        )
        return await self.strategy.solve(question, self.models, self.run)

    def reports(self, kind):
        """The records in the events of a kind, in order."""
        return [event.report for event in self.sink.of_type(kind)]


def model(juror: ScriptedJuror, name: str = "m/one", thought: Callable[[str], str] | None = None, **options):
    """A scripted model that is such a juror.

    Args:
        thought: What it thinks before, a function of the prompt; only with a profile that thinks.
    """

    def script(text: str) -> Mapping[str, float]:
        return thinking(thought(text.rpartition("assistant: ")[0]), juror.script)(text)

    return ScriptedModel(juror.script if thought is None else script, name=name, **options)


def prompts(model: ScriptedModel) -> list[str]:
    """Every prompt that a model was sent, in order."""
    return [model.render(request.prompt) for call in model.generate_calls for request in call]
