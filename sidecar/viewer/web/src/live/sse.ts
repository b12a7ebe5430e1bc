// Server-sent events out of pieces of text, wherever the pieces were cut.

export interface Message {
  id: string | null;
  event: string;
  data: string;
}

export class Messages {
  private rest = "";
  private id: string | null = null;
  private event = "";
  private data: string[] = [];

  /** The messages that this piece completes. */
  take(piece: string): Message[] {
    const found: Message[] = [];
    const whole = this.rest + piece;
    const held = whole.endsWith("\r") ? whole.length - 1 : whole.length; // its line feed may come with the next piece
    const lines = whole.slice(0, held).split(/\r\n|\n|\r/);
    this.rest = (lines.pop() ?? "") + whole.slice(held);
    for (const line of lines) {
      const message = this.line(line);
      if (message !== null) found.push(message);
    }
    return found;
  }

  private line(line: string): Message | null {
    if (line === "") {
      const message = this.data.length === 0 ? null : { id: this.id, event: this.event || "message", data: this.data.join("\n") };
      this.event = "";
      this.data = [];
      return message;
    }
    if (line.startsWith(":")) return null; // a comment keeps the connection awake
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.event = value;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    return null;
  }
}
