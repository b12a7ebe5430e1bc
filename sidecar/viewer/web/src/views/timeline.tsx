// When stages and model calls ran: a bar each, calls that overlap below one another.

import type { State } from "../run/state";
import { plural, seconds, whole } from "../text/figures";

const WIDTH = 1000;
const ROW = 18;
const MOST = 600; // bars that are drawn

interface Bar {
  name: string;
  start: number;
  end: number;
  lane: number;
  kind: string;
  title: string;
}

export function Timeline({ state, running }: { state: State; running: boolean }) {
  const now = Math.max(state.atS, 1e-3);
  const stages = stagesOf(state, now);
  const { bars, lanes, roles } = callsOf(state, now);
  const height = (stages.rows + lanes) * ROW + 22;
  const x = (at: number) => (WIDTH * at) / now;
  return (
    <section id="timeline">
      <h2>Timeline</h2>
      <div class="scroll">
        <svg class="timeline" viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label={`${plural(state.calls.size, "model call")} in ${seconds(now)}`}>
          {ticks(now).map((at) => (
            <g key={at}>
              <path class="tick" d={`M${x(at)} 0V${height - 16}`} />
              <text class="time" x={Math.min(WIDTH - 30, x(at) + 3)} y={height - 4}>
                {at} s
              </text>
            </g>
          ))}
          {[...stages.bars, ...bars.map((bar) => ({ ...bar, lane: bar.lane + stages.rows }))].map((bar, i) => (
            <g key={i} class={`bar ${bar.kind}`}>
              <title>{bar.title}</title>
              <rect x={x(bar.start)} y={bar.lane * ROW + 1} width={Math.max(1.5, x(bar.end) - x(bar.start))} height={ROW - 3} rx={3} />
              {x(bar.end) - x(bar.start) > 8 * bar.name.length && (
                <text x={x(bar.start) + 5} y={bar.lane * ROW + 12.5}>
                  {bar.name}
                </text>
              )}
            </g>
          ))}
        </svg>
      </div>
      <p class="legend">
        {roles.map((role, i) => (
          <span key={role}>
            <span class={`swatch r${i % 6}`} /> {role}
          </span>
        ))}
        {running && <span>still going on</span>}
        {state.calls.size > MOST && <span>the first {MOST} calls are drawn</span>}
      </p>
    </section>
  );
}

function stagesOf(state: State, now: number): { bars: Bar[]; rows: number } {
  const bars: Bar[] = [];
  const depth = new Map<number, number>();
  for (const event of state.entries) {
    if (event.type !== "stage.started") continue;
    const lane = event.parent === null ? 0 : (depth.get(event.parent) ?? -1) + 1;
    depth.set(event.number, lane);
    const end = state.ends.get(event.number);
    const took = end?.type === "stage.finished" ? end.seconds : now - event.at_s;
    bars.push({ name: event.stage, start: event.at_s, end: event.at_s + took, lane, kind: "stage", title: `${event.stage}, ${seconds(took)}` });
  }
  return { bars, rows: bars.reduce((most, bar) => Math.max(most, bar.lane + 1), 0) };
}

function callsOf(state: State, now: number): { bars: Bar[]; lanes: number; roles: string[] } {
  const free: number[] = []; // when each lane is free again
  const roles: string[] = [];
  const bars: Bar[] = [];
  for (const { started, finished } of [...state.calls.values()].slice(0, MOST)) {
    const end = finished === null ? (state.answer === null ? now : started.at_s) : finished.at_s;
    let lane = free.findIndex((at) => at <= started.at_s + 1e-6);
    if (lane < 0) lane = free.length;
    free[lane] = Math.max(end, started.at_s);
    if (!roles.includes(started.role)) roles.push(started.role);
    const tokens = finished === null ? "under way" : `${whole(finished.tokens)} tokens`;
    bars.push({
      name: started.operation,
      start: started.at_s,
      end,
      lane,
      kind: `call r${roles.indexOf(started.role) % 6}`,
      title: `${started.operation} as ${started.role}, ${started.model}, ${plural(started.samples, "sample")}: ${tokens}, ${seconds(end - started.at_s)}`,
    });
  }
  return { bars, lanes: free.length, roles };
}

/** Round times, between four and nine of them. */
function ticks(now: number): number[] {
  const rough = now / 6;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * size).find((each) => now / each <= 9) ?? 10 * size;
  const count = Math.floor(now / step);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}
