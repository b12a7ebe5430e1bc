// Turns light into dark and back.

import { useState } from "preact/hooks";
import { isDark, setTheme } from "../theme";

export function ThemeButton() {
  const [dark, setDark] = useState(isDark());
  return (
    <button
      type="button"
      class="theme"
      aria-label={dark ? "Light colours" : "Dark colours"}
      title={dark ? "Light colours" : "Dark colours"}
      onClick={() => {
        setTheme(dark ? "light" : "dark");
        setDark(!dark);
      }}
    >
      {dark ? "☀" : "☾"}
    </button>
  );
}
