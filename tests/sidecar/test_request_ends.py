"""Edge cases of requests: repeated, disconnected before the first event, ended by an internal error."""

import asyncio

import pytest
from reason.core.errors import DataError, ReasonError, UserError
from reason.core.settings import Settings
from reason.reasoning.strategy import STRATEGIES
from reason.sidecar import server as server_module
from reason.sidecar.app import create_app
from reason.sidecar.errors import INTERNAL
from reason.sidecar.native.routes import EventStreamResponse
from reason.sidecar.server import WorkerProcesses
from reason.verify.verifier import VERIFIERS
from support.agent_model import AgentModel
from support.authenticated_app import guarded_app
from support.injected_models import loaded_models
from support.run_manager import Gate
from support.scripted_model import ScriptedModel, replies


async def test_a_request_that_is_sent_again_is_known_before_its_keys_limits_are(tmp_path):
    gate = Gate()
    async with guarded_app(tmp_path, ScriptedModel(replies("The answer is 4."), step=gate)) as g:
        key = await g.key(concurrency=1)
        first = asyncio.ensure_future(g.ask({**key, "Idempotency-Key": "k"}))
        await gate.reached.wait()
        again = asyncio.ensure_future(g.ask({**key, "Idempotency-Key": "k"}))
        other = await g.ask({**key, "Idempotency-Key": "another"})
        misused = await g.ask({**key, "Idempotency-Key": "k"}, seed=7)
        gate.open.set()
        made, replayed = await first, await again
        assert (made.status_code, replayed.status_code) == (200, 200)
        assert replayed.json() == made.json()
        assert replayed.headers["idempotent-replayed"] == "true"
        assert (other.status_code, other.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert (misused.status_code, misused.json()["error"]["code"]) == (409, "duplicate_request")


async def test_a_background_request_that_is_sent_again_is_known_where_no_more_may_wait(tmp_path, monkeypatch):
    gate = Gate()
    monkeypatch.setattr("reason.core.settings.QUEUED_PER_RUN", 1)
    serve = {"max_runs": 1, "auth": False}
    async with guarded_app(tmp_path, ScriptedModel(replies("The answer is 4."), step=gate), serve=serve) as g:

        async def start(name):
            return await g.client.post("/v1/runs", json={"question": "?"}, headers={"Idempotency-Key": name})

        await start("a")
        await gate.reached.wait()
        waiting = await start("b")
        assert (await start("c")).status_code == 429
        again = await start("b")
        assert (again.status_code, again.json()["id"]) == (202, waiting.json()["id"])
        gate.open.set()


async def test_what_went_wrong_inside_is_the_operators_alone(tmp_path):
    def broken():
        raise ZeroDivisionError("secret detail")

    async with guarded_app(tmp_path, ScriptedModel(replies("4"), step=broken)) as g:
        key = await g.key()
        named = {**key, "Idempotency-Key": "k"}
        first = await g.ask(named)
        run_id = first.headers.get("location", "").rpartition("/")[2]
        run_id = run_id or (await g.client.get("/v1/runs", headers=key)).json()["data"][0]["id"]
        detail = await g.client.get(f"/v1/runs/{run_id}", headers=key)
        events = await g.client.get(f"/v1/runs/{run_id}/events", headers=key)
        response = await g.client.get(f"/v1/responses/resp_{run_id}", headers=key)
        assert detail.json()["error"] == response.json()["error"] == {"code": "internal", "message": INTERNAL}
        assert '"type":"run.failed"' in events.text
        for told in (first, detail, events, response):
            assert "secret" not in told.text
        assert "secret" in str((await g.app.state.run_manager.store.get_run(run_id)).error)


async def test_a_run_is_held_from_the_beginning_of_its_response():
    held = []

    class Held:
        async def __aenter__(self):
            held.append("held")

        async def __aexit__(self, *_):
            held.append("left")

    async def events():
        held.append("read")
        yield

    async def gone():
        return {"type": "http.disconnect"}

    async def stuck(message):
        await asyncio.get_running_loop().create_future()

    await EventStreamResponse(events(), held=Held())({"type": "http"}, gone, stuck)
    assert held == ["held", "left"]


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("x", {"strategy": "nonsense"}),
        ("x", {"strategy": "cot", "parameters": {"n": 3}}),
        ("x", {"strategy": "cot", "verify": ["nobody"]}),
        ("scripted", {"strategy": "cot"}),
    ],
)
async def test_an_alias_that_stands_for_nothing_is_refused_at_the_start(tmp_path, name, alias):
    serve = {"auth": False, "aliases": {name: alias}}
    settings = Settings(model="scripted", store=tmp_path / "r.sqlite3", cache_dir=tmp_path, serve=serve)
    app = create_app(settings)
    with pytest.raises(UserError) as refused:
        async with app.router.lifespan_context(app):
            pass
    assert refused.value.param == f"serve.aliases.{name}"


@pytest.mark.parametrize(
    ("offered", "use", "message"),
    [
        (("pyton",), (), "unknown tool 'pyton' .*did you mean 'python'"),
        (("documents",), (), "documents has nothing to search"),
        (("mcp:no-such-program",), (), "mcp:no-such-program cannot be used as an MCP server"),
        ((), ("support.agent_runs:TOOLS", "support.agent_runs:read_page"), "two tools are called 'read_page'"),
    ],
)
async def test_a_tool_that_cannot_be_opened_is_refused_at_the_start(tmp_path, offered, use, message):
    serve, files = {"auth": False, "tools": offered}, {"store": tmp_path / "r.sqlite3", "cache_dir": tmp_path}
    app = create_app(Settings(model="scripted", serve=serve, tools={"use": use}, **files))
    with loaded_models({"scripted": AgentModel([])}), pytest.raises(ReasonError, match=message):
        async with app.router.lifespan_context(app):
            pass


async def test_what_can_be_asked_for_is_loaded_before_anybody_asks(tmp_path, monkeypatch):
    loaded = []
    for registry in (STRATEGIES, VERIFIERS):
        load = registry.load

        def noted(name, load=load):
            loaded.append(name)
            if name == "coat":
                raise DataError("a package that cannot be loaded")
            return load(name)

        monkeypatch.setattr(registry, "load", noted)
    async with guarded_app(tmp_path) as g:
        assert set(loaded) >= {*STRATEGIES.names(), *VERIFIERS.names()}
        assert (await g.client.get("/healthz")).status_code == 200


def test_a_worker_that_starts_while_all_are_told_to_stop_is_told_too(tmp_path, monkeypatch):
    told = []

    class Child:
        pid, sentinel = 2**22, 0

        def start(self):
            workers._stop(15)  # the signal arrives before the list has this worker

        def is_alive(self):
            return True

    class Context:
        Process = staticmethod(lambda **_: Child())

    monkeypatch.setattr(server_module.multiprocessing, "get_context", lambda _: Context)
    monkeypatch.setattr(server_module.os, "kill", lambda pid, number: told.append((pid, number)))
    workers = WorkerProcesses(Settings(store=tmp_path / "r.sqlite3"), None)
    workers._start()
    assert told == [(2**22, 15)]
    workers._start()
    assert len(workers._processes) == 1  # no further workers are started
