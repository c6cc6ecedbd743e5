// All work, beside the page so that it stays responsive: checks, decoding, network, decisions.
import { answerOf, studyRows } from "./decide.js";
import { checkGolden, openGraph } from "./graph.js";
import { readModelFile } from "./model_file.js";
import { shownImage, shownMap } from "./picture.js";
import { readImage } from "./read_image.js";

const EMPTY = "The heatmap is empty: nothing raised the score.";
let model = null; // only after all checks
let graph = null;

const operations = {
  async open(file, progress) {
    const { metadata, golden } = readModelFile(file);
    graph = await openGraph(file);
    const result = await checkGolden(graph, golden, metadata.levels.image.limits.values, progress);
    model = { ...metadata, classes: metadata.decisions.classes };
    return result;
  },
  async predict({ file, path }) {
    const image = await readImage(new Uint8Array(await file.arrayBuffer()));
    const outputs = image.error ? null : await graph({ ...image, bits: 8 }).catch((error) => {
      // Most likely of memory, of which a phone has little.
      throw new Error(`the model stopped (${error.message || error}); reload the page, and try a smaller image`);
    });
    const answer = answerOf(path, image, outputs, model);
    if (image.error) return answer;
    answer.image = shownImage(image);
    if (outputs.class_map) {
      const map = shownMap(outputs, model.classes.indexOf(answer.decision), answer.image, image, model);
      answer.heatmap = map;
      answer.heatmap_note = map.empty ? EMPTY : "";
    }
    return answer;
  },
  async studies(answers) {
    return studyRows(answers, model);
  },
};

self.onmessage = async ({ data: { number, name, content } }) => {
  try {
    if (name !== "open" && !model) throw new Error("The model has not passed its checks.");
    const progress = (done, all) => self.postMessage({ number, progress: [done, all] });
    self.postMessage({ number, result: await operations[name](content, progress) });
  } catch (error) {
    self.postMessage({ number, error: error.message || String(error) });
  }
};
