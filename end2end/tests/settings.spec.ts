import { dialogue, words } from "../dialogues.ts";
import { expect, test } from "../fixtures.ts";
import { Server } from "../server.ts";

test("an answer is no longer than the setting allows", async ({ chat, server }) => {
  await chat.open();
  await chat.set("max_new_tokens", "7");
  const before = await server.metric("generated_tokens_total");
  const answer = await chat.ask(dialogue("lighthouse").turns[0]!.question);
  await chat.over("done");
  expect(await server.metric("generated_tokens_total")).toBe(before + 7);
  await expect(chat.answers.last().getByTestId("message-status")).toContainText("7");
  expect(words(dialogue("lighthouse").turns[0]!.answer).startsWith(answer)).toBe(true);
});

test("settings are kept over a reload", async ({ chat, page }) => {
  await chat.open();
  await chat.set("max_new_tokens", "9");
  await page.reload();
  await chat.hydrated();
  await expect(await chat.setting("max_new_tokens")).toHaveValue("9");
});

test("an answer length from elsewhere goes as far as this model's", async ({ chat, page }) => {
  await page.addInitScript(() => localStorage.setItem("settings", '{"max_new_tokens":1000000}'));
  await chat.open();
  const field = await chat.setting("max_new_tokens");
  await expect(page.getByRole("slider").last()).toHaveAttribute("max", "2048");
  await expect(field).toHaveValue("2048");
  await page.keyboard.press("Escape");
  const sent = page.waitForRequest(/\/api\/send/);
  expect(await chat.ask("你好")).toBe(words(dialogue("hello").turns[0]!.answer));
  expect((await sent).postDataJSON().command.settings.max_new_tokens).toBe(2048);
});

test("a value outside its bounds is refused before it does harm", async ({ chat }) => {
  await chat.open();
  await chat.set("temperature", "9").catch(() => undefined);
  expect(await chat.ask("你好")).toBe(words(dialogue("hello").turns[0]!.answer));
});

test("the system prompt is part of the conversation", async ({ chat }) => {
  const { system, turns } = dialogue("system-pirate");
  await chat.open();
  await chat.set("system", system);
  expect(await chat.ask(turns[0]!.question)).toBe(words(turns[0]!.answer));
});

test("a system prompt that was not sent yet stays with its conversation", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  await chat.set("system", "你是一只猫。");
  await chat.composer.fill("喵");
  await chat.handle("language").click();
  await expect(page.locator("html")).toHaveAttribute("lang", "en");
  await chat.hydrated();
  await expect(chat.composer).toHaveValue("喵");
  await expect(await chat.setting("system")).toHaveValue("你是一只猫。");
  await page.keyboard.press("Escape");

  await chat.handle("new-chat").first().click();
  await expect(chat.handle("starter").first()).toBeVisible();
  await expect(await chat.setting("system")).toHaveValue("");
  await page.keyboard.press("Escape");
  await page.goBack();
  await expect(chat.questions).toHaveCount(1);
  await expect(await chat.setting("system")).toHaveValue("你是一只猫。");
  await page.keyboard.press("Escape");

  const sent = page.waitForRequest(/\/api\/send/);
  await chat.handle("send").click();
  expect((await sent).postDataJSON().command.system).toBe("你是一只猫。");
  await chat.over();
  const kept = () => page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith("system:")));
  await expect.poll(kept).toEqual([]);
});

test("a system prompt that was removed stays removed", async ({ chat, page }) => {
  const { system, turns } = dialogue("system-pirate");
  await chat.open();
  await chat.set("system", system);
  await chat.ask(turns[0]!.question);
  await chat.set("system", "");
  await page.reload();
  await chat.hydrated();
  await expect(await chat.setting("system")).toHaveValue("");
  await page.keyboard.press("Escape");

  await chat.handle("new-chat").first().click();
  await expect(chat.handle("starter").first()).toBeVisible();
  await page.goBack();
  await expect(chat.questions).toHaveCount(1);
  await expect(await chat.setting("system")).toHaveValue("");
  await page.keyboard.press("Escape");

  const sent = page.waitForRequest(/\/api\/send/);
  await chat.ask("你好");
  expect((await sent).postDataJSON().command.system).toBe("");
  await page.reload();
  await chat.hydrated();
  await expect(await chat.setting("system")).toHaveValue("");
});

test("a system prompt is no changed setting where the prompt format has none", async ({ chat, page }) => {
  const server = await Server.start("--prompt_format", "v1");
  await page.addInitScript(() => localStorage.setItem("system:new", "你是一只猫。"));
  await chat.open(server.url);
  await expect(await chat.setting("system")).toHaveValue("你是一只猫。");
  await expect(await chat.setting("system")).toBeDisabled();
  await expect(chat.handle("settings")).not.toHaveAttribute("data-changed");
  await page.keyboard.press("Escape");
  await chat.set("temperature", "1");
  await expect(chat.handle("settings")).toHaveAttribute("data-changed", "true");
  await server.stop();
});

test("the same seed draws the same answer", async ({ chat }) => {
  await chat.open();
  await chat.set("temperature", "2");
  await chat.set("top_p", "1");
  await chat.set("max_new_tokens", "24");
  await chat.set("seed", "11");
  const first = await chat.ask("这句话不在任何对话里");
  await chat.answers.last().hover();
  await chat.answers.last().getByTestId("regenerate").click();
  await expect(chat.answers.last().getByTestId("branch-count")).toHaveText(/2\D+2/);
  await chat.over("done");
  expect(await chat.answer()).toBe(first);
});
