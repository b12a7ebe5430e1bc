"""The look of the trace page, light and dark. Nothing is loaded from anywhere: the page is one file."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1d1f24; --soft: #676c78; --line: #e3e3de;
  --accent: #2f6db5; --good: #2c7a4b; --warn: #a9690b; --bad: #b3362b; --hot: #e2572b; --bar: #2f6db5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171b; --card: #1c1f25; --ink: #e4e5e8; --soft: #969ca9; --line: #2d313a;
    --accent: #7fb2ee; --good: #71c793; --warn: #e2ad57; --bad: #ef8377; --hot: #ff7a4d; --bar: #5b96d8;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1 { font-size: 1.35rem; line-height: 1.35; margin: 0 0 .75rem; font-weight: 650; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 40vh; overflow: auto; }
h2 { font-size: .8rem; text-transform: uppercase; letter-spacing: .07em; color: var(--soft); margin: 2.25rem 0 .6rem; }
.mono, pre, code, .n { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.15rem; }
.answer { font-size: 1.15rem; font-weight: 650; overflow-wrap: anywhere; white-space: pre-wrap; }
.card h3 { font-size: .82rem; font-weight: 500; margin: .8rem 0 0; }
.sources { margin: .2rem 0 0; padding-left: 1.6rem; font-size: .9rem; overflow-wrap: anywhere; }
.source { color: var(--accent); }
.source::after { content: ":"; }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; margin: .7rem 0 0; }
.chip { border: 1px solid var(--line); border-radius: 99px; padding: .05rem .65rem; font-size: .82rem;
  background: var(--card); color: var(--soft); overflow-wrap: anywhere; }
.chip b { color: var(--ink); font-weight: 600; }
.chip.good { color: var(--good); border-color: currentColor; }
.chip.warn { color: var(--warn); border-color: currentColor; }
.chip.bad { color: var(--bad); border-color: currentColor; }
.chip.good b, .chip.warn b, .chip.bad b { color: inherit; }
ul.options { list-style: none; padding: 0; margin: .25rem 0 0; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
.scroll { overflow-x: auto; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr:last-child td { border-bottom: 0; }
.meter { display: grid; grid-template-columns: 7rem 1fr 11rem; gap: .8rem; align-items: center; font-size: .88rem; }
.meter + .meter { margin-top: .35rem; }
.track { height: .5rem; border-radius: 99px; background: var(--line); overflow: hidden; }
.fill { height: 100%; border-radius: 99px; background: var(--bar); }
.fill.full { background: var(--warn); }
details, .leaf { border-left: 2px solid var(--line); margin: .15rem 0 .15rem .3rem; padding-left: .75rem;
  overflow-wrap: anywhere; }
details > summary { cursor: pointer; list-style: none; margin-left: -.75rem; padding: .12rem .4rem .12rem .75rem;
  border-radius: 0 6px 6px 0; }
details > summary::-webkit-details-marker { display: none; }
details > summary::before { content: "▸"; display: inline-block; width: 1em; color: var(--soft); }
details[open] > summary::before { content: "▾"; }
details > summary:hover, details > summary:focus-visible { background: var(--line); outline: none; }
.leaf { padding-top: .12rem; padding-bottom: .12rem; }
.leaf::before { content: "·"; display: inline-block; width: 1em; color: var(--soft); }
.at { float: right; color: var(--soft); font-size: .78rem; font-variant-numeric: tabular-nums; padding-left: 1rem; }
.kind { font-weight: 600; }
.kind.bad { color: var(--bad); } .kind.warn { color: var(--warn); } .kind.good { color: var(--good); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .7rem .85rem; margin: .35rem 0 .5rem; max-height: 32rem; overflow: auto; }
pre.text { font-size: .82rem; }
.p1, .p2, .p3, .p4, .p5 { border-radius: 3px; }
.p1 { background: color-mix(in srgb, var(--hot) 10%, transparent); }
.p2 { background: color-mix(in srgb, var(--hot) 20%, transparent); }
.p3 { background: color-mix(in srgb, var(--hot) 33%, transparent); }
.p4 { background: color-mix(in srgb, var(--hot) 48%, transparent); }
.p5 { background: color-mix(in srgb, var(--hot) 66%, transparent); }
.strip { display: flex; flex-wrap: wrap; gap: 1px; margin: .2rem 0 .5rem; }
.strip span { width: .45rem; height: .9rem; background-color: var(--line); }
.strip .p1, .strip .p2, .strip .p3, .strip .p4, .strip .p5 { border-radius: 0; }
.legend { font-size: .78rem; color: var(--soft); }
.legend span { padding: 0 .35rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .8rem; }
@media (max-width: 40rem) { .meter { grid-template-columns: 5rem 1fr; } .meter .n { grid-column: 2; } }
@media print { details > summary::before { content: ""; } .text { max-height: none; } }
"""
