"""A scripted model that thinks, associates and judges: what it says depends on the path that its prompt shows.

A `MeasuredClaims` says what may come after a path, what helps there, and what it is worth; `ThoughtSearchDriver` runs
strategies in it.
"""

import json

from reason.reasoning.knowledge import Knowledge
from reason.reasoning.strategy import Models

from support.scripted_model import END, ScriptedModel
from support.stored_runs import RunHarness

KINDS = {
    "associate": "Reply with JSON of the form",
    "judge": "Judge strictly.",
    "finish": "Now give the final answer",
}


def turns(text):
    """What a rendered prompt shows: the kind of request, the path, what the user says last, and the reply so far."""
    head, _, written = text.rpartition("assistant: ")
    said = head.split("\nuser: ")
    last = said[-1]
    path = [part.split("\nassistant: ", 1)[1].strip() for part in said if "\nassistant: " in part]
    kind = next((kind for kind, words in KINDS.items() if words in last), "expand")
    return kind, tuple(path), last, written


class World:
    """Override what is said, in a subclass or by functions. `seen` has every prompt as (kind, path, whole text)."""

    def steps(self, path, text):
        """{step: weight} after a path."""
        return {f"step {'.'.join(map(str, range(len(path) + 1)))}{c}": 1.0 for c in "abc"}

    def score(self, path, aspect):
        """0 to 10."""
        return 5

    def items(self, path, last):
        """Texts, or (text, number of the snippet)."""
        return []

    def items_of_the_question(self, last):
        """The same before the first thought."""
        return []

    def answer(self, path, text):
        """What the final answer says, behind its opening."""
        return " nothing."

    def __init__(self, **said):
        """`said` replaces methods by name."""
        self.seen = []
        vars(self).update(said)

    def script(self, text):
        kind, path, last, written = turns(text)
        if not written or written in ('{"items": [', '{"step":', '{"notes":', "Score: ") or kind in ("finish",):
            entry = kind, path, text[: len(text) - len(written)]
            if entry not in self.seen[-50:]:
                self.seen.append(entry)
        texts = self._texts(kind, path, last, text)
        left = {t + END: w for t, w in texts.items() if (t + END).startswith(written)}
        total = sum(left.values())
        chances = {}
        for t, w in left.items():
            chances[t[len(written)]] = chances.get(t[len(written)], 0.0) + w / total
        return chances or {END: 1.0}

    def _texts(self, kind, path, last, text):
        if kind == "expand":
            return self.steps(path, text)
        if kind == "associate":
            said = self.items(path, last) if path else self.items_of_the_question(last)
            items = [{"text": i} if isinstance(i, str) else {"text": i[0], "source": i[1]} for i in said]
            return {json.dumps({"items": items}): 1.0}
        if kind == "finish":
            return {"Therefore, the answer is" + self.answer(path, text): 1.0}
        if "one digit" in last:
            aspect = "notes" if "the last notes" in last else "step"
            return {f"Score: {self.score(path, aspect)}": 1.0}
        aspects = [name for name in ("step", "notes") if f'"{name}": 0-10' in last]
        return {"{" + ", ".join(f'"{a}": {self.score(path, a)}' for a in aspects).replace(": ", ":", 1) + "}": 1.0}


class ThoughtSearchRuns(RunHarness):
    """Runs strategies over thoughts in a world; `events` are those of the run that ended last."""

    def __init__(self, store, world):
        super().__init__(store, ScriptedModel(world.script))
        self.world = world

    async def solve(
        self, kind, question, *, name="run", sources=(), embedding=None, reward=None, budget=None, seed=1, **config
    ):
        self.sink.events.clear()
        main = await self.begin(name, strategy=kind.name, question=question, budget=budget, seed=seed)
        models = Models(
            {"main": main},
            None if reward is None else reward(self.run),
            None,
            Knowledge(tuple(sources), None, embedding),
        )
        strategy = kind(kind.Config(**config))
        return await strategy.solve(question, models, self.run)

    @property
    def events(self):
        return self.sink.events

    @property
    def nodes(self):
        return {node.id: node for e in self.sink.of_type("search.nodes") for node in e.nodes}

    def calls(self, operation="generate"):
        return [e for e in self.events if e.type == "call.started" and e.operation == operation]
