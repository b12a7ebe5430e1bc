"""The look of search trees on the trace page, in the colours of `trace_style`.

The nodes' colours go from dark blue to light yellow: told apart by colour-blind eyes, and in shades of grey.
"""

from __future__ import annotations

FILLS = (
    *("#27407a", "#3a5180", "#4f6185", "#637189", "#79818d"),
    *("#90928b", "#a8a282", "#c2b376", "#dcc365", "#f6d34a"),
)
"""From 0 to 1, evenly: lightness and hue by Oklab, each step lighter than the one before."""
LIGHT_INK, DARK_INK = "#ffffff", "#14161a"
FIRST_DARK = 4
"""The first fill on which dark ink reads better."""


def _fills() -> str:
    return "\n".join(
        f".c{n} .shape {{ fill: {fill}; }} .c{n} text {{ fill: {LIGHT_INK if n < FIRST_DARK else DARK_INK}; }} "
        f".scale .c{n} {{ background: {fill}; }}"
        for n, fill in enumerate(FILLS)
    )


SEARCH_STYLE = f"""
.search {{ margin-bottom: 1.8rem; }}
.search h3 {{ font-size: 1rem; margin: 0; overflow-wrap: anywhere; }}
.search .desk {{ display: grid; grid-template-columns: minmax(0, 1fr); gap: .8rem; margin-top: .7rem; }}
.search [hidden] {{ display: none; }}
.stage {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }}
.stage svg {{ display: block; width: 100%; height: auto; min-height: 15rem; max-height: min(36rem, 78vh); }}
.live .stage svg {{ touch-action: none; cursor: grab; user-select: none; -webkit-user-select: none; }}
.live .stage svg.moving {{ cursor: grabbing; }}
.tools {{ display: flex; justify-content: flex-end; gap: .3rem; padding: .4rem; border-bottom: 1px solid var(--line); }}
.tools button {{ font: inherit; font-size: .85rem; min-width: 2.2rem; height: 2.1rem; padding: 0 .6rem; cursor: pointer;
  color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: 7px; }}
.tools button:hover {{ border-color: var(--soft); }}
.tools button:focus-visible {{ outline: 3px solid var(--accent); outline-offset: 1px; }}
.edge {{ fill: none; stroke: var(--soft); stroke-opacity: .55; stroke-width: 1.5; }}
.edge.on {{ stroke: var(--ink); stroke-opacity: 1; stroke-width: 5; }}
.shape {{ stroke: var(--soft); stroke-width: 2; }}
.open .shape {{ stroke-width: 1; }}
.on .shape {{ stroke: var(--ink); stroke-width: 4; }}
.blank .shape {{ fill: var(--card); stroke-dasharray: 4 3; }}
.blank.on .shape {{ stroke-dasharray: none; }}
.node text {{ font: 600 12px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central;
  pointer-events: none; }}
.node text.turn, .node text.tick {{ fill: var(--ink); }}
.node text.turn {{ font-size: 10px; font-weight: 500; text-anchor: start; paint-order: stroke;
  stroke: var(--card); stroke-width: 3px; }}
.node text.turn.left {{ text-anchor: end; }}
.node text.tick {{ font-size: 17px; font-weight: 800; }}
.live .node {{ cursor: pointer; }}
.node:focus {{ outline: none; }}
.node.picked .shape {{ stroke: var(--hot); stroke-width: 5; stroke-dasharray: none; }}
.node:focus-visible .shape {{ stroke: var(--accent); stroke-width: 7; stroke-dasharray: none; paint-order: stroke; }}
{_fills()}
.key {{ display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1.1rem; font-size: .78rem; color: var(--soft);
  margin-top: .45rem; }}
.key span {{ display: inline-flex; align-items: center; gap: .35rem; }}
.key svg {{ width: 1rem; height: 1rem; overflow: visible; }}
.key .shape {{ fill: none; stroke: var(--soft); stroke-width: 2; }}
.key .thick {{ stroke: var(--ink); stroke-width: 5; }}
.scale i {{ display: inline-block; width: .8rem; height: .8rem; }}
.scale span {{ gap: 0; }}
.panel {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }}
.panel h4 {{ margin: 0; font-size: .95rem; overflow-wrap: anywhere; }}
.panel h5 {{ margin: .8rem 0 0; font-size: .78rem; font-weight: 500; color: var(--soft); }}
.panel dl {{ display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: .35rem 0 0; font-size: .85rem; }}
.panel dl div {{ display: flex; gap: .4rem; }}
.panel dt {{ color: var(--soft); }}
.panel dd {{ margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
.panel .text {{ max-height: 16rem; font-size: .9rem; }}
.panel .notes {{ padding-left: 1.1rem; }}
.panel .before {{ color: var(--soft); }}
@media (min-width: 64rem) {{
  .search .desk {{ grid-template-columns: minmax(0, 1fr) 23rem; width: min(100vw - 2.5rem, 84rem);
    margin-left: calc(50% - min(50vw - 1.25rem, 42rem)); }}
  .panel {{ max-height: min(39rem, 78vh + 3rem); overflow: auto; }}
  .panel .text {{ max-height: none; }}
}}
@media (max-width: 40rem) {{ .stage svg {{ max-height: 58vh; }} }}
@media print {{ .tools, .panel {{ display: none; }} .search .desk {{ grid-template-columns: minmax(0, 1fr); }} }}
"""
