// The run's events as a file of JSON Lines, as `--trace FILE.jsonl` writes them; pieces of text are not kept.

import type { State } from "../run/state";

export function DownloadButton({ state }: { state: State }) {
  const run = state.started?.run_id ?? "run";
  return (
    <button
      type="button"
      value="download"
      title="The run's events as JSON Lines"
      disabled={state.entries.length === 0}
      onClick={() => save(`${run.replace(/[^\w.-]+/g, "_").slice(0, 80) || "run"}.jsonl`, state.entries.map((event) => `${JSON.stringify(event)}\n`))}
    >
      download
    </button>
  );
}

function save(name: string, lines: string[]): void {
  const link = document.createElement("a");
  const address = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = name;
  link.href = address;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(address), 1000);
}
