// model.onnx as fracnet/inference/onnx_model.py reads it: its own hash, metadata and golden cases.
import { sha256 } from "@noble/hashes/sha2.js";
import { unzipSync } from "fflate";

const HASH = "fracnet_sha256";
const HASH_LENGTH = 64;
const PROPERTIES = 14; // the field metadata_props of ONNX's ModelProto
const text = (bytes) => new TextDecoder().decode(bytes);
export const fromBase64 = (encoded) => Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));

// {metadata, golden}; throws for a file that was changed.
export const readModelFile = (file) => {
  const properties = {};
  for (const [field, content] of fields(file)) {
    if (field !== PROPERTIES) continue;
    const pair = Object.fromEntries(fields(content));
    properties[text(pair[1])] = pair[2];
  }
  const held = properties[HASH];
  if (!held || held.length !== HASH_LENGTH) throw new Error("The model was not exported by fracnet.");
  const start = held.byteOffset - file.byteOffset;
  const hash = sha256.create()
    .update(file.subarray(0, start))
    .update(new TextEncoder().encode("0".repeat(HASH_LENGTH)))
    .update(file.subarray(start + HASH_LENGTH));
  const digest = [...hash.digest()].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (digest !== text(held)) {
    throw new Error(`The model was changed after it was exported: its SHA-256 is ${digest.slice(0, 12)}..., and the one ` +
      `it holds is ${text(held).slice(0, 12)}... Nothing is predicted; export the run again.`);
  }
  return { metadata: JSON.parse(text(properties.fracnet)), golden: unpacked(text(properties.fracnet_golden)) };
};

// Field numbers and contents of a protocol buffer's parts that have a length.
function* fields(bytes) {
  let place = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[place];
      place += 1;
      value += (byte & 127) * scale;
      if (!(byte & 128)) return value;
    }
  };
  while (place < bytes.length) {
    const key = number();
    const kind = key & 7;
    if (kind === 0) number();
    else if (kind === 2) {
      const length = number();
      yield [Math.floor(key / 8), bytes.subarray(place, place + length)];
      place += length;
    } else throw new Error("The model cannot be read as ONNX.");
  }
}

const TYPES = {
  "|u1": Uint8Array, "<u2": Uint16Array, "<f4": Float32Array, "<f8": Float64Array, "|b1": Uint8Array, "<i8": BigInt64Array,
};

// The golden cases, [{image: {height, width, bits, pixels}, <output>: array}], of NumPy's .npz.
const unpacked = (encoded) => {
  const cases = [];
  for (const [name, file] of Object.entries(unzipSync(fromBase64(encoded)))) {
    const [number, output] = name.replace(/\.npy$/, "").split(".");
    const length = file[8] | (file[9] << 8);
    const header = text(file.subarray(10, 10 + length));
    const Type = TYPES[/'descr': '([^']+)'/.exec(header)[1]];
    const values = new Type(file.slice(10 + length).buffer);
    cases[number] = cases[number] || {};
    const [height, width] = /'shape': \((.*)\)/.exec(header)[1].split(",").map(Number);
    cases[number][output] = output === "image"
      ? { height, width, bits: 8 * Type.BYTES_PER_ELEMENT, pixels: Uint16Array.from(values) } : values;
  }
  return cases;
};
