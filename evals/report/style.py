"""The look of the HTML report: one style sheet for light and dark pages, screens and paper."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1c2024; --soft: #5c656e; --faint: #c3c9cf; --page: #ffffff; --card: #f6f7f9; --line: #e2e5e9;
  --right: #1a7f4b; --wrong: #b3261e; --alarm-ink: #7a1b14; --alarm: #fdecea; --accent: #3457b5; --bar: #4269d0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e7ea; --soft: #9aa3ac; --faint: #4a525a; --page: #14171a; --card: #1c2024; --line: #2c3238;
    --right: #58c98c; --wrong: #f2827a; --alarm-ink: #ffb4ab; --alarm: #3a1d1b; --accent: #8aa9f5; --bar: #6b8cf0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 6px 0; }
.soft { color: var(--soft); }
.small { font-size: 13px; }
.alarm { background: var(--alarm); color: var(--alarm-ink); border-radius: 6px; padding: 8px 12px; margin: 6px 0; }
.note { background: var(--card); border-left: 3px solid var(--accent); padding: 8px 12px; margin: 6px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: right; padding: 6px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: 12.5px; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, td.text { text-align: left; white-space: normal; }
td.text { min-width: 110px; max-width: 340px; overflow-wrap: anywhere; }
td:first-child { min-width: 190px; }
@media (max-width: 600px) { td:first-child { min-width: 120px; } }
td.num { font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--card); }
td.best { font-weight: 700; }
.bad { color: var(--wrong); font-weight: 700; }
.good { color: var(--right); }
.whisker { position: relative; display: block; width: 110px; height: 14px; margin-left: auto; }
.whisker i { position: absolute; top: 6px; height: 2px; background: var(--faint); border-radius: 1px; }
.whisker b { position: absolute; top: 3px; width: 8px; height: 8px; margin-left: -4px; border-radius: 50%;
  background: var(--bar); }
.whisker u { position: absolute; top: 0; width: 1px; height: 14px; background: var(--soft); }
.besides { color: var(--wrong); }
td.right { font-weight: 700; color: var(--right); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 18px;
  margin: 8px 0; }
.figures.wide { grid-template-columns: repeat(auto-fill, minmax(min(430px, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 12px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 13px; color: var(--soft); margin-top: 6px; }
details { border-bottom: 1px solid var(--line); }
details > summary { cursor: pointer; padding: 7px 2px; list-style: none; }
details > summary::before { content: "▸"; color: var(--soft); display: inline-block; width: 1.2em; }
details[open] > summary::before { content: "▾"; }
details > summary:hover { color: var(--accent); }
.mark { display: inline-block; min-width: 20px; text-align: center; font-weight: 700; }
.question { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border-radius: 6px;
  padding: 10px 12px; margin: 6px 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 12px;
  padding: 4px 0 14px; }
.side { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; min-width: 0; }
.side pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 12.5px/1.45 ui-monospace, monospace;
  max-height: 340px; overflow-y: auto; background: var(--card); border-radius: 6px; padding: 8px 10px;
  margin: 6px 0 0; }
code { font: 12.5px ui-monospace, monospace; background: var(--card); padding: 1px 4px; border-radius: 4px;
  overflow-wrap: anywhere; }
@media print { details { break-inside: avoid; } body { max-width: none; } }
"""
