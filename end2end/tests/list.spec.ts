import { dialogue } from "../dialogues.ts";
import { Chat, expect, test } from "../fixtures.ts";

const { question } = dialogue("lighthouse").turns[0]!;

/** The titles in the list. */
function titles(chat: Chat) {
  return chat.handle("chat-item").locator(".chat-title");
}

test("what is said gets into the list by its first line, newest first, and is opened without loading the page", async ({ chat, page }) => {
  await chat.open();
  await expect(chat.handle("chat-item")).toHaveCount(0);
  await chat.ask("你好");
  await expect(titles(chat)).toHaveText(["你好"]);
  await expect(page).toHaveTitle(/^你好 · /);
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("你好");
  const first = page.url();
  await chat.begin();
  await chat.ask("晚安");
  await expect(titles(chat)).toHaveText(["晚安", "你好"]);
  await expect(chat.listed("晚安").getByRole("link")).toHaveAttribute("aria-current", "page");

  await page.evaluate(() => Object.assign(window, { isSame: true }));
  await chat.listed("你好").click();
  await expect(page).toHaveURL(first);
  await expect(chat.questions).toHaveText([/你好/]);
  await expect(chat.listed("你好").getByRole("link")).toHaveAttribute("aria-current", "page");
  await expect(chat.listed("晚安").getByRole("link")).not.toHaveAttribute("aria-current");
  expect(await page.evaluate(() => "isSame" in window)).toBe(true);
  await chat.ask("早上好");
  await expect(titles(chat)).toHaveText(["你好", "晚安"]);
});

test.describe("before the program arrives", () => {
  test.use({ provoked: /wasm|net::ERR_FAILED|Failed to fetch/i });

  test("the list is there, and of an answer what there is so far", async ({ chat, page }) => {
    await chat.open();
    await chat.say(question);
    const before = await chat.grown(60);
    await page.route("**/*.wasm", (route) => route.abort());
    await page.reload();
    await expect(chat.listed(question.slice(0, 5))).toBeVisible();
    await expect(chat.answers.last()).toHaveAttribute("data-state", "streaming");
    expect((await chat.answer()).startsWith(before)).toBe(true);
  });
});

test("a conversation that is being answered is marked until it is over", async ({ chat, page }) => {
  await chat.open();
  await chat.set("max_new_tokens", "150");
  await chat.say(question);
  const item = chat.listed(question.slice(0, 5));
  await expect(item.getByTestId("chat-running")).toBeVisible();
  await chat.begin();
  await expect(item.getByTestId("chat-running")).toBeVisible();
  await expect(item.getByTestId("chat-running")).toHaveCount(0);
  await item.click();
  await chat.over("done");
  await expect(page.locator("[data-testid=chat-running]")).toHaveCount(0);
});

test("a title is changed in place, and kept", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  const item = chat.handle("chat-item");
  const field = chat.handle("rename-field");
  await item.hover();
  await item.getByTestId("rename").click();
  await expect(field).toBeFocused();
  await expect(field).toHaveValue("你好");
  await page.keyboard.type("不要这个");
  await page.keyboard.press("Escape");
  await expect(titles(chat)).toHaveText(["你好"]);
  await expect(item.getByRole("link")).toBeFocused();

  await item.getByTestId("rename").click();
  await field.evaluate((field: HTMLInputElement) => {
    field.value = "问候";
    const init = { key: "Enter", code: "Enter", bubbles: true, cancelable: true };
    field.dispatchEvent(new KeyboardEvent("keydown", { ...init, keyCode: 229 }));
    field.dispatchEvent(new KeyboardEvent("keydown", { ...init, keyCode: 13, isComposing: true }));
  });
  await expect(field).toBeVisible();
  await field.press("Enter");
  await expect(titles(chat)).toHaveText(["问候"]);
  await expect(page).toHaveTitle(/^问候 · /);
  await expect(page.getByRole("heading", { level: 1 })).toHaveText("问候");
  await page.reload();
  await chat.hydrated();
  await expect(titles(chat)).toHaveText(["问候"]);
  await expect(page).toHaveTitle(/^问候 · /);
});

