// The ids that the Rust library `tokenizers` gives for our small vocabularies, one JSON line a text:
//
//     npm install @anush008/tokenizers@0.6.0     (anywhere; NODE_PATH or the folder above must find it)
//     node tools/text/expected.mjs tests/data/text
//
// Writes <name>.expected.jsonl beside every <name>.json: {"ids": …, "special": …, "decoded": …}, the i-th line for the i-th entry of
// texts.json. ids: special tokens parsed, nothing added; special: with what the post-processor adds; decoded: special tokens hidden.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(process.cwd() + "/");
const { Tokenizer } = require("@anush008/tokenizers");

const folder = process.argv[2];
const texts = JSON.parse(readFileSync(join(folder, "texts.json"), "utf8"));

for (const file of readdirSync(folder).sort()) {
    if (!file.endsWith(".json") || ["texts.json", "presets.json"].includes(file)) continue;
    const name = file.slice(0, -5);
    const tokenizer = Tokenizer.fromString(readFileSync(join(folder, file), "utf8"));
    const lines = [];
    for (const text of texts) {
        const ids = (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds();
        const special = (await tokenizer.encode(text, null, { addSpecialTokens: true })).getIds();
        const decoded = await tokenizer.decode(ids, true);
        lines.push(JSON.stringify({ ids, special, decoded }));
    }
    writeFileSync(join(folder, name + ".expected.jsonl"), lines.join("\n") + "\n");
    console.log(name, lines.length);
}
