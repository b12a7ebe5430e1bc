"""The live pages against a real server with scripted models: ask, follow, cancel, resume, keys, reconnects."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Route, expect
from support.openai_server import scripted_server
from support.scripted_model import THINKS, ScriptedModel, replies, thinking
from support.thought_model import World
from support.viewer_runs import EVIL

pytestmark = pytest.mark.nightly
Look = Callable[..., Any]
CONCLUSION = "Therefore, the answer is 42."
"""Begins as the request for the answer now."""
SAID = "Paris is the capital of France. Barcelona is the capital of Spain."


class Tap(ScriptedModel):
    """A model that generates `left` characters, then waits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, step=self.wait, **options)
        self.left = 0

    async def wait(self) -> None:
        while self.left <= 0:
            await asyncio.sleep(0.005)
        self.left -= 1


@pytest.fixture(scope="module")
def models() -> dict[str, ScriptedModel]:
    return {
        "thinker": Tap(World().script, name="thinker"),
        "says": ScriptedModel(replies(SAID), name="says"),
        "evil": ScriptedModel(replies(EVIL), name="evil"),
        "muser": Tap(thinking("Six sevens are forty-two. " * 50, CONCLUSION), name="muser", profile=THINKS),
        "slow-evil": Tap(replies(EVIL), name="slow-evil"),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: dict[str, ScriptedModel]) -> Iterator[Any]:
    quick = {
        "verifiers": {"davinci": {"judge": "lexical", "verdicts": "none", "threshold": 0.5}},
        "embedding_model": "none",
        "repairs": 0,
    }
    with scripted_server(tmp_path_factory.mktemp("viewer"), models, **quick) as running:
        yield running


def ask(tab: Any, server: Any, strategy: str, **fields: str) -> None:
    """Submit the form, which opens the run's page."""
    page = tab.page
    page.goto(f"{server.url}/ui/ask")
    page.fill("[name=question]", fields.pop("question", "Why?"))
    page.select_option("[name=strategy]", strategy)
    for name, value in fields.items():
        if name == "model":
            page.select_option("[name=model]", value)
        elif name == "effort":
            page.select_option("[name=effort]", value)
        elif name == "verify":
            page.check(f"[name=verify][value={value}]")
        else:
            page.evaluate("document.querySelectorAll('form details').forEach((d) => { d.open = true; })")
            page.fill(f"[name={name}]", value)
    page.click("button[type=submit]")
    page.wait_for_url("**/ui/runs/*")


def test_ask_watch_open_cancel_and_resume(look: Look, server: Any, models: dict[str, Tap]) -> None:
    tab, thinker = look(), models["thinker"]
    thinker.left = 0
    ask(tab, server, "coat", **{"p-expansions": "8", "tokens": "9000"})
    page = tab.page
    expect(page.locator(".chip.busy")).to_contain_text("running")
    nodes = page.locator(".node")
    _write_until(tab, thinker, lambda: nodes.count() > 1)
    expect(page.locator(".search > .soft")).to_contain_text("not ended")
    few = nodes.count()
    _write_until(tab, thinker, lambda: nodes.count() > few)
    page.locator(".node[tabindex='0']").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".panel h4")).to_contain_text("step 1")
    assert tab.text(".panel .step").startswith("step 0")
    assert tab.text(".meter .n") != ""
    page.click("button[value=cancel]")
    expect(page.locator(".chip").first).to_have_text("cancelled")
    expect(page.locator("button[value=cancel]")).to_have_count(0)
    run = page.url.partition("#")[0]  # the address names the node that was looked at
    page.goto(f"{server.url}/ui")
    expect(page.locator("tbody tr").first).to_contain_text("cancelled")
    page.click("tbody a >> nth=0")
    page.wait_for_url(run)
    thinker.left = 1_000_000
    page.click("button[value=resume]")
    expect(page.locator(".search > .soft")).to_contain_text("stopped: ")
    expect(page.locator(".chip").first).to_have_text("done")
    assert page.locator("button[value=resume]").count() == 0
    page.goto(f"{server.url}/ui")
    expect(page.locator("tbody tr .status").first).to_have_text(" done")
    tab.check()