test("a conversation is deleted at once and comes back where that is taken back", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  const url = page.url();
  await chat.begin();
  await chat.ask("晚安");
  await chat.listed("你好").hover();
  await chat.listed("你好").getByTestId("delete").click();
  await expect(titles(chat)).toHaveText(["晚安"]);
  await expect(chat.questions).toHaveCount(1);
  await chat.handle("undo").click();
  await expect(titles(chat)).toHaveText(["晚安", "你好"]);
  await expect(chat.handle("undo")).toHaveCount(0);

  await chat.listed("你好").click();
  await expect(page).toHaveURL(url);
  await chat.listed("你好").hover();
  await chat.listed("你好").getByTestId("delete").click();
  await expect(chat.handle("starter").first()).toBeVisible();
  await expect(page).toHaveURL(/\/$/);
  await chat.handle("undo").click();
  await expect(page).toHaveURL(url);
  await expect(chat.questions).toHaveText([/你好/]);
});

test.describe("a deleted conversation", () => {
  test.use({ provoked: /status of 404/ });

  test("stops its answer, and is gone with its drafts once the time is over", async ({ chat, page, server }) => {
    await page.clock.install();
    await chat.open();
    await chat.say(question);
    await chat.grown(10);
    const url = page.url();
    await chat.composer.fill("还没发出的话");
    const drafts = () => page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith("draft:")));
    await chat.handle("chat-item").hover();
    await chat.handle("chat-item").getByTestId("delete").click();
    await expect.poll(() => server.metric("requests_running")).toBe(0);
    await expect(chat.handle("undo")).toBeEnabled();
    expect(await drafts()).toHaveLength(1);
    await page.clock.fastForward(8_000);
    await expect(chat.handle("undo")).toHaveCount(0);
    expect(await drafts()).toEqual([]);
    await page.reload();
    await chat.hydrated();
    await expect(chat.handle("chat-item")).toHaveCount(0);
    expect((await page.goto(url))?.status()).toBe(404);
  });
});

test("a draft of a conversation that is not there any more is forgotten", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  const gone = "0123456789abcdef0123456789abcdef";
  await page.evaluate((gone) => localStorage.setItem(`draft:${gone}`, "旧话"), gone);
  await chat.composer.fill("新话");
  await chat.composer.blur();
  await page.reload();
  await chat.hydrated();
  await expect.poll(() => page.evaluate((gone) => localStorage.getItem(`draft:${gone}`), gone)).toBeNull();
  await expect(chat.composer).toHaveValue("新话");
});

test("a word of one or two characters is found in titles and in what was said", async ({ chat, page }) => {
  await chat.open();
  await chat.ask("你好");
  await chat.begin();
  await chat.ask("请问灯塔\n晚上会发光吗？");
  const search = chat.handle("chat-search");
  await page.keyboard.press("Control+k");
  await expect(search).toBeFocused();
  await page.keyboard.insertText("发光");
  await expect(titles(chat)).toHaveText(["请问灯塔"]);
  await expect(chat.handle("chat-item").locator("mark")).toHaveText("发光");
  await search.fill("灯");
  await expect(titles(chat)).toHaveText(["请问灯塔"]);
  await expect(chat.handle("chat-item").locator("mark")).toHaveCount(0);
  await search.fill("没有这个词");
  await expect(chat.handle("chat-item")).toHaveCount(0);
  await expect(chat.handle("chat-list")).toContainText("没有找到");
  await search.press("Escape");
  await expect(search).toHaveValue("");
  await expect(titles(chat)).toHaveText(["请问灯塔", "你好"]);
});

test("letters that are still being composed are not searched for", async ({ chat, context, page }) => {
  await chat.open();
  let searched = 0;
  page.on("request", (request) => (searched += Number(request.postData()?.includes("deng") ?? false)));
  const input = await context.newCDPSession(page);
  await chat.handle("chat-search").focus();
  await input.send("Input.imeSetComposition", { text: "deng", selectionStart: 4, selectionEnd: 4 });
  const asked = page.waitForRequest((request) => request.url().includes("/api/chats") && request.postData()!.includes("灯"));
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 400)));
  await input.send("Input.insertText", { text: "灯" });
  await asked;
  expect(searched).toBe(0);
});

