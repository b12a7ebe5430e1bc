#!/usr/bin/env bash
# A session at the command line: ask, inspect the events, list the runs, replay one without its model, interrupt one and
# resume it, and verify an existing text.
#
#     bash examples/command_line.sh [DIRECTORY]
#
# Needs the command `reason` (pip install '.[local]' in the checkout). All files are written to DIRECTORY, or to a
# temporary directory that is removed at the end: a run store, an HTML trace, an answer and a note.
set -euo pipefail

if [ $# -gt 0 ]; then
    mkdir -p "$1"
    cd "$1"
else
    directory="$(mktemp -d)"
    trap 'rm -rf "$directory"' EXIT
    cd "$directory"
fi
export REASON_STORE="$PWD/runs.sqlite3"
newest_run() { reason runs list --limit 1 --json | sed -n 's/^ *"id": "\(.*\)",$/\1/p'; }

echo "== ask: the answer goes to standard output, everything else to standard error"
reason ask "What is the capital of France?" --budget tokens=40 --trace trace.html >asked.txt || [ $? -eq 4 ]
cat asked.txt # status 4: the budget is exhausted, and this is the best answer so far
asked="$(newest_run)"

echo "== the trace: trace.html is a self-contained page; the same events as JSON Lines"
reason runs show "$asked" --events | cut -d '"' -f 14 | sort | uniq -c

echo "== replay: every completion comes from the run store, no model is loaded"
reason runs replay "$asked" >replayed.txt || [ $? -eq 4 ]
cmp asked.txt replayed.txt
echo "the same text"

echo "== interrupt: a closed pipe interrupts the run, as Ctrl-C does; its progress is saved"
reason ask "Why is the sky blue?" --set max_tokens=120 --stream | head -c 60 || true
broken="$(newest_run)"
printf '…\n'
reason runs list

echo "== resume: the run continues, and nothing is paid twice"
reason runs resume "$broken"

echo "== verify: a text against documents, claim by claim; status 5 if not every claim is supported"
echo "Paris is the capital and largest city of France." >france.md
echo "The capital of France is Paris. The capital of France is Lyon." >answer.txt
status=0
reason verify --answer answer.txt --docs france.md --judge lexical --require-verified || status=$?
echo "exit status $status"
