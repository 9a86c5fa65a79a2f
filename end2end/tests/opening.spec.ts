import { expect, test } from "../fixtures.ts";

test.describe("a conversation that could not be opened", () => {
  test.use({ provoked: /net::ERR_FAILED/ });

  test("is opened by what is said next, which follows its last answer", async ({ chat, page }) => {
    await chat.open();
    await chat.ask("你好");
    const url = page.url();
    await chat.handle("new-chat").first().click();
    await expect(chat.handle("starter").first()).toBeVisible();

    await page.route("**/api/page", (route) => route.abort());
    await page.goBack();
    await expect(chat.handle("notice")).toBeVisible();
    await expect(chat.handle("starter")).toHaveCount(0);
    await chat.say("晚安");
    await expect(chat.composer).toHaveValue("晚安");
    await expect(chat.handle("notice")).toBeVisible();

    await page.unroute("**/api/page");
    await chat.handle("send").click();
    await expect(chat.questions).toHaveCount(2);
    await expect(chat.answers).toHaveCount(2);
    await chat.over("done");
    expect(page.url()).toBe(url);
  });

  test("can be asked for again", async ({ chat, page }) => {
    await chat.open();
    await chat.ask("你好");
    await chat.handle("new-chat").first().click();
    await expect(chat.handle("starter").first()).toBeVisible();
    await page.route("**/api/page", (route) => route.abort());
    await page.goBack();
    await expect(chat.handle("notice")).toBeVisible();
    await page.unroute("**/api/page");
    await page.getByRole("button", { name: "重试" }).click();
    await expect(chat.questions).toHaveCount(1);
    await expect(chat.handle("notice")).toHaveCount(0);
  });
});
