// Models beside the main one, for strategies that have other roles to give.

import type { Json } from "../events";

/** Fields of a request, by the role that they are for, and how the form calls them. */
const FIELDS: Record<string, [field: string, words: string]> = {
  small: ["small_model", "Small model"],
  judge: ["judge_model", "Model that judges"],
  jury: ["jurors", "Jurors"],
};

/** What was chosen, by field. */
export type Others = Record<string, string[]>;

/** The part of a request that says which models play which roles of a strategy. */
export function othersOf(roles: string[], chosen: Others): Record<string, Json> {
  const said: Record<string, Json> = {};
  for (const role of roles) {
    const field = FIELDS[role]?.[0];
    const models = field === undefined ? [] : (chosen[field] ?? []).filter(Boolean);
    if (field !== undefined && models.length > 0) said[field] = role === "jury" ? models : (models[0] ?? null);
  }
  return said;
}

interface Props {
  roles: string[];
  models: string[];
  chosen: Others;
  onChange: (chosen: Others) => void;
}

export function OtherModels({ roles, models, chosen, onChange }: Props) {
  const wanted = roles.flatMap((role) => (FIELDS[role] === undefined ? [] : [[role, ...FIELDS[role]] as const]));
  if (wanted.length === 0 || models.length === 0) return null;
  return (
    <div class="pair">
      {wanted.map(([role, field, words]) => (
        <label key={field}>
          {words}
          <select
            name={field}
            multiple={role === "jury"}
            onChange={(event) => {
              const values = [...event.currentTarget.selectedOptions].map((option) => option.value);
              onChange({ ...chosen, [field]: values });
            }}
          >
            {role !== "jury" && <option value="">the server's own</option>}
            {models.map((id) => (
              <option key={id} value={id} selected={chosen[field]?.includes(id) ?? false}>
                {id}
              </option>
            ))}
          </select>
        </label>
      ))}
    </div>
  );
}
