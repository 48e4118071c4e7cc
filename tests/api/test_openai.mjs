// The official openai client against a node with a tiny random model: what comes back is nonsense, its form is not.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { finish, metric, startNode, test, tiny, until } from "./node.mjs";

const node = await startNode(tiny);
const client = new OpenAI({ baseURL: `${node.url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [
  { role: "system", content: "You are short." },
  { role: "user", content: [{ type: "text", text: "Hello " }, { type: "text", text: "there" }] },
];
const chat = (more) => client.chat.completions.create({ model: tiny, messages, max_tokens: 16, seed: 11, ...more });
const failure = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it was expected to fail");
};

await test("openai: models", async () => {
  const ids = [];
  for await (const model of await client.models.list()) ids.push(model.id);
  assert.ok(ids.includes("minnow"), String(ids));
  assert.equal((await client.models.retrieve("minnow")).object, "model");
});

let whole;
await test("openai: chat", async () => {
  whole = await chat();
  assert.equal(whole.object, "chat.completion");
  assert.equal(whole.choices.length, 1);
  assert.equal(whole.choices[0].message.role, "assistant");
  assert.equal(typeof whole.choices[0].message.content, "string");
  assert.ok(["stop", "length"].includes(whole.choices[0].finish_reason));
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  assert.ok(whole.usage.prompt_tokens > 10);
  assert.match(whole._request_id, /^req-/);
  assert.match(whole.system_fingerprint, /^exact\/1-/);
});

await test("openai: chat stream says what the whole answer said", async () => {
  const stream = await chat({ stream: true, stream_options: { include_usage: true } });
  let text = "";
  let usage = null;
  let reason = null;
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    text += chunk.choices[0]?.delta.content ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(reason, whole.choices[0].finish_reason);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

await test("openai: the stream helper", async () => {
  const runner = client.chat.completions.stream({ model: tiny, messages, max_tokens: 16, seed: 11, stream_options: { include_usage: true } });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
});

await test("openai: reused prompt is counted as cached", async () => {
  const long = [{ role: "user", content: "a prompt of more than one page ".repeat(20) }];
  await chat({ messages: long });
  const again = await chat({ messages: long });
  assert.ok(again.usage.prompt_tokens_details.cached_tokens > 0, JSON.stringify(again.usage));
});

await test("openai: n = 2", async () => {
  const two = await chat({ n: 2, temperature: 1 });
  assert.deepEqual(two.choices.map((choice) => choice.index), [0, 1]);
  assert.notEqual(two.choices[0].message.content, two.choices[1].message.content);
});

await test("openai: logprobs", async () => {
  const answer = await chat({ logprobs: true, top_logprobs: 3 });
  const tokens = answer.choices[0].logprobs.content;
  assert.ok(tokens.length > 0);
  for (const token of tokens) {
    assert.equal(token.top_logprobs.length, 3);
    assert.ok(token.logprob <= 0);
  }
  const bytes = Buffer.from(tokens.flatMap((token) => token.bytes));
  assert.equal(new TextDecoder().decode(bytes), answer.choices[0].message.content);
});

await test("openai: completion", async () => {
  const answer = await client.completions.create({ model: tiny, prompt: ["One", "Two"], max_tokens: 6, seed: 1, logprobs: 2, echo: false });
  assert.equal(answer.object, "text_completion");
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  for (const choice of answer.choices) assert.equal(choice.logprobs.tokens.length, choice.logprobs.text_offset.length);
});

await test("openai: completion stream", async () => {
  const request = { model: tiny, prompt: "Once", max_tokens: 12, seed: 2 };
  const once = await client.completions.create(request);
  let text = "";
  for await (const chunk of await client.completions.create({ ...request, stream: true })) text += chunk.choices[0]?.text ?? "";
  assert.equal(text, once.choices[0].text);
});

await test("openai: tools are offered and the answer is well-formed", async () => {
  const tools = [{ type: "function", function: { name: "weather", description: "d", parameters: { type: "object", properties: { city: { type: "string" } } } } }];
  for (const tool_choice of ["auto", "none"]) {
    const answer = await chat({ tools, tool_choice, parallel_tool_calls: true });
    assert.ok(["stop", "length", "tool_calls"].includes(answer.choices[0].finish_reason));
  }
  assert.match((await failure(chat({ tools, tool_choice: "required" }))).message, /tool_choice: this model/); // its template has no tools
});

await test("openai: the built-in model calls a tool, whole and streamed", async () => {
  const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const request = {
    model: "minnow",
    messages: [{ role: "user", content: "What is the weather in Paris?" }],
    temperature: 0,
    tools: [{ type: "function", function: { name: "get_weather", description: "Get the weather in a city", parameters } }],
  };
  const check = (choice) => {
    assert.equal(choice.finish_reason, "tool_calls");
    const [call] = choice.message.tool_calls;
    assert.equal(call.type, "function");
    assert.match(call.id, /^call_/);
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  };
  const once = await client.chat.completions.create(request);
  check(once.choices[0]);
  check((await client.chat.completions.stream(request).finalChatCompletion()).choices[0]);
  const told = [...request.messages, once.choices[0].message, { role: "tool", tool_call_id: once.choices[0].message.tool_calls[0].id, content: '{"temperature": 21}' }];
  const answer = await client.chat.completions.create({ ...request, messages: told });
  assert.ok(answer.choices[0].message.content.length > 0);
});

await test("openai: an aborted stream frees its sequence", async () => {
  const stream = await chat({ stream: true, max_tokens: 1500, ignore_eos: true });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) stream.controller.abort();
  await until("no live sequence", async () => (await metric(node.url, "shoal_live_sequences")) === 0 && (await metric(node.url, "shoal_requests_live")) === 0);
  assert.ok((await metric(node.url, "shoal_requests_cancelled_total")) >= 1);
});

await test("openai: errors", async () => {
  const unknown = await failure(chat({ model: "gpt-9" }));
  assert.ok(unknown instanceof OpenAI.NotFoundError);
  assert.equal(unknown.code, "model_not_found");
  assert.match(unknown.message, /minnow/);
  const wrong = await failure(chat({ temperature: "warm" }));
  assert.ok(wrong instanceof OpenAI.BadRequestError);
  assert.equal(wrong.param, "temperature");
  const long = await failure(chat({ messages: [{ role: "user", content: "7 ".repeat(5000) }], stream: true }));
  assert.ok(long instanceof OpenAI.BadRequestError);
  assert.equal(long.code, "context_length_exceeded");
  const role = await failure(chat({ response_format: { type: "yaml" } }));
  assert.equal(role.param, "response_format.type");
});

await node.stop();

await test("openai: keys", async () => {
  const closed = await startNode("--api-key", "sk-test");
  const wrong = new OpenAI({ baseURL: `${closed.url}/v1`, apiKey: "sk-wrong", maxRetries: 0 });
  assert.ok((await failure(wrong.models.list())) instanceof OpenAI.AuthenticationError);
  const right = new OpenAI({ baseURL: `${closed.url}/v1`, apiKey: "sk-test", maxRetries: 0 });
  assert.ok((await right.models.list()).data.length > 0);
  await closed.stop();
});

finish();
