// The live pages: which one is shown follows from the address.

import { useEffect, useState } from "preact/hooks";
import { RawButton } from "../views/raw_button";
import { ThemeButton } from "../views/theme_button";
import { LOCKED } from "./api";
import { AskPage } from "./ask_page";
import { ComparePage } from "./compare_page";
import { KeyForm } from "./key_form";
import { RunPage } from "./run_page";
import { RunsPage } from "./runs_page";

export function App() {
  const [locked, setLocked] = useState(false);
  useEffect(() => {
    const lock = () => setLocked(true);
    window.addEventListener(LOCKED, lock);
    return () => window.removeEventListener(LOCKED, lock);
  }, []);
  const place = location.pathname.replace(/\/+$/, "");
  return (
    <>
      <header class="bar">
        <a class="brand" href="/ui">
          reason
        </a>
        <nav aria-label="Pages">
          <a href="/ui" aria-current={place === "/ui" ? "page" : undefined}>
            Runs
          </a>
          <a href="/ui/ask" aria-current={place === "/ui/ask" ? "page" : undefined}>
            Ask
          </a>
        </nav>
        <span class="grow" />
        <RawButton />
        <ThemeButton />
      </header>
      {locked ? <KeyForm /> : <Page place={place} />}
    </>
  );
}

function Page({ place }: { place: string }) {
  const run = /^\/ui\/runs\/([^/]+)$/.exec(place)?.[1];
  if (run !== undefined) return <RunPage id={decodeURIComponent(run)} />;
  if (place === "/ui/ask") return <AskPage />;
  if (place !== "/ui/compare") return <RunsPage />;
  const given = new URLSearchParams(location.search);
  return <ComparePage a={given.get("a") ?? ""} b={given.get("b") ?? ""} />;
}
