// Light or dark: what the system prefers, unless somebody says otherwise.

export type Theme = "light" | "dark" | null;

const KEY = "reason-theme";

function themeNow(): Theme {
  const said = document.documentElement.dataset["theme"];
  return said === "light" || said === "dark" ? said : null;
}

export function setTheme(theme: Theme): void {
  if (theme === null) delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  try {
    if (theme === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // a page from disk may have no storage: then it holds for this page
  }
}

export function restoreTheme(): void {
  try {
    const kept = localStorage.getItem(KEY);
    if (kept === "light" || kept === "dark") setTheme(kept);
  } catch {
    // as above
  }
}

/** Whether what is seen is dark. */
export function isDark(): boolean {
  return (themeNow() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}
