// A jury: who said what, how they marked one another, who came first, and what was made of it.

import { list, number, object, type Report, text } from "../events";
import type { Jury as Sitting } from "../run/state";
import { fixed, whole } from "../text/figures";
import { juror, markOf } from "../text/jury_lines";
import { shortened, spaced } from "../text/words";
import { Formatted } from "./formatted";

export function Jury({ jury }: { jury: Sitting }) {
  const places = new Map<number, Report>();
  list(jury.ranking?.["standings"]).map(object).forEach((standing) => {
    const who = number(standing["juror"]);
    if (who !== null) places.set(who, standing);
  });
  const rank = [...places.keys()];
  const sorted = [...jury.opinions].sort(([a], [b]) => (rank.indexOf(a) + 1 || 99) - (rank.indexOf(b) + 1 || 99) || a - b);
  return (
    <section id="jury">
      <h2>Jury</h2>
      {jury.stages.length > 0 && (
        <p class="soft">
          {jury.stages
            .map(({ stage, replied, asked, report }) => `${stage}: ${replied} of ${asked} replied, ${whole(number(report["completion_tokens"]) ?? 0)} tokens, ${fixed((number(report["latency_ms"]) ?? 0) / 1000, 1)} s`)
            .join(" · ")}
        </p>
      )}
      <div class="jurors">
        {sorted.map(([who, opinion]) => (
          <Opinion key={who} who={who} opinion={opinion} place={rank.indexOf(who)} standing={places.get(who)} />
        ))}
      </div>
      {jury.reviews.size > 0 && <Reviews jury={jury} />}
      {jury.merged !== null && <Merged merged={jury.merged} />}
      {jury.labels.size > 0 && <Labels labels={jury.labels} />}
    </section>
  );
}

function Opinion({ who, opinion, place, standing }: { who: number; opinion: Report; place: number; standing: Report | undefined }) {
  const ok = opinion["ok"] === true;
  const choice = text(opinion["choice"]);
  const score = number(standing?.["score"]);
  return (
    <details class={`juror${place === 0 ? " first" : ""}${ok ? "" : " failed"}`}>
      <summary>
        <b>juror #{who}</b> <span class="soft small">{juror(opinion)}</span>
        <span class="said" dir="auto">
          {ok ? choice || shortened(text(opinion["text"]), 90) : `none, ${text(opinion["failure"])}`}
        </span>
        {place >= 0 && (
          <span class={place === 0 ? "tag good" : "tag"}>
            {place + 1}. {score === null ? "" : fixed(score, 2)}
          </span>
        )}
      </summary>
      <div class="text" dir="auto">
        <Formatted text={text(opinion["text"])} />
      </div>
    </details>
  );
}

function Reviews({ jury }: { jury: Sitting }) {
  const candidates = [...jury.opinions.keys()].sort((a, b) => a - b);
  return (
    <>
      <h3>
        Reviews <span class="soft small">accuracy / insight / clarity, 1 to 10</span>
      </h3>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th>reviewer</th>
              {candidates.map((each) => (
                <th class="n" key={each}>
                  #{each}
                </th>
              ))}
              <th>issues</th>
            </tr>
          </thead>
          <tbody>
            {[...jury.reviews].map(([reviewer, review]) => {
              const scores = list(review["scores"]).map(object);
              return (
                <tr key={reviewer}>
                  <td>#{reviewer}</td>
                  {candidates.map((each) => {
                    const score = scores.find((one) => one["candidate"] === each);
                    return (
                      <td class="n" key={each}>
                        {each === reviewer ? "" : score === undefined ? "-" : markOf(score)}
                      </td>
                    );
                  })}
                  <td>
                    {review["ok"] === true ? (
                      list(review["issues"]).map((issue, i) => (
                        <div key={i} dir="auto">
                          #{number(object(issue)["candidate"])} {spaced(text(object(issue)["kind"]))}: {text(object(issue)["detail"])}
                        </div>
                      ))
                    ) : (
                      <span class="warn">could not be read: {text(review["failure"]) || "no marks"}</span>
                    )}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {jury.ranking !== null && <p class="soft small">ranked by {text(jury.ranking["rule"])}</p>}
    </>
  );
}

function Merged({ merged }: { merged: Report }) {
  const rationale = list(merged["rationale"]).map(text).filter(Boolean);
  const open = list(merged["open_questions"]).map(text).filter(Boolean);
  return (
    <div class="card slim">
      <b>{merged["source"] === "chair" ? "The chair's answer" : "The best opinion, in the place of the chair"}</b>
      <div class="text plain" dir="auto">
        <Formatted text={text(merged["answer"])} />
      </div>
      {rationale.length > 0 && <Texts name="why" texts={rationale} />}
      {open.length > 0 && <Texts name="stays open" texts={open} />}
      {list(merged["disagreements"]).map((each, i) => (
        <p key={i} class="soft" dir="auto">
          disagreement: {text(object(each)["topic"])}; {text(object(each)["resolution"])}
        </p>
      ))}
    </div>
  );
}

function Texts({ name, texts }: { name: string; texts: string[] }) {
  return (
    <>
      <span class="soft small">{name}</span>
      <ul>
        {texts.map((each, i) => (
          <li key={i} dir="auto">
            {each}
          </li>
        ))}
      </ul>
    </>
  );
}

function Labels({ labels }: { labels: ReadonlyMap<number, Report> }) {
  return (
    <>
      <h3>
        Agreement of jurors <span class="soft small">not evidence</span>
      </h3>
      <ul class="labels">
        {[...labels].sort(([a], [b]) => a - b).map(([index, label]) => (
          <li key={index}>
            <span class="tag">{text(label["label"])}</span>
            <span dir="auto">{text(object(label["claim"])["text"])}</span>
            <Stances label={label} />
          </li>
        ))}
      </ul>
    </>
  );
}

/** Who says it too, who says the opposite, who says neither. */
export function Stances({ label }: { label: Report }) {
  const rows = [
    ["say it too", "support"],
    ["say the opposite", "contradict"],
    ["say neither", "silent"],
  ] as const;
  return (
    <span class="soft small">
      {rows
        .map(([words, name]) => [words, list(label[name]).map((who) => `#${number(who)}`)] as const)
        .filter(([, who]) => who.length > 0)
        .map(([words, who]) => `${who.join(", ")} ${words}`)
        .join("; ")}
    </span>
  );
}
