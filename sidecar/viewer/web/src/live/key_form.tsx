// Asks for an API key, which is kept in this tab until it is closed.

import { useState } from "preact/hooks";
import { key, setKey } from "./api";

export function KeyForm() {
  const [value, setValue] = useState("");
  return (
    <main class="narrow">
      <h1>An API key is needed</h1>
      {key() !== "" && <p class="bad">The key that was given is not accepted.</p>}
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setKey(value.trim());
          location.reload();
        }}
      >
        <label>
          API key
          <input type="password" name="key" autoComplete="off" autoFocus value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </label>
        <button type="submit" class="primary" disabled={value.trim() === ""}>
          Use this key
        </button>
        <p class="soft small">
          <code>reason keys create NAME</code> makes one. It is kept in this tab alone, and forgotten when the tab is closed.
        </p>
      </form>
    </main>
  );
}
