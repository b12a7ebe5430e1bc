// Events for tests, with what every event has.

import type { RunEvent } from "../src/events";

let number = 0;

/** An event; numbers follow one another unless one is given. */
export function made<T extends RunEvent["type"]>(type: T, fields: object, stamp: object = {}): Extract<RunEvent, { type: T }> {
  number += 1;
  return { type, number, parent: null, run_id: "r", at_s: number / 10, ...fields, ...stamp } as Extract<RunEvent, { type: T }>;
}

export function node(id: number, parent: number | null, more: object = {}) {
  return { id, parent, depth: 0, text: `s${id} `, tokens: 1, score: null, terminal: false, forced: false, values: {}, ...more };
}
