// Copies a state's parts before they are changed, each once a batch: a batch of n events costs what n changes cost.

import type { State } from "./state";

type Part = unknown[] | Map<unknown, unknown> | Set<unknown> | object;

export class Draft {
  readonly state: State;
  private readonly fresh = new WeakSet<object>();

  constructor(before: State) {
    this.state = { ...before };
  }

  /** The part itself if it was made in this batch, else a copy of it, which the caller puts in its place. */
  own<T extends Part>(part: T): T {
    if (this.fresh.has(part)) return part;
    const copy = (
      Array.isArray(part) ? part.slice() : part instanceof Map ? new Map(part) : part instanceof Set ? new Set(part) : { ...part }
    ) as T;
    this.fresh.add(copy);
    return copy;
  }

  /** A part that is new. */
  made<T extends Part>(part: T): T {
    this.fresh.add(part);
    return part;
  }

  /** The list, map or set of that name, to be changed. */
  part<K extends keyof State>(name: K): State[K] & object {
    const owned = this.own(this.state[name] as State[K] & object);
    this.state[name] = owned;
    return owned;
  }

  /** The value behind a key of a map, to be changed; made where there is none. */
  entry<K, V extends object>(map: Map<K, V>, key: K, make: () => V): V {
    const known = map.get(key);
    const owned = known === undefined ? this.made(make()) : this.own(known);
    map.set(key, owned);
    return owned;
  }
}
