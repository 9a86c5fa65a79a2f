import axe from "axe-core";
import { dialogue, words } from "../dialogues.ts";
import { Chat, expect, test } from "../fixtures.ts";

test.describe("before the program arrives", () => {
  test.use({ provoked: /wasm|net::ERR_FAILED|Failed to fetch/i });

  test("the conversation is readable", async ({ chat, page }) => {
    await chat.open();
    const answer = await chat.ask(dialogue("poet").turns[0]!.question);
    await page.route("**/*.wasm", (route) => route.abort());
    await page.reload();
    await expect(chat.questions.first()).toBeVisible();
    expect(await chat.answer()).toBe(answer);
  });
});

test("the conversation is readable without scripts", async ({ browser, chat, context, page, server }) => {
  await chat.open();
  const answer = await chat.ask(dialogue("poet").turns[0]!.question);
  const storageState = await context.storageState();
  const plain = await browser.newContext({ javaScriptEnabled: false, baseURL: server.url, storageState });
  const reader = new Chat(await plain.newPage());
  await reader.page.goto(page.url());
  await expect(reader.questions.first()).toContainText(dialogue("poet").turns[0]!.question);
  expect(await reader.answer()).toBe(answer);
  await plain.close();
});

test("the page says that its model is the mini model", async ({ chat }) => {
  await chat.open();
  await expect(chat.handle("mini-model-banner").first()).toBeVisible();
});

test("the engine info opens and names the model", async ({ chat, page }) => {
  await chat.open();
  const details = page.locator("#engine-details");
  await expect(details).toBeHidden();
  await chat.handle("engine-info").getByRole("button").click();
  await expect(details).toBeVisible();
  await expect(details.locator("div").filter({ has: page.getByText("模型", { exact: true }) }).locator("dd")).toHaveText("xverse-mini");
  await page.keyboard.press("Escape");
  await expect(details).toBeHidden();
});

test("every script is under the policy, with a nonce of its own", async ({ page }) => {
  const nonces = new Set<string>();
  for (const _ of [1, 2]) {
    const response = await page.goto("/");
    const policy = response?.headers()["content-security-policy"] ?? "";
    const nonce = /'nonce-([^']+)'/.exec(policy)?.[1];
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("'unsafe-inline'");
    expect(policy).not.toContain("'unsafe-eval'");
    expect(nonce).toBeTruthy();
    nonces.add(nonce!);
  }
  expect(nonces.size).toBe(2);
});

for (const colors of ["light", "dark"] as const) {
  test.describe(colors, () => {
    test.use({ colorScheme: colors });

    test("is accessible, on the start page and with answers", async ({ chat, page }) => {
      await chat.open();
      await page.screenshot({ path: `test-results/start-${colors}.png` });
      expect(await serious(chat)).toEqual([]);
      await chat.ask(dialogue("poet").turns[0]!.question);
      await chat.ask(dialogue("poet").turns[1]!.question);
      await chat.open();
      await chat.ask(dialogue("word-count").turns[0]!.question);
      await page.screenshot({ path: `test-results/conversation-${colors}.png` });
      expect(await serious(chat)).toEqual([]);
      await chat.setting("temperature");
      await page.screenshot({ path: `test-results/settings-${colors}.png` });
      expect(await serious(chat)).toEqual([]);
    });
  });
}

test("the colours can be chosen and stay", async ({ chat, page }) => {
  await chat.open();
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const seen = new Set([await background()]);
  for (let press = 0; press < 2; press++) {
    await chat.handle("theme").first().click();
    seen.add(await background());
  }
  expect(seen.size).toBe(2);
  const chosen = await background();
  await page.reload();
  expect(await background()).toBe(chosen);
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });

  test("nothing scrolls sideways and Enter makes a new line", async ({ chat, page }) => {
    await chat.open();
    expect(await overhang(chat)).toBe(0);
    await expect(chat.page.getByRole("heading", { level: 2 })).toBeInViewport({ ratio: 1 });
    await chat.composer.fill("一");
    await chat.composer.press("Enter");
    await expect(chat.composer).toHaveValue("一\n");
    await chat.ask(dialogue("word-count").turns[0]!.question);
    await chat.ask("一个很长的词：" + "x".repeat(300));
    expect(await overhang(chat)).toBe(0);
    await page.screenshot({ path: "test-results/phone.png" });
    expect(await serious(chat)).toEqual([]);
  });

  test("a long system prompt is seen as a whole, in letters that a touch need not enlarge", async ({ chat }) => {
    await chat.open();
    const field = await chat.setting("system");
    await field.fill("你是一位住在长安的唐代诗人，性格豪放，喜欢喝酒。\n".repeat(5));
    const shown = await field.evaluate((field) => ({
      hidden: field.scrollHeight - field.clientHeight,
      letters: Number.parseFloat(getComputedStyle(field).fontSize),
    }));
    expect(shown).toEqual({ hidden: 0, letters: 16 });
  });
});

test("an answer keeps the elements of its finished blocks", async ({ chat }) => {
  const { question, answer } = dialogue("lighthouse").turns[0]!;
  await chat.open();
  await chat.say(question);
  await chat.grown(80);
  const first = chat.answers.last().getByTestId("message-body").getByRole("heading").first();
  await first.evaluate((node) => node.setAttribute("data-marked", ""));
  await chat.over("done");
  await expect(first).toHaveAttribute("data-marked", "");
  expect(await chat.answer()).toBe(words(answer));
});

/** How far the page is wider than its window. */
function overhang(chat: Chat): Promise<number> {
  return chat.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}

/** What axe finds that is serious. */
async function serious(chat: Chat): Promise<string[]> {
  await chat.page.evaluate(axe.source);
  const { violations } = await chat.page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target.join(" ")}: ${node.failureSummary}`));
}
