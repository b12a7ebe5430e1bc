"""What every run store keeps to, whatever it is made of."""

import asyncio

import pytest
from reason.core.errors import DuplicateRequest, StoreError, UnknownName, UserError
from reason.core.events import StageStarted
from reason.core.store.protocol import NewCall, NewRun, RunEnd, RunWrites, StoredCall, StoredCheckpoint
from support.store_process import StoreProcess


def reply(key, tokens=0, usd=0.0, truncated=False, text="x"):
    said = {"text": text, "usage": {"completion_tokens": tokens, "cost_usd": usd}}
    return StoredCall(key=key, role="main", model="m", request={"q": key}, response=said, truncated=truncated)


def stage(number):
    return StageStarted(number=number, stage="solve")


async def test_a_run_is_read_as_it_was_written(any_store):
    odd = {"text": "né\0 \ud83d \U0001f600", "deep": [{"x": None}, 1.5, True]}
    await any_store.create_run("r1", odd, tenant="t", background=True, idempotency="key", digest="d")
    await any_store.set_identities("r1", {"main": {"identity": "m@1"}})
    run = await any_store.get_run("r1")
    assert (run.config, run.identities, run.tenant, run.background) == (odd, {"main": {"identity": "m@1"}}, "t", True)
    assert (run.status, run.idempotency, run.cancel_requested) == ("running", "key", False)
    await any_store.end_run("r1", "failed", {"text": "\0"}, {"code": "x"}, events=[stage(3)])
    run = await any_store.get_run("r1")
    assert (run.status, run.answer, run.error, run.owner) == ("failed", {"text": "\0"}, {"code": "x"}, None)
    assert [e.number for e in await any_store.list_events("r1")] == [3]


async def test_runs_are_looked_up_by_name_or_unique_prefix(any_store):
    for name in ("2026-a", "2026-ab", "2027-a", "x%y", "x_y", "2026-a\U0001f600"):
        await any_store.create_run(name, {})
    assert (await any_store.get_run("2026-a")).id == "2026-a"
    assert (await any_store.get_run("2027")).id == "2027-a"
    assert (await any_store.get_run("x%")).id == "x%y"
    with pytest.raises(UserError, match="several runs"):
        await any_store.get_run("2026")
    for wrong, exact in (("2028", False), ("", False), ("%", False), ("\0", False), ("a\0", True), ("2027", True)):
        with pytest.raises(UnknownName):
            await any_store.get_run(wrong, exact=exact)


async def test_tenants_see_only_their_own_runs(any_store):
    for name, tenant in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("n1", "")):
        await any_store.create_run(name, {}, tenant=tenant)
    assert [r.id for r in await any_store.list_runs(tenant="a")] == ["a2", "a1"]
    assert [r.id for r in await any_store.list_runs(tenant="")] == ["n1"]
    assert {r.id for r in await any_store.list_runs()} == {"a1", "a2", "b1", "n1"}
    assert (await any_store.get_run("b1", tenant="b")).id == "b1"
    for exact in (True, False):
        with pytest.raises(UnknownName):
            await any_store.get_run("b1", tenant="a", exact=exact)
    with pytest.raises(UnknownName):
        await any_store.list_runs(tenant="a", after="b1")


async def test_calls_are_shared_only_within_a_tenant(any_store):
    for name, tenant in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        await any_store.create_run(name, {}, tenant=tenant)
    await any_store.add_calls("a1", [reply("k"), reply("cut", truncated=True)])
    assert await any_store.find_calls("a2", ["k", "cut"]) == {}
    assert set(await any_store.find_calls("a2", ["k", "cut"], any_run=True)) == {"k"}
    assert await any_store.find_calls("b1", ["k", "cut"], any_run=True) == {}
    await any_store.add_calls("a2", [reply("k", text="own")])
    for name, text in (("a1", "x"), ("a2", "own")):
        assert (await any_store.find_calls(name, ["k"], any_run=True))["k"].response["text"] == text


async def test_many_requests_with_one_idempotency_key_make_one_run(stores):
    two = [await stores.open(), await stores.open()]

    async def request(i):
        try:
            await two[i % 2].create_run(f"r{i}", {}, tenant="t", idempotency="key", digest="same")
        except DuplicateRequest as e:
            return e.run_id, e.same_digest
        return f"r{i}", True

    made = await asyncio.gather(*(request(i) for i in range(50)))
    (run,) = await two[0].list_runs()
    assert set(made) == {(run.id, True)}
    with pytest.raises(DuplicateRequest) as e:
        await two[0].create_run("other", {}, tenant="t", idempotency="key", digest="another")
    assert (e.value.run_id, e.value.same_digest, e.value.http_status) == (run.id, False, 409)
    await two[1].create_run("theirs", {}, tenant="u", idempotency="key", digest="same")  # each tenant has its own
    await two[1].create_run("none", {}, tenant="t")


