#!/usr/bin/env bash
# A session at the command line: ask, look at what happened, list the runs, replay one without its model, break one off
# and go on with it, and check a text that something else wrote.
#
#     bash examples/command_line.sh [FOLDER]
#
# Needs the command `reason` (pip install 'reason-orchestrator[local]'). Everything it writes lies in FOLDER, or in a
# temporary one that is removed in the end: a run store, a trace that a browser shows, an answer and a note.
set -euo pipefail

if [ $# -gt 0 ]; then
    mkdir -p "$1"
    cd "$1"
else
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
fi
export REASON_STORE="$PWD/runs.sqlite3"
newest_run() { reason runs list --limit 1 --json | sed -n 's/^ *"id": "\(.*\)",$/\1/p'; }

echo "== ask: the answer goes to standard output, everything else to standard error"
reason ask "What is the capital of France?" --budget-tokens 40 --trace trace.html >asked.txt || [ $? -eq 4 ]
cat asked.txt # 4 is no failure: the budget was spent, and this is the best answer so far
asked="$(newest_run)"

echo "== the trace: trace.html is a page that needs no network; the same events, one JSON object a line"
reason runs show "$asked" --events | cut -d '"' -f 14 | sort | uniq -c

echo "== replay: every reply comes from the run store, no model is opened"
reason runs replay "$asked" >replayed.txt || [ $? -eq 4 ]
cmp asked.txt replayed.txt
echo "the same text"

echo "== break off: who reads no further interrupts the run, as Ctrl-C does; what it has is saved"
reason ask "Why is the sky blue?" --set max_tokens=120 --stream | head -c 60 || true
broken="$(newest_run)"
printf '…\n'
reason runs list

echo "== resume: it goes on as it was begun, and pays for nothing twice"
reason runs resume "$broken"

echo "== verify: a text against documents, claim by claim; 5 says that not every claim is supported"
echo "Paris is the capital and largest city of France." >france.md
echo "The capital of France is Paris. The capital of France is Lyon." >answer.txt
status=0
reason verify --answer answer.txt --docs france.md --entailment lexical --require-verified || status=$?
echo "exit status $status"
