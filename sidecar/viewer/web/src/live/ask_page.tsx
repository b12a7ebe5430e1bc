// A form to ask: what, how, by which model, within which limits, verified by whom.

import { useEffect, useState } from "preact/hooks";
import type { Json } from "../events";
import { ask, type Kind, lineOf, type Model, type RunSummary } from "./api";
import { OtherModels, type Others, othersOf } from "./other_models";
import { changedOf, fieldsOf, type Given, SchemaForm } from "./schema_form";

const LIMITS = [
  ["tokens", "generated tokens", "1"],
  ["thinking_tokens", "thinking tokens", "1"],
  ["calls", "model calls", "1"],
  ["seconds", "seconds", "any"],
  ["usd", "US dollars", "any"],
] as const;

const EFFORTS = ["none", "minimal", "low", "medium", "high", "max", "auto"];

interface Offers {
  strategies: Kind[];
  verifiers: Kind[];
  models: Model[];
}

export function AskPage() {
  const [offers, setOffers] = useState<Offers | null>(null);
  const [error, setError] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    const data = async <T,>(path: string) => (await ask<{ data: T[] }>("GET", path, undefined, stop.signal)).data;
    const models = data<Model>("/v1/models").catch(() => []); // its own model is always there
    Promise.all([data<Kind>("/v1/strategies"), data<Kind>("/v1/verifiers"), models])
      .then(([strategies, verifiers, models]) => setOffers({ strategies, verifiers, models }))
      .catch((failed: unknown) => {
        if (!stop.signal.aborted) setError(lineOf(failed));
      });
    return () => stop.abort();
  }, []);
  return (
    <main class="narrow">
      <h1>Ask</h1>
      {error !== "" && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
      {offers !== null && <AskForm {...offers} />}
    </main>
  );
}

