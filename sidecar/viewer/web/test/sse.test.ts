import assert from "node:assert/strict";
import { test } from "node:test";
import { type Message, Messages } from "../src/live/sse";

const STREAM = ': ping\n\nid: 1\ndata: {"a":1}\n\nid: 2\r\ndata: one\r\ndata: two\r\n\r\nevent: error\rdata:x\r\rdata: é🙂\n\nid: 9\ndata: cut';

const WANTED: Message[] = [
  { id: "1", event: "message", data: '{"a":1}' },
  { id: "2", event: "message", data: "one\ntwo" },
  { id: "2", event: "error", data: "x" },
  { id: "2", event: "message", data: "é🙂" },
];

test("messages are the same wherever the pieces are cut", () => {
  for (let size = 1; size <= STREAM.length; size++) {
    const messages = new Messages();
    const found: Message[] = [];
    for (let at = 0; at < STREAM.length; at += size) found.push(...messages.take(STREAM.slice(at, at + size)));
    assert.deepEqual(found, WANTED, `pieces of ${size}`);
  }
});
