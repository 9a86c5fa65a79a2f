/** What every test gets: the server, a page that may not complain, and a chat to talk through. */

import { test as base, expect, type Locator, type Page } from "@playwright/test";
import { words } from "./dialogues.ts";
import { Server } from "./server.ts";

interface TestFixtures {
  /** Complaints in the console that a test provokes on purpose. */
  provoked: RegExp | undefined;
  chat: Chat;
}

export const test = base.extend<TestFixtures, { server: Server }>({
  server: [
    async ({}, use) => {
      const server = await Server.start();
      await use(server);
      await server.stop();
    },
    { scope: "worker" },
  ],
  baseURL: async ({ server }, use) => use(server.url),
  provoked: [undefined, { option: true }],
  context: async ({ context, provoked }, use) => {
    const complaints: string[] = [];
    const complain = (what: string) => {
      if (!provoked?.test(what)) complaints.push(what);
    };
    context.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") {
        complain(`console: ${message.text()} ${message.location().url}`);
      }
    });
    context.on("weberror", (error) => complain(`exception: ${error.error()}`));
    await context.exposeBinding("reportViolation", (_, what: string) => complain(what));
    await context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => {
        const report = (window as unknown as { reportViolation(what: string): void }).reportViolation;
        report(`policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    await use(context);
    expect(complaints, "the page complained").toEqual([]);
  },
  chat: async ({ page }, use) => use(new Chat(page)),
});

export { expect };

/** States of an answer that is over. */
const OVER = /^(done|stopped|interrupted|failed)$/;

/** One page, by the handles that the contract names. */
export class Chat {
  readonly composer: Locator;
  readonly questions: Locator;
  readonly answers: Locator;

  constructor(readonly page: Page) {
    this.composer = this.handle("composer");
    this.questions = this.handle("message-user");
    this.answers = this.handle("message-assistant");
  }

  handle(name: string): Locator {
    return this.page.getByTestId(name);
  }

  /** Opens a page and waits until it takes input. */
  async open(path = "/"): Promise<void> {
    await this.page.goto(path);
    await this.hydrated();
  }

  /** Waits until the page has come to life: then a text lets the button send. A kept draft comes before that text. */
  async hydrated(): Promise<void> {
    await this.composer.evaluate((field: HTMLTextAreaElement) => {
      field.value += "…";
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await expect(this.handle("send")).toBeEnabled();
    await this.composer.fill((await this.composer.inputValue()).replace(/(\n\n)?…$/, ""));
  }

  async say(text: string): Promise<void> {
    await this.composer.fill(text);
    await this.handle("send").click();
  }

  /** Says something and waits until the answer to it is over. */
  async ask(text: string): Promise<string> {
    const before = await this.answers.count();
    await this.say(text);
    await expect(this.answers).toHaveCount(before + 1);
    await this.over();
    return this.answer();
  }

  /** Waits until the last answer is over, in this state where one is named. */
  async over(state: RegExp | string = OVER): Promise<void> {
    await expect(this.answers.last()).toHaveAttribute("data-state", state, { timeout: 60_000 });
  }

  /** The letters and digits of the last answer. */
  async answer(): Promise<string> {
    return words(await this.answers.last().getByTestId("message-body").innerText());
  }

  /** Waits until this much of the last answer is there. */
  async grown(letters: number): Promise<string> {
    await expect.poll(async () => (await this.answer()).length).toBeGreaterThan(letters);
    await expect(this.answers.last()).toHaveAttribute("data-state", "streaming");
    return this.answer();
  }

  /** The conversation of this title in the list. */
  listed(title: string | RegExp): Locator {
    return this.handle("chat-item").filter({ has: this.page.locator(".chat-title").filter({ hasText: title }) });
  }

  /** Begins a new conversation. */
  async begin(): Promise<void> {
    await this.handle("new-chat").filter({ visible: true }).click();
    await expect(this.handle("starter").first()).toBeVisible();
  }

  /** The control inside a setting, with the settings open. */
  async setting(name: string): Promise<Locator> {
    const handle = this.handle(`setting-${name}`);
    if (!(await handle.isVisible())) await this.handle("settings").click();
    await expect(handle).toBeVisible();
    const isControl = await handle.evaluate((node) => node.matches("input, textarea"));
    return isControl ? handle : handle.locator("input, textarea").last();
  }

  async set(name: string, value: string): Promise<void> {
    const control = await this.setting(name);
    await control.fill(value);
    await control.blur();
    await this.page.keyboard.press("Escape");
  }
}
