import { type BrowserContext, expect, test as base } from "@playwright/test";
import { Chat } from "../fixtures.ts";
import { type Kind, Oracle } from "../oracle.ts";
import { payloads, refusals } from "../payloads.ts";
import { begun, PLACES, Range } from "../range.ts";
import { Server } from "../server.ts";

/** Slow enough that an answer is seen while it grows, also on a busy machine. */
const STEP_MS = 2;

/** What is taken through the page at once, by its groups. */
const SETS = [
  ["element", "handler", "breakout"],
  ["address", "fetch", "location"],
  ["hydration", "markdown", "latex", "character", "mass"],
].map((groups) => ({ groups, payloads: payloads.filter(({ group }) => groups.includes(group)) }));

const test = base.extend<object, { server: Server }>({
  server: [
    async ({}, use) => {
      const server = await Server.startScripted(STEP_MS);
      await use(server);
      await server.stop();
    },
    { scope: "worker" },
  ],
  baseURL: async ({ server }, use) => use(server.url),
});

// Snapshots of every step would take longer than the steps.
test.use({ trace: "off" });
// A hundred texts and more are taken through the page by one test.
test.setTimeout(300_000);

test("the hostile texts are many, no two the same, and each in one set", () => {
  expect(payloads.length).toBeGreaterThanOrEqual(150);
  for (const part of ["name", "text"] as const) {
    expect(new Set(payloads.map((payload) => payload[part])).size).toBe(payloads.length);
  }
  expect(SETS.flatMap(({ payloads }) => payloads.map(({ name }) => name)).sort()).toEqual(
    payloads.map(({ name }) => name).sort(),
  );
});

for (const { groups, payloads } of SETS) {
  test(`a hostile text stays text wherever it is shown: ${groups.join(", ")}`, async ({ browser, server }) => {
    const range = await Range.open(browser, server, payloads);
    for (const step of ["say", "copy", "rename", "reload", "search", "begin"] as const) {
      await test.step(step, () => range[step]());
    }
    expect(await range.incidents()).toEqual([]);
    expect(range.problems).toEqual([]);
    for (const place of PLACES) expect(range.seen[place].size, place).toBe(payloads.length);
    expect(range.grown).toBeGreaterThan(payloads.length / 8);
    await range.context.close();
  });
}

test("what cannot be said is refused with the reason", async ({ context, page }) => {
  const chat = new Chat(page);
  await chat.open();
  for (const { name, text, refused } of refusals) {
    await expect(begun(context, text), name).rejects.toThrow(refused);
    await chat.composer.evaluate((field: HTMLTextAreaElement, text) => {
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }, text);
    if (await chat.handle("send").isEnabled()) {
      await chat.handle("send").click();
      await expect(chat.handle("notice"), name).toHaveText(refused!);
      await expect(chat.composer, name).toHaveValue(text);
    }
  }
  await expect(chat.questions).toHaveCount(0);
  await page.reload();
  await chat.hydrated();
  await expect(chat.handle("chat-item")).toHaveCount(0);
});

test.describe("the oracle", () => {
  /** What a page does that was taken over, and what has to be counted. */
  const offences: { what: string; does: () => void; counted: Kind[] }[] = [
    { what: "a dialog", does: () => setTimeout(() => alert(1)), counted: ["dialog"] },
    { what: "the canary", does: () => void Object.assign(window, { __pwned: 1 }), counted: ["canary"] },
    { what: "an error", does: () => setTimeout(() => Object.assign(null as never, "x")), counted: ["console"] },
    { what: "a window", does: () => void window.open("about:blank"), counted: ["popup"] },
    {
      what: "an image from elsewhere",
      does: () => void (new Image().src = "https://evil.test/i.png"),
      // The browser tells of the request before it stops it.
      counted: ["console", "policy", "request"],
    },
    {
      what: "a question to elsewhere",
      does: () => void fetch("https://evil.test/?q").catch(() => {}),
      counted: ["console", "policy"],
    },
    {
      what: "a handler",
      does: () => document.querySelector("button")!.setAttribute("onclick", "__pwned=1"),
      counted: ["console", "element", "policy"],
    },
    { what: "a tag", does: () => document.body.append(document.createElement("marquee")), counted: ["element"] },
    {
      what: "a tag in a title, for a moment",
      does: () => {
        const tag = document.createElement("b");
        document.querySelector("h1")!.append(tag);
        tag.remove();
      },
      counted: ["element"],
    },
    {
      what: "a link that runs a program",
      does: () => document.querySelector("a")!.setAttribute("href", "JavaScript:alert(1)"),
      counted: ["element"],
    },
    {
      what: "a name in an answer",
      does: () => {
        const answer = document.createElement("div");
        answer.dataset.testid = "message-body";
        answer.innerHTML = "<p id=composer>x</p>";
        document.querySelector("main")!.append(answer);
      },
      counted: ["element"],
    },
  ];

  for (const { what, does, counted } of offences) {
    test(`counts ${what}`, async ({ context, page, server }) => {
      const oracle = await Oracle.watch(context, server.url);
      await new Chat(page).open();
      expect(await oracle.all(page)).toEqual([]);
      await page.evaluate(does);
      const kinds = async () => [...new Set((await oracle.all(page)).map(({ kind }) => kind))].sort();
      await expect.poll(kinds).toEqual(counted);
    });
  }
});

test.describe("without the page's own policy", () => {
  test.use({ bypassCSP: true });

  /** Longest that a page made of a text may take to load. */
  const LOAD_MS = 3_000;

  /** Puts texts into pages as though they were markup; gives those that did more than stand there. */
  async function bites(context: BrowserContext, oracle: Oracle): Promise<string[]> {
    const raw = payloads.filter(({ group }) => ["element", "handler", "fetch", "breakout"].includes(group));
    await context.route("**/raw/*", (route) => {
      const text = raw[Number(new URL(route.request().url()).pathname.split("/").at(-1))]?.text;
      if (text === undefined) return route.fulfill({ status: 404 });
      return route.fulfill({ contentType: "text/html; charset=utf-8", body: `<!doctype html><body>${text}` });
    });
    let page = await context.newPage();
    for (const [index, { name }] of raw.entries()) {
      oracle.during(page, name);
      const isLoaded = await page.goto(`/raw/${index}`, { timeout: LOAD_MS }).then(() => true, () => false);
      if (isLoaded) continue;
      // One that leads elsewhere, or never ends, must not take the next one along.
      await page.close();
      page = await context.newPage();
    }
    const acts = (await oracle.all()).filter(({ kind }) => !["element", "console"].includes(kind));
    return [...new Set(acts.map(({ during }) => during))];
  }

  test("the same texts do harm where they are markup", async ({ context, server }) => {
    const oracle = await Oracle.watch(context, server.url);
    const bitten = await bites(context, oracle);
    expect(bitten.length).toBeGreaterThan(20);
    for (const kind of ["canary", "dialog", "request"] as const) expect(oracle.count(kind), kind).toBeGreaterThan(0);
  });
});

test("a server that forgot to escape what was said would be seen", async ({ context, page, server }) => {
  const oracle = await Oracle.watch(context, server.url);
  await page.goto("/");
  const id = await begun(context, payloads.find(({ name }) => name === "handler: image that fails, quoted")!.text);
  await page.route("**/c/*", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: (await response.text()).replaceAll("&lt;img", "<img").replaceAll("&gt;", ">") });
  });
  expect(await oracle.all(page)).toEqual([]);
  await page.goto(`/c/${id}`);
  await oracle.all(page);
  for (const kind of ["element", "policy"] as const) expect(oracle.count(kind), kind).toBeGreaterThan(0);
});
