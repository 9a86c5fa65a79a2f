import axe from "axe-core";
import type { Page } from "@playwright/test";
import { dialogue, words } from "../dialogues.ts";
import { Chat, expect, test as base } from "../fixtures.ts";
import { Server } from "../server.ts";

const TOKEN = "a token that nobody guesses";
const turn = dialogue("poet").turns[0]!;

/** A server that asks for the token. */
const test = base.extend<{ guarded: string }, { guardedServer: Server }>({
  guardedServer: [
    async ({}, use) => {
      const server = await Server.start("--access_token", TOKEN);
      await use(server);
      await server.stop();
    },
    { scope: "worker" },
  ],
  guarded: async ({ guardedServer }, use) => use(guardedServer.url),
});

test.use({ provoked: /status of 401|Password forms should have/ });

async function give(page: Page, token: string): Promise<void> {
  await page.getByLabel("访问令牌").fill(token);
  await page.getByRole("button", { name: "进入" }).click();
}

test("whoever has no token is asked for it, and gets to where they were going", async ({ chat, page, guarded, browser }) => {
  await page.goto(guarded);
  await give(page, "a guess");
  await expect(page.getByRole("alert")).toHaveText(/不正确/);
  await expect(page.getByLabel("访问令牌")).toBeFocused();
  await give(page, TOKEN);
  await expect(page).toHaveURL(`${guarded}/`);
  await chat.hydrated();
  expect(await chat.ask(turn.question)).toBe(words(turn.answer));

  const elsewhere = await browser.newContext({ locale: "zh-CN", javaScriptEnabled: false });
  const there = await elsewhere.newPage();
  await there.goto(page.url());
  await give(there, TOKEN);
  await expect(there).toHaveURL(page.url());
  await elsewhere.close();
});

test("an address with the token in it opens the page and loses the token", async ({ chat, page, guarded }) => {
  await page.goto(`${guarded}/?access_token=${encodeURIComponent(TOKEN)}`);
  await expect(page).toHaveURL(`${guarded}/`);
  await chat.hydrated();
  const cookie = (await page.context().cookies()).find(({ name }) => name === "access")!;
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Lax" });
  expect(cookie.value).not.toContain("token");
});

for (const [name, options] of [
  ["light, on a desk", { colorScheme: "light", viewport: { width: 1280, height: 800 } }],
  ["dark, on a low phone", { colorScheme: "dark", viewport: { width: 568, height: 200 } }],
] as const) {
  test.describe(name, () => {
    test.use(options);

    test("the page that asks can be read and reached whole", async ({ page, guarded }) => {
      await page.goto(guarded);
      await give(page, "a guess");
      await page.getByRole("button", { name: "进入" }).scrollIntoViewIfNeeded();
      await expect(page.getByRole("button", { name: "进入" })).toBeInViewport();
      await page.getByRole("heading").scrollIntoViewIfNeeded();
      await expect(page.getByRole("heading")).toBeInViewport();
      expect(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)).toBe(0);
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
      expect(violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.failureSummary}`))).toEqual([]);
    });
  });
}
