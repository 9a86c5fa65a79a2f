/** Takes hostile texts through every place of the page where a text is shown, and tells where one came out otherwise. */

import { type Browser, type BrowserContext, expect, type Page } from "@playwright/test";
import { Chat } from "./fixtures.ts";
import { Oracle } from "./oracle.ts";
import type { Payload } from "./payloads.ts";
import type { Server } from "./server.ts";

/** Where each payload has to be seen. */
export const PLACES = ["streaming", "reload", "title", "search result", "copy"] as const;
export type Place = (typeof PLACES)[number];

/** Conversations that are held at the same time. */
const LANES = 4;

/** What a conversation begins with, so that its title has nothing of a payload. */
const OPENER = "第一句";

/** Longest piece of a payload that is searched for; a result shows this and a little more. */
const PIECE_CHARS = 60;

const MADE_TITLE_CHARS = 40;
const CHOSEN_TITLE_CHARS = 100;

/** Pages on which one searches or opens at the same time. */
const SEARCHERS = 2;

/** More than the page waits for another letter before it searches. */
const SEARCH_PAUSE_MS = 300;

/** What the pages' own functions use; see `helpers`. */
interface Helped extends Window {
  until(holds: () => unknown, what: string): Promise<void>;
  handle(name: string, within?: Element): HTMLElement | null;
  write(field: HTMLElement | null, text: string): void;
}

/** A conversation in which payloads were said, one after the other. */
interface Talk {
  chat: Chat;
  payloads: Payload[];
}

interface Titles {
  item: string | undefined;
  heading: string | undefined;
  tab: string;
}

export class Range {
  /** What came out otherwise, and where. */
  readonly problems: string[] = [];
  /** Which payloads were in which place, as they should be. */
  readonly seen: Record<Place, Set<string>>;
  /** How many answers were seen while they grew. */
  grown = 0;
  private talks: Talk[] = [];

  private constructor(
    readonly context: BrowserContext,
    private readonly oracle: Oracle,
    private readonly server: Server,
    private readonly payloads: Payload[],
  ) {
    this.seen = Object.fromEntries(PLACES.map((place) => [place, new Set<string>()])) as Range["seen"];
  }

