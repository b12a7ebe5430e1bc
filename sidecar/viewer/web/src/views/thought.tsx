// A thought: collapsed, and apart from the answer.

import { whole } from "../text/figures";
import { Formatted } from "./formatted";

interface Props {
  text: string;
  tokens: number;
  /** Whether the model ended it. */
  closed?: boolean;
}

export function Thought({ text, tokens, closed = true }: Props) {
  if (text.trim() === "" && tokens === 0) return null;
  const size = tokens > 0 ? `, ${whole(tokens)} tokens` : "";
  if (text.trim() === "") return <p class="thought soft small">thought{size}, hidden by the provider</p>;
  return (
    <details class="thought">
      <summary class="soft small">
        thought{size}
        {closed ? "" : ", cut"}
      </summary>
      <div class="text soft" dir="auto">
        <Formatted text={text.trim()} />
      </div>
    </details>
  );
}