async def test_payments_are_charged_once_however_often_a_run_is_resumed(any_store):
    async def end(status, completion, replayed, usd=0.0):
        usage = {"completion_tokens": completion, "replayed_tokens": replayed, "cost_usd": usd}
        await any_store.end_run("r", status, {"usage": usage})
        return await any_store.get_spending("t", 0.0)

    await any_store.create_run("r", {}, tenant="t")
    await any_store.add_calls("r", [reply("a", 10, 0.5)])
    spent = await end("interrupted", 12, 0, usd=0.6)  # two tokens were being generated when it was stopped
    assert (spent.tokens, spent.usd, spent.runs) == (12, pytest.approx(0.6), 1)
    await any_store.claim_run("r")
    await any_store.add_calls("r", [reply("a", 10, 0.5), reply("b", 20, 1.0)])
    spent = await end("finished", 30, 10, usd=1.5)
    assert (spent.tokens, spent.usd, spent.runs) == (32, pytest.approx(1.5), 1)
    with pytest.raises(StoreError, match="has no owner"):
        await any_store.end_run("r", "finished", {"usage": {"completion_tokens": 99}})
    assert (await any_store.get_spending("t", 0.0)).tokens == 32
    assert (await any_store.get_spending("u", 0.0)).runs == 0
    assert (await any_store.get_spending("t", 4e9)).tokens == 0  # a day to come


async def test_payments_of_a_killed_process_are_charged_when_the_run_ends(stores):
    store = await stores.open()
    async with StoreProcess(stores.place) as other:
        assert await other.ask("create", "r", {"tenant": "t"}) == "done"
        assert await other.ask("add", "r", ["a", "b", "c"]) == "done"  # a token each
        await other.kill()
    await stores.forget(store)
    await store.claim_run("r")
    await store.save("r", RunWrites(copies=[reply("copy", 1000)]))
    await store.end_run("r", "finished", {"usage": {"completion_tokens": 1003, "replayed_tokens": 1003}})
    spent = await store.get_spending("t", 0.0)
    assert (spent.tokens, spent.runs) == (3, 1)


async def test_background_runs_are_claimed_oldest_first_by_one_process(stores):
    store = await stores.open()
    for name, status, background in (("q1", "queued", True), ("r1", "running", True), ("q2", "queued", True)):
        await store.create_run(name, {}, status=status, background=background)
    await store.create_run("sync", {}, status="queued")
    assert [r.status for r in (await store.list_runs())[::-1]] == ["queued", "running", "queued", "queued"]
    assert [r.id for r in await store.list_claimable_runs(10)] == ["q1", "q2"]
    assert [r.id for r in await store.list_claimable_runs(1)] == ["q1"]
    await store.claim_run("q1")
    await store.release_run("r1")
    assert [r.id for r in await store.list_claimable_runs(10)] == ["r1", "q2"]
    async with StoreProcess(stores.place) as one, StoreProcess(stores.place) as two:
        for other in (one, two):
            other.tell("claim_run", "q2")
        said = sorted([await one.line(), await two.line()])
        assert said[0].startswith('"RunConflict: run q2 is in use by process')
        assert said[1] == '"done"'
    with pytest.raises(StoreError, match="has no owner"):
        await store.add_calls("r1", [reply("k")])


async def test_adoptions_after_the_death_of_a_process_are_counted(stores):
    store = await stores.open()

    async def die_with(*words):
        async with StoreProcess(stores.place) as other:
            assert await other.ask(*words) == "done"
            await other.kill()
        await stores.forget(store)

    async def adoptions():
        return (await store.get_run("r")).adoptions

    await die_with("create", "r", {"background": True})
    assert await adoptions() == 0
    await die_with("adopt", "r")
    await die_with("adopt", "r")
    assert await adoptions() == 2
    await store.create_run("new", {}, status="queued", background=True)
    assert [r.id for r in await store.list_claimable_runs(10)] == ["new", "r"]  # the least adopted first
    await store.claim_run("r", adopting=True)
    assert await adoptions() == 3
    await store.release_run("r")
    await store.claim_run("r", adopting=True)
    assert await adoptions() == 3  # nothing died with it
    await store.end_run("r", "failed")
    assert await adoptions() == 3
    await store.claim_run("r")  # a caller wants it again
    assert await adoptions() == 0


