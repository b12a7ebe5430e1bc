"""The OpenAPI schema is correct: generated requests get the responses it describes, without server errors."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from support.authenticated_app import guarded_app_of_examples

EXAMPLES = 8
load_all_checks()
KEPT = [
    CHECKS.get_one(name)
    for name in ["not_a_server_error"]
    + [f"{kind}_conformance" for kind in ("status_code", "content_type", "response_headers", "response_schema")]
]


def send(runner, guarded, headers, case):
    """Send a request generated from the schema."""
    made = case.as_transport_kwargs(base_url="http://127.0.0.1:8080", headers=headers)
    if "data" in made:
        made["content"] = made.pop("data")
    made["headers"] = {**(made.get("headers") or {}), **headers}  # the schema also generates keys
    return runner.run(guarded.client.request(**{k: v for k, v in made.items() if k != "cookies"}))


@pytest.mark.nightly
def test_every_operation_does_what_its_description_says(tmp_path):
    wrong, tried = {}, set()
    with guarded_app_of_examples(tmp_path) as (runner, guarded, headers):
        schema = schemathesis.openapi.from_dict(guarded.app.openapi())
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
            def conforms(case):
                tried.add(case.operation.label)
                case.validate_response(send(runner, guarded, headers, case), checks=KEPT)

            try:
                conforms()
            except (AssertionError, BaseExceptionGroup) as e:
                wrong[operation.label] = str(e)[:1500]
    assert len(tried) >= 12
    assert not wrong, "\n\n".join(f"{name}: {why}" for name, why in wrong.items())