  static async open(browser: Browser, server: Server, payloads: Payload[]): Promise<Range> {
    const context = await browser.newContext({ baseURL: server.url, locale: "zh-CN" });
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: server.url });
    await context.addInitScript(helpers);
    return new Range(context, await Oracle.watch(context, server.url), server, payloads);
  }

  /** Says all of them, in several conversations at once, and has them answered with themselves. */
  async say(): Promise<void> {
    const hold = async (payloads: Payload[]) => {
      const chat = await this.page();
      await say(chat.page, OPENER);
      for (const payload of payloads) {
        await this.see("streaming", chat, payload, async () => {
          const { state, parts, question } = await say(chat.page, payload.text);
          this.grown += Number(parts > 0);
          return [...unlike("the end", state, "done"), ...unlike("the question", question, shown(payload.text))];
        });
      }
      return { chat, payloads };
    };
    this.talks = await Promise.all(parted(this.payloads, LANES).map(hold));
  }

  /** Copies every question and answer. */
  async copy(): Promise<void> {
    for (const { chat, payloads } of this.talks) {
      // One clipboard for all.
      await chat.page.bringToFront();
      this.oracle.during(chat.page, "copy");
      const copied = await chat.page.evaluate(copyAll);
      for (const [index, payload] of payloads.entries()) {
        const [question, answer] = copied.slice(2 * index + 2);
        await this.see("copy", chat, payload, async () => [
          ...unlike("the question", question, kept(payload.text)),
          ...unlike("the answer", answer, kept(payload.text)),
        ]);
      }
    }
  }

  /** Calls the conversations by every payload in them. */
  async rename(): Promise<void> {
    const rename = async ({ chat, payloads }: Talk) => {
      for (const payload of payloads) {
        await this.see("title", chat, payload, async () => {
          const [titles] = await Promise.all([
            chat.page.evaluate(renameTo, typedTitle(payload.text)),
            chat.page.waitForResponse("**/api/rename"),
          ]);
          return wrongTitles(titles, printable(typedTitle(payload.text)));
        });
      }
    };
    await Promise.all(this.talks.map(rename));
  }

  /** Loads the conversations again: what the server draws and the page finds is the same that was streamed. */
  async reload(): Promise<void> {
    const reload = async ({ chat, payloads }: Talk) => {
      const { page } = chat;
      this.oracle.during(page, "before the reload");
      const before = await page.evaluate(bodies);
      this.oracle.during(page, `reload of ${payloads.map(({ name }) => name).join(", ")}`);
      await page.reload();
      await chat.hydrated();
      const after = await page.evaluate(bodies);
      for (const [index, payload] of payloads.entries()) {
        const [asked, answered] = before.slice(2 * index + 2);
        const [question, answer] = after.slice(2 * index + 2);
        await this.see("reload", chat, payload, async () => [
          ...unlike("the question", question, asked),
          ...unlike("the answer", answer, answered),
        ]);
      }
      const last = payloads.at(-1)!;
      await this.see("title", chat, last, async () =>
        wrongTitles(await page.evaluate(openTitles), printable(typedTitle(last.text))),
      );
    };
    await Promise.all(this.talks.map(reload));
  }

  /** Looks for a piece of every payload, in conversations whose titles have none of it. */
  async search(): Promise<void> {
    for (const { chat } of this.talks) {
      await Promise.all([chat.page.evaluate(renameTo, OPENER), chat.page.waitForResponse("**/api/rename")]);
    }
    // The clock is the context's: installed beside pages that come up, it misses some of them.
    await this.context.clock.install();
    const search = async (payloads: Payload[]) => {
      const page = await this.context.newPage();
      const chat = new Chat(page);
      await chat.open();
      for (const payload of payloads) {
        await this.see("search result", chat, payload, async () => {
          const piece = pieceOf(payload.text);
          const answered = page.waitForResponse("**/api/chats");
          await page.evaluate(searchFor, piece);
          await this.context.clock.runFor(SEARCH_PAUSE_MS);
          await answered;
          return page.evaluate(awaitFound, withoutControls(piece).toLowerCase());
        });
      }
      await page.close();
    };
    await Promise.all(parted(this.payloads, SEARCHERS).map(search));
  }

  /** Begins a conversation with every payload, which makes its title, and opens each of them. */
  async begin(): Promise<void> {
    const ids = new Map<string, string>();
    const begin = async ({ name, text }: Payload) => void ids.set(name, await begun(this.context, text));
    for (const payload of this.payloads) await begin(payload);
    // One that is answered goes to the top of the list, also between one page of it and the next.
    await expect.poll(() => this.server.metric("requests_running")).toBe(0);
    const open = async (payloads: Payload[]) => {
      const chat = await this.page();
      const items = chat.handle("chat-item");
      for (let more = true; more; more = await chat.handle("chats-more").isVisible()) {
        const count = await items.count();
        await chat.handle("chats-more").click();
        await expect.poll(() => items.count()).toBeGreaterThan(count);
      }
      for (const payload of payloads) {
        await this.see("title", chat, payload, async () =>
          wrongTitles(await chat.page.evaluate(openItem, ids.get(payload.name)!), madeTitle(payload.text)),
        );
      }
      await chat.page.close();
    };
    await Promise.all(parted(this.payloads, SEARCHERS).map(open));
  }

  /** Everything that happened which must not. */
  async incidents(): Promise<unknown[]> {
    const pages = this.context.pages();
    const incidents = await this.oracle.all(...pages);
    for (const page of pages) {
      const polluted = await page.evaluate(() => "polluted" in {});
      if (polluted) this.problems.push("every object has what a payload gave it");
    }
    return incidents;
  }

  private async page(): Promise<Chat> {
    const chat = new Chat(await this.context.newPage());
    await chat.open();
    return chat;
  }

  /** Does something with a payload in a place, where nothing may be wrong with it. */
  private async see(place: Place, { page }: Chat, payload: Payload, work: () => Promise<string[]>): Promise<void> {
    this.oracle.during(page, `${place}: ${payload.name}`);
    const wrong = await work().catch((error: Error) => [error.message]);
    if (wrong.length === 0) this.seen[place].add(payload.name);
    this.problems.push(...wrong.map((what) => `${place}: ${payload.name}: ${what}`));
  }
}

