// Filters of the list of runs.

import { useEffect, useRef, useState } from "preact/hooks";
import { EVERYTHING, type Filter, ORDERS, STATUSES } from "./filter";

const PAUSE_MS = 300; // after the last key, before a search is sent

interface Props {
  filter: Filter;
  strategies: string[];
  models: string[];
  onChange: (filter: Filter) => void;
}

export function FilterBar({ filter, strategies, models, onChange }: Props) {
  const [typed, setTyped] = useState(filter.search);
  const latest = useRef(filter);
  latest.current = filter;
  useEffect(() => {
    if (typed === latest.current.search) return undefined;
    const timer = window.setTimeout(() => onChange({ ...latest.current, search: typed }), PAUSE_MS);
    return () => window.clearTimeout(timer);
  }, [typed]);
  const choose = (name: keyof Filter) => (event: { currentTarget: HTMLSelectElement }) => onChange({ ...filter, [name]: event.currentTarget.value });
  return (
    <div class="filter" role="search" aria-label="Runs">
      <input type="search" name="search" aria-label="Search in questions, tags and names" placeholder="search" dir="auto" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
      <Choice name="status" words="any status" options={STATUSES} value={filter.status} onChange={choose("status")} />
      <Choice name="strategy" words="any strategy" options={strategies} value={filter.strategy} onChange={choose("strategy")} />
      <Choice name="model" words="any model" options={models} value={filter.model} onChange={choose("model")} />
      <select
        name="order"
        aria-label="Order"
        value={`${filter.sort} ${filter.order}`}
        onChange={(event) => {
          const [sort = EVERYTHING.sort, order = EVERYTHING.order] = event.currentTarget.value.split(" ");
          onChange({ ...filter, sort, order });
        }}
      >
        {ORDERS.map(([key, words]) => (
          <option key={key} value={key}>
            {words}
          </option>
        ))}
      </select>
      {filter.tag !== "" && (
        <button type="button" class="tag" value="tag" aria-label={`Runs of every tag, not only ${filter.tag}`} onClick={() => onChange({ ...filter, tag: "" })}>
          {filter.tag} ✕
        </button>
      )}
    </div>
  );
}

interface ChoiceProps {
  name: string;
  words: string;
  options: string[];
  value: string;
  onChange: (event: { currentTarget: HTMLSelectElement }) => void;
}

function Choice({ name, words, options, value, onChange }: ChoiceProps) {
  return (
    <select name={name} aria-label={name} value={value} onChange={onChange}>
      <option value="">{words}</option>
      {[...new Set(value === "" ? options : [value, ...options])].map((each) => (
        <option key={each} value={each}>
          {each}
        </option>
      ))}
    </select>
  );
}