async def test_a_run_is_cancelled_through_the_store(any_store):
    for name in ("mine", "ended"):
        await any_store.create_run(name, {}, background=True)
    await any_store.create_run("queued", {}, status="queued", background=True)
    await any_store.end_run("ended", "finished")
    for name in ("mine", "queued", "ended"):
        await any_store.request_cancel(name)
    assert await any_store.cancel_requested(["mine", "queued", "ended", "none"]) >= {"mine"}
    assert (await any_store.get_run("mine")).cancel_requested
    assert (await any_store.get_run("queued")).status == "interrupted"  # nobody is there to stop it
    assert (await any_store.get_run("ended")).status == "finished"
    assert await any_store.list_claimable_runs(10) == []
    await any_store.release_run("mine")  # drained before it had heard of it
    assert (await any_store.get_run("mine")).status == "interrupted"
    await any_store.claim_run("mine")
    assert await any_store.cancel_requested(["mine"]) == frozenset()
    with pytest.raises(UnknownName):
        await any_store.request_cancel("none")


async def test_an_answer_is_requested_through_the_store(any_store):
    for name in ("mine", "ended"):
        await any_store.create_run(name, {})
    await any_store.create_run("queued", {}, status="queued", background=True)
    await any_store.end_run("ended", "finished")
    for name in ("mine", "queued", "ended", "queued"):
        await any_store.request_answer(name)
    assert await any_store.answer_requested(["mine", "queued", "ended", "none"]) == {"mine", "queued"}
    assert (await any_store.get_run("mine")).answer_requested
    assert not (await any_store.get_run("ended")).answer_requested
    assert await any_store.cancel_requested(["mine", "queued"]) == frozenset()
    assert [r.id for r in await any_store.list_claimable_runs(10)] == ["queued"]
    with pytest.raises(UnknownName):
        await any_store.request_answer("none")


@pytest.mark.parametrize("background", [True, False])
async def test_the_process_that_adopts_a_background_run_is_asked_for_the_answer_too(any_store, background):
    await any_store.create_run("r", {}, background=background)
    await any_store.request_answer("r")
    await any_store.release_run("r")
    await any_store.claim_run("r")
    # a run that is no background run is claimed only where somebody resumes it, who wants all of it
    assert (await any_store.get_run("r")).answer_requested == background
    await any_store.end_run("r", "finished")
    assert await any_store.answer_requested(["r"]) == frozenset()


async def test_events_are_read_in_pages(any_store):
    await any_store.create_run("r", {})
    await any_store.add_events("r", [stage(n) for n in (3, 1, 2, 5)])
    assert [e.number for e in await any_store.list_events("r")] == [1, 2, 3, 5]
    assert [e.number for e in await any_store.list_events("r", after=2)] == [3, 5]
    assert [e.number for e in await any_store.list_events("r", after=1, limit=2)] == [2, 3]
    many = [stage(n) for n in range(6, 200)]
    await any_store.add_events("r", many)
    assert [e.number for e in await any_store.list_events("r", after=60, limit=100)] == list(range(61, 161))
    assert [e.number for e in await any_store.list_events("r", after=3)] == [5, *range(6, 200)]


async def test_an_event_that_is_written_again_is_stored_once(any_store):
    await any_store.create_run("r", {})
    await any_store.add_events("r", [stage(n) for n in (1, 2)])
    await any_store.add_events("r", [stage(n) for n in (1, 2, 3)])  # its first write was believed to have failed
    await any_store.add_events("r", [stage(3)])
    assert [e.number for e in await any_store.list_events("r")] == [1, 2, 3]
    assert [e.number for e in await any_store.list_events("r", after=1, limit=1)] == [2]