/** Begins a conversation without the page, with one letter for an answer; gives its name. */
export async function begun(context: BrowserContext, text: string): Promise<string> {
  const [request, conversation] = [crypto.randomUUID(), crypto.randomUUID().replaceAll("-", "")];
  const said = { role: "user", text: text.toWellFormed(), system: "", settings: { max_new_tokens: 1 } };
  const command = { request, conversation, parent: null, ...said };
  const response = await context.request.post("/api/send", { data: { command } });
  if (!response.ok()) throw new Error(await response.text());
  return conversation;
}

/** Says something in the page; gives how that ended, and in how many steps the answer was seen to grow. */
function say(page: Page, text: string): Promise<{ state?: string; parts: number; question?: string }> {
  return page.evaluate(async (text) => {
    const { handle, until, write } = window as unknown as Helped;
    const answers = document.querySelectorAll("[data-testid=message-assistant]").length;
    const newest = () => document.querySelectorAll<HTMLElement>("[data-testid=message-assistant]")[answers];
    await until(() => handle("send"), "the end of what was asked before");
    write(handle("composer"), text);
    await until(() => handle("send")?.matches(":enabled"), "a text that can be sent");
    handle("send")!.click();
    const texts = new Set<string>();
    await until(() => {
      const { state } = newest()?.dataset ?? {};
      if (state === "streaming") texts.add(handle("message-body", newest())?.textContent ?? "");
      return /^(done|stopped|interrupted|failed)$/.test(state ?? "");
    }, "the end of the answer");
    texts.delete("");
    const question = [...document.querySelectorAll(".bubble")].at(-1)?.textContent ?? undefined;
    return { state: newest()?.dataset.state, parts: texts.size, question };
  }, text);
}

/** What stands in each message, as markup. Attributes are sorted: their order depends on how an answer grew. */
function bodies(): string[] {
  return [...document.querySelectorAll("[data-testid=message-body]")].map((body) => {
    const copy = body.cloneNode(true) as Element;
    const comments = document.createNodeIterator(copy, NodeFilter.SHOW_COMMENT);
    const found: Node[] = [];
    for (let node = comments.nextNode(); node; node = comments.nextNode()) found.push(node);
    for (const node of found) node.parentNode?.removeChild(node);
    for (const element of copy.querySelectorAll("*")) {
      const attributes = [...element.attributes].sort((a, b) => (a.name < b.name ? -1 : 1));
      for (const { name } of attributes) element.removeAttribute(name);
      for (const attribute of attributes) element.setAttributeNode(attribute);
    }
    return copy.innerHTML;
  });
}

async function copyAll(): Promise<string[]> {
  const { until } = window as unknown as Helped;
  const copied = [];
  for (const button of document.querySelectorAll<HTMLElement>("[data-testid=copy]")) {
    await navigator.clipboard.writeText("nothing was copied");
    button.click();
    await until(() => button.dataset.outcome === "worked", "the copy");
    copied.push(await navigator.clipboard.readText());
  }
  return copied;
}

/** Where the title of the conversation that is looked at stands. */
function openTitles(): Titles {
  return {
    item: document.querySelector(".chat-link[aria-current] .chat-title")?.textContent ?? undefined,
    heading: document.querySelector("h1")?.textContent ?? undefined,
    tab: document.title,
  };
}

function searchFor(piece: string): void {
  const { handle, write } = window as unknown as Helped;
  write(handle("chat-search"), piece);
}

async function renameTo(title: string): Promise<Titles> {
  const { handle, until, write } = window as unknown as Helped;
  const item = document.querySelector(".chat-link[aria-current]")!.closest("li")!;
  handle("rename", item)!.click();
  await until(() => handle("rename-field", item), "the field");
  write(handle("rename-field", item), title);
  const enter = new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true });
  handle("rename-field", item)!.dispatchEvent(enter);
  await until(() => !handle("rename-field", item), "the end of the field");
  return {
    item: item.querySelector(".chat-title")?.textContent ?? undefined,
    heading: document.querySelector("h1")?.textContent ?? undefined,
    tab: document.title,
  };
}

