// ONNX Runtime in WebAssembly, one thread: needs no header of a server.
import * as ort from "onnxruntime-web/wasm";
import wasmBinary from "onnxruntime-web/ort-wasm-simd-threaded.wasm";

const TOLERANCE = 1e-4;
const OOD_TOLERANCE = 1e-3;

// A function from {height, width, bits, pixels: uint8 or uint16} to the graph's outputs by name.
export const openGraph = async (file) => {
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: 1, proxy: false });
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  return async ({ height, width, bits, pixels }) => {
    const image = new ort.Tensor("uint16", Uint16Array.from(pixels), [height, width]);
    const outputs = await session.run({ image, bits: new ort.Tensor("int64", [BigInt(bits)], []) });
    const values = Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, data]));
    return { ...values, mapShape: outputs.class_map ? outputs.class_map.dims : null };
  };
};

// The rules of fracnet/onnx_export/golden.py. Gives a sentence; throws where an answer differs.
export const checkGolden = async (graph, cases, limits, progress) => {
  let [probability, score, atLimit] = [0, 0, 0];
  for (const [number, expected] of cases.entries()) {
    progress(number, cases.length);
    const got = await graph(expected.image);
    const { height, width, bits } = expected.image;
    const check = (right, kind) => {
      if (!right) {
        throw new Error(`This browser computes other answers than the run (golden case ${number}, uint${bits} ` +
          `${height}x${width}: ${kind}). Nothing is predicted.`);
      }
    };
    const differences = [...expected.probabilities].map((value, c) => Math.abs(value - got.probabilities[c]));
    check(expected.preprocessed.every((value, i) => value === got.preprocessed[i]), "preprocessed pixels differ");
    check(differences.every((value) => value < TOLERANCE), `a probability differs by ${TOLERANCE} or more`);
    check(expected.decision[0] === got.decision[0], "the decision differs");
    probability = Math.max(probability, ...differences);
    const ood = expected.ood_score[0];
    if (Number.isFinite(ood)) {
      const difference = Math.abs(ood - got.ood_score[0]);
      check(difference < OOD_TOLERANCE * Math.max(1, ood), `the OOD score differs by ${OOD_TOLERANCE} or more`);
      score = Math.max(score, difference);
    }
    if (expected.ood[0] !== got.ood[0]) {
      check(Math.abs(ood - 1) < OOD_TOLERANCE, "the OOD flag differs");
      atLimit += 1;
    } else if (expected.uncertain[0] !== got.uncertain[0]) {
      const near = limits.some((limit, c) => Math.abs(expected.probabilities[c] - limit) < TOLERANCE);
      check(near, "the uncertain flag differs");
      atLimit += 1;
    }
  }
  const aside = atLimit ? `; ${atLimit} on the other side of a limit that they lie on` : "";
  return `answers its ${cases.length} golden cases as the run does (largest difference of a probability ` +
    `${probability.toExponential(1)}, of an OOD score ${score.toExponential(1)}; no decision differs${aside})`;
};
