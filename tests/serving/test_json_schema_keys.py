"""JSON schemas as a part of keys in the run store."""

import pytest
from pydantic import ValidationError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.core.store.records import call_key
from reason.serving.metered.model import sampled_json

FULL = Request(
    prompt=Prompt.user("What is 2 + 2?", system="Be brief.", prefix="It is"),
    sampling=SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        max_tokens=7,
        n=3,
        stop=("\n",),
        seed=4,
        top_logprobs=2,
        logits_processors=(LogitsProcessorSpec(name="steer", args={"ids": [3]}),),
    ),
)
ONE, OTHER = {"properties": {"a": {}, "b": {}}}, {"properties": {"b": {}, "a": {}}}


def key(schema):
    sampling = FULL.sampling.model_copy(update={"json_schema": schema})
    return call_key("m@1", sampled_json(FULL.model_copy(update={"sampling": sampling})), 4, 1)


def test_a_schema_is_part_of_the_key_and_so_is_the_order_of_its_properties():
    assert len({key(None), key({}), key(ONE), key(OTHER)}) == 4
    assert key(ONE) == key({"properties": {"a": {}, "b": {}}})


@pytest.mark.parametrize("wrong", [{"ignore_eos": True, "json_schema": {}}, {"json_schema": {"const": float("nan")}}])
def test_ignore_eos_and_non_json_schemas_are_rejected(wrong):
    with pytest.raises(ValidationError):
        SamplingParams(**wrong)
