/** The API through OpenAI's client for Node.js, against the servers that scripts/test-clients.sh started. */

import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const model = "xverse-mini";
const messages = [{ role: "user", content: "中国的首都是哪里？" }];
const answered = "中国的首都是**北京**。";
const greedy = { model, messages, temperature: 0, repetition_penalty: 1 };

function environment(name) {
  const value = process.env[name];
  assert.ok(value, `${name} is not set; scripts/test-clients.sh sets it`);
  return value;
}

function clientOf(name, apiKey = "none") {
  return new OpenAI({ baseURL: `${environment(name)}/v1`, apiKey, maxRetries: 0, timeout: 60_000 });
}

async function metric(name) {
  const text = await (await fetch(`${environment("XVERSE_SLOW_URL")}/metrics`)).text();
  const line = text.split("\n").find((line) => line.startsWith(`xverse_${name} `));
  assert.ok(line, `no metric xverse_${name}`);
  return Number(line.split(" ")[1]);
}

async function nothingRuns() {
  const deadline = Date.now() + 2000;
  while ((await metric("requests_running")) > 0) {
    assert.ok(Date.now() < deadline, "something still runs two seconds later");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const client = clientOf("XVERSE_URL");

test("the model is listed", async () => {
  const ids = [];
  for await (const { id } of client.models.list()) ids.push(id);
  assert.deepEqual(ids, [model]);
});

test("a question is answered", async () => {
  const answer = await client.chat.completions.create(greedy);
  assert.equal(answer.choices[0].message.content, answered);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("an answer streams, and its usage comes last", async () => {
  const chunks = [];
  const stream = await client.chat.completions.create({ ...greedy, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) chunks.push(chunk);
  const last = chunks.pop();
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), answered);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 0);
});

test("the client's helper gathers a stream into a message", async () => {
  const stream = client.chat.completions.stream(greedy);
  const seen = [];
  stream.on("content", (delta) => seen.push(delta));
  assert.equal(await stream.finalContent(), answered);
  assert.equal(seen.join(""), answered);
});

test("aborting ends the work", async () => {
  const aborter = new AbortController();
  const slow = clientOf("XVERSE_SLOW_URL");
  const endless = { ...greedy, max_tokens: 1000, ignore_eos: true, stream: true };
  const stream = await slow.chat.completions.create(endless, { signal: aborter.signal });
  let chunks = 0;
  for await (const _ of stream) {
    chunks += 1;
    if (chunks === 3) {
      assert.equal(await metric("requests_running"), 1);
      aborter.abort();
    }
  }
  assert.ok(chunks < 100);
  await nothingRuns();
});

test("aborting ends the work of an answer that is not streamed", async () => {
  const slow = clientOf("XVERSE_SLOW_URL");
  const endless = { ...greedy, max_tokens: 1000, ignore_eos: true };
  const signal = AbortSignal.timeout(300);
  await assert.rejects(slow.chat.completions.create(endless, { signal }), OpenAI.APIUserAbortError);
  await nothingRuns();
});

test("log-probabilities stand beside each token", async () => {
  const answer = await client.chat.completions.create({ ...greedy, logprobs: true, top_logprobs: 3 });
  const { content } = answer.choices[0].logprobs;
  assert.ok(content.map((entry) => entry.token).join("").startsWith(answered));
  for (const entry of content) {
    assert.equal(entry.top_logprobs.length, 3);
    assert.equal(entry.top_logprobs[0].logprob, entry.logprob);
  }
});

test("a text is gone on with, with the log-probabilities of its prompt", async () => {
  const options = { model, prompt: "Human: Hello", max_tokens: 0, echo: true, logprobs: 1 };
  const { text, logprobs } = (await client.completions.create(options)).choices[0];
  assert.equal(text, "Human: Hello");
  assert.equal(logprobs.token_logprobs[0], null);
  assert.ok(logprobs.token_logprobs.slice(1).every((logprob) => logprob < 0));
});

test("refusals are of the client's classes and name the field", async () => {
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } }];
  for (const [options, expected] of [
    [{ tools }, { status: 400, param: "tools" }],
    [{ temperature: -1 }, { status: 400, param: "temperature" }],
    [{ n: 9 }, { status: 400, param: "n" }],
    [{ model: "gpt-4o" }, { status: 404, code: "model_not_found", param: "model" }],
  ]) {
    await assert.rejects(client.chat.completions.create({ ...greedy, ...options }), expected);
  }
  await assert.rejects(client.chat.completions.create({ ...greedy, tools }), OpenAI.BadRequestError);
});

test("the access token is asked for", async () => {
  await assert.rejects(clientOf("XVERSE_GUARDED_URL").models.list(), OpenAI.AuthenticationError);
  const known = clientOf("XVERSE_GUARDED_URL", environment("XVERSE_ACCESS_TOKEN"));
  assert.equal((await known.models.list()).data.length, 1);
});

test("ten questions at once get the same answer", async () => {
  const answers = await Promise.all(Array.from({ length: 10 }, () => client.chat.completions.create(greedy)));
  assert.ok(answers.every((answer) => answer.choices[0].message.content === answered));
});
