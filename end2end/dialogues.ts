/** The dialogues that the mini model was trained on: what a test may expect word for word. */

import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const folder = resolve(import.meta.dirname, "..", "examples", "mini", "dialogues");

export interface Turn {
  question: string;
  answer: string;
}

export interface Dialogue {
  system: string;
  turns: Turn[];
}

/** The dialogue of this name, `[exec]` turns not looked at. */
export function dialogue(name: string): Dialogue {
  for (const file of readdirSync(folder).filter((file) => file.endsWith(".txt"))) {
    for (const block of readFileSync(join(folder, file), "utf8").split(/^=== /m)) {
      if (block.startsWith(`${name} `)) return parse(block);
    }
  }
  throw new Error(`no dialogue is named ${name}`);
}

function parse(block: string): Dialogue {
  const parts = block.split(/^\[(user|assistant|system)\]$/m).slice(1);
  const found: Dialogue = { system: "", turns: [] };
  for (let at = 0; at + 1 < parts.length; at += 2) {
    const text = (parts[at + 1] ?? "").trim();
    if (parts[at] === "system") found.system = text;
    if (parts[at] === "user") found.turns.push({ question: text, answer: "" });
    const last = found.turns.at(-1);
    if (parts[at] === "assistant" && last !== undefined) last.answer = text;
  }
  return found;
}

/** What is left of a text on the page or of its Markdown when only letters and digits count. */
export function words(text: string): string {
  return text.replace(/^ *\d+\. /gm, "").replace(/[^\p{L}\p{N}]/gu, "");
}