test("a long list comes piece by piece", async ({ chat, page }) => {
  const id = () => crypto.randomUUID().replaceAll("-", "");
  for (let number = 0; number < 45; ) {
    const command = { request: id(), conversation: id(), parent: null, role: "user", text: `第 ${number} 个`, system: "", settings: { max_new_tokens: 1 } };
    const response = await page.request.post("/api/send", { data: { command } });
    // No more than two answers at once.
    if (response.ok()) number += 1;
  }
  await chat.open();
  await expect(titles(chat).first()).toHaveText("第 44 个");
  await expect(chat.handle("chat-item")).toHaveCount(40);
  await page.evaluate(() => window.dispatchEvent(new Event("focus")));
  await chat.handle("chats-more").click();
  await expect(chat.handle("chat-item")).toHaveCount(45);
  await expect(titles(chat).last()).toHaveText("第 0 个");
  await expect(chat.handle("chats-more")).toHaveCount(0);
  await chat.ask("你好");
  await expect(titles(chat).first()).toHaveText("你好");
  await expect(chat.handle("chat-item")).toHaveCount(46);
});

test("the list can be put away and stays so", async ({ chat, page }) => {
  await chat.open();
  await expect(chat.handle("chat-list")).toBeVisible();
  await page.keyboard.press("Control+b");
  await expect(chat.handle("chat-list")).toBeHidden();
  await expect(chat.composer).toBeFocused();
  await page.reload();
  await expect(chat.handle("chat-list")).toBeHidden();
  await chat.hydrated();
  await expect(chat.handle("new-chat").filter({ visible: true })).toHaveCount(1);
  await page.keyboard.press("Control+k");
  await expect(chat.handle("chat-list")).toBeVisible();
  await expect(chat.handle("chat-search")).toBeFocused();
});

test("what was said in another tab is there when one comes back", async ({ chat, context, page }) => {
  await chat.open();
  const other = new Chat(await context.newPage());
  await other.open();
  await other.ask("晚安");
  await expect(chat.handle("chat-item")).toHaveCount(0);
  await page.evaluate(() => window.dispatchEvent(new Event("focus")));
  await expect(titles(chat)).toHaveText(["晚安"]);
});

test.describe("on a phone", () => {
  test.use({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });

  test("the list is a drawer, which a conversation in it closes", async ({ chat, page }) => {
    await chat.open();
    await chat.ask("你好");
    await chat.begin();
    await expect(chat.handle("chat-list")).toBeHidden();
    await page.locator("#list-drawer").tap();
    await expect(chat.handle("chat-list")).toBeVisible();
    await page.screenshot({ path: "test-results/phone-list.png" });
    await chat.listed("你好").tap();
    await expect(chat.handle("chat-list")).toBeHidden();
    await expect(chat.questions).toHaveText([/你好/]);

    await page.locator("#list-drawer").tap();
    await chat.listed("你好").getByTestId("delete").tap();
    await expect(page).toHaveURL(/\/$/);
    await chat.handle("undo").tap();
    await expect(chat.questions).toHaveText([/你好/]);
  });
});

test("another device gets at the conversations by a link, and only after it agreed", async ({ browser, chat, page, server }) => {
  await chat.open();
  await chat.ask("你好");
  await chat.handle("device-link").click();
  const address = await chat.handle("device-address").inputValue();
  expect(address).toMatch(new RegExp(`^${server.url}/#link=[^/]+$`));
  await expect(chat.handle("chat-list")).toContainText("10 分钟内有效");

  const device = await browser.newContext({ baseURL: server.url, locale: "zh-CN" });
  const other = new Chat(await device.newPage());
  await other.open();
  await other.ask("晚安");
  await other.page.goto("about:blank");
  await other.page.goto(address);
  await expect(other.page.getByRole("dialog")).toBeVisible();
  await expect(other.page).toHaveURL(`${server.url}/`);
  await other.handle("offer-cancel").click();
  await expect(other.page.getByRole("dialog")).toBeHidden();
  await expect(titles(other)).toHaveText(["晚安"]);

  await other.page.goto("about:blank");
  await other.page.goto(address);
  await other.handle("offer-take").click();
  await expect(titles(other)).toHaveText(["晚安", "你好"]);
  await page.reload();
  await expect(titles(chat)).toHaveText(["晚安", "你好"]);
  await device.close();
});

test.describe("a conversation that cannot be kept", () => {
  test("says so until an answer is saved again", async ({ chat, page }) => {
    await page.route("**/api/send", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...(await response.json()), is_saved: false } });
    });
    await chat.open();
    await chat.say(question);
    await chat.grown(10);
    await expect(chat.handle("notice")).toHaveText(/没有保存.*磁盘/);
    await chat.handle("stop").click();
    await chat.over("stopped");
    await expect(chat.handle("notice")).toHaveCount(0);
  });
});