def test_a_run_that_thinks_is_asked_for_its_answer_now(look: Look, server: Any, models: dict[str, Tap]) -> None:
    tab, muser = look(), models["muser"]
    page, muser.left = tab.page, 0
    fields = {"model": "muser", "question": "What is 6 * 7?", "effort": "low", "thinking_tokens": "5000"}
    ask(tab, server, "cot", **fields)
    writing = page.locator("#answer .writing")
    _write_until(tab, muser, lambda: writing.count() > 0 and "sevens are forty-two." in tab.text("#answer .tail"))
    expect(writing).to_contain_text("main, sample 1.1, thinking, ")
    expect(page.locator(".chips")).to_contain_text("effort low")
    page.click("button[value=answer]")
    expect(page.locator("button[value=answer]")).to_be_disabled()
    run_id = page.url.rpartition("/")[2]
    while not server.call(server.run_manager.store.get_run(run_id)).answer_requested:
        page.wait_for_timeout(5)
    muser.left = 1000  # for the short call that concludes
    expect(page.locator(".chip").first).to_have_text("answered early")
    expect(page.locator("#answer .answer")).to_have_text("42")
    expect(page.locator("button[value=answer], button[value=cancel]")).to_have_count(0)
    spent = server.call(server.run_manager.store.get_run(run_id)).answer["usage"]["thinking_tokens"]
    assert tab.text("#answer .thought summary") == f"thought, {spent} tokens"
    assert not page.locator("#answer .thought .text").is_visible()
    assert f"an unfinished sample of 0 tokens of an answer and {spent} of a thought" in tab.text("#answer .note")
    cells = tab.texts("#usage tbody tr:last-child td")
    assert cells[5] == str(spent)
    tab.check()


