// Which runs are listed, and in which order: kept in the page's address, so that a list can be linked to.

export const STATUSES = ["queued", "running", "waiting", "finished", "interrupted", "failed"];

export interface Filter {
  search: string;
  status: string;
  strategy: string;
  model: string;
  /** A pair of metadata, `key:value`. */
  tag: string;
  sort: string;
  order: string;
}

export const EVERYTHING: Filter = { search: "", status: "", strategy: "", model: "", tag: "", sort: "created", order: "desc" };

/** Orders of the list: sort and order, and how they are called. */
export const ORDERS: [key: string, words: string][] = [
  ["created desc", "newest first"],
  ["created asc", "oldest first"],
  ["cost desc", "most expensive first"],
  ["tokens desc", "most tokens first"],
  ["seconds desc", "slowest first"],
  ["cost asc", "cheapest first"],
  ["tokens asc", "fewest tokens first"],
  ["seconds asc", "fastest first"],
];

const NAMES = Object.keys(EVERYTHING) as (keyof Filter)[];

/** The filter of an address's query; what it does not say is as in `EVERYTHING`. */
export function filterOf(query: string): Filter {
  const given = new URLSearchParams(query);
  const filter = { ...EVERYTHING };
  for (const name of NAMES) filter[name] = given.get(name) ?? filter[name];
  if (!ORDERS.some(([key]) => key === `${filter.sort} ${filter.order}`)) return { ...filter, sort: EVERYTHING.sort, order: EVERYTHING.order };
  return filter;
}

/** The query of a filter, with what differs from `EVERYTHING`: of the page's address, and of a request. */
export function queryOf(filter: Filter): URLSearchParams {
  const query = new URLSearchParams();
  for (const name of NAMES) if (filter[name] !== EVERYTHING[name]) query.set(name, filter[name]);
  return query;
}

/** The filter after a click on a column: its largest first, then its smallest. */
export function sortedBy(filter: Filter, sort: string): Filter {
  return { ...filter, sort, order: filter.sort === sort && filter.order === "desc" ? "asc" : "desc" };
}