async function openItem(id: string): Promise<Titles> {
  const { until } = window as unknown as Helped;
  const link = document.getElementById(`chat-${id}`)!;
  link.click();
  await until(() => location.pathname === `/c/${id}` && link.ariaCurrent === "page", "the address");
  await until(() => document.querySelector(".bubble"), "what was said");
  return {
    item: link.querySelector(".chat-title")?.textContent ?? undefined,
    heading: document.querySelector("h1")?.textContent ?? undefined,
    tab: document.title,
  };
}

/** Waits for a result that shows this, which is in lowercase; gives what is wrong where there is none. */
async function awaitFound(piece: string): Promise<string[]> {
  const { until } = window as unknown as Helped;
  const hits = () => [...document.querySelectorAll(".chat-found mark")].map((hit) => hit.textContent ?? "");
  await until(() => hits().some((hit) => hit.toLowerCase() === piece), `${piece} among what is found`).catch(() => {});
  const found = hits();
  return found.some((hit) => hit.toLowerCase() === piece) ? [] : [`found ${JSON.stringify(found)}, expected ${piece}`];
}

/** Runs in every page: what the functions above are written in. Time is taken as it is before anyone changes it. */
function helpers(): void {
  const pause = window.setTimeout.bind(window);
  const now = performance.now.bind(performance);
  const own: Pick<Helped, "until" | "handle" | "write"> = {
    async until(holds, what) {
      const deadline = now() + 10_000;
      while (!holds()) {
        if (now() > deadline) throw new Error(`waited in vain for ${what}`);
        await new Promise((done) => pause(done, 4));
      }
    },
    handle: (name, within) => (within ?? document).querySelector<HTMLElement>(`[data-testid="${name}"]`),
    write(field, text) {
      (field as HTMLInputElement).value = text;
      field!.dispatchEvent(new Event("input", { bubbles: true }));
    },
  };
  Object.assign(window, own);
}

function unlike(what: string, found: string | undefined, expected: string | undefined): string[] {
  return found === expected ? [] : [`${what} is ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`];
}

function wrongTitles({ item, heading, tab }: Titles, title: string): string[] {
  // A tab's title has no blanks in a row.
  const collapsed = title.replace(/[\t\n\f\r ]+/g, " ");
  return [
    ...unlike("the title in the list", item, title),
    ...unlike("the heading", heading, title),
    ...unlike("the tab", tab.slice(0, collapsed.length), collapsed),
  ];
}

/** Several parts of about the same length. */
function parted<T>(items: T[], count: number): T[][] {
  const each = Math.ceil(items.length / count);
  const parts = Array.from({ length: count }, (_, index) => items.slice(index * each, (index + 1) * each));
  return parts.filter((part) => part.length > 0);
}

/** A text as a field of several lines keeps it. */
function kept(text: string): string {
  return text.toWellFormed().replace(/\r\n?/g, "\n");
}

/** The same as the page shows it. */
function shown(text: string): string {
  return kept(text).replaceAll("\0", "\uFFFD");
}

/** What the server calls blank. */
const BLANKS = "[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";

function trimmed(text: string): string {
  return text.replace(new RegExp(`^${BLANKS}|${BLANKS}$`, "g"), "");
}

function withoutControls(text: string): string {
  return text.replace(/[\0-\x1f\x7f-\x9f]/g, " ");
}

function cut(text: string, length: number): string {
  return [...text].slice(0, length).join("");
}

function printable(text: string): string {
  return trimmed(withoutControls(text));
}

/** As much of a text as fits a title, as a field of one line keeps it. */
function typedTitle(text: string): string {
  return cut(text.toWellFormed().replace(/[\r\n]/g, ""), CHOSEN_TITLE_CHARS);
}

/** The title that the server makes of this text. */
function madeTitle(text: string): string {
  const line = text.toWellFormed().split("\n").map(printable).find((line) => line !== "") ?? "";
  return cut(line, MADE_TITLE_CHARS) + ([...line].length > MADE_TITLE_CHARS ? "…" : "");
}

/** The beginning of the longest line. */
function pieceOf(text: string): string {
  const lines = kept(text).split("\n").map(trimmed);
  const longest = lines.reduce((one, other) => (other.length > one.length ? other : one));
  return trimmed(cut(longest, PIECE_CHARS));
}
