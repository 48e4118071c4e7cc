// Starts `$SHOAL serve` with folders of its own and a free port, and counts what was tried. Used by the test_*.mjs files.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const tiny = join(root, "tests/data/models/tiny-q8_0.gguf");

export async function startNode(...args) {
  const binary = process.env.SHOAL;
  if (!binary) throw new Error("the variable SHOAL must name the binary");
  const home = mkdtempSync(join(tmpdir(), "shoal-api-"));
  const env = { PATH: process.env.PATH, HOME: home, ASAN_OPTIONS: process.env.ASAN_OPTIONS ?? "" };
  const child = spawn(binary, ["serve", "--port", "0", ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  const url = await new Promise((resolve, reject) => {
    const look = (bytes) => {
      said += bytes;
      const found = /ready at (http:\S+)/.exec(said);
      if (found) resolve(found[1]);
    };
    child.stdout.on("data", look);
    child.stderr.on("data", look);
    ended.then((code) => reject(new Error(`serve ended with ${code}: ${said}`)));
  });
  const stop = async () => {
    child.kill("SIGTERM");
    const code = await ended;
    rmSync(home, { recursive: true, force: true });
    if (code !== 0) throw new Error(`serve ended with ${code}: ${said}`);
  };
  return { url, stop };
}

let failed = 0;

// Runs one test and prints its line. A test that does not end fails after five minutes.
export async function test(name, body) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no end after five minutes")), 300000);
  });
  try {
    await Promise.race([body(), late]);
    console.log(`ok ${name}`);
  } catch (error) {
    failed++;
    console.log(`not ok ${name}: ${String(error.message ?? error).split("\n").slice(0, 12).join(" | ")}`);
  } finally {
    clearTimeout(timer);
  }
}

export function finish() {
  process.exitCode = failed ? 1 : 0;
}

// One number of /metrics, summed over its labels.
export async function metric(url, name) {
  const text = await (await fetch(`${url}/metrics`)).text();
  let sum = 0;
  for (const line of text.split("\n")) if (line.startsWith(`${name} `) || line.startsWith(`${name}{`)) sum += Number(line.split(" ").pop());
  return sum;
}

export async function until(what, condition) {
  for (let i = 0; i < 3000; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`never: ${what}`);
}
