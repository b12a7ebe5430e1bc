// Places in a text are counted in characters by whoever found them, in UTF-16 units by JavaScript.

/** Cuts a text at places that are counted in characters. */
export class Places {
  private readonly starts: number[] | null;
  /** Characters of the text. */
  readonly length: number;

  constructor(private readonly whole: string) {
    if (!/[\ud800-\udbff][\udc00-\udfff]/.test(whole)) {
      this.starts = null; // every character is one unit
      this.length = whole.length;
      return;
    }
    this.starts = [];
    let at = 0;
    for (const character of whole) {
      this.starts.push(at);
      at += character.length;
    }
    this.length = this.starts.length;
  }

  /** The part between two places, the end not included. */
  slice(start: number, end: number): string {
    return this.whole.slice(this.unit(start), this.unit(end));
  }

  private unit(place: number): number {
    if (this.starts === null) return place;
    return this.starts[place] ?? this.whole.length;
  }
}
