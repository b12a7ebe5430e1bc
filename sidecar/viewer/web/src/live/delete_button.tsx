// Deletes after a second click.

import { useEffect, useState } from "preact/hooks";

const SURE_MS = 5000;

export function DeleteButton({ what, onDelete }: { what: string; onDelete: () => Promise<void> }) {
  const [sure, setSure] = useState(false);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    if (!sure) return undefined;
    const timer = window.setTimeout(() => setSure(false), SURE_MS);
    return () => window.clearTimeout(timer);
  }, [sure]);
  return (
    <button
      type="button"
      value="delete"
      class={sure ? "danger" : undefined}
      disabled={busy}
      onClick={() => {
        if (!sure) {
          setSure(true);
          return;
        }
        setSure(false);
        setBusy(true);
        void onDelete().finally(() => setBusy(false));
      }}
    >
      {busy ? "deleting …" : sure ? `delete ${what} for good?` : "delete"}
    </button>
  );
}