async def test_a_run_is_written_in_one_transaction(any_store):
    before = any_store.transactions
    answer = {"answer": "42", "usage": {"completion_tokens": 7, "cost_usd": 0.5}}
    await any_store.save(
        "r",
        RunWrites(
            creation=NewRun({"strategy": "cot"}, tenant="t"),
            identities={"main": {"identity": "m@1"}},
            calls=[
                NewCall("k", "main", "m", {"request": {"prompt": "p"}, "seed": 1}, {"usage": {"completion_tokens": 9}})
            ],
            events=[stage(1), stage(2)],
            end=RunEnd("finished", answer),
        ),
    )
    assert any_store.transactions == before + 1
    run = await any_store.get_run("r", exact=True)
    assert (run.status, run.owner, run.tenant, run.strategy) == ("finished", None, "t", "cot")
    assert (run.answer, run.answer_text, run.tokens, run.identities) == (answer, "42", 7, {"main": {"identity": "m@1"}})
    (call,) = await any_store.list_calls("r")
    assert call.request == {"request": {"prompt": "p"}, "seed": 1}
    assert [e.number for e in await any_store.list_events("r")] == [1, 2]
    spent = await any_store.get_spending("t", 0.0)
    assert (spent.tokens, spent.usd, spent.runs) == (9, 0.5, 1)  # what was paid: the larger of answer and calls
    with pytest.raises(StoreError, match="has no owner"):
        await any_store.add_calls("r", [reply("late", 1)])
    await any_store.claim_run("r")
    await any_store.end_run("r", "finished", {"usage": {"completion_tokens": 7, "replayed_tokens": 7}})
    assert (await any_store.get_spending("t", 0.0)) == spent  # charged once


async def test_nothing_is_written_of_a_run_whose_name_is_taken(any_store):
    await any_store.create_run("r", {}, tenant="t")
    writes = RunWrites(creation=NewRun({}, tenant="t"), calls=[reply("k", 5)], end=RunEnd("finished"))
    with pytest.raises(UserError, match="there is a run r already"):
        await any_store.save("r", writes)
    assert (await any_store.get_run("r")).status == "running"
    assert await any_store.count_calls("r") == 0
    assert (await any_store.get_spending("t", 0.0)).runs == 0


async def test_samples_of_a_long_prompt_store_it_once(any_store):
    question = {"prompt": "q" * 200_000}
    await any_store.create_run("r", {})
    for start in (0, 50):
        calls = [
            NewCall(f"{i:03}", "main", "m", {"request": question, "seed": 1, "index": i}, {"text": "a"})
            for i in range(start, start + 50)
        ]
        await any_store.add_calls("r", calls)
    stored = await any_store.list_calls("r")
    assert [c.request for c in stored] == [{"request": question, "seed": 1, "index": i} for i in range(100)]
    found = await any_store.find_calls("r", ["007"])
    assert found["007"].request == {"request": question, "seed": 1, "index": 7}
    sizes = await any_store._commits.read(lambda db: db.execute("SELECT SUM(LENGTH(request)) FROM calls"))
    assert sizes[0][0] < 100 * 50
    prompts = await any_store._commits.read(lambda db: db.execute("SELECT LENGTH(request) FROM requests"))
    assert len(prompts) == 1
    await any_store.delete_run("r")
    assert await any_store._commits.read(lambda db: db.execute("SELECT COUNT(*) FROM requests")) == [(0,)]


async def test_checkpoints_are_deleted_with_their_run(any_store):
    await any_store.create_run("r", {})
    for name in ("c1", "c3", "c2"):
        await any_store.put_checkpoint(
            "r", StoredCheckpoint(namespace="", id=name, parent=None, kind="json", state=b"\0\xff", metadata=b"{}")
        )
    assert (await any_store.get_checkpoint("r")).id == "c3"
    only = await any_store.get_checkpoint("r", checkpoint_id="c1")
    assert (only.id, only.state, only.metadata) == ("c1", b"\0\xff", b"{}")
    await any_store.delete_run("r")
    assert await any_store.get_checkpoint("r") is None
    with pytest.raises(StoreError, match="not in the run store"):
        await any_store.put_checkpoint("r", only)


@pytest.mark.parametrize("most", [1, 5])
async def test_a_process_killed_while_writing_leaves_complete_writes(stores, most):
    async with StoreProcess(stores.place) as other:
        assert await other.ask("create", "r", {}) == "done"
        other.tell("add for ever", "r", 7)
        for _ in range(most):
            last = int(await other.line())
        await other.kill()
    store = await stores.open()
    count = await store.count_calls("r")
    assert count % 7 == 0
    assert count >= 7 * last


async def test_a_store_is_checked_by_writing_to_it(any_store):
    for _ in range(3):
        await any_store.check_writable()
    assert await any_store.list_runs() == []


async def test_a_closed_store_is_an_error(any_store):
    await any_store.aclose()
    await any_store.aclose()
    with pytest.raises(StoreError, match="is closed"):
        await any_store.check_writable()
    with pytest.raises(StoreError, match="is closed"):
        await any_store.list_runs()
