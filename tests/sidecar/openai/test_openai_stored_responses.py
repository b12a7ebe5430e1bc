"""Responses in the store: cancelled and deleted."""

from __future__ import annotations

import threading

import httpx
import openai
import pytest

SAID = "The answer is 42."


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_in_progress_is_cancelled_from_another_connection(client, respond, server, models, stream):
    models["held"].left = 5
    ended: list[object] = []

    def ask():
        try:
            made = respond(model="reason/cot:held", stream=stream)
            ended.extend(made if stream else [made])
        except openai.APIError as e:
            ended.append(e)

    thread = threading.Thread(target=ask)
    thread.start()
    while not (models["held"].running and server.run_manager._live):
        threading.Event().wait(0.005)
    (run_id,) = server.run_manager._live
    cancelled = client.responses.cancel(f"resp_{run_id}")
    assert (cancelled.id, cancelled.status) == (f"resp_{run_id}", "cancelled")
    thread.join()
    assert models["held"].running == 0
    last = ended[-1]
    assert last.code == "cancelled"
    assert client.responses.retrieve(cancelled.id).status == "cancelled"
    assert client.responses.cancel(cancelled.id).status == "cancelled"


def test_a_background_response_is_fetched_by_its_id(client, respond):
    made = respond(background=True)
    assert (made.background, made.output) == (True, [])
    assert made.status in ("queued", "in_progress")
    while made.status in ("queued", "in_progress"):
        threading.Event().wait(0.01)
        made = client.responses.retrieve(made.id)
    assert (made.status, made.output_text, made.background) == ("completed", SAID, True)


def test_a_background_response_is_cancelled(client, respond, server, models):
    models["held"].left = 5
    made = respond(model="reason/cot:held", background=True)
    while not models["held"].running:
        threading.Event().wait(0.005)
    with pytest.raises(openai.ConflictError):
        client.responses.delete(made.id)
    assert client.responses.cancel(made.id).status == "cancelled"
    assert models["held"].running == 0
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_finished_response_is_not_cancelled(client, respond):
    made = respond()
    assert client.responses.cancel(made.id).output_text == SAID


def test_a_deleted_response_is_gone(client, respond, server):
    made = respond()
    told = httpx.delete(f"{server.url}/v1/responses/{made.id}", timeout=60)
    assert told.json() == {"id": made.id, "object": "response", "deleted": True}
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    with pytest.raises(openai.NotFoundError):
        respond(previous_response_id=made.id)
