// What answers the page where there is no server: a worker in this browser.
// Everything is loaded as scripts, so the page may forbid all connections and opens from a folder.
import workerCode from "worker-code";
import { fromBase64 } from "./model_file.js";

const script = (address) => new Promise((resolve, reject) => {
  const element = Object.assign(document.createElement("script"), { src: address });
  element.onload = resolve;
  element.onerror = () => reject(new Error(`${address} is missing from the folder of this page.`));
  document.head.append(element);
});

const worker = new Worker(URL.createObjectURL(new Blob([workerCode], { type: "text/javascript" })));
const waiting = new Map();
let last = 0;
const ask = (name, content, { transfer = [], progress = () => {} } = {}) => new Promise((resolve, reject) => {
  last += 1;
  waiting.set(last, { resolve, reject, progress });
  worker.postMessage({ number: last, name, content }, transfer);
});
worker.onmessage = ({ data: { number, progress, result, error } }) => {
  const request = waiting.get(number);
  if (progress) {
    request.progress(...progress);
    return;
  }
  waiting.delete(number);
  if (error === undefined) request.resolve(result);
  else request.reject(new Error(error));
};
worker.onerror = (event) => {
  for (const { reject } of waiting.values()) reject(new Error(`This browser cannot run the model: ${event.message}.`));
  waiting.clear();
};

const loaded = script("model.js").then(() => window.fracnetModel);

window.fracnetEngine = {
  model: async () => (await loaded).description,
  check: async (status) => {
    const { parts } = await loaded;
    delete window.fracnetModel; // its text takes as much memory as the model
    const bytes = parts.splice(0).map(fromBase64);
    const file = new Uint8Array(bytes.reduce((sum, part) => sum + part.length, 0));
    bytes.reduce((place, part) => {
      file.set(part, place);
      return place + part.length;
    }, 0);
    status("Checking the model");
    const progress = (done, all) => status(`Checking the model: ${done} of ${all} golden cases`);
    const result = await ask("open", file, { transfer: [file.buffer], progress });
    return `Checked in this browser: the model file is unchanged and ${result}. Images stay on this device: the page ` +
      "cannot send anything.";
  },
  predict: (file, signal) => new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new Error("stopped")));
    ask("predict", { file, path: file.webkitRelativePath || file.name }).then(resolve, reject);
  }),
  studies: (images) => ask("studies", images),
};