def _wait_for(tab: Any, seen: Callable[[], object], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Let the page go on until something has come."""
    for _ in range(400):
        if seen():
            break
        meanwhile()
        tab.page.wait_for_timeout(25)
    assert seen()


def _write_until(tab: Any, model: Tap, seen: Callable[[], bool]) -> None:
    """Let the model generate until the page shows the expected content, then pause it."""

    def go_on() -> None:
        model.left = 4

    _wait_for(tab, seen, go_on)
    model.left = 0


def test_a_stream_that_breaks_is_taken_up_after_its_last_event(look: Look, server: Any) -> None:
    tab = look()
    ask(tab, server, "cot", model="says", question="Capitals?")
    expect(tab.page.locator(".chip").first).to_have_text("done")
    whole = tab.texts("#events .leaf, #events summary")
    asked: list[str] = []

    def break_it(route: Route) -> None:
        asked.append(route.request.headers["last-event-id"])
        if len(asked) == 1:
            route.abort()
        elif len(asked) == 2:
            reply = route.fetch()
            messages = reply.text().split("\n\n")[:3]
            route.fulfill(response=reply, body="\n\n".join([*messages, ""]) + "\nid: 9\ndata: {cut")
        else:
            route.continue_()

    place = tab.page.url
    tab.page.goto("about:blank")
    tab.page.route("**/events?*", break_it)
    tab.page.goto(place)
    expect(tab.page.locator(".chip").first).to_have_text("done")
    expect(tab.page.locator("#events .leaf, #events summary")).to_have_count(len(whole))
    assert tab.texts("#events .leaf, #events summary") == whole
    assert asked[:3] == ["0", "0", "3"]
    tab.page.unroute("**/events?*")
    assert tab.js("window.violations") == []


def test_an_ended_run_is_not_shown_before_its_events_are_there(look: Look, server: Any) -> None:
    run, other = (run_of(server, "Capitals?", model="says", strategy="cot", seed=seed) for seed in (1, 2))
    held: list[Route] = []
    tab = look()
    page = tab.page
    page.route("**/events?*", lambda route: held.append(route))
    page.goto(f"{server.url}/ui/runs/{run}")
    _wait_for(tab, lambda: held)
    assert tab.text("main") == "Looking …"
    held.pop().abort()
    expect(page.get_by_role("alert")).to_have_text("the connection is lost; trying again …")
    _wait_for(tab, lambda: held)
    page.unroute("**/events?*")  # and what is held goes on
    expect(page.locator(".chip").first).to_have_text("done")
    page.goto("about:blank")
    held.clear()
    page.route("**/v1/runs/*", lambda route: held.append(route))
    page.goto(f"{server.url}/ui/compare?a={run}&b={other}")
    _wait_for(tab, lambda: len(held) == 2)
    expect(page.locator("main > .soft")).to_have_text("Looking …")
    page.unroute("**/v1/runs/*")
    expect(page.locator(".differences")).to_contain_text("seed")


def test_what_is_refused_is_told(look: Look, server: Any) -> None:
    tab = look()
    page = tab.page
    page.goto(f"{server.url}/ui/runs/none-such")
    expect(page.get_by_role("alert")).to_contain_text("none-such")
    page.goto(f"{server.url}/ui/ask")
    page.fill("[name=question]", "Why?")
    page.select_option("[name=strategy]", "coat")
    page.click("summary:has-text('Parameters of coat')")
    page.fill("[name=p-limits]", "[")
    page.click("button[type=submit]")
    expect(page.get_by_role("alert")).to_have_text("limits is not JSON")
    page.fill("[name=p-limits]", '{"nothing": 1}')
    page.click("button[type=submit]")
    expect(page.get_by_role("alert")).to_contain_text("nothing")
    assert page.url.endswith("/ui/ask")


def run_of(server: Any, question: str, **fields: Any) -> str:
    """Start a run, wait for its end, and return its ID."""
    reply = httpx.post(f"{server.url}/v1/runs", json={"question": question, **fields}, timeout=60)
    assert reply.status_code == 202, reply.text
    name: str = reply.json()["id"]
    with httpx.stream("GET", f"{server.url}/v1/runs/{name}/events", timeout=60) as events:
        events.read()
    return name


def test_runs_are_searched_filtered_sorted_compared_and_deleted(look: Look, server: Any) -> None:
    tags = {"set": "capitals", "split": "dev"}
    one = run_of(server, "Capitals of Spain?", model="says", strategy="cot", metadata=tags, seed=1)
    two = run_of(
        server, "Capitals of Spain?", model="says", strategy="self-consistency", parameters={"n": 3}, seed=2,
        metadata={"set": "capitals"},
    )  # fmt: skip
    tab = look()
    page = tab.page
    rows = page.locator("tbody tr")
    page.goto(f"{server.url}/ui")
    page.fill("[name=search]", "capitals of spain")
    expect(page).to_have_url(f"{server.url}/ui?search=capitals+of+spain")
    expect(rows).to_have_count(2)
    page.select_option("[name=strategy]", "cot")
    expect(rows).to_have_count(1)
    page.reload()  # the address has the filter
    expect(rows).to_have_count(1)
    page.select_option("[name=strategy]", "")
    page.click("button.head[value=tokens]")
    expect(rows.first).to_contain_text("self-consistency")
    assert page.locator("th[aria-sort=descending]").inner_text() == "tokens ↓"
    page.click("button.head[value=tokens]")
    expect(rows.first).to_contain_text("cot")
    assert page.input_value("[name=order]") == "tokens asc"
    page.click("text=split: dev")
    expect(rows).to_have_count(1)
    page.click("button[value=tag]")
    expect(rows).to_have_count(2)

    page.click("#charts summary")
    charts = page.locator(".charts tbody tr")
    expect(charts).to_have_count(2)
    names = "(rows) => rows.map((row) => [...row.cells].slice(0, 3).map((cell) => cell.textContent))"
    assert sorted(charts.evaluate_all(names)) == [["cot", "1", "1"], ["self-consistency", "1", "1"]]
    bars = page.locator(".charts .bar-fill").evaluate_all("(all) => all.map((e) => Number(e.getAttribute('width')))")
    assert 100 in bars
    page.click("#charts summary")

    for i in (0, 1):
        page.locator(".choose input").nth(i).check()
    page.click("button[value=compare]")
    page.wait_for_url("**/ui/compare?*")
    expect(page.locator(".sides .answer").nth(1)).not_to_have_class("answer soft")
    cells = "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    expect(page.locator(".differences tr.differs >> text=self-consistency: n")).to_have_count(1)
    told = {name: values for name, *values in page.locator(".differences tbody tr").evaluate_all(cells)}
    assert told["strategy"] == ["cot", "self-consistency"]
    assert told["self-consistency: n"] == ["-", "3"]
    assert told["tag split"] == ["dev", "-"]
    assert "model" not in told
    page.click("button[value=all]")
    told = {name: values for name, *values in page.locator(".differences tbody tr").evaluate_all(cells)}
    assert told["model"] == ["says", "says"]
    assert page.locator(".sides h2 a").all_inner_texts() == [one, two]

    page.goto(f"{server.url}/ui/runs/{one}")
    expect(page.locator("a.tag")).to_have_text(["set: capitals", "split: dev"])
    page.click("button[value=delete]")
    expect(page.locator("button[value=delete]")).to_have_text("delete this run for good?")
    page.click("button[value=delete]")
    page.wait_for_url(f"{server.url}/ui")
    assert httpx.get(f"{server.url}/v1/runs/{one}", timeout=60).status_code == 404
    page.goto(f"{server.url}/ui?tag=set:capitals")
    expect(rows).to_have_count(1)
    page.locator(".choose input").check()
    page.click("button[value=delete]")
    page.click("button[value=delete]")
    expect(page.locator("main")).to_contain_text("No run matches.")
    page.click("button[value=everything]")
    expect(rows.first).to_be_visible()
    tab.check()


def test_a_key_is_asked_for_and_kept_in_its_tab(look: Look, tmp_path: Any, models: dict[str, ScriptedModel]) -> None:
    with scripted_server(tmp_path, {"says": models["says"]}, serve={"auth": True}) as locked:
        text = locked.add_key()
        tab = look()
        page = tab.page
        page.goto(f"{locked.url}/ui")
        page.fill("[name=key]", "not a key")
        page.click("button[type=submit]")
        expect(page.locator("main .bad")).to_contain_text("not accepted")
        page.fill("[name=key]", text)
        page.click("button[type=submit]")
        expect(page.locator("main")).to_contain_text("Nothing was asked yet.")
        ask(tab, locked, "cot", model="")
        expect(page.locator(".chip").first).to_have_text("done")
        assert tab.js("JSON.stringify(localStorage)").find(text) < 0
        assert re.search(re.escape(text), page.content()) is None
        assert not any(text in address for address in tab.requests)
        assert tab.js("window.violations") == []
        page.evaluate("sessionStorage.clear()")
