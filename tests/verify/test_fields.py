"""Fields of tool results: as sentences, and as what states a claim by its values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.types import Evidence
from reason.verify.fields import as_cited, fields_of, readable, stated_by, statements
from reason.verify.verifier import ToolUse

ORDER = {
    "order_id": "4471", "total": "59.90 EUR", "shipping": 4.9, "status": "cancelled", "items": 3, "bags": 0,
    "refundable": True, "eta": "2026-12-24", "tags": ["urgent", "gift"],
    "customer": {"name": "Ida Lund", "tier": "gold", "email": "ida@x.org"},
}  # fmt: skip
FLIGHTS = [
    {"flight": "KL1", "departs": "07:55", "price": 120, "stops": 0},
    {"flight": "TP2", "departs": "09:10", "price": 95, "stops": 1},
]


def use(tool, result, effect="read", arguments="{}", ok=True):
    text = result if isinstance(result, str) else json.dumps(result)
    return ToolUse(f"{tool}:1", tool, "", arguments, effect, ok, text)


USES = [
    use("get_order", ORDER),
    use("search_flights", FLIGHTS),
    use("run_tests", "passed: 41\nfailed: 2\nduration: 3.1 s"),
    use("list_rows", "name | rows\n--- | ---\nusers | 88\norders | 120443"),
]


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("The order came to 59.90 euros.", "59.90 EUR"),
        ("Order 4471 is cancelled.", "cancelled"),
        ("The order has three items.", "3"),
        ("The booking holds no bags.", "0"),
        ("It's refundable.", "true"),
        ("It arrives on 24 December.", "2026-12-24"),
        ("The shipping costs 4.90.", "4.9"),
        ("Ida Lund is a gold customer.", "gold"),
        ("There are two tags.", '["urgent", "gift"]'),
        ("KL1 departs at 7:55.", "07:55"),
        ("TP2 costs €95.00.", None),  # of which no currency is known
        ("TP2 costs 95.", "95"),
        ("KL1 has no stops.", "0"),
        ("Two tests failed.", "2"),
        ("41 tests passed.", "41"),
        ("The table users has 88 rows.", "88"),
        ("The order came to 4.90 euros.", None),
        ("Order 4472 is cancelled.", None),
        ("The order is not cancelled.", None),
        ("The order has four items.", None),
        ("The booking holds bags.", None),
        ("It is not refundable.", None),
        ("It arrives on 25 December.", None),
        ("The shipping is 59.90.", None),
        ("The total is 4.90 and the shipping is 59.90.", None),
        ("The refund is 59.90 euros.", None),
        ("The order was shipped on 24 December.", None),
        ("Ida Lund cancelled the order.", None),
        ("The order has no items.", None),
        ("KL1 departs at 9:10.", None),
        ("TP2 has no stops.", None),
        ("The flight costs 95.", None),  # of several flights
        ("41 tests failed.", None),
        ("orders has 88 rows.", None),
        ("Is order 4471 cancelled?", None),
    ],
)
def test_a_claim_is_stated_by_the_field_with_its_value(claim, value):
    (stated,) = stated_by([claim], USES)
    assert (None if stated is None else stated.use.result[stated.start : stated.end]) == value


def test_a_failed_call_states_nothing_and_two_different_values_decide_nothing():
    assert stated_by(["Order 4471 is cancelled."], [use("get_order", ORDER, ok=False)]) == [None]
    changed = [use("get_order", ORDER), use("get_order", {**ORDER, "status": "shipped"})]
    assert stated_by(["Order 4471 is cancelled."], changed) == [None]


def test_a_statement_has_the_path_and_is_cited_by_the_characters_of_the_result():
    texts = [statement.text for statement in statements(json.dumps(ORDER))]
    assert texts[0].startswith("4471: total is 59.90 EUR; shipping is 4.9; status is cancelled;")
    assert texts[1] == "customer Ida Lund: tier is gold; email is ida@x.org."
    call = use("cancel_order", {"order_id": "4471", "status": "cancelled"}, "write", '{"order_id": "4471"}')
    text = readable(call)
    assert text == "cancel order succeeded, with order id is 4471.\n4471: status is cancelled."
    start = text.index("status")
    cited = as_cited(Evidence(source=call.source, text=text[start:], start=start, end=len(text)), call)
    assert cited.text == call.result[cited.start : cited.end] == '4471", "status": "cancelled'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), VALUES, max_size=4))
def test_each_scalar_of_a_json_text_is_a_field_at_its_position(value):
    def scalars(node):
        if isinstance(node, dict | list):
            for inner in node.values() if isinstance(node, dict) else node:
                yield from scalars(inner)
        else:
            yield node

    text = json.dumps(value, ensure_ascii=False)
    spans = {text[field.start : field.end] for field in fields_of(text)}
    texts = [(one, json.dumps(one, ensure_ascii=False)) for one in scalars(value)]
    assert spans >= {text[1:-1] if isinstance(one, str) else text for one, text in texts}


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading(text):
    assert all(text[field.start : field.end] for field in fields_of(text) if field.value)
    assert stated_by([text], [use("tool", text)]) == [None] or fields_of(text)
