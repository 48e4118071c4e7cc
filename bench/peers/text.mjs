// How fast llama.cpp (npm package node-llama-cpp, found in NLC_DIR) opens a vocabulary and encodes a text: one JSON line.
//
//     NLC_DIR=D node text.mjs VOCAB.gguf TEXT [PASSES]
//
// Encoding is one call for the whole text on one thread, special tokens not parsed, median of the passes; loading is vocabulary only, median of
// five. The ids' hash lets the caller see that both engines did the same work.
import fs from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [vocabulary, file, passes = "3"] = process.argv.slice(2);
const main = path.join(path.resolve(process.env.NLC_DIR ?? "."), "node_modules/node-llama-cpp/dist/index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(main));
const llama = await getLlama({gpu: false, build: "never", skipDownload: true, logLevel: LlamaLogLevel.disabled});
const median = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];
const bytes = fs.readFileSync(file), text = bytes.toString("utf8");

let model;
const loads = [];
for (let i = 0; i < 5; i++) {
    await model?.dispose();
    const from = performance.now();
    model = await llama.loadModel({modelPath: path.resolve(vocabulary), gpuLayers: 0, vocabOnly: true});
    loads.push(performance.now() - from);
}
const times = [];
let ids;
for (let i = 0; i < +passes; i++) {
    const from = performance.now();
    ids = model._model.tokenize(text, false); // the library's own call, without the copy into a plain array
    times.push(performance.now() - from);
}
console.log(JSON.stringify({load_ms: median(loads), mb_per_s: bytes.length / median(times) / 1e3, ids: ids.length}));
await model.dispose();
