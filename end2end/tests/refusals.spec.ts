import { dialogue } from "../dialogues.ts";
import { Chat, expect, test } from "../fixtures.ts";
import { Server } from "../server.ts";

const { question } = dialogue("lighthouse").turns[0]!;

test.use({ provoked: /status of (422|429|503)/ });

/** What was refused is in the composer again, with the reason above it, and nothing else has happened. */
async function refused(chat: Chat, text: string, reason: RegExp): Promise<void> {
  await expect(chat.handle("notice")).toHaveText(reason);
  await expect(chat.handle("notice")).toHaveAttribute("data-kind", "error");
  await expect(chat.composer).toHaveValue(text);
  await expect(chat.questions).toHaveCount(0);
  await expect(chat.handle("send")).toBeEnabled();
}

test("a message of more tokens than fit is refused with their number and comes back", async ({ chat }) => {
  const text = "灯塔上的人说：今夜有风。".repeat(1000);
  await chat.open();
  await chat.say(text);
  await refused(chat, text, /超出了模型的上下文长度.*has \d{4,5} tokens, at most \d+ fit/);
  await chat.ask("你好");
  await expect(chat.questions).toHaveCount(1);
  await expect(chat.handle("notice")).toHaveCount(0);
});

test("a message of more bytes than are taken is not sent and stays", async ({ chat, page }) => {
  const text = "x".repeat(64 * 1024 + 1);
  let sent = 0;
  page.on("request", (request) => (sent += Number(request.url().includes("/api/send"))));
  await chat.open();
  await chat.say(text);
  await refused(chat, text, /消息太长了.*has 65537 bytes, at most 65536 are allowed/);
  expect(sent).toBe(0);
});

test("a full queue is told of, and the message comes back", async ({ browser, chat }) => {
  const server = await Server.start("--max_running", "1", "--max_waiting", "1");
  // Somebody else each: nobody fills a queue alone.
  const visitors = [await browser.newContext(), await browser.newContext()];
  const others = await Promise.all(visitors.map(async (visitor) => new Chat(await visitor.newPage())));
  for (const [index, other] of others.entries()) {
    await other.open(server.url);
    await other.say(question);
    await expect(other.page).toHaveURL(/\/c\//);
    await expect.poll(() => server.metric(["requests_running", "requests_waiting"][index]!)).toBe(1);
  }
  await chat.open(server.url);
  await chat.say("你好");
  await refused(chat, "你好", /排队的人太多了.*请在 5 秒后重试/);
  for (const other of others) {
    await other.handle("stop").click();
    await other.over("stopped");
  }
  await chat.handle("send").click();
  await chat.over("done");
  for (const visitor of visitors) await visitor.close();
  await server.stop();
});

test("more answers at once than one may have are refused with a time, and the message comes back", async ({ chat, context }) => {
  const others = [new Chat(await context.newPage()), new Chat(await context.newPage())];
  await chat.open();
  for (const other of others) {
    await other.open();
    await other.say(question);
    await other.grown(5);
  }
  await chat.say("你好");
  await refused(chat, "你好", /同时生成的回答已达上限.*请在 \d+ 秒后重试/);
  for (const other of others) {
    await other.handle("stop").click();
    await other.over("stopped");
  }
  await chat.handle("send").click();
  await chat.over("done");
});
