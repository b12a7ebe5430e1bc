// Shows all texts as they were written instead of formatted, and back.

import { useEffect, useState } from "preact/hooks";

const CHANGED = "reason-raw";
let raw = false;

/** Whether texts are shown as they were written. */
export function useRaw(): boolean {
  const [now, setNow] = useState(raw);
  useEffect(() => {
    const look = () => setNow(raw);
    window.addEventListener(CHANGED, look);
    return () => window.removeEventListener(CHANGED, look);
  }, []);
  return now;
}

export function RawButton() {
  const now = useRaw();
  return (
    <button
      type="button"
      class="raw"
      value="raw"
      aria-pressed={now}
      aria-label="Texts as written"
      title="Texts as written, without Markdown and formulas"
      onClick={() => {
        raw = !raw;
        window.dispatchEvent(new Event(CHANGED));
      }}
    >
      ¶
    </button>
  );
}
