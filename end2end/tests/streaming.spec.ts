import { dialogue, words } from "../dialogues.ts";
import { Chat, expect, test } from "../fixtures.ts";
import { Wire } from "../wire.ts";

const { question, answer } = dialogue("lighthouse").turns[0]!;
const whole = words(answer);

test("stop ends the engine's work within one step", async ({ chat, page, server }) => {
  await chat.open();
  const cancelled = await server.metric("requests_cancelled_total");
  await chat.say(question);
  await chat.grown(20);
  const stopped = page.waitForResponse((response) => response.url().includes("/api/stop"));
  await chat.handle("stop").click();
  expect((await stopped).status()).toBe(200);
  const steps = await server.metric("engine_steps_total");
  await expect.poll(() => server.metric("requests_running")).toBe(0);
  expect((await server.metric("engine_steps_total")) - steps).toBeLessThanOrEqual(1);
  expect(await server.metric("requests_cancelled_total")).toBe(cancelled + 1);

  await chat.over("stopped");
  const kept = await chat.answer();
  expect(kept).not.toBe("");
  expect(kept).not.toBe(whole);
  expect(whole.startsWith(kept)).toBe(true);
  await page.reload();
  await expect(chat.answers.last()).toHaveAttribute("data-state", "stopped");
  expect(await chat.answer()).toBe(kept);
});

test("after a stop the conversation goes on", async ({ chat }) => {
  await chat.open();
  await chat.say(question);
  await chat.grown(10);
  await chat.handle("stop").click();
  await chat.over("stopped");
  await chat.ask("晚安");
  await chat.over("done");
  await expect(chat.answers).toHaveCount(2);
});

test("a reload in mid-answer loses and doubles nothing", async ({ chat, page }) => {
  await chat.open();
  await chat.say(question);
  const before = await chat.grown(60);
  await expect(page).toHaveURL(/\/c\/[^/]+$/);
  await page.reload();
  await expect.poll(async () => (await chat.answer()).length).toBeGreaterThanOrEqual(before.length);
  expect((await chat.answer()).startsWith(before)).toBe(true);
  await expect(chat.answers.last()).toHaveAttribute("data-state", "streaming");
  await page.reload();
  await chat.over("done");
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.answers).toHaveCount(1);
  expect(await chat.answer()).toBe(whole);
  await page.reload();
  await expect(chat.answers.last()).toHaveAttribute("data-state", "done");
  expect(await chat.answer()).toBe(whole);
});

test("two tabs see one answer, and either can stop it", async ({ chat, context, page }) => {
  await chat.open();
  await chat.say(question);
  await chat.grown(20);
  const other = new Chat(await context.newPage());
  await other.page.goto(page.url());
  await other.grown(40);
  await chat.over("done");
  await other.over("done");
  expect(await chat.answer()).toBe(whole);
  expect(await other.answer()).toBe(whole);

  await chat.answers.last().hover();
  await chat.answers.last().getByTestId("regenerate").click();
  await chat.grown(20);
  await other.page.reload();
  await other.grown(30);
  await other.handle("stop").click();
  await other.over("stopped");
  await chat.over("stopped");
  expect(await chat.answer()).toBe(await other.answer());
});

test("an answer that nobody watches is finished", async ({ chat, page, server }) => {
  await chat.open();
  await chat.say(dialogue("poet").turns[0]!.question);
  await expect(page).toHaveURL(/\/c\/[^/]+$/);
  const url = page.url();
  await page.goto("about:blank");
  await expect.poll(() => server.metric("requests_running")).toBe(0);
  await page.goto(url);
  await expect(chat.answers.last()).toHaveAttribute("data-state", "done");
  expect(await chat.answer()).toBe(words(dialogue("poet").turns[0]!.answer));
});

test.describe("a broken connection", () => {
  test.use({ provoked: /net::ERR|status of 503/ });

  test("is opened again where it broke", async ({ chat, server }) => {
    const wire = await Wire.to(server.url);
    await chat.open(wire.url);
    await chat.say(question);
    for (const letters of [20, 120]) {
      await chat.grown(letters);
      expect(wire.cut()).toBeGreaterThan(0);
    }
    await chat.over("done");
    expect(await chat.answer()).toBe(whole);
    await wire.close();
  });

  test("between a command and its answer costs nothing and doubles nothing", async ({ chat, page, server }) => {
    await chat.open();
    const submitted = await server.metric("requests_submitted_total");
    let times = 0;
    await page.route("**/api/send", async (route) => {
      times += 1;
      if (times > 1) return route.continue();
      await route.fetch();
      await route.abort();
    });
    expect(await chat.ask("你好")).toBe(words(dialogue("hello").turns[0]!.answer));
    expect(times).toBe(2);
    await expect(chat.handle("notice")).toHaveCount(0);
    await expect(chat.questions).toHaveCount(1);
    expect(await server.metric("requests_submitted_total")).toBe(submitted + 1);
  });

  test("that stays broken gives back what was said", async ({ chat, page }) => {
    await chat.open();
    await page.route("**/api/send", (route) => route.abort());
    await chat.say("你好");
    await expect(chat.handle("notice")).toBeVisible();
    await expect(chat.composer).toHaveValue("你好");
    await expect(chat.questions).toHaveCount(0);
  });

  test("gives back what was said, and says why, where its conversation was left and opened again", async ({ chat, page }) => {
    await chat.open();
    await chat.ask("你好");
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    await page.route("**/api/send", async (route) => {
      await held;
      await route.abort();
    });
    await chat.say("晚安");
    await chat.handle("new-chat").first().click();
    await expect(chat.handle("starter").first()).toBeVisible();
    await page.goBack();
    await expect(chat.questions).toHaveCount(1);
    release();
    await expect(chat.composer).toHaveValue("晚安");
    await expect(chat.handle("notice")).toBeVisible();
  });

  test("is not told of any more once the answer is over", async ({ chat, page, server }) => {
    const wire = await Wire.to(server.url);
    await chat.open(wire.url);
    await chat.say(question);
    await chat.grown(20);
    await page.route("**/generations/**", (route) => route.fulfill({ status: 503 }));
    wire.cut();
    await expect(chat.handle("notice")).toBeVisible();
    await chat.handle("stop").click();
    await chat.over("stopped");
    await expect(chat.handle("notice")).toHaveCount(0);
    await expect(page.getByRole("status")).toHaveText("回答：已停止");
    await wire.close();
  });
});
