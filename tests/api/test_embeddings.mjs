// The official openai client asks embedding models; the expected vectors are those of tests/data/embed.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";
import { finish, root, startNode, test, tiny } from "./node.mjs";

const folder = join(root, "tests/data/embed");
const bert = join(folder, "bert-f32.gguf");
const mean = join(folder, "bert-q8_0.gguf");
const last = join(folder, "qwen3-last-q8_0.gguf");
const expected = (name) => JSON.parse(readFileSync(join(folder, `${name}.json`)));
const node = await startNode();
const client = new OpenAI({ baseURL: `${node.url}/v1`, apiKey: "none", maxRetries: 0 });
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const refused = async (promise, status, param, words) => {
  const error = await promise.then(
    () => assert.fail("it was expected to fail"),
    (e) => e,
  );
  assert.equal(error.status, status, error.message);
  assert.equal(error.param ?? null, param, error.message);
  assert.match(error.message, words);
};

await test("openai: embeddings of strings (the client asks for base64)", async () => {
  const { texts } = expected("bert-f32");
  const answer = await client.embeddings.create({ model: bert, input: texts.map((t) => t.text) });
  assert.equal(answer.object, "list");
  assert.equal(answer.data.length, texts.length);
  answer.data.forEach((one, i) => {
    assert.equal(one.index, i);
    assert.equal(one.object, "embedding");
    assert.equal(one.embedding.length, 64);
    one.embedding.forEach((x, d) => assert.ok(Math.abs(x - texts[i].vector[d]) < 2e-3));
  });
  assert.equal(answer.usage.prompt_tokens, texts.reduce((n, t) => n + t.ids.length, 0));
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens);
});

await test("openai: float and base64 are the same numbers; one string, ids, arrays of ids", async () => {
  const { texts } = expected("bert-q8_0");
  const ask = (input, more) => client.embeddings.create({ model: mean, input, ...more });
  const coded = await ask(texts[0].text, { encoding_format: "base64" });
  assert.equal(typeof coded.data[0].embedding, "string");
  const bytes = Buffer.from(coded.data[0].embedding, "base64");
  const plain = (await ask(texts[0].text, { encoding_format: "float" })).data[0].embedding;
  plain.forEach((x, i) => assert.equal(Math.fround(x), bytes.readFloatLE(4 * i)));
  const byIds = (await ask(texts[0].ids, { encoding_format: "float" })).data[0].embedding;
  assert.deepEqual(byIds, plain);
  const two = await ask([texts[0].ids, texts[1].ids], { encoding_format: "float" });
  assert.deepEqual(two.data[0].embedding, plain);
  assert.ok(dot(two.data[1].embedding, texts[1].vector) > 0.999);
});

await test("openai: dimensions cut and scale again", async () => {
  const text = "many small fish";
  const whole = (await client.embeddings.create({ model: bert, input: text })).data[0].embedding;
  const cut = (await client.embeddings.create({ model: bert, input: text, dimensions: 16 })).data[0].embedding;
  assert.equal(cut.length, 16);
  assert.ok(Math.abs(dot(cut, cut) - 1) < 1e-5);
  const length = Math.sqrt(dot(whole.slice(0, 16), whole.slice(0, 16)));
  cut.forEach((x, i) => assert.ok(Math.abs(x - whole[i] / length) < 1e-6));
});

await test("openai: a decoder that pools its last row ends texts with its end token", async () => {
  const { data, usage } = await client.embeddings.create({ model: last, input: "fish" });
  const { tokens } = await fetch(`${node.url}/tokenize`, {
    method: "POST",
    body: JSON.stringify({ model: last, content: "fish", add_special: true }),
  }).then((r) => r.json());
  assert.equal(usage.prompt_tokens, tokens.length);
  assert.equal(tokens.at(-1), 330);
  const byIds = await client.embeddings.create({ model: last, input: tokens });
  assert.deepEqual(byIds.data[0].embedding, data[0].embedding);
});

await test("embeddings are cancelled by the id that their client gave", async () => {
  const input = Array.from({ length: 2000 }, (_, i) => `${i} `.repeat(60));
  const pending = client.embeddings.create({ model: bert, input }, { headers: { "x-client-request-id": "mine-1" } });
  const outcome = pending.then(
    () => "answered",
    (e) => e.status,
  );
  for (;;) {
    const { status } = await fetch(`${node.url}/v1/requests/mine-1`, { method: "DELETE" });
    if (status === 200) break;
    assert.equal(status, 404);
    assert.notEqual(await Promise.race([outcome, new Promise((r) => setTimeout(r, 5, "waiting"))]), "answered");
  }
  assert.equal(await outcome, 499);
});

await test("openai: two thousand texts at once", async () => {
  const input = Array.from({ length: 2000 }, (_, i) => (i % 2 ? "small fish" : "the quick fox"));
  const { data } = await client.embeddings.create({ model: bert, input });
  assert.equal(data.length, 2000);
  data.forEach((one, i) => assert.deepEqual(one.embedding, data[i % 2].embedding));
});

await test("openai: refusals of embeddings say why", async () => {
  const ask = (more) => client.embeddings.create({ model: bert, input: "x", encoding_format: "float", ...more });
  await refused(ask({ model: tiny }), 400, null, /no embeddings/);
  await refused(ask({ model: "nobody" }), 404, "model", /nobody/);
  await refused(ask({ input: "" }), 400, "input", /empty/);
  await refused(ask({ input: [] }), 400, "input", /1 to 2048/);
  await refused(ask({ input: ["a", ""] }), 400, "input[1]", /empty/);
  await refused(ask({ input: ["a", 5] }), 400, "input[1]", /a number/);
  await refused(ask({ input: [5, "a"] }), 400, "input[1]", /token id/);
  await refused(ask({ input: { a: 1 } }), 400, "input", /an object/);
  await refused(ask({ input: [1000000] }), 400, "input", /1000000/);
  await refused(ask({ input: "fish ".repeat(500) }), 400, "input", /at most/);
  await refused(ask({ dimensions: 65 }), 400, "dimensions", /64/);
  await refused(ask({ dimensions: 0 }), 400, "dimensions", /0/);
  await refused(ask({ encoding_format: "hex" }), 400, "encoding_format", /hex/);
  const chat = { model: bert, messages: [{ role: "user", content: "hi" }] };
  await refused(client.chat.completions.create(chat), 400, null, /embedding model/);
  await refused(client.completions.create({ model: bert, prompt: "hi" }), 400, null, /embedding model/);
});

await node.stop();
finish();