function AskForm({ strategies, verifiers, models }: Offers) {
  const [question, setQuestion] = useState("");
  const [choices, setChoices] = useState("");
  const [document_, setDocument] = useState("");
  const [strategy, setStrategy] = useState("");
  const [model, setModel] = useState("");
  const [others, setOthers] = useState<Others>({});
  const [given, setGiven] = useState<Given>({});
  const [limits, setLimits] = useState<Record<string, string>>({});
  const [verify, setVerify] = useState<string[]>([]);
  const [effort, setEffort] = useState("");
  const [seed, setSeed] = useState("");
  const [tags, setTags] = useState("");
  const [error, setError] = useState("");
  const [sending, setSending] = useState(false);
  const chosen = strategies.find((each) => each.name === strategy);
  const fields = chosen === undefined ? [] : fieldsOf(chosen.parameters);

  const submit = async () => {
    setSending(true);
    setError("");
    try {
      const budget: Record<string, Json> = {};
      for (const [name, value] of Object.entries(limits)) if (value.trim() !== "") budget[name] = Number(value);
      const body: Record<string, Json> = { question };
      const options = choices.split("\n").map((line) => line.trim()).filter(Boolean);
      if (options.length > 0) body["choices"] = options;
      if (document_.trim() !== "") body["documents"] = [{ name: "document", text: document_ }];
      if (strategy !== "") body["strategy"] = strategy;
      if (model !== "") body["model"] = model;
      Object.assign(body, othersOf(chosen?.roles ?? [], others));
      const parameters = changedOf(fields, given);
      if (Object.keys(parameters).length > 0) body["parameters"] = parameters;
      if (Object.keys(budget).length > 0) body["budget"] = budget;
      if (effort !== "") body["effort"] = effort;
      if (verify.length > 0) body["verify"] = verify;
      if (seed.trim() !== "") body["seed"] = Number(seed);
      const pairs = tagsOf(tags);
      if (Object.keys(pairs).length > 0) body["metadata"] = pairs;
      const run = await ask<RunSummary>("POST", "/v1/runs", body);
      location.assign(`/ui/runs/${encodeURIComponent(run.id)}`);
    } catch (failed) {
      setError(lineOf(failed));
      setSending(false);
    }
  };

  return (
    <form
      onKeyDown={(event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
      }}
      onSubmit={(event) => {
        event.preventDefault();
        if (!sending && question.trim() !== "") void submit();
      }}
    >
      <label>
        Question
        <textarea name="question" rows={4} required autoFocus dir="auto" value={question} onInput={(event) => setQuestion(event.currentTarget.value)} />
      </label>
      <div class="pair">
        <label>
          Strategy
          <select name="strategy" value={strategy} onChange={(event) => {
            setStrategy(event.currentTarget.value);
            setGiven({});
          }}>
            <option value="">the server's own</option>
            {strategies.map(({ name, stability }) => (
              <option key={name} value={name}>
                {name} ({stability})
              </option>
            ))}
          </select>
        </label>
        <label>
          Model
          <select name="model" value={model} onChange={(event) => setModel(event.currentTarget.value)}>
            <option value="">the server's own</option>
            {models
              .filter(({ id }) => !id.startsWith("reason/")) // their strategies are chosen beside
              .map(({ id }) => (
                <option key={id} value={id}>
                  {id}
                </option>
              ))}
          </select>
        </label>
      </div>
      {chosen !== undefined && (
        <p class="soft small">
          {chosen.summary}. {chosen.paper}
        </p>
      )}
      <OtherModels
        key={strategy}
        roles={chosen?.roles ?? []}
        models={models.filter(({ id, model: own }) => id === own).map(({ id }) => id)}
        chosen={others}
        onChange={setOthers}
      />
      {fields.length > 0 && (
        <details>
          <summary>Parameters of {strategy}</summary>
          <SchemaForm fields={fields} given={given} onChange={setGiven} />
        </details>
      )}
      <details>
        <summary>Options, a document and tags</summary>
        <label>
          Options of a multiple-choice question, one a line
          <textarea name="choices" rows={3} dir="auto" value={choices} onInput={(event) => setChoices(event.currentTarget.value)} />
        </label>
        <label>
          A text that the answer may rest on, and is checked against
          <textarea name="document" rows={5} dir="auto" value={document_} onInput={(event) => setDocument(event.currentTarget.value)} />
        </label>
        <label>
          Tags to find the run by, one <code>name: value</code> a line
          <textarea name="tags" rows={2} value={tags} onInput={(event) => setTags(event.currentTarget.value)} />
        </label>
      </details>
      <fieldset>
        <legend>Verify by</legend>
        {verifiers.map(({ name, summary }) => (
          <label class="check" key={name}>
            <input
              type="checkbox"
              name="verify"
              value={name}
              checked={verify.includes(name)}
              onChange={(event) => setVerify(event.currentTarget.checked ? [...verify, name] : verify.filter((each) => each !== name))}
            />
            {name} <span class="soft small">{summary}</span>
          </label>
        ))}
      </fieldset>
      <fieldset class="limits">
        <legend>Budget</legend>
        {LIMITS.map(([name, words, step]) => (
          <label key={name}>
            {words}
            <input type="number" name={name} min="0" step={step} placeholder="no limit" value={limits[name] ?? ""} onInput={(event) => setLimits({ ...limits, [name]: event.currentTarget.value })} />
          </label>
        ))}
        <label>
          thinking
          <select name="effort" value={effort} onChange={(event) => setEffort(event.currentTarget.value)}>
            <option value="">the model's own</option>
            {EFFORTS.map((each) => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
        </label>
        <label>
          seed
          <input type="number" name="seed" min="0" step="1" placeholder="drawn" value={seed} onInput={(event) => setSeed(event.currentTarget.value)} />
        </label>
      </fieldset>
      {error !== "" && (
        <p class="note bad" role="alert">
          {error}
        </p>
      )}
      <button type="submit" class="primary" disabled={sending || question.trim() === ""}>
        {sending ? "asking …" : "Ask"}
      </button>
      <p class="hint">Ctrl+Enter asks too.</p>
    </form>
  );
}

/** Lines of `name: value` as pairs; a line without a colon is a name whose value is "yes". */
function tagsOf(lines: string): Record<string, string> {
  const pairs = lines.split("\n").map((line) => line.split(/:(.*)/, 2).map((part) => part.trim()));
  return Object.fromEntries(pairs.flatMap(([name, value]) => (name ? [[name, value || "yes"]] : [])));
}
