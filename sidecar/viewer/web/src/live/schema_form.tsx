// Fields for parameters, made of their JSON schema. What nobody touched is left to the server.

import { type Json, list, object, type Report, text } from "../events";

interface Field {
  name: string;
  about: string;
  kind: "flag" | "choice" | "whole" | "number" | "text" | "json";
  choices: string[];
  initial: Json | undefined;
  least: number | null;
  most: number | null;
}

/** What was typed, by field; a field that is empty again is left out. */
export type Given = Record<string, string>;

/** The fields of an object's schema, as `pydantic` writes them. */
export function fieldsOf(schema: Report): Field[] {
  const shared = object(schema["$defs"]);
  return Object.entries(object(schema["properties"])).map(([name, raw]) => {
    const given = object(raw);
    const own = resolved(given, shared);
    const choices = list(own["enum"]).filter((each) => each !== null).map(String);
    const bound = (key: string) => (typeof own[key] === "number" ? (own[key] as number) : null);
    return {
      name,
      about: text(given["description"]) || text(own["description"]),
      kind: choices.length > 0 ? "choice" : kindOf(text(own["type"])),
      choices,
      initial: given["default"],
      least: bound("minimum") ?? bound("exclusiveMinimum"),
      most: bound("maximum") ?? bound("exclusiveMaximum"),
    };
  });
}

/** The parameters that differ from what is left to the server; throws where a text is no JSON. */
export function changedOf(fields: Field[], given: Given): Record<string, Json> {
  const changed: Record<string, Json> = {};
  for (const { name, kind, initial } of fields) {
    const typed = given[name];
    if (typed === undefined || (typed.trim() === "" && kind !== "text")) continue;
    const value = valueOf(name, kind, typed);
    if (JSON.stringify(value) !== JSON.stringify(initial)) changed[name] = value;
  }
  return changed;
}

function valueOf(name: string, kind: Field["kind"], typed: string): Json {
  if (kind === "flag") return typed === "true";
  if (kind === "whole" || kind === "number") return Number(typed);
  if (kind === "choice" || kind === "text") return typed;
  try {
    return JSON.parse(typed) as Json;
  } catch {
    throw new Error(`${name} is not JSON`);
  }
}

/** A schema without references and without "or nothing". */
function resolved(schema: Report, shared: Report): Report {
  const reference = text(schema["$ref"]);
  if (reference !== "") return resolved(object(shared[reference.split("/").at(-1) ?? ""]), shared);
  const either = [...list(schema["anyOf"]), ...list(schema["allOf"])].map(object).filter((each) => each["type"] !== "null");
  return either.length === 1 && either[0] !== undefined ? { ...resolved(either[0], shared) } : schema;
}

function kindOf(type: string): Field["kind"] {
  return ({ boolean: "flag", integer: "whole", number: "number", string: "text" } as const)[type] ?? "json";
}

interface Props {
  fields: Field[];
  given: Given;
  onChange: (given: Given) => void;
}

export function SchemaForm({ fields, given, onChange }: Props) {
  return (
    <div class="fields">
      {fields.map((field) => (
        <label key={field.name} title={field.about}>
          {field.name.replaceAll("_", " ")}
          <Input field={field} typed={given[field.name]} onType={(value) => onChange({ ...given, [field.name]: value })} />
        </label>
      ))}
    </div>
  );
}

function Input({ field, typed, onType }: { field: Field; typed: string | undefined; onType: (value: string) => void }) {
  const { name, kind, initial, choices, least, most } = field;
  const shown = initial === undefined || initial === null ? "" : typeof initial === "string" ? initial : JSON.stringify(initial);
  if (kind === "flag" || kind === "choice") {
    const options = kind === "flag" ? ["true", "false"] : choices;
    return (
      <select name={`p-${name}`} value={typed ?? shown} onChange={(event) => onType(event.currentTarget.value)}>
        {!options.includes(shown) && <option value="">{shown}</option>}
        {options.map((each) => (
          <option key={each} value={each}>
            {each}
          </option>
        ))}
      </select>
    );
  }
  const common = {
    name: `p-${name}`,
    placeholder: shown,
    value: typed ?? "",
    onInput: (event: { currentTarget: HTMLInputElement }) => onType(event.currentTarget.value),
  };
  if (kind !== "whole" && kind !== "number") return <input type="text" {...common} />;
  return <input type="number" step={kind === "whole" ? "1" : "any"} min={least ?? undefined} max={most ?? undefined} {...common} />;
}
