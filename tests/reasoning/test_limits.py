"""Every parameter has a maximum, and so has what several lead to together."""

import pytest
from reason.core.errors import UserError
from reason.reasoning.strategy import STRATEGIES, create_strategy
from reason.verify.verifier import VERIFIERS


def unbounded(schema, definitions, path, within=()):
    """Paths of the numbers and lists of a JSON schema that have no maximum."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name not in within:
            yield from unbounded(definitions[name], definitions, path, (*within, name))
        return
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(keyword, ()):
            yield from unbounded(part, definitions, path, within)
    kind = schema.get("type")
    is_number = kind in ("integer", "number") and "enum" not in schema and "const" not in schema
    if is_number and not {"maximum", "exclusiveMaximum"} & schema.keys():
        yield path
    if kind == "array":
        if "maxItems" not in schema:
            yield path
        items = [*schema.get("prefixItems", ()), *([schema["items"]] if "items" in schema else [])]
        for item in items:
            yield from unbounded(item, definitions, f"{path}[]", within)
    for name, part in schema.get("properties", {}).items():
        yield from unbounded(part, definitions, f"{path}.{name}", within)


@pytest.mark.parametrize("registry", [STRATEGIES, VERIFIERS], ids=["strategies", "verifiers"])
def test_every_number_and_list_has_a_maximum(registry):
    missing = []
    for name in registry.names():
        schema = registry.load(name).Config.model_json_schema()
        missing += unbounded(schema, schema.get("$defs", {}), name)
    assert not missing


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [
        ("beam", {"k": 1000, "width": 1000}),
        ("coat", {"k": 64, "expansions": 1000}),
        ("particle-filter", {"n": 64, "iterations": 4096}),
        ("astar", {"k": 64, "m": 64}),
        ("self-consistency", {"n": 1_000_000}),
        ("cascade", {"first": "beam", "first_parameters": {"width": 256, "k": 256}}),
        ("rlot", {"n_votes": 256, "max_blocks": 100}),
    ],
)
def test_parameters_that_lead_to_too_many_samples_are_refused(strategy, parameters):
    with pytest.raises(UserError):
        create_strategy(strategy, parameters)


def test_the_error_names_values_product_maximum_and_remedy():
    with pytest.raises(UserError) as caught:
        create_strategy("beam", {"width": 100, "k": 50})
    assert caught.value.message == (
        "the parameters of beam lead to up to width 100 * k 50 * max_depth 40 = 200,000 samples, more than 65,536"
    )
    assert caught.value.hint == "lower width, k or max_depth"
    assert caught.value.param == "width"


def test_a_search_with_few_steps_may_be_wide():
    create_strategy("beam", {"width": 128, "k": 64, "max_depth": 8})
