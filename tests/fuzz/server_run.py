"""Fuzzes a server: requests for all routes and parameters, one at a time, under a watchdog of its event loop.

python tests/fuzz/server_run.py [--seconds N] [--seed N] [--only TEXT] [--verbose] [--keep FOLDER]

The cases of `support.fuzz_requests` are sent with one seed after another until the time is over; the environment
variable FUZZ_SECONDS sets it too. A case is at fault if it blocks the event loop for more than 200 ms of processor
time, has a status that the route does not document, a response of another shape or with texts of internals, leaves an
error in the server's log, or a run that does not end. Exit status: 0 if none was, 1 if one was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support.fuzz_requests import LAST_RUN, MAX_BISECTIONS, Case, Kinds, catalogue, shrunk
from support.loop_lag import MAX_BLOCK_S
from support.watched_server import Block, WatchedServer

SECONDS = 180.0
SEED = 1
COMPLETE_S = 600.0
"""Time from which on all parameters and all uses of all patterns of text are tried."""
RESPONSE_S = 2.0
"""Seconds after which the client leaves, which cancels the run."""
END_S = 30.0
"""Seconds in which what a request began has to end after that."""
MAX_ERROR_BYTES = 20_000
MAX_VALIDATED_BYTES = 300_000
MAX_GROWTH_MIB = 400.0
"""Resident memory at the end, beyond that after the first round, which loads all that is loaded at first use."""
MAX_PEAK_MIB = 2000.0
MAX_FAULTS = 25
INTERNALS = re.compile(
    r'Traceback|File \\?"/|site-packages|\.py\b|object at 0x|pydantic|sqlite|<class |psycopg|uvicorn'
)


ALLOWED = "invalid_response"
"""Code of the only server error: the model, which writes no JSON of the requested form."""


@dataclass
class Report:
    """What a fuzz run found."""

    num_cases: int = 0
    faults: list[str] = field(default_factory=list)
    blocks: list[tuple[float, str]] = field(default_factory=list)
    memory_mib: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def summary(self) -> str:
        """One line, and the cases with the longest blocks."""
        worst = sorted(self.blocks, reverse=True)[:5]
        lines = [f"{self.num_cases} requests, {len(self.faults)} faults; memory {self.memory_mib[0]:.0f} MiB, then "]
        lines[0] += f"{self.memory_mib[1]:.0f}, at most {self.memory_mib[2]:.0f}; longest blocks of the event loop:"
        return "\n".join(lines + [f"  {cpu_s * 1000:4.0f} ms  {name}" for cpu_s, name in worst])


@dataclass(frozen=True)
class Reply:
    """A response; `complete` is False if the client left before its end."""

    status: int
    kind: str
    content: bytes
    complete: bool


class ServerFuzzer:
    """Sends cases to one server and judges what it does."""

    def __init__(self, server: WatchedServer, report: Report) -> None:
        self._server, self._report = server, report
        self._client = httpx.Client(
            base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=RESPONSE_S
        )
        self._last_run = LAST_RUN
        self._log = server.log.open()
        self._log.read()
        self.kinds = Kinds(
            openapi=self._client.get("/openapi.json").json(),
            strategies={one["name"]: one["parameters"] for one in self._list("strategies")},
            verifiers={one["name"]: one["parameters"] for one in self._list("verifiers")},
        )
        self._patterns = [
            (
                re.compile("/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in path.split("/"))),
                path,
            )
            for path in self.kinds.openapi["paths"]
        ]

    def _list(self, name: str) -> Any:
        return self._client.get(f"/v1/{name}").json()["data"]

    def try_case(self, case: Case) -> None:
        """Send a case, with halved parameters until it is accepted, and note its faults."""
        faults: list[str] = []
        for _ in range(MAX_BISECTIONS):
            reply, block, faults = self._attempt(case)
            if block.cpu_s > MAX_BLOCK_S:  # once may be a collection of garbage that others left
                again = [self._attempt(case)[1] for _ in range(2)]
                blocks = sorted([block, *again], key=lambda one: one.cpu_s)
                block = blocks[1]
                if block.cpu_s > MAX_BLOCK_S:
                    faults.append(f"the event loop was blocked for {block.cpu_s * 1000:.0f} ms\n{blocks[2].stack}")
            self._report.num_cases += 1
            self._report.blocks.append((block.cpu_s, case.name))
            smaller = self._smaller(case, reply) if case.shrinks and not faults else None
            if smaller is None:
                break
            case = smaller
        if faults:
            body = (case.content or b"")[:300].decode("utf-8", "replace")
            told = "\n  ".join(faults)
            self._report.faults.append(f"{case.name}: {case.method} {case.path[:200]} {body}\n  {told}")

    def _smaller(self, case: Case, reply: Reply | None) -> Case | None:
        if reply is None or reply.status != 400:
            return None
        error = json.loads(reply.content)["error"]
        if "samples, more than" not in error["message"]:
            return None
        return shrunk(case, error["param"])

    def _attempt(self, case: Case) -> tuple[Reply | None, Block, list[str]]:
        self._server.block(reset=True)
        faults: list[str] = []
        reply = self._send(case, faults)
        if reply is not None:
            faults += self._judge(case, reply)
            if reply.status == 202:
                self._cancel_later(reply)
        if not self._is_idle(END_S):
            faults.append(f"what it began has not ended after {END_S:g} s")
        faults += self._logged()
        return reply, self._server.block(), faults

    def _send(self, case: Case, faults: list[str]) -> Reply | None:
        begun, pieces, complete = time.monotonic(), [], True
        try:
            with self._client.stream(
                case.method,
                case.path.replace(LAST_RUN, self._last_run),
                content=case.content,
                headers=dict(case.headers),
            ) as response:
                self._last_run = response.headers.get("location", self._last_run).rpartition("/")[2]
                for piece in response.iter_raw():
                    pieces.append(piece)
                    if time.monotonic() - begun > RESPONSE_S:
                        complete = False
                        break
                status, kind = response.status_code, response.headers.get("content-type", "")
        except httpx.TimeoutException:
            return None
        except httpx.TransportError as e:  # a refused body: the server may close before it has read all
            if len(case.content or b"") < 1 << 20:
                faults.append(f"no response: {e!r}")
            return None
        return Reply(status, kind, b"".join(pieces), complete)

    def _cancel_later(self, reply: Reply) -> None:
        if not self._is_idle(RESPONSE_S):
            run_id = json.loads(reply.content)["id"]
            self._client.post(f"/v1/runs/{run_id}/cancel")

    def _is_idle(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(httpx.TimeoutException):
                ready = self._client.get("/readyz")
                if ready.status_code == 200 and ready.json()["in_flight"] == 0:
                    return True
            time.sleep(0.02)
        return False

    def _logged(self) -> Iterator[str]:
        for line in self._log.read().splitlines():
            if ('"level": "error"' in line and f'"code": "{ALLOWED}"' not in line) or "Traceback" in line:
                yield f"the log has {line[:3000]}"

    def _judge(self, case: Case, reply: Reply) -> Iterator[str]:
        path = case.path.partition("?")[0]
        template = next((name for pattern, name in self._patterns if pattern.fullmatch(path)), None)
        operation = self.kinds.openapi["paths"].get(template, {}).get(case.method.lower())
        documented = set(operation["responses"]) if operation else {"404", "405", "400", "401", "307", "200", "413"}
        if reply.status >= 500 and not (reply.status == 502 and ALLOWED.encode() in reply.content):
            yield f"status {reply.status}: {reply.content[:1000]!r}"
        elif str(reply.status) not in documented:
            yield f"status {reply.status} is not documented ({', '.join(sorted(documented))}): {reply.content[:300]!r}"
        if case.method == "HEAD" or not reply.content:
            return
        text = reply.content.decode("utf-8", "replace")
        if operation and template != "/metrics" and (found := INTERNALS.search(text)):
            yield f"the response has internals: …{text[max(0, found.start() - 200) : found.end() + 200]!r}"
        if self._server.key in text:
            yield "the response has the key"
        if reply.kind.startswith("application/json"):
            yield from self._judge_json(reply, text, operation)
        elif reply.kind.startswith("text/event-stream"):
            yield from _judge_stream(text, reply.complete)
        elif (operation and template != "/metrics") or reply.status >= 400:
            yield f"the response is {reply.kind}: {text[:200]!r}"

    def _judge_json(self, reply: Reply, text: str, operation: Any) -> Iterator[str]:
        try:
            value = json.loads(text, parse_constant=lambda name: float(name + "!"))
        except ValueError as e:
            yield f"the response is not JSON: {e}: {text[:200]!r}"
            return
        if reply.status >= 400:
            error = value.get("error") if isinstance(value, dict) else None
            if not (isinstance(error, dict) and {"message", "type", "param", "code"} <= set(error) and error["code"]):
                yield f"the error has another shape: {text[:300]!r}"
            if (
                len(text) - len(json.dumps(error.get("partial"))) > MAX_ERROR_BYTES
                if isinstance(error, dict)
                else False
            ):
                yield f"the error has {len(text)} bytes: {text[:200]!r}"
        elif operation and len(text) <= MAX_VALIDATED_BYTES:
            content = operation["responses"].get(str(reply.status), {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            if schema:
                whole = {**schema, "components": self.kinds.openapi["components"]}
                for fault in itertools.islice(Draft202012Validator(whole).iter_errors(value), 1):
                    yield f"the response is not of its schema: {fault.json_path}: {fault.message[:300]}"


def _judge_stream(text: str, complete: bool) -> Iterator[str]:
    data: list[str] = []
    for line in text.splitlines() if complete else text.splitlines()[:-1]:
        if line.startswith("data: ") and line != "data: [DONE]":
            try:
                json.loads(line[6:])
            except ValueError:
                yield f"an event is not JSON: {line[:200]!r}"
            data.append(line)
    if complete and not data:
        yield "the stream has no events"


def fuzz(
    server: WatchedServer,
    seconds: float,
    seed: int,
    *,
    only: str = "",
    max_rounds: int | None = None,
    verbose: bool = False,
) -> Report:
    """Send the cases with the text `only` in their names, in rounds with a seed each, until the time is over."""
    report, end = Report(), time.monotonic() + seconds
    fuzzer = ServerFuzzer(server, report)

    def cases() -> Iterator[Case]:
        for number in itertools.count() if max_rounds is None else range(max_rounds):
            yield from catalogue(fuzzer.kinds, seed + number, complete=seconds > COMPLETE_S)
            if number == 0:
                report.memory_mib = (server.memory_mib(), 0.0, 0.0)

    for case in cases():
        if time.monotonic() > end or len(report.faults) >= MAX_FAULTS or server.child.poll() is not None:
            break
        if only in case.name:
            begun = time.monotonic()
            fuzzer.try_case(case)
            if verbose:
                taken, block_ms = time.monotonic() - begun, report.blocks[-1][0] * 1000
                sys.stdout.write(
                    f"{taken:5.2f} s {block_ms:4.0f} ms {server.memory_mib():4.0f} MiB {case.name[:150]}\n"
                )
                sys.stdout.flush()
    if server.child.poll() is not None:
        report.faults.append(
            f"the server ended with status {server.child.returncode}: {server.log.read_text()[-3000:]}"
        )
        return report
    report.memory_mib = (report.memory_mib[0], server.memory_mib(), server.memory_mib("VmHWM"))
    before, after, peak = report.memory_mib
    if before and after - before > MAX_GROWTH_MIB:
        report.faults.append(f"memory grew from {before:.0f} to {after:.0f} MiB")
    if peak > MAX_PEAK_MIB:
        report.faults.append(f"memory was {peak:.0f} MiB at its peak")
    return report


def main() -> int:
    """Fuzz a new server, and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", SECONDS)))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", default="", help="only cases with this text in their name")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the server's log and store")
    arguments = parser.parse_args()
    with WatchedServer(arguments.keep) as server:
        report = fuzz(
            server,
            arguments.seconds,
            arguments.seed,
            only=arguments.only,
            verbose=arguments.verbose,
        )
    for fault in report.faults:
        sys.stdout.write(f"FAULT: {fault}\n\n")
    sys.stdout.write(f"{report.summary()}\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
