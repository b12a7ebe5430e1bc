// The AI SDK as a client: text, streams, tools, objects (as `json_object`, its default), cancellation and errors.
// Usage: node ai_sdk.mjs URL
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({ name: "reason", baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const prompt = "What is 6 * 7?";
const options = (model) => ({ model: provider(model), prompt, maxRetries: 0 });
const schema = z.object({ answer: z.number().int() });

const text = await generateText(options("reason/cot"));
assert.equal(text.text, "The answer is 42.");
assert.equal(text.finishReason, "stop");

let streamed = "";
for await (const piece of streamText(options("reason/cot")).textStream) streamed += piece;
assert.equal(streamed, "The answer is 42.");

const weather = tool({ inputSchema: z.object({ city: z.string() }) });
const called = await generateText({ ...options("reason/cot:caller"), tools: { weather } });
assert.deepEqual(called.toolCalls.map((call) => [call.toolName, call.input]), [["weather", { city: "Rome" }]]);

for (const model of ["reason/cot:formed", "reason/self-consistency:formed"]) {
  const made = await generateObject({ ...options(model), schema });
  assert.deepEqual(made.object, { answer: 42 });
}
const objects = [];
for await (const one of streamObject({ ...options("reason/cot:formed"), schema }).partialObjectStream) objects.push(one);
assert.deepEqual(objects.at(-1), { answer: 42 });

const leaving = new AbortController();
const stopped = generateText({ ...options("reason/cot:silent"), abortSignal: leaving.signal });
setTimeout(() => leaving.abort(), 100);
await assert.rejects(stopped, { name: "AbortError" });

await assert.rejects(generateText(options("reason/none")), (error) => error.statusCode === 404);
console.log("all passed");
