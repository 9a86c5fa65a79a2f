import { dialogue, words } from "../dialogues.ts";
import { type Chat, expect, test } from "../fixtures.ts";

/** Opens the field in the place of a message. */
async function edit(chat: Chat, index: number) {
  await chat.questions.nth(index).hover();
  await chat.questions.nth(index).getByTestId("edit").click();
  const field = chat.questions.nth(index).getByTestId("edit-field");
  await expect(field).toBeFocused();
  return field;
}

test("an edited message becomes a branch, and nothing is lost", async ({ chat, page }) => {
  await chat.open();
  const first = await chat.ask("你好");
  await chat.ask("晚安");
  const field = await edit(chat, 0);
  await expect(field).toHaveValue("你好");
  await field.press("End");
  await field.press("Shift+Enter");
  await expect(field).toHaveValue("你好\n");
  await field.fill("早上好");
  await field.press("Enter");
  await expect(chat.questions).toHaveText([/早上好/]);
  await chat.over("done");
  expect(await chat.answer()).toBe(words(dialogue("good-morning").turns[0]!.answer));
  const count = chat.questions.first().getByTestId("branch-count");
  await expect(count).toHaveText(/2\D+2/);

  await chat.questions.first().getByTestId("branch-prev").click();
  await expect(chat.questions).toHaveText([/你好/, /晚安/]);
  expect(words(await chat.answers.first().getByTestId("message-body").innerText())).toBe(first);
  await page.reload();
  await chat.hydrated();
  await expect(chat.questions).toHaveText([/你好/, /晚安/]);
  await expect(count).toHaveText(/1\D+2/);
});

test("an edit that is given up changes nothing", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  let field = await edit(chat, 0);
  await field.fill("晚安");
  await field.press("Escape");
  await expect(chat.questions).toHaveText([/你好/]);
  await expect(chat.questions.first().getByTestId("edit")).toBeFocused();
  field = await edit(chat, 0);
  await expect(field).toHaveValue("你好");
  await chat.handle("edit-cancel").click();
  await expect(chat.questions).toHaveText([/你好/]);
  await page.reload();
  await chat.hydrated();
  await expect(chat.handle("edit-field")).toHaveCount(0);
});

test("an edit that was not sent is still open after a reload", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  await (await edit(chat, 0)).fill("早上好，老师");
  await page.reload();
  await chat.hydrated();
  await expect(chat.handle("edit-field")).toHaveValue("早上好，老师");
  await chat.begin();
  await expect(chat.handle("edit-field")).toHaveCount(0);
  await page.goBack();
  await expect(chat.handle("edit-field")).toHaveValue("早上好，老师");
});

test("the Enter that ends a composition does not send an edit", async ({ chat }) => {
  await chat.open();
  await chat.ask("你好");
  const field = await edit(chat, 0);
  await field.evaluate((field) => {
    const init = { key: "Enter", code: "Enter", bubbles: true, cancelable: true };
    field.dispatchEvent(new CompositionEvent("compositionstart", { bubbles: true }));
    field.dispatchEvent(new KeyboardEvent("keydown", { ...init, keyCode: 229 }));
    field.dispatchEvent(new CompositionEvent("compositionend", { data: "你", bubbles: true }));
    field.dispatchEvent(new KeyboardEvent("keydown", { ...init, keyCode: 13 }));
  });
  await expect(field).toBeVisible();
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.questions.first().getByTestId("branch-count")).toHaveCount(0);
});

test.describe("an edit that is refused", () => {
  test.use({ provoked: /status of 503/ });

  test("is open again, with the reason", async ({ chat, page }) => {
    await chat.open();
    await chat.ask("你好");
    await page.route("**/api/send", (route) =>
      route.fulfill({ status: 503, json: { code: "queue_full", message: "full", retry_after_s: 5 } }),
    );
    const field = await edit(chat, 0);
    await field.fill("早上好");
    await field.press("Enter");
    await expect(chat.handle("notice")).toHaveText(/请在 5 秒后重试/);
    await expect(field).toHaveValue("早上好");
    await expect(chat.composer).toHaveValue("");
    await page.unroute("**/api/send");
    await chat.handle("edit-send").click();
    await expect(chat.questions).toHaveText([/早上好/]);
    await chat.over("done");
  });
});

test("keys edit the last message and go from branch to branch", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  await chat.composer.press("ArrowUp");
  await expect(chat.handle("edit-field")).toBeFocused();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.insertText("早上好");
  await page.keyboard.press("Enter");
  await expect(chat.questions).toHaveText([/早上好/]);
  await chat.over("done");
  await page.keyboard.press("Alt+ArrowLeft");
  await expect(chat.questions).toHaveText([/你好/]);
  await page.keyboard.press("Alt+ArrowRight");
  await expect(chat.questions).toHaveText([/早上好/]);

  await chat.composer.fill("一二");
  await page.keyboard.press("ArrowUp");
  await expect(chat.handle("edit-field")).toHaveCount(0);
});
