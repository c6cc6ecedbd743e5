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
  const decoder = new LosslessDecoder();
  try {
    const buffer = decoder.decompress(coded.slice().buffer);
    const { dimX: width, dimY: height, numComp: channels, precision: bits } = decoder.frame;
    return { width, height, bits, channels, bytes: new Uint8Array(buffer) };
  } catch {
    throw new BadImage("its lossless JPEG data are damaged or truncated");
  }
};
