import { dialogue, words } from "../dialogues.ts";
import { expect, test } from "../fixtures.ts";

const lighthouse = dialogue("lighthouse").turns[0]!;

test("an answer that was cut off by its length goes on to its end", async ({ chat, page }) => {
  const { question, answer } = dialogue("word-count").turns[0]!;
  await chat.open();
  await chat.set("max_new_tokens", "40");
  const part = await chat.ask(question);
  await expect(chat.answers.last()).toHaveAttribute("data-state", "done");
  expect(words(answer).startsWith(part)).toBe(true);
  const heading = chat.answers.last().getByTestId("message-body").getByRole("heading").first();
  await heading.evaluate((node) => node.setAttribute("data-marked", ""));
  await chat.set("max_new_tokens", "1000");
  await chat.handle("continue").click();
  await expect.poll(async () => (await chat.answer()).length).toBeGreaterThan(part.length);
  await chat.over("done");
  expect(await chat.answer()).toBe(words(answer));
  await expect(chat.answers).toHaveCount(1);
  await expect(chat.handle("continue")).toHaveCount(0);
  await expect(heading).toHaveAttribute("data-marked", "");
  await page.reload();
  await chat.hydrated();
  expect(await chat.answer()).toBe(words(answer));
});

test("an answer that was stopped goes on after a reload, and only while it is the newest", async ({ chat, page }) => {
  await chat.open();
  await chat.say(lighthouse.question);
  await chat.grown(30);
  await chat.handle("stop").click();
  await chat.over("stopped");
  const part = await chat.answer();
  await page.reload();
  await chat.hydrated();
  await chat.handle("continue").click();
  await chat.grown(part.length + 10);
  expect((await chat.answer()).startsWith(part)).toBe(true);
  await page.reload();
  await chat.grown(part.length + 20);
  await chat.handle("stop").click();
  await chat.over("stopped");
  expect(words(lighthouse.answer).startsWith(await chat.answer())).toBe(true);
  await expect(chat.handle("continue")).toHaveCount(1);
  await chat.ask("晚安");
  await expect(chat.handle("continue")).toHaveCount(0);
});

test.describe("going on that is refused", () => {
  test.use({ provoked: /status of 503/ });

  test("leaves the answer as it was", async ({ chat, page }) => {
    await chat.open();
    await chat.set("max_new_tokens", "7");
    const part = await chat.ask("你好");
    await page.route("**/api/continue", (route) =>
      route.fulfill({ status: 503, json: { code: "queue_full", message: "full", retry_after_s: 5 } }),
    );
    await chat.handle("continue").click();
    await expect(chat.handle("notice")).toHaveText(/请在 5 秒后重试/);
    expect(await chat.answer()).toBe(part);
    await expect(chat.answers.last()).toHaveAttribute("data-state", "done");
    await expect(chat.handle("continue")).toBeEnabled();
  });
});
