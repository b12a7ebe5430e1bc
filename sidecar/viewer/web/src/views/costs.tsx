// What the run may spend, what it has spent, and on whom.

import type { State } from "../run/state";
import { amount, fixed, whole } from "../text/figures";
import { freshTokens } from "./header";

const NAMES: Record<string, string> = { reward_calls: "reward calls", thinking_tokens: "thinking" };

export function Budget({ state }: { state: State }) {
  const spent: Record<string, number> = {
    tokens: state.spent.tokens + freshTokens(state),
    thinking_tokens: state.spent.thinking_tokens,
    calls: state.spent.calls,
    reward_calls: state.spent.reward_calls,
    usd: state.spent.usd ?? 0,
    seconds: state.answer?.usage.wall_seconds ?? state.atS,
  };
  const rows = [...state.limits].filter(([kind, limit]) => kind in spent && limit > 0);
  if (rows.length === 0) return null;
  return (
    <section class="side" id="budget">
      <h2>Budget</h2>
      {rows.map(([kind, limit]) => {
        const used = spent[kind] ?? 0;
        const share = Math.min(1, used / limit);
        const full = share >= 1 || state.exhausted === kind;
        const name = NAMES[kind] ?? kind;
        return (
          <div class="meter" key={kind}>
            <span>{name}</span>
            <div class="track" role="meter" aria-label={`${name} spent`} aria-valuemin={0} aria-valuemax={limit} aria-valuenow={used}>
              <div class={full ? "fill full" : "fill"} style={{ width: `${100 * share}%` }} />
            </div>
            <span class="n">
              {kind === "seconds" ? fixed(used, 1) : amount(used, 4)} of {amount(limit, 6)}
            </span>
          </div>
        );
      })}
      {state.exhausted !== null && state.exhausted !== "user" && (
        <p class="warn">The limit of {NAMES[state.exhausted] ?? state.exhausted} stopped it.</p>
      )}
    </section>
  );
}

const HEADS = ["calls", "prompt", "cached", "generated", "thinking", "from store", "USD", "working"];

interface Row {
  role: string;
  model: string;
  cells: string[];
}

export function Costs({ state }: { state: State }) {
  const rows = state.answer === null ? soFar(state) : atTheEnd(state);
  if (rows.length === 0) return null;
  return (
    <section class="side" id="usage">
      <h2>Usage</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Usage by role">
        <table>
          <thead>
            <tr>
              <th>role</th>
              {HEADS.map((head) => (
                <th class="n" key={head}>
                  {head}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map(({ role, model, cells }, i) => (
              <tr key={i} class={role === "all" ? "sum" : ""}>
                <td>
                  {role}
                  <div class="soft small">{model}</div>
                </td>
                {cells.map((cell, at) => (
                  <td class="n" key={at}>
                    {cell}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function atTheEnd(state: State): Row[] {
  const usage = state.answer?.usage;
  if (usage === undefined) return [];
  const cells = (row: typeof usage | (typeof usage.by_role)[string]) => [
    whole(row.model_calls),
    whole(row.prompt_tokens),
    whole(row.cached_tokens),
    whole(row.completion_tokens),
    whole(row.thinking_tokens),
    whole(row.replayed_tokens),
    row.cost_usd === null ? "?" : fixed(row.cost_usd, 4),
    "working_s" in row ? `${fixed(row.working_s, 1)} s` : `${fixed(row.wall_seconds, 1)} s wall`,
  ];
  const rows = Object.entries(usage.by_role).map(([key, row]) => ({
    role: key.split(":")[0] ?? key,
    model: row.model,
    cells: cells(row),
  }));
  return rows.length === 0 ? [] : [...rows, { role: "all", model: "", cells: cells(usage) }];
}

function soFar(state: State): Row[] {
  return [...state.roles.values()].map((row) => ({
    role: row.role,
    model: row.model,
    cells: [
      whole(row.calls),
      whole(row.prompt),
      whole(row.cached),
      whole(row.tokens),
      whole(row.thinking),
      "-",
      "-",
      `${fixed(row.seconds, 1)} s`,
    ],
  }));
}
