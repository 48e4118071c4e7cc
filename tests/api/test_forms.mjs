// The official openai client asks for answers of a form: response_format, tool_choice, strict tools, log-probabilities of prompts. The
// model is random, or the built-in one: what it says is nonsense, its form is not.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { finish, startNode, test, tiny } from "./node.mjs";

const node = await startNode(tiny);
const client = new OpenAI({ baseURL: `${node.url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Weather in Rome?" }];
const chat = (more) => client.chat.completions.create({ model: tiny, messages, max_tokens: 400, temperature: 1, ...more });
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 20 }, unit: { enum: ["c", "f"] } },
      required: ["city", "unit"],
      additionalProperties: false,
    },
  },
};
const time = { type: "function", function: { name: "get_time", parameters: { type: "object", properties: {}, additionalProperties: false } } };
const checkWeather = (text) => {
  const v = JSON.parse(text);
  assert.deepEqual(Object.keys(v), ["city", "unit"]);
  assert.ok([...v.city].length <= 20 && ["c", "f"].includes(v.unit), text);
};
const refused = async (promise, param, words) => {
  const error = await promise.then(
    () => assert.fail("it was expected to fail"),
    (e) => e,
  );
  assert.equal(error.status, 400, error.message);
  assert.equal(error.param ?? null, param, error.message);
  assert.match(error.message, words);
};
const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 10 },
    tags: { type: "array", items: { enum: ["x", "y"] }, maxItems: 3 },
    size: { type: "integer", minimum: 0, maximum: 99 },
  },
  required: ["name", "tags", "size"],
  additionalProperties: false,
};
const format = { type: "json_schema", json_schema: { name: "thing", strict: true, schema } };
const checkThing = (text) => {
  const v = JSON.parse(text);
  assert.deepEqual(Object.keys(v), ["name", "tags", "size"]);
  assert.ok([...v.name].length <= 10 && v.tags.length <= 3 && v.tags.every((t) => "xy".includes(t)), text);
  assert.ok(Number.isInteger(v.size) && v.size >= 0 && v.size <= 99, text);
};

for (const model of [tiny, "minnow"]) {
  await test(`openai: response_format json_schema, ${model.slice(-12)}`, async () => {
    for (let seed = 0; seed < 8; seed++) {
      const { choices } = await chat({ model, seed, response_format: format });
      assert.equal(choices[0].finish_reason, "stop");
      checkThing(choices[0].message.content);
    }
  });
}

await test("openai: response_format streamed, with n and logprobs", async () => {
  const texts = ["", ""];
  const reasons = [];
  const stream = await chat({ n: 2, seed: 3, stream: true, logprobs: true, response_format: format });
  for await (const chunk of stream) {
    const c = chunk.choices[0];
    texts[c.index] += c.delta.content ?? "";
    if (c.finish_reason) reasons[c.index] = c.finish_reason;
  }
  texts.forEach(checkThing);
  assert.deepEqual(reasons, ["stop", "stop"]);
});

await test("openai: the same seed gives the same form, alone or not", async () => {
  const one = await chat({ seed: 5, response_format: format });
  const many = await Promise.all(Array.from({ length: 6 }, () => chat({ seed: 5, response_format: format })));
  for (const m of many) assert.equal(m.choices[0].message.content, one.choices[0].message.content);
});

await test("openai: response_format json_object", async () => {
  let ended = 0;
  for (let seed = 0; seed < 12; seed++) {
    const { choices } = await chat({ seed, temperature: 0.7, max_tokens: 200, response_format: { type: "json_object" } });
    if (choices[0].finish_reason === "length") continue;
    ended++;
    const v = JSON.parse(choices[0].message.content);
    assert.ok(typeof v === "object" && v !== null && !Array.isArray(v));
  }
  assert.ok(ended > 0);
});

for (const temperature of [0.7, 3]) {
  await test(`openai: tool_choice required and named, temperature ${temperature}`, async () => {
    const model = "minnow";
    for (let seed = 0; seed < 6; seed++) {
      const { choices } = await chat({ model, temperature, seed, tools: [weather, time], tool_choice: "required", parallel_tool_calls: false });
      assert.equal(choices[0].finish_reason, "tool_calls");
      assert.equal(choices[0].message.tool_calls.length, 1);
      const call = choices[0].message.tool_calls[0];
      assert.equal(call.type, "function");
      if (call.function.name === "get_weather") checkWeather(call.function.arguments);
      else assert.deepEqual([call.function.name, JSON.parse(call.function.arguments)], ["get_time", {}]);
      const named = { type: "function", function: { name: "get_time" } };
      const forced = await chat({ model, temperature, seed, tools: [weather, time], tool_choice: named, max_tokens: 1000 });
      const calls = forced.choices[0].message.tool_calls;
      assert.ok(calls.length >= 1);
      for (const c of calls) assert.equal(c.function.name, "get_time");
    }
  });
}

await test("openai: tool_choice allowed_tools", async () => {
  const of = (mode, name) => ({ type: "allowed_tools", allowed_tools: { mode, tools: [{ type: "function", function: { name } }] } });
  for (let seed = 0; seed < 4; seed++) {
    const more = { model: "minnow", seed, tools: [weather, time], parallel_tool_calls: false };
    const { choices } = await chat({ ...more, tool_choice: of("required", "get_weather") });
    checkWeather(choices[0].message.tool_calls[0].function.arguments);
    const { choices: free } = await chat({ ...more, tool_choice: of("auto", "get_time"), max_tokens: 60 });
    assert.ok(["stop", "length", "tool_calls"].includes(free[0].finish_reason));
  }
  await refused(chat({ tools: [weather], tool_choice: of("auto", "f") }), "tool_choice.allowed_tools.tools[0].function.name", /'f'/);
  await refused(chat({ tools: [weather], tool_choice: of("never", "get_weather") }), "tool_choice.allowed_tools.mode", /never/);
});

await test("openai: a forced call streamed", async () => {
  let args = "";
  let name = "";
  let reason;
  const stream = await chat({ model: "minnow", temperature: 2, seed: 2, stream: true, tools: [weather], tool_choice: "required", parallel_tool_calls: false });
  for await (const chunk of stream) {
    const call = chunk.choices[0].delta.tool_calls?.[0];
    name += call?.function?.name ?? "";
    args += call?.function?.arguments ?? "";
    reason = chunk.choices[0].finish_reason ?? reason;
  }
  assert.equal(name, "get_weather");
  checkWeather(args);
  assert.equal(reason, "tool_calls");
});

await test("openai: strict tools under auto: whatever is called fits", async () => {
  const strict = { type: "function", function: { ...weather.function, strict: true } };
  for (let seed = 0; seed < 10; seed++) {
    const { choices } = await chat({ model: "minnow", seed, tools: [strict, time], max_tokens: 200 });
    for (const call of choices[0].message.tool_calls ?? [])
      if (call.function.name === "get_weather") checkWeather(call.function.arguments);
  }
});

await test("openai: tool_choice none: no calls", async () => {
  const { choices } = await chat({ model: "minnow", tools: [weather], tool_choice: "none", max_tokens: 40 });
  assert.equal(choices[0].message.tool_calls, undefined);
});

await test("openai: forms that cannot be held are refused by name", async () => {
  const of = (s) => chat({ response_format: { type: "json_schema", json_schema: { name: "s", schema: s } } });
  const at = "response_format.json_schema.schema";
  await refused(of({ type: "object", properties: { a: { type: "string", pattern: "(?=x)" } } }), at, /properties\.a: pattern: looking/);
  await refused(of({ not: {} }), at, /'not'/);
  await refused(of({ $ref: "#" }), at, /no value fits/);
  await refused(of([]), at, /an array/);
  await refused(chat({ response_format: { type: "json_schema" } }), "response_format.json_schema", /missing/);
  await refused(chat({ response_format: { type: "xml" } }), "response_format.type", /xml/);
  await refused(chat({ response_format: {} }), "response_format.type", /missing/);
  await refused(chat({ response_format: "json" }), "response_format", /a string/);
  await refused(chat({ tool_choice: "required" }), "tool_choice", /no/);
  await refused(chat({ tools: [weather], tool_choice: "always" }), "tool_choice", /always/);
  await refused(chat({ tools: [weather], tool_choice: { type: "function", function: { name: "f" } } }), "tool_choice.function.name", /'f'/);
  await refused(chat({ tools: [weather], tool_choice: { type: "function" } }), "tool_choice.function", /missing/);
  await refused(chat({ tools: [weather], parallel_tool_calls: "no" }), "parallel_tool_calls", /a string/);
  const bad = { type: "function", function: { name: "f", strict: true, parameters: { type: "object", patternProperties: {} } } };
  await refused(chat({ tools: [bad] }), "tools[0].function.parameters", /'patternProperties'/);
  bad.function.strict = false; /* not promised: any object then */
  await refused(chat({ tools: [bad], tool_choice: "required" }), null, /tool_choice: this model/); // its template has no tools
  const { choices } = await chat({ model: "minnow", tools: [bad], tool_choice: "required", parallel_tool_calls: false, temperature: 0.5 });
  assert.ok(["tool_calls", "length"].includes(choices[0].finish_reason));
});

await test("openai: echo with logprobs tells the prompt's", async () => {
  const prompt = "many small fish";
  const ask = (more) => client.completions.create({ model: tiny, prompt, max_tokens: 3, temperature: 0, logprobs: 2, ...more });
  const whole = await ask({ echo: true });
  const { tokens, token_logprobs, top_logprobs, text_offset } = whole.choices[0].logprobs;
  assert.equal(tokens.length, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  assert.equal(tokens.join(""), whole.choices[0].text);
  assert.ok(whole.choices[0].text.startsWith(prompt));
  assert.equal(token_logprobs[0], null);
  assert.equal(top_logprobs[0], null);
  token_logprobs.slice(1).forEach((x) => assert.ok(x <= 0));
  text_offset.forEach((at, i) => assert.ok(whole.choices[0].text.startsWith(tokens[i], at)));
  const plain = await ask({});
  assert.deepEqual(plain.choices[0].logprobs.token_logprobs, token_logprobs.slice(whole.usage.prompt_tokens));
  const again = await ask({ echo: true, max_tokens: 0 }); // the prompt is cached by now
  assert.equal(again.choices[0].text, prompt);
  assert.deepEqual(again.choices[0].logprobs.token_logprobs, token_logprobs.slice(0, whole.usage.prompt_tokens));
  assert.equal(again.usage.completion_tokens, 0);
  assert.equal(again.choices[0].finish_reason, "length");
  const two = await ask({ echo: true, n: 2 });
  assert.deepEqual(two.choices[0].logprobs, two.choices[1].logprobs);
  const stream = await ask({ echo: true, stream: true });
  const streamed = { text: "", values: [] };
  for await (const chunk of stream) {
    streamed.text += chunk.choices[0]?.text ?? "";
    streamed.values.push(...(chunk.choices[0]?.logprobs?.token_logprobs ?? []));
  }
  assert.equal(streamed.text, whole.choices[0].text);
  assert.deepEqual(streamed.values, token_logprobs);
  await refused(ask({ max_tokens: 0 }), "max_tokens", /echo/);
});

await node.stop();
finish();
