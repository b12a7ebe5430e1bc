// A node in the page's address: `#tree-2-node-17` is node 17 of the second search.

export interface NodeLink {
  place: number;
  node: number;
}

export function linkTo({ place, node }: NodeLink): string {
  return `tree-${place}-node-${node}`;
}

export function linkedNode(fragment: string): NodeLink | null {
  const found = /^#tree-(\d+)-node-(-?\d+)$/.exec(fragment);
  return found === null ? null : { place: Number(found[1]), node: Number(found[2]) };
}

/** Puts a node into the page's address, without an entry in the history. */
export function setLinkedNode(link: NodeLink): void {
  try {
    history.replaceState(history.state, "", `#${linkTo(link)}`);
  } catch {
    // a page from disk may not be allowed to: then its address stays as it is
  }
}
