import { dialogue, words } from "../dialogues.ts";
import { expect, test } from "../fixtures.ts";

test("three turns are answered with their context", async ({ chat, page }) => {
  await chat.open();
  const { turns } = dialogue("poet");
  for (const { question, answer } of turns.slice(0, 3)) {
    expect(await chat.ask(question)).toBe(words(answer));
  }
  await expect(chat.questions).toHaveCount(3);
  await expect(chat.answers).toHaveCount(3);
  await expect(page).toHaveURL(/\/c\/[^/]+$/);
});

test("an answer's Markdown becomes elements, its code letter for letter", async ({ chat }) => {
  const answer = dialogue("word-count").turns[0]!.answer;
  const code = /```python\n([^]*?)\n```/.exec(answer)?.[1];
  expect(code).toBeTruthy();
  await chat.open();
  await chat.ask(dialogue("word-count").turns[0]!.question);
  const body = chat.answers.last().getByTestId("message-body");
  await expect(body.getByRole("heading", { name: "Counting words in a text file" })).toBeVisible();
  const shown = await body.locator("pre code").first().textContent();
  expect(shown?.replace(/\n$/, "")).toBe(code);
  await expect(body).not.toContainText("```");
  await expect(body).not.toContainText("**");
});

test("no bare syntax is seen while an answer grows", async ({ chat, page }) => {
  await chat.open();
  await page.evaluate(() => {
    const seen: string[] = [];
    Object.assign(window, { seen });
    new MutationObserver(() => {
      for (const body of document.querySelectorAll<HTMLElement>("[data-testid=message-body]")) seen.push(body.innerText);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  await chat.ask(dialogue("poet").turns[2]!.question);
  const seen = await page.evaluate(() => (window as unknown as { seen: string[] }).seen);
  expect(seen.length).toBeGreaterThan(5);
  expect(seen.filter((text) => text.includes("**"))).toEqual([]);
});

test("a question is shown as typed, never as markup", async ({ chat }) => {
  const text = "<img src=x onerror=alert(1)> **不是粗体**\n第二行";
  await chat.open();
  await chat.say(text);
  await expect(chat.questions.first()).toContainText("<img src=x onerror=alert(1)> **不是粗体**");
  await expect(chat.questions.first().locator("img, strong")).toHaveCount(0);
  await expect(chat.questions.first()).toContainText("第二行");
  await chat.over("done");
});

test("an empty message is not sent", async ({ chat, page, server }) => {
  await chat.open();
  const before = await server.metric("requests_submitted_total");
  for (const text of ["", "  \n\u3000"]) {
    await chat.composer.fill(text);
    await chat.composer.press("Enter");
    await chat.handle("send").click({ force: true, timeout: 2_000 }).catch(() => undefined);
  }
  await chat.ask("你好");
  await expect(chat.questions).toHaveCount(1);
  expect(await server.metric("requests_submitted_total")).toBe(before + 1);
  await expect(page).toHaveURL(/\/c\//);
});

test("starters are there and begin a conversation", async ({ chat }) => {
  await chat.open();
  await expect(chat.handle("starter").filter({ visible: true })).toHaveCount(4);
  const starter = chat.handle("starter").first();
  await starter.click();
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.answers).toHaveCount(1);
  await chat.over("done");
  expect(await chat.answer()).not.toBe("");
});

test("the rest of the starters is one click away", async ({ chat, page }) => {
  await chat.open();
  await page.locator(".starters-more").click();
  await expect(chat.page.locator(".starter-category").filter({ visible: true })).toHaveText([
    "角色扮演",
    "知识问答",
    "文本生成",
    "编程",
    "数学计算",
    "逻辑推理",
    "阅读理解",
    "多种语言",
    "安全",
  ]);
  await expect(page.locator(".starters-more")).toHaveCount(0);
});

test("a starter can be taken into the composer, behind what was typed", async ({ chat }) => {
  await chat.open();
  const starter = chat.handle("starter").first();
  const text = await starter.locator(".starter-text").textContent();
  await starter.click({ modifiers: ["Alt"] });
  await expect(chat.composer).toHaveValue(text!);
  await chat.composer.fill("早上好");
  await starter.click({ modifiers: ["Alt"] });
  await expect(chat.composer).toHaveValue(`早上好\n\n${text}`);
  await expect(chat.questions).toHaveCount(0);
});

test("asking again makes a sibling, and both can be looked at", async ({ chat }) => {
  const { question, answer } = dialogue("good-morning").turns[0]!;
  await chat.open();
  await chat.ask(question);
  await chat.answers.last().hover();
  await chat.answers.last().getByTestId("regenerate").click();
  const count = chat.answers.last().getByTestId("branch-count");
  await expect(count).toHaveText(/2\D+2/);
  await chat.over("done");
  expect(await chat.answer()).toBe(words(answer));
  await expect(chat.answers).toHaveCount(1);
  await chat.answers.last().getByTestId("branch-prev").click();
  await expect(count).toHaveText(/1\D+2/);
  await chat.answers.last().getByTestId("branch-next").click();
  await expect(count).toHaveText(/2\D+2/);
});

test("a new chat begins empty, and the old one stays where it was", async ({ chat, page }) => {
  await chat.open();
  const first = await chat.ask("你好");
  const url = page.url();
  await chat.handle("new-chat").first().click();
  await expect(chat.answers).toHaveCount(0);
  await expect(chat.handle("starter").first()).toBeVisible();
  expect(page.url()).not.toBe(url);
  await page.goBack();
  await expect(page).toHaveURL(url);
  await expect(chat.answers).toHaveCount(1);
  expect(await chat.answer()).toBe(first);
});

test("copying gives the answer's Markdown", async ({ chat, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const { question, answer } = dialogue("poet").turns[0]!;
  await chat.open();
  await chat.ask(question);
  await chat.answers.last().hover();
  await chat.answers.last().getByTestId("copy").last().click();
  await expect.poll(() => chat.page.evaluate(() => navigator.clipboard.readText())).toBe(answer);
});

test("the line under an answer says how long it is and why it ended", async ({ chat }) => {
  await chat.open();
  await chat.ask("你好");
  await expect(chat.answers.last().getByTestId("message-status")).toHaveText(/^回答完毕.*\d 个词元/);
  await chat.set("max_new_tokens", "7");
  await chat.ask("晚安");
  await expect(chat.answers.last().getByTestId("message-status")).toHaveText(/^达到长度上限.*7 个词元/);
});

test.describe("a conversation that does not exist", () => {
  test.use({ provoked: /status of 404/ });

  test("is answered with 404 and a way out", async ({ chat, page }) => {
    const response = await page.goto("/c/00000000-0000-4000-8000-000000000000");
    expect(response?.status()).toBe(404);
    await chat.hydrated();
    await expect(chat.answers).toHaveCount(0);
    await chat.handle("new-chat").first().click();
    expect(await chat.ask("你好")).toBe(words(dialogue("hello").turns[0]!.answer));
  });

  test("gives way to a new one as soon as something is said", async ({ chat, page }) => {
    await chat.open("/c/00000000-0000-4000-8000-000000000000");
    await expect(chat.handle("missing")).toBeVisible();
    expect(await chat.ask("你好")).toBe(words(dialogue("hello").turns[0]!.answer));
    await expect(chat.handle("missing")).toHaveCount(0);
    const begun = page.url();

    await page.evaluate(() => {
      history.pushState(null, "", "/c/00000000-0000-4000-8000-000000000000");
      dispatchEvent(new PopStateEvent("popstate"));
    });
    await expect(chat.handle("missing")).toBeVisible();
    await chat.ask("你好");
    await expect(chat.questions).toHaveCount(1);
    await expect(page).toHaveURL(/\/c\/(?!0{8})[^/]+$/);
    expect(page.url()).not.toBe(begun);
  });

  test("takes nothing from what was written for a new one", async ({ chat, page }) => {
    await chat.open();
    await chat.composer.fill("喵");
    await chat.set("system", "你是一只猫。");
    await page.evaluate(() => {
      history.pushState(null, "", "/c/00000000-0000-4000-8000-000000000000");
      dispatchEvent(new PopStateEvent("popstate"));
    });
    await expect(chat.handle("missing")).toBeVisible();
    await expect(chat.composer).toHaveValue("喵");
    await expect(await chat.setting("system")).toHaveValue("你是一只猫。");
    await page.reload();
    await chat.hydrated();
    await expect(chat.composer).toHaveValue("喵");
    await expect(await chat.setting("system")).toHaveValue("你是一只猫。");
  });
});
