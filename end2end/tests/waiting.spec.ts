import type { Page } from "@playwright/test";
import { dialogue } from "../dialogues.ts";
import { type Chat, expect, test } from "../fixtures.ts";

const { question } = dialogue("lighthouse").turns[0]!;

/** Opens a page whose answers are long enough to wait for, and over soon. */
async function begin(chat: Chat): Promise<void> {
  await chat.open();
  await chat.set("max_new_tokens", "250");
}

/** Says something while the last answer grows. */
async function wait(chat: Chat, text: string): Promise<void> {
  await chat.grown(20);
  await chat.composer.fill(text);
  await chat.composer.press("Enter");
  await expect(chat.page.locator(".held")).toContainText(text);
  await expect(chat.composer).toHaveValue("");
}

/** Lets these requests wait until what it gives is called. */
async function hold(page: Page, url: string): Promise<() => void> {
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  await page.route(url, async (route) => {
    await held;
    // The page may have given it up meanwhile.
    await route.continue().catch(() => undefined);
  });
  return release;
}

test("a message that waits is sent when the answer before it is over", async ({ chat }) => {
  await begin(chat);
  await chat.say(question);
  await wait(chat, "晚安");
  await expect(chat.questions).toHaveCount(2);
  await expect(chat.questions.last()).toContainText("晚安");
  await expect(chat.page.locator(".held")).toHaveCount(0);
  await chat.over("done");
});

test("a message that waits becomes the draft of its conversation when another one is opened", async ({ chat, page }) => {
  await begin(chat);
  await chat.say(question);
  await wait(chat, "晚安");
  await chat.composer.fill("早安");
  await chat.handle("new-chat").first().click();
  await expect(chat.handle("starter").first()).toBeVisible();
  await expect(page.locator(".held")).toHaveCount(0);
  await expect(chat.composer).toHaveValue("");
  await chat.ask("你好");
  await expect(chat.questions).toHaveCount(1);
  await page.goBack();
  await page.goBack();
  await expect(chat.composer).toHaveValue("晚安\n\n早安");
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.questions).toContainText(question);
});

test("a message that waits is still there after a reload", async ({ chat, page }) => {
  await begin(chat);
  await chat.say(question);
  await wait(chat, "晚安");
  await page.reload();
  await expect(chat.composer).toHaveValue("晚安");
});

test("a message that waits goes behind the answer it was said to and behind no other", async ({ chat, page }) => {
  await begin(chat);
  await chat.ask("你好");
  await chat.answers.last().hover();
  await chat.answers.last().getByTestId("regenerate").click();
  await expect(chat.answers.last().getByTestId("branch-count")).toHaveText(/2\D+2/);
  const release = await hold(page, "**/generations/**");
  await chat.say("早上好");
  await expect(chat.answers).toHaveCount(2);
  await expect(page).toHaveURL(/\/c\//);
  await chat.composer.fill("晚安");
  await chat.composer.press("Enter");
  await expect(page.locator(".held")).toContainText("晚安");

  await chat.answers.first().getByTestId("branch-prev").click();
  await expect(chat.answers).toHaveCount(1);
  await expect(chat.handle("send")).toBeVisible();
  await expect(chat.questions).toHaveCount(1);
  await expect(page.locator(".held")).toContainText("晚安");

  await chat.answers.first().getByTestId("branch-next").click();
  await expect(chat.questions).toHaveCount(2);
  release();
  await expect(chat.questions).toHaveCount(3);
  await expect(chat.questions.last()).toContainText("晚安");
  await expect(page.locator(".held")).toHaveCount(0);
  await chat.over("done");
});

test("a message that arrives after its conversation was left and opened again is shown there", async ({ chat, page }) => {
  await begin(chat);
  await chat.ask("你好");
  const release = await hold(page, "**/api/send");
  await chat.say("晚安");
  await expect(chat.questions).toHaveCount(2);
  await chat.handle("new-chat").first().click();
  await expect(chat.handle("starter").first()).toBeVisible();
  await page.goBack();
  await expect(chat.questions).toHaveCount(1);
  release();
  await expect(chat.questions).toHaveCount(2);
  await expect(chat.questions.last()).toContainText("晚安");
  await expect(chat.composer).toHaveValue("");
  await chat.over("done");
  await chat.ask("早上好");
  await expect(chat.questions).toHaveCount(3);
  await expect(page.getByTestId("branch-count").filter({ hasText: /\d\D+2/ })).toHaveCount(0);
});

test("a conversation that begins after it was left is one click away", async ({ chat, page }) => {
  await begin(chat);
  await chat.ask("你好");
  await chat.handle("new-chat").first().click();
  await expect(chat.handle("starter").first()).toBeVisible();
  const release = await hold(page, "**/api/send");
  await chat.say("晚安");
  await expect(chat.questions).toHaveCount(1);
  await page.goBack();
  await expect(chat.questions).toContainText("你好");
  release();
  await chat.handle("notice").getByRole("link").click();
  await expect(chat.questions).toContainText("晚安");
  await expect(chat.handle("notice")).toHaveCount(0);
  await chat.over("done");
});

test("what is said while a conversation opens follows its last answer", async ({ chat, page }) => {
  await begin(chat);
  await chat.ask("你好");
  await chat.handle("new-chat").first().click();
  await expect(chat.handle("starter").first()).toBeVisible();
  const release = await hold(page, "**/api/page");
  await page.goBack();
  await chat.say("晚安");
  await expect(page.locator(".held")).toContainText("晚安");
  release();
  await expect(chat.questions).toHaveCount(2);
  await expect(chat.answers).toHaveCount(2);
  await chat.over("done");
});
