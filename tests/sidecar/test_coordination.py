"""What processes request of one another about runs, in both kinds of stores."""

import asyncio

import pytest
from reason.core.errors import RunConflict, UnknownName
from reason.sidecar.coordination import RunCoordinator


async def claimable(store, limit=10):
    return [run.id for run in await RunCoordinator(store).list_claimable(limit)]


async def test_background_runs_are_claimed_oldest_first_by_one_process(stores):
    store, *others = await stores.open(), await stores.open_other(), await stores.open_other()
    for name, status, background in (("q1", "queued", True), ("r1", "running", True), ("q2", "queued", True)):
        await store.create_run(name, {}, status=status, background=background)
    await store.create_run("sync", {}, status="queued")
    assert [r.status for r in (await store.list_runs())[::-1]] == ["queued", "running", "queued", "queued"]
    assert await claimable(store) == ["q1", "q2"]
    assert await claimable(store, 1) == ["q1"]
    await store.claim_run("q1")
    await store.release_run("r1")
    assert await claimable(store) == ["r1", "q2"]
    claims = await asyncio.gather(*(other.claim_run("q2") for other in others), return_exceptions=True)
    (refused,) = [claim for claim in claims if claim is not None]
    assert isinstance(refused, RunConflict)
    assert str(refused).startswith("run q2 is in use by process")
    assert await claimable(store) == ["r1"]
    await stores.kill(others[claims.index(None)])
    assert await claimable(store) == ["r1", "q2"]


async def test_adoptions_after_the_death_of_a_process_are_counted(stores):
    store = await stores.open()

    async def adoptions():
        return (await store.get_run("r")).adoptions

    first, second = await stores.open_other(), await stores.open_other()
    await first.create_run("r", {}, background=True)
    await stores.kill(first)
    assert await adoptions() == 0
    await second.claim_run("r", adopting=True)
    await stores.kill(second)
    assert await adoptions() == 1
    await store.create_run("new", {}, status="queued", background=True)
    assert await claimable(store) == ["new", "r"]  # the least adopted first
    await store.claim_run("r", adopting=True)
    assert await adoptions() == 2
    await store.release_run("r")
    await store.claim_run("r", adopting=True)
    assert await adoptions() == 2  # nothing died with it
    await store.end_run("r", "failed")
    assert await adoptions() == 2
    await store.claim_run("r")  # a caller wants it again
    assert await adoptions() == 0


async def test_a_run_is_cancelled_through_the_store(any_store):
    others = RunCoordinator(any_store)
    for name in ("mine", "ended"):
        await any_store.create_run(name, {}, background=True)
    await any_store.create_run("queued", {}, status="queued", background=True)
    await any_store.end_run("ended", "finished")
    for name in ("mine", "queued", "ended"):
        await others.request_cancel(name)
    requested = await others.requested(["mine", "ended", "none"])
    assert (requested.cancelled, requested.answered) == ({"mine"}, frozenset())
    assert (await any_store.get_run("mine")).cancel_requested
    assert (await any_store.get_run("queued")).status == "interrupted"  # nobody is there to stop it
    assert (await any_store.get_run("ended")).status == "finished"
    assert await claimable(any_store) == []
    await any_store.release_run("mine")  # drained before it had heard of it
    assert (await any_store.get_run("mine")).status == "interrupted"
    await any_store.claim_run("mine")
    assert not any(await others.requested(["mine"]))
    with pytest.raises(UnknownName):
        await others.request_cancel("none")


async def test_an_answer_is_requested_through_the_store(any_store):
    others = RunCoordinator(any_store)
    for name in ("mine", "ended"):
        await any_store.create_run(name, {})
    await any_store.create_run("queued", {}, status="queued", background=True)
    await any_store.end_run("ended", "finished")
    for name in ("mine", "queued", "ended", "queued"):
        await others.request_answer(name)
    requested = await others.requested(["mine", "queued", "ended", "none"])
    assert (requested.cancelled, requested.answered) == (frozenset(), {"mine", "queued"})
    assert (await any_store.get_run("mine")).answer_requested
    assert not (await any_store.get_run("ended")).answer_requested
    assert await claimable(any_store) == ["queued"]
    with pytest.raises(UnknownName):
        await others.request_answer("none")


@pytest.mark.parametrize("background", [True, False])
async def test_the_process_that_adopts_a_background_run_is_asked_for_the_answer_too(any_store, background):
    others = RunCoordinator(any_store)
    await any_store.create_run("r", {}, background=background)
    await others.request_answer("r")
    await any_store.release_run("r")
    await any_store.claim_run("r")
    # a run that is no background run is claimed only where somebody resumes it, who wants all of it
    assert (await any_store.get_run("r")).answer_requested == background
    await any_store.end_run("r", "finished")
    assert not any(await others.requested(["r"]))


async def test_a_store_is_checked_by_writing_to_it(any_store):
    for _ in range(2):
        await RunCoordinator(any_store).check_writable()
    assert await any_store.list_runs() == []
