// Decoders of compressed pixels, each started when the first file needs it.
import jpegFactory from "@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs";
import jpegWasm from "@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasm";
import jpeglsFactory from "@cornerstonejs/codec-charls/decodewasmjs";
import jpeglsWasm from "@cornerstonejs/codec-charls/decodewasm";
import jpeg2000Factory from "@cornerstonejs/codec-openjpeg/decodewasmjs";
import jpeg2000Wasm from "@cornerstonejs/codec-openjpeg/decodewasm";
import { Decoder as LosslessDecoder } from "jpeg-lossless-decoder-js";
import { BadImage } from "./grey.js";

const silent = { print() {}, printErr() {} };
const codec = (factory, wasmBinary, decoder, name) => {
  let module = null;
  return async (coded) => {
    module = module || await factory({ wasmBinary, ...silent });
    const running = new module[decoder]();
    try {
      running.getEncodedBuffer(coded.length).set(coded);
      running.decode();
      const { width, height, bitsPerSample, componentCount, isSigned } = running.getFrameInfo();
      const bytes = Uint8Array.from(running.getDecodedBuffer()); // a copy: the memory is reused
      return { width, height, bits: bitsPerSample, channels: componentCount, isSigned, bytes };
    } catch {
      throw new BadImage(`its ${name} data are damaged, truncated or of an unsupported kind`);
    } finally {
      running.delete();
    }
  };
};

// Each takes a codestream and gives {width, height, bits, channels, bytes}, 1 or 2 bytes a sample.
export const decodeJpeg = codec(jpegFactory, jpegWasm, "JPEGDecoder", "JPEG");
export const decodeJpegLs = codec(jpeglsFactory, jpeglsWasm, "JpegLSDecoder", "JPEG-LS");
export const decodeJpeg2000 = codec(jpeg2000Factory, jpeg2000Wasm, "J2KDecoder", "JPEG 2000");
export const decodeJpegLossless = async (coded) => {
  let decoder = lossless(coded);
  const { dimX: width, dimY: height, precision: bits } = decoder.frame;
  if (!isWhole(decoder) && width * (height - decoder.yLoc) - decoder.xLoc === 1) {
    // The package misses a last pixel that ends with a byte. It is right if it does not depend on
    // what follows.
    const [zeros, others] = [0, 0x55].map((byte) => lossless(followed(coded, byte)));
    const bytes = [zeros, others].map(({ outputData }) => outputData);
    if (isWhole(zeros) && bytes[0].every((value, i) => value === bytes[1][i])) decoder = zeros;
  }
  // What the package would show wrongly: an early end, a point transform, and restarts in a scan
  // that is predicted from the row above.
  if (!isWhole(decoder)) throw damagedLossless();
  if (decoder.scan.al || (decoder.restartInterval && decoder.selection !== 1)) {
    throw new BadImage("lossless JPEG of this kind is not supported by this page");
  }
  return { width, height, bits, channels: decoder.numComp, bytes: new Uint8Array(decoder.outputData.buffer) };
};

const damagedLossless = () => new BadImage("its lossless JPEG data are damaged or truncated");
const isWhole = ({ yLoc, yDim }) => yLoc >= yDim;
const lossless = (coded) => {
  const decoder = new LosslessDecoder();
  try {
    decoder.decompress(coded.slice().buffer);
  } catch {
    throw damagedLossless();
  }
  return decoder;
};
// The codestream with more data before its end marker.
const followed = (coded, byte) => {
  let end = coded.length - 2;
  while (end > 0 && !(coded[end] === 0xff && coded[end + 1] === 0xd9)) end -= 1;
  const longer = new Uint8Array(coded.length + 8).fill(byte);
  longer.set(coded.subarray(0, end));
  longer.set(coded.subarray(end), end + 8);
  return longer;
};
