// Searches, reconstructed from a run's events.
//
// An end closes the search of its name. A run that goes on tells its searches again from the beginning: the k-th of a
// name then takes the place of the k-th before; one that is not told again stays as it was.

import type { SearchEvent } from "../events";
import type { Draft } from "./draft";
import type { Search } from "./state";

export function takeSearch(draft: Draft, event: SearchEvent): void {
  const { state } = draft;
  let key = state.open.get(event.search);
  if (key === undefined && (event.type === "search.nodes" || event.type === "search.ended")) {
    const place = state.begun.get(event.search) ?? 0;
    key = `${place}/${event.search}`;
    const waiting = state.pending.get(event.search);
    draft.part("searches").set(key, waiting === undefined ? draft.made(unsearched(event.search)) : draft.own(waiting));
    draft.part("begun").set(event.search, place + 1);
    draft.part("open").set(event.search, key);
    draft.part("pending").delete(event.search);
  }
  const home = key === undefined ? draft.part("pending") : draft.part("searches");
  const search = draft.entry(home, key ?? event.search, () => unsearched(event.search));
  switch (event.type) {
    case "search.nodes": {
      search.nodes = draft.own(search.nodes);
      for (const node of event.nodes) search.nodes.set(node.id, node); // one told again keeps its place
      search.expanded = draft.own(search.expanded);
      search.expanded.push(...event.expanded);
      search.discarded += event.discarded;
      break;
    }
    case "search.selected":
      search.selected = event.path;
      break;
    case "memory.associated": // it comes before the node itself does
      if (event.items.length > 0) {
        search.notes = draft.own(search.notes);
        search.notes.set(event.node, [...(search.notes.get(event.node) ?? []), ...event.items]);
      }
      break;
    case "search.ended":
      search.end = event;
      draft.part("open").delete(event.search);
      break;
  }
}

function unsearched(search: string): Search {
  return { search, nodes: new Map(), expanded: [], discarded: 0, end: null, notes: new Map(), selected: [] };
}
