"""The look of the verification page, beside the trace page's: marks of claims that differ by line and sign too."""

from __future__ import annotations

VERIFY_STYLE = """
main { overflow-wrap: anywhere; }
.given { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.15rem;
  font-size: 1.05rem; line-height: 1.75; white-space: pre-wrap; overflow-wrap: anywhere; }
.claim { text-decoration-line: underline; text-decoration-thickness: 2px; text-underline-offset: .22em;
  text-decoration-skip-ink: none; border-radius: 3px; }
.supported { --mark: var(--good); } .refuted { --mark: var(--bad); } .disputed { --mark: var(--warn); }
.not_enough_evidence { --mark: var(--soft); } .unchecked, .unparsed { --mark: var(--soft); }
.claim { text-decoration-color: var(--mark); }
.claim.supported { text-decoration-style: solid; }
.claim.refuted { text-decoration-style: wavy; background: color-mix(in srgb, var(--bad) 14%, transparent); }
.claim.disputed { text-decoration-style: double; background: color-mix(in srgb, var(--warn) 14%, transparent); }
.claim.not_enough_evidence { text-decoration-style: dotted; }
.claim.unchecked, .claim.unparsed { text-decoration-style: dashed; }
.live .claim { cursor: pointer; }
.number { font: 600 .72rem/1 ui-monospace, Menlo, Consolas, monospace; color: var(--ink); text-decoration: none;
  border: 1.5px solid var(--mark); border-radius: 5px; padding: .1rem .25rem; margin: 0 .15rem; white-space: nowrap;
  background: var(--paper); vertical-align: .12em; }
.number:hover { background: var(--line); }
.number:focus-visible, .claim:focus-visible, .panel:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
.number[aria-current="true"] { background: var(--ink); color: var(--paper); }
.legend ul { list-style: none; margin: .7rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; }
.legend .claim { padding: 0 .1rem; color: var(--ink); }
.panels { list-style: none; padding: 0; margin: 0; }
.panel { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--mark);
  border-radius: 8px; padding: .85rem 1rem; margin: 0 0 .8rem; overflow-wrap: anywhere; }
.panel:target { border-color: var(--accent); border-left-color: var(--mark); }
.panel h3 { font-size: 1rem; margin: 0 0 .35rem; font-weight: 600; }
.panel h4 { font-size: .78rem; color: var(--soft); font-weight: 500; margin: .8rem 0 .25rem; }
.badge { font-size: .8rem; font-weight: 600; border: 1.5px solid var(--mark); border-radius: 99px;
  padding: .05rem .6rem; margin-right: .5rem; white-space: nowrap; }
.bars { display: grid; grid-template-columns: 7rem 1fr 3.5rem; gap: .25rem .7rem; align-items: center;
  font-size: .85rem; max-width: 32rem; margin: 0; }
.bars dt { color: var(--soft); } .bars dd { margin: 0; }
.bars .n { text-align: right; }
.bars .track { height: .6rem; }
.bars .s { background: var(--good); }
.bars .r { background: repeating-linear-gradient(45deg, var(--bad) 0 4px, transparent 4px 6px); }
.bars .z { background: repeating-linear-gradient(90deg, var(--soft) 0 2px, transparent 2px 5px); }
blockquote { margin: .3rem 0 .6rem; padding: .1rem 0 .1rem .8rem; border-left: 2px solid var(--line);
  white-space: pre-wrap; color: var(--soft); }
blockquote mark { background: color-mix(in srgb, var(--mark) 24%, transparent); color: var(--ink); border-radius: 3px; }
.panel .source::after { content: ""; }
.panel ul { margin: .2rem 0; padding-left: 1.2rem; font-size: .88rem; }
.steps { display: flex; gap: .5rem; margin: 0 0 .8rem; }
.steps button { font: inherit; font-size: .85rem; color: var(--ink); background: var(--card); padding: .2rem .7rem;
  border: 1px solid var(--line); border-radius: 6px; cursor: pointer; }
@media (max-width: 40rem) { main { padding: 1.2rem .8rem 3rem; } .bars { grid-template-columns: 5.5rem 1fr 3rem; }
  .number { padding: .3rem .4rem; } }
@media (prefers-contrast: more) { .claim { text-decoration-thickness: 3px; } }
@media print { .panel[hidden] { display: block; } .steps { display: none; } }
"""
