#!/usr/bin/env node
// solc's command line on top of the npm build (WebAssembly), for ape, forge and slither where no native compiler exists.
// Output is kept on disk by the hash of the input and of every file an import pulled in: a second compile takes milliseconds.
// With --serve it stays: a standard JSON input a line comes in, an output a line goes out, and nothing is kept.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(import.meta.url);
const cacheDir = join(root, ".build", "solc");
const VALUE_OPTIONS = new Set(["--base-path", "--include-path", "--allow-paths"]);

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

function parseArguments(argv) {
  const parsed = { version: false, standardJson: false, serve: false, inputFile: null, searchPaths: [] };
  for (let i = 0; i < argv.length; i++) {
    const [name, inline] = argv[i].split(/=(.*)/s);
    if (name === "--version") parsed.version = true;
    else if (name === "--standard-json") parsed.standardJson = true;
    else if (name === "--serve") parsed.serve = true;
    else if (VALUE_OPTIONS.has(name)) {
      const value = inline ?? argv[++i];
      if (name !== "--allow-paths") parsed.searchPaths.push(value);
    } else if (name === "-") continue;
    else if (!name.startsWith("-")) parsed.inputFile = name;
    else fail(`unknown option ${name}: this compiler takes --version, --standard-json or --serve`);
  }
  return parsed;
}

function fail(message) {
  process.stderr.write(`solc: ${message}\n`);
  process.exit(1);
}

function importReader(searchPaths, reads) {
  return (path) => {
    for (const base of [...searchPaths, ""]) {
      const file = resolve(base, path);
      if (!existsSync(file)) continue;
      const contents = readFileSync(file, "utf8");
      reads.push([file, sha256(contents)]);
      return { contents };
    }
    return { error: `${path} not found in ${searchPaths.join(", ") || "."}` };
  };
}

function cached(entry) {
  if (!existsSync(entry)) return null;
  const { reads, output } = JSON.parse(readFileSync(entry, "utf8"));
  const fresh = reads.every(([file, hash]) => existsSync(file) && sha256(readFileSync(file, "utf8")) === hash);
  return fresh ? output : null;
}

function load() {
  const solc = require("solc");
  // solc-js installs handlers that turn any later error into an abort of the whole process.
  process.removeAllListeners("uncaughtException");
  process.removeAllListeners("unhandledRejection");
  return solc;
}

function compile(input, searchPaths, entry) {
  const solc = load();
  const reads = [];
  const output = solc.compile(input, { import: importReader(searchPaths, reads) });
  mkdirSync(cacheDir, { recursive: true });
  const partial = `${entry}.${process.pid}`;
  writeFileSync(partial, JSON.stringify({ reads, output }));
  renameSync(partial, entry);
  return output;
}

function serve(searchPaths) {
  const solc = load();
  createInterface({ input: process.stdin }).on("line", (input) => {
    process.stdout.write(`${JSON.stringify(JSON.parse(solc.compile(input, { import: importReader(searchPaths, []) })))}\n`);
  });
}

const options = parseArguments(process.argv.slice(2));
const compiler = JSON.parse(readFileSync(require.resolve("solc/package.json"), "utf8")).version;
if (options.version) {
  // The commit is part of the build's name; reading it from the compiler itself would load 9 MB of WebAssembly.
  const versionFile = join(cacheDir, `version-${compiler}`);
  if (!existsSync(versionFile)) {
    mkdirSync(cacheDir, { recursive: true });
    writeFileSync(versionFile, require("solc").version().replace(/\.Emscripten.*$/, ""));
  }
  const version = readFileSync(versionFile, "utf8");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}.Linux.g++\n`, () => process.exit(0));
} else if (options.standardJson) {
  const input = readFileSync(options.inputFile ?? 0, "utf8");
  const entry = join(cacheDir, `${sha256(JSON.stringify([compiler, options.searchPaths, input]))}.json`);
  const output = cached(entry) ?? compile(input, options.searchPaths, entry);
  process.stdout.write(output, () => process.exit(0));
} else if (options.serve) {
  serve(options.searchPaths);
} else {
  fail("nothing to do: pass --version, --standard-json or --serve");
}
