// The live pages: which one is shown follows from the address.

import { useEffect, useState } from "preact/hooks";
import { ThemeButton } from "../views/theme_button";
import { LOCKED } from "./api";
import { AskPage } from "./ask_page";
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
  const run = /^\/ui\/runs\/([^/]+)$/.exec(place)?.[1];
  return (
    <>
      <div class="bar">
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
        <ThemeButton />
      </div>
      {locked ? <KeyForm /> : run !== undefined ? <RunPage id={decodeURIComponent(run)} /> : place === "/ui/ask" ? <AskPage /> : <RunsPage />}
    </>
  );
}
