import type { Page } from "@playwright/test";
import { dialogue } from "../dialogues.ts";
import { expect, test } from "../fixtures.ts";

test("Enter sends and Shift+Enter makes a new line", async ({ chat }) => {
  await chat.open();
  await chat.composer.pressSequentially("一");
  await chat.composer.press("Shift+Enter");
  await chat.composer.pressSequentially("二");
  await expect(chat.composer).toHaveValue("一\n二");
  await chat.composer.press("Enter");
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.composer).toHaveValue("");
  await chat.over();
});

test("the Enter that ends a composition does not send", async ({ chat, context, page }) => {
  await chat.open();
  await chat.composer.focus();
  const input = await context.newCDPSession(page);
  await input.send("Input.imeSetComposition", { text: "nihao", selectionStart: 5, selectionEnd: 5 });
  await input.send("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Enter", code: "Enter", windowsVirtualKeyCode: 13 });
  await input.send("Input.insertText", { text: "你好" });
  await input.send("Input.dispatchKeyEvent", { type: "keyUp", key: "Enter", code: "Enter", windowsVirtualKeyCode: 13 });
  await expect(chat.composer).toHaveValue("你好");
  await expect(chat.questions).toHaveCount(0);

  // The page takes keys for its own again after the turn of the event loop that ended the composition.
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
  await chat.composer.press("Enter");
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.questions.first()).toContainText("你好");
  await chat.over();
});

test("nor where the key is reported as taken by the input method", async ({ chat }) => {
  await chat.open();
  await chat.composer.fill("你好");
  await chat.composer.evaluate((field) => {
    field.dispatchEvent(new CompositionEvent("compositionstart", { bubbles: true }));
    const init = { key: "Process", code: "Enter", keyCode: 229, isComposing: true, bubbles: true, cancelable: true };
    field.dispatchEvent(new KeyboardEvent("keydown", init));
    field.dispatchEvent(new KeyboardEvent("keydown", { ...init, key: "Enter" }));
    field.dispatchEvent(new CompositionEvent("compositionend", { data: "你好", bubbles: true }));
  });
  await expect(chat.composer).toHaveValue("你好");
  await expect(chat.questions).toHaveCount(0);
});

test("nor in Safari's order, where the composition ends before the key is reported", async ({ chat }) => {
  await chat.open();
  await chat.composer.fill("你好");
  for (const keyCode of [229, 13]) {
    await chat.composer.evaluate((field, keyCode) => {
      field.dispatchEvent(new CompositionEvent("compositionstart", { bubbles: true }));
      field.dispatchEvent(new CompositionEvent("compositionend", { data: "你好", bubbles: true }));
      const init = { key: "Enter", code: "Enter", keyCode, bubbles: true, cancelable: true };
      field.dispatchEvent(new KeyboardEvent("keydown", init));
    }, keyCode);
    await expect(chat.composer).toHaveValue("你好");
    await expect(chat.questions).toHaveCount(0);
  }
  await chat.composer.press("Enter");
  await expect(chat.questions).toHaveCount(1);
  await chat.over();
});

test("the Escape that ends a composition does not stop the answer", async ({ chat, page }) => {
  await chat.open();
  await chat.say(dialogue("lighthouse").turns[0]!.question);
  await chat.grown(10);
  let stops = 0;
  page.on("request", (request) => (stops += Number(request.url().includes("/api/stop"))));
  await chat.composer.evaluate((field) => {
    const press = (init: KeyboardEventInit) =>
      field.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", code: "Escape", bubbles: true, ...init }));
    press({ keyCode: 27, isComposing: true });
    press({ keyCode: 229 });
    field.dispatchEvent(new CompositionEvent("compositionstart", { bubbles: true }));
    press({ keyCode: 27 });
    field.dispatchEvent(new CompositionEvent("compositionend", { data: "", bubbles: true }));
    press({ keyCode: 27 });
  });
  const before = await chat.answer();
  await chat.grown(before.length + 10);
  expect(stops).toBe(0);
  await chat.composer.press("Escape");
  await chat.over("stopped");
  expect(stops).toBe(1);
});

/** Keeps the program from the page until what it gives is called. */
async function holdProgram(page: Page): Promise<() => void> {
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  await page.route("**/*.wasm", async (route) => {
    await held;
    await route.continue();
  });
  return release;
}

test("what was typed before the page came to life comes behind what was kept", async ({ chat, page }) => {
  const release = await holdProgram(page);
  await page.goto("/");
  await page.evaluate(() => {
    localStorage.setItem("draft:new", "晚安");
    localStorage.setItem("system:new", "你是一只狗。");
  });
  await chat.composer.fill("早上好");
  await (await chat.setting("system")).fill("你是一只猫。");
  await page.keyboard.press("Escape");
  release();
  await chat.hydrated();
  await expect(chat.composer).toHaveValue("晚安\n\n早上好");
  await expect(await chat.setting("system")).toHaveValue("你是一只狗。\n\n你是一只猫。");
  await page.keyboard.press("Escape");

  await page.reload();
  await chat.hydrated();
  await expect(chat.composer).toHaveValue("晚安\n\n早上好");
  await expect(await chat.setting("system")).toHaveValue("你是一只狗。\n\n你是一只猫。");
});

test("what was typed before the page came to life is kept", async ({ chat, page }) => {
  const release = await holdProgram(page);
  await page.goto("/");
  await chat.composer.fill("早上好");
  await (await chat.setting("system")).fill("你是一只猫。");
  await page.keyboard.press("Escape");
  release();
  await chat.hydrated();
  await expect(chat.composer).toHaveValue("早上好");
  await expect(await chat.setting("system")).toHaveValue("你是一只猫。");
  await page.keyboard.press("Escape");
  const sent = page.waitForRequest(/\/api\/send/);
  await chat.handle("send").click();
  expect((await sent).postDataJSON().command.system).toBe("你是一只猫。");
  await expect(chat.questions.first()).toContainText("早上好");
  await chat.over();
});
