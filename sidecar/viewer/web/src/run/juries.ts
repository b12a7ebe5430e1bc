// What a jury has said so far, by juror.

import type { JuryEvent } from "../events";
import type { Draft } from "./draft";
import type { Jury } from "./state";

export function takeJury(draft: Draft, event: JuryEvent): void {
  const before = draft.state.jury;
  const anew = before === null || (event.type === "jury.opinion" && before.opinions.has(event.juror)); // asked again
  const jury = anew ? draft.made(unasked()) : draft.own(before);
  draft.state.jury = jury;
  switch (event.type) {
    case "jury.opinion":
      jury.opinions = draft.own(jury.opinions);
      jury.opinions.set(event.juror, event.report);
      break;
    case "jury.review":
      jury.reviews = draft.own(jury.reviews);
      jury.reviews.set(event.reviewer, event.report);
      break;
    case "jury.ranked":
      jury.ranking = event.report;
      break;
    case "jury.merged":
      jury.merged = event.report;
      break;
    case "jury.claim":
      jury.labels = draft.own(jury.labels);
      jury.labels.set(event.index, event.report);
      break;
    case "jury.stage":
      jury.stages = [...jury.stages, { stage: event.stage, asked: event.num_requests, replied: event.num_responses, report: event.report }];
      break;
  }
}

function unasked(): Jury {
  return { opinions: new Map(), reviews: new Map(), ranking: null, merged: null, labels: new Map(), stages: [] };
}
