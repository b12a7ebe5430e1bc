// Numbers as people read them: the same digits that the terminal shows.

/** A whole number with its thousands parted: `12,400`. */
export function whole(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A number with a fixed count of digits behind the point, its thousands parted. */
export function fixed(value: number, decimals: number): string {
  if (!Number.isFinite(value)) return special(value);
  const [before = "", after] = Math.abs(value).toFixed(decimals).split(".");
  const sign = value < 0 && Number(value.toFixed(decimals)) !== 0 ? "-" : "";
  return sign + before.replace(/\B(?=(\d{3})+$)/g, ",") + (after === undefined ? "" : `.${after}`);
}

/**
 * A number, short.
 *
 * Without `decimals` it has about three significant digits, and a whole number is shown as it is; null is "-".
 */
export function figure(value: number | null, decimals?: number): string {
  if (value === null) return "-";
  if (!Number.isFinite(value)) return special(value);
  if (decimals !== undefined) return fixed(value, decimals);
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return fixed(value, 0);
  if (size < 1e-3 || size >= 1e9) return scientific(value, 1);
  return fixed(value, size < 10 ? 3 : size < 100 ? 2 : 1);
}

/** At most so many significant digits, without zeros at the end: `12,000`, `0.25`, `1e-05`. */
export function amount(value: number, digits: number): string {
  if (!Number.isFinite(value)) return special(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 10 ** digits)) return scientific(value, digits - 1).replace(/\.?0+e/, "e");
  const [before = "", after] = Number(value.toPrecision(digits)).toString().split(".");
  return before.replace(/\B(?=(\d{3})+$)/g, ",") + (after === undefined ? "" : `.${after}`);
}

/** A count and what is counted: `1 node`, `2 nodes`. */
export function plural(count: number, what: string): string {
  return `${whole(count)} ${what}${count === 1 ? "" : "s"}`;
}

/** Seconds: `0.42 s`, `41.8 s`, `3 min 20 s`. */
export function seconds(value: number): string {
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 100) return `${value.toFixed(1)} s`;
  const all = Math.round(value);
  return all < 3600 ? `${Math.floor(all / 60)} min ${all % 60} s` : `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
}

/** A number in [0, 1] with two digits: `.71`, `1`. */
export function short(value: number | null): string {
  if (value === null) return "";
  if (!Number.isFinite(value)) return "?";
  const shown = value.toFixed(2);
  return shown === "1.00" ? "1" : shown.replace(/^0/, "");
}

function special(value: number): string {
  return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

function scientific(value: number, decimals: number): string {
  return value.toExponential(decimals).replace(/e([+-])(\d)$/, "e$10$2");
}
