// Draws what the page carries (a trace, a verification), or else the live pages of the sidecar.

import { render } from "preact";
import type { RunEvent } from "./events";
import { App } from "./live/app";
import { reduceAll } from "./run/reduce";
import { nothing } from "./run/state";
import { restoreTheme } from "./theme";
import { Boundary } from "./views/boundary";
import { RunView } from "./views/run_view";
import { RawButton } from "./views/raw_button";
import { ThemeButton } from "./views/theme_button";
import { type TextVerification, VerificationView } from "./views/verification_view";

/** What `reason.sidecar.viewer.page` puts into a page. */
type Carried =
  | { kind: "trace"; status: string | null; version: string; events: RunEvent[] }
  | { kind: "verification"; version: string; found: TextVerification };

function Page({ carried }: { carried: Carried }) {
  const trace = carried.kind === "trace" ? reduceAll(nothing(), carried.events) : null;
  const run = carried.kind === "trace" ? (trace?.started?.run_id ?? "") : carried.found.run_id;
  return (
    <>
      <header class="bar slim">
        <span class="brand">reason</span>
        <span class="grow" />
        <RawButton />
        <ThemeButton />
      </header>
      {carried.kind === "trace" && trace !== null ? (
        <RunView state={trace} status={carried.status} />
      ) : (
        carried.kind === "verification" && <VerificationView found={carried.found} />
      )}
      <footer>
        run {run} · reason {carried.version}
      </footer>
    </>
  );
}

restoreTheme();
const root = document.getElementById("app");
if (root !== null) {
  const data = document.getElementById("data")?.textContent;
  const carried = data === undefined || data === null ? null : (JSON.parse(data) as Carried);
  render(<Boundary>{carried === null ? <App /> : <Page carried={carried} />}</Boundary>, root);
}
