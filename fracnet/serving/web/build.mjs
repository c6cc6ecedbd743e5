// Bundles src/ and what it needs into dist/engine.js, with the licenses of the packages inside.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const options = {
  bundle: true,
  format: "iife",
  minify: true,
  charset: "utf8",
  legalComments: "none", // all licenses are in licenses.txt
  target: ["chrome97", "firefox102", "safari16"],
  loader: { ".wasm": "binary" },
  // Only asked for where there is no browser, or for files next to the script: none are used.
  define: { "import.meta.url": "\"\"" },
  external: ["fs", "path", "module", "worker_threads"],
  logLevel: "warning",
  metafile: true,
  write: false,
};
const worker = await build({ ...options, entryPoints: ["src/worker.js"] });
const inline = {
  name: "worker-code",
  setup: ({ onResolve, onLoad }) => {
    onResolve({ filter: /^worker-code$/ }, () => ({ path: "worker-code", namespace: "inline" }));
    onLoad({ filter: /.*/, namespace: "inline" }, () => ({ contents: worker.outputFiles[0].text, loader: "text" }));
  },
};
const page = await build({ ...options, entryPoints: ["src/engine.js"], plugins: [inline], outfile: "dist/engine.js", write: true });

const inputs = [...Object.keys(worker.metafile.inputs), ...Object.keys(page.metafile.inputs)];
const names = new Set(inputs.flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []));
const texts = [];
for (const name of [...names].sort()) {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? (await readFile(`${folder}/${file}`, "utf8")).trim() : "";
  texts.push([`${name} ${version}: ${license}`, text].filter(Boolean).join("\n\n"));
}
texts.push((await readFile("licenses.txt", "utf8")).trim()); // of what the packages were compiled from
await writeFile("dist/licenses.txt", `engine.js holds these packages:\n\n${texts.join(`\n\n${"-".repeat(78)}\n\n`)}\n`);
