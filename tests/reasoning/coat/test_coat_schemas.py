"""Knowledge and scores of a model that can be held to JSON schemas."""

import json

import jsonschema
from reason.core.types import Question
from reason.reasoning.coat.association import ProposedItem, items_schema, read_items
from reason.reasoning.coat.coat import CoAT
from reason.reasoning.coat.judge import read_scores, scores_schema
from support.scripted_model import ScriptedModel
from support.thought_model import ThoughtSearchRuns, World, turns

QUESTION = Question(text="Where is it?")


class Knowing(World):
    def items(self, path, last):
        return [f"a fact about {path[-1]}"]

    def score(self, path, aspect):
        return 3 + len(path)


async def solved(store, held):
    runs = ThoughtSearchRuns(store, Knowing())
    runs.model = ScriptedModel(runs.world.script, json_schema=held)
    found = await runs.solve(CoAT, QUESTION, name=f"held {held}", expansions=3)
    return found, [request for call in runs.model.generate_calls for request in call], runs.model


async def test_schema_constrained_search_is_equal(store):
    plain, _, _ = await solved(store, False)
    held, requests, model = await solved(store, True)
    assert held.candidates == plain.candidates
    kinds = [(turns(model.render(request.prompt))[0], request) for request in requests]
    assert {kind for kind, _ in kinds} >= {"associate", "judge", "expand"}
    for kind, request in kinds:
        schema = request.sampling.json_schema
        if kind in ("associate", "judge"):
            assert (request.prompt.prefix, request.sampling.stop) == ("", ())
            assert list(schema["properties"])[0] in ("items", "step", "notes")
        else:
            assert schema is None


def test_schemas_match_parsers():
    items = {"items": [{"text": "a", "source": 2}, {"text": "b", "source": 1}]}
    jsonschema.validate(items, items_schema(2, 3))
    assert read_items(json.dumps(items)) == ([ProposedItem("a", 2), ProposedItem("b", 1)], True)
    jsonschema.validate({"items": [{"text": "a"}]}, items_schema(0, 3))
    scores = {"step": 10, "notes": 0}
    jsonschema.validate(scores, scores_schema(("step", "notes")))
    assert read_scores(json.dumps(scores), ("step", "notes")) == [1.0, 0.0]
