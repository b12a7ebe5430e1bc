"""Fuzzes the targets with atheris (libFuzzer under it), each in a process of its own, forked when all is imported.

python tests/fuzz/atheris_run.py [TARGET …] [--runs N] [--seed N] [--keep FOLDER]

An input that breaks a target is printed and, with --keep, kept there; give it a test beside the reader's own, and put
it into tests/fuzz/found. Exit status: 0 if no target broke, 1 if one did.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import traceback
from contextlib import redirect_stderr
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
with redirect_stderr(io.StringIO()), atheris.instrument_imports(include=["reason"]):  # it names every module
    from support.fuzz_formats import FORMAT_TARGETS, folder
    from support.fuzz_seeds import seeds
    from support.fuzz_texts import TEXT_TARGETS, Target

TARGETS: dict[str, Target] = {**TEXT_TARGETS, **FORMAT_TARGETS}
RUNS = 2_000
LONGEST = 1_024
"""Bytes of an input."""
HANGS_S = 60
"""Seconds after which one input counts as a hang."""


def fuzz(name: str, runs: int, seed: int, keep: Path) -> int:
    """Fuzz a target in a child; returns its exit status. Its output is written to NAME.log in `keep`."""
    corpus = keep / f"{name}.corpus"
    corpus.mkdir(exist_ok=True)
    for number, one in enumerate(seeds(name)):
        (corpus / f"seed{number:03}").write_bytes(one)
    child = os.fork()
    if child == 0:
        log = os.open(keep / f"{name}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", f"-timeout={HANGS_S}"]
        options += [f"-dict={HERE / 'words' / name}.dict", f"-artifact_prefix={keep / name}."]
        options += ["-print_final_stats=1", "-rss_limit_mb=0"]
        try:
            atheris.Setup([sys.argv[0], *options, str(corpus)], keeping(TARGETS[name], keep / f"{name}.broken-by"))
            atheris.Fuzz()  # ends the process
        except BaseException:  # noqa: BLE001 (told, and then the child ends)
            traceback.print_exc()
        finally:
            os._exit(70)  # whatever happened, what is below on the stack is the parent's
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def keeping(target: Target, file: Path) -> Target:
    """A target that leaves the input that broke it in a file."""

    def tried(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            file.write_bytes(data)
            raise

    return tried


def main() -> int:
    """Fuzz the targets that were named, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    broken = 0
    folder()  # the parent removes it
    with tempfile.TemporaryDirectory(prefix="reason-fuzz-") as scratch:
        keep = arguments.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        for name in arguments.targets or TARGETS:
            status = fuzz(name, arguments.runs, arguments.seed, keep)
            log = (keep / f"{name}.log").read_text(errors="replace")
            if status:
                broken += 1
                sys.stdout.write(f"{name}: BROKEN (status {status})\n{log[-4000:]}\n")
                for artifact in sorted(keep.glob(f"{name}.*-*")):
                    sys.stdout.write(f"input: {artifact.read_bytes()!r}\n")
            else:
                done = [line for line in log.splitlines() if line.startswith("stat::number_of_executed_units")]
                sys.stdout.write(f"{name}: {done[0].split()[-1] if done else '?'} inputs held\n")
            sys.stdout.flush()
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
