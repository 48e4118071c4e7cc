// One measurement of llama.cpp through the npm package node-llama-cpp, for peers.py:
//
//   node llama_cpp.mjs MODEL.gguf THREADS PROMPT GEN [FOLDER with node_modules]   ->  {"prompt_tokens_per_s": …, "decode_tokens_per_s": …}
//
// Prompt: one batch of PROMPT tokens. Decode: the library's own loop, one decodeBatch a token behind eight tokens of context, fixed tokens, no
// sampling: the best it can. Exit status 3: no library for this machine came with the package; compiling one would measure our compiler.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modelPath, threads, nPrompt, nGen, folder = import.meta.dirname] = process.argv.slice(2);

function refuse(why) {
    console.error(`llama_cpp.mjs: ${why}`);
    process.exit(3);
}

const main = path.join(folder, "node_modules/node-llama-cpp/dist/index.js");
if (!fs.existsSync(main)) refuse(`no node-llama-cpp in ${folder}; there: npm install --ignore-scripts`);
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(main));
let llama;
try {
    llama = await getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: 0, logLevel: LlamaLogLevel.error });
} catch (error) {
    refuse(`no prebuilt library for this machine: ${error.message}`);
}

const ids = (n, seed) => Array.from({ length: n }, (_, i) => 100 + ((i * 7919 + seed * 104729) % 3900));
const seconds = () => performance.now() / 1000;

const model = await llama.loadModel({ modelPath: path.resolve(modelPath), gpuLayers: 0 });
const contextSize = Math.ceil((Math.max(+nPrompt, 8) + +nGen + 16) / 256) * 256;
const context = await model.createContext({ contextSize, sequences: 1, batchSize: 512, threads: +threads, flashAttention: true });
const sequence = context.getSequence();
const result = { prompt_tokens_per_s: 0, decode_tokens_per_s: 0 };
if (+nPrompt > 0) {
    const began = seconds();
    await sequence.evaluateWithoutGeneratingNewTokens(ids(+nPrompt, 1));
    result.prompt_tokens_per_s = nPrompt / (seconds() - began);
    await sequence.clearHistory();
}
if (+nGen > 0) {
    await sequence.evaluateWithoutGeneratingNewTokens(ids(8, 2));
    const began = seconds();
    for (let i = 0; i < +nGen; i++) {
        context._ctx.initBatch(1);
        context._ctx.addToBatch(sequence._sequenceId, 8 + i, Uint32Array.from([100 + ((i * 37) % 3900)]), Uint32Array.from([0]));
        await context._ctx.decodeBatch();
    }
    result.decode_tokens_per_s = nGen / (seconds() - began);
}
console.log(JSON.stringify(result));
process.exit(0);
