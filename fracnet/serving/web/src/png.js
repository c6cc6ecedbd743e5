// PNG of every kind to grey levels. A canvas would give 8 bits, in its own colors.
import { Unzlib } from "fflate";
import { BadImage, checkSize, luma, onBlack, stretched } from "./grey.js";

const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
const crc = (bytes) => {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
};
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// First column and row, and the steps between them, of Adam7's passes.
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

export const decodePng = (data) => {
  const { header, palette, transparency, parts } = chunks(data);
  if (!header) throw new BadImage("this PNG file has no header");
  const view = new DataView(header.buffer, header.byteOffset);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, color, interlaced] = [header[8], header[9], header[12]];
  if (!(DEPTHS[color] || []).includes(depth) || interlaced > 1) {
    throw new BadImage(`PNG of color type ${color} with ${depth} bits does not exist`);
  }
  checkSize(width, height);
  const image = { width, height, depth, channels: CHANNELS[color] };
  const samples = unpacked(parts, image, interlaced ? PASSES : [[0, 0, 1, 1]]);
  return { width, height, pixels: toGrey(samples, image, color, palette, transparency) };
};

const chunks = (data) => {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const found = { header: null, palette: null, transparency: null, parts: [] };
  for (let place = 8; ;) {
    if (place + 12 > data.length) throw new BadImage("the PNG file is truncated");
    const length = view.getUint32(place);
    const name = String.fromCharCode(...data.subarray(place + 4, place + 8));
    const end = place + 8 + length;
    if (end + 4 > data.length) throw new BadImage("the PNG file is truncated");
    const content = data.subarray(place + 8, end);
    const needed = ["IHDR", "PLTE", "IDAT", "IEND", "tRNS"].includes(name);
    if (needed && crc(data.subarray(place + 4, end)) !== view.getUint32(end)) {
      throw new BadImage(`the PNG file is damaged: wrong checksum of its part ${name}`);
    }
    if (name === "IEND") return found;
    if (name === "IHDR") found.header = content;
    else if (name === "PLTE") found.palette = content;
    else if (name === "tRNS") found.transparency = content;
    else if (name === "IDAT") found.parts.push(content);
    place = end + 4;
  }
};

// Samples, one number each, of all passes in their places.
const unpacked = (parts, { width, height, depth, channels }, passes) => {
  const sizes = passes.map(([x, y, across, down]) => [
    Math.max(0, Math.ceil((width - x) / across)), Math.max(0, Math.ceil((height - y) / down)),
  ]);
  const lineBytes = (columns) => Math.ceil((columns * channels * depth) / 8);
  const total = sizes.reduce((sum, [columns, rows]) =>
    sum + (columns ? rows * (1 + lineBytes(columns)) : 0), 0);
  const raw = inflated(parts, total);
  const samples = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * channels);
  const step = Math.max(1, (channels * depth) / 8);
  let place = 0;
  passes.forEach(([x, y, across, down], pass) => {
    const [columns, rows] = sizes[pass];
    const bytes = lineBytes(columns);
    let before = new Uint8Array(bytes);
    for (let row = 0; columns && row < rows; row += 1) {
      const line = raw.subarray(place + 1, place + 1 + bytes);
      unfilter(raw[place], line, before, step);
      place += 1 + bytes;
      before = line;
      let target = ((y + row * down) * width + x) * channels;
      for (let i = 0; i < columns * channels; i += 1) {
        if (depth === 8) samples[target] = line[i];
        else if (depth === 16) samples[target] = (line[2 * i] << 8) | line[2 * i + 1];
        else {
          const bit = i * depth;
          samples[target] = (line[bit >> 3] >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
        }
        target += i % channels === channels - 1 ? 1 + (across - 1) * channels : 1;
      }
    }
  });
  return samples;
};

const inflated = (parts, total) => {
  const raw = new Uint8Array(total);
  let filled = 0;
  const inflate = new Unzlib((chunk) => {
    raw.set(chunk.subarray(0, total - filled), filled); // what follows the image is ignored
    filled = Math.min(total, filled + chunk.length);
  });
  try {
    for (const part of parts) {
      if (filled < total) inflate.push(part, false);
    }
  } catch {
    throw new BadImage("the PNG file is damaged: its pixels cannot be decompressed");
  }
  if (filled < total) throw new BadImage(`the PNG file is truncated: ${filled} of ${total} bytes of pixels`);
  return raw;
};

const unfilter = (kind, line, before, step) => {
  if (kind > 4) throw new BadImage(`the PNG file is damaged: there is no filter ${kind}`);
  for (let i = 0; kind && i < line.length; i += 1) {
    const left = i < step ? 0 : line[i - step];
    const up = before[i];
    if (kind === 1) line[i] += left;
    else if (kind === 2) line[i] += up;
    else if (kind === 3) line[i] += (left + up) >> 1;
    else {
      const corner = i < step ? 0 : before[i - step];
      const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
      line[i] += a <= b && a <= c ? left : b <= c ? up : corner;
    }
  }
};

const toGrey = (samples, { width, height, depth, channels }, color, palette, transparency) => {
  const n = width * height;
  const grey = new Uint8Array(n);
  if (depth === 16) return deepGrey(samples, n, channels, transparency);
  const hidden = transparency && new DataView(transparency.buffer, transparency.byteOffset, transparency.length);
  if (color === 3) {
    if (!palette) throw new BadImage("this PNG file has no palette");
    const levels = new Uint8Array(256);
    for (let i = 0; i < palette.length / 3; i += 1) {
      levels[i] = luma(palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]);
      if (transparency) levels[i] = onBlack(levels[i], i < transparency.length ? transparency[i] : 255);
    }
    for (let i = 0; i < n; i += 1) grey[i] = levels[samples[i]];
    return grey;
  }
  if (channels === 1) {
    const scale = 255 / ((1 << depth) - 1);
    const none = hidden ? hidden.getUint16(0) : -1;
    for (let i = 0; i < n; i += 1) grey[i] = samples[i] === none ? 0 : samples[i] * scale;
    return grey;
  }
  for (let i = 0, j = 0; i < n; i += 1, j += channels) {
    if (channels === 2) grey[i] = onBlack(samples[j], samples[j + 1]);
    else {
      const value = luma(samples[j], samples[j + 1], samples[j + 2]);
      if (channels === 4) grey[i] = onBlack(value, samples[j + 3]);
      else {
        const clear = hidden && [0, 1, 2].every((c) => samples[j + c] === hidden.getUint16(2 * c));
        grey[i] = clear ? 0 : value;
      }
    }
  }
  return grey;
};

// Of 16 bits: transparent colors of grey are ignored, as Python ignores them.
const deepGrey = (samples, n, channels, transparency) => {
  if (channels === 1) return stretched(samples);
  if (transparency) throw new BadImage("PNG of 16-bit color with a transparent color is not supported");
  const values = new Float64Array(n);
  for (let i = 0, j = 0; i < n; i += 1, j += channels) {
    // Blue first: the order of the additions in Python.
    if (channels === 2) values[i] = samples[j] * 0.114 + samples[j] * 0.587 + samples[j] * 0.299;
    else values[i] = samples[j + 2] * 0.114 + samples[j + 1] * 0.587 + samples[j] * 0.299;
    if (channels % 2 === 0) values[i] *= samples[j + channels - 1] / 65535;
  }
  return stretched(values);
};
