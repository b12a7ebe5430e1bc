// What cannot be drawn is told, and takes nothing else along.

import { Component, type ComponentChildren } from "preact";

export class Boundary extends Component<{ children: ComponentChildren }, { error: string | null }> {
  override state = { error: null };

  static override getDerivedStateFromError(error: unknown) {
    return { error: error instanceof Error ? error.message : String(error) };
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    return (
      <main>
        <p class="note bad" role="alert">
          This page could not be drawn: {this.state.error}
        </p>
      </main>
    );
  }
}
