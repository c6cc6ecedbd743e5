// DICOM to grey levels as its header says: the rules of fracnet/data/dicom.py, step by step.
import dicomParser from "dicom-parser";
import { decodeJpeg, decodeJpeg2000, decodeJpegLossless, decodeJpegLs } from "./codecs.js";
import { BadImage, checkSize, rint } from "./grey.js";
import { jpegSize } from "./jpeg_size.js";

const TAGS = {
  charset: "x00080005", patient: "x00100020", study: "x0020000d", samples: "x00280002", photometric: "x00280004",
  frames: "x00280008", rows: "x00280010", columns: "x00280011", allocated: "x00280100", stored: "x00280101",
  highBit: "x00280102", signed: "x00280103", padding: "x00280120", paddingEnd: "x00280121", center: "x00281050",
  width: "x00281051", intercept: "x00281052", slope: "x00281053", voiFunction: "x00281056", modality: "x00283000",
  descriptor: "x00283002", table: "x00283006", voi: "x00283010", pixels: "x7fe00010",
};
const UIDS = "1.2.840.10008.1.2";
const DEFLATED = `${UIDS}.1.99`;
const BIG_ENDIAN = `${UIDS}.2`;
const RLE = `${UIDS}.5`;
const JPEG_BASELINE = `${UIDS}.4.50`;
const JPEG_EXTENDED = `${UIDS}.4.51`;
const JPEG_LS_LOSSY = `${UIDS}.4.81`;
const DECODERS = {
  [JPEG_BASELINE]: decodeJpeg,
  [JPEG_EXTENDED]: decodeJpeg,
  [`${UIDS}.4.57`]: decodeJpegLossless,
  [`${UIDS}.4.70`]: decodeJpegLossless,
  [`${UIDS}.4.80`]: decodeJpegLs,
  [JPEG_LS_LOSSY]: decodeJpegLs,
  [`${UIDS}.4.90`]: decodeJpeg2000,
  [`${UIDS}.4.91`]: decodeJpeg2000,
};
const MAX_PADDING = 64; // bytes of any value after the end of an image

export const isDicom = (data) => data.length > 132 && String.fromCharCode(...data.subarray(128, 132)) === "DICM";

const parsed = (data, options) => {
  let syntax;
  try {
    syntax = dicomParser.readPart10Header(data).string("x00020010");
  } catch (error) {
    if (String(error).includes("0002,0010")) throw new BadImage("its DICOM header names no transfer syntax");
    throw new BadImage("its DICOM header is damaged or truncated");
  }
  if (syntax === DEFLATED) throw new BadImage("it is deflated as a whole, which is not supported");
  try {
    return { dataset: dicomParser.parseDicom(data, options), syntax };
  } catch ({ dataSet: dataset }) { // what comes before the damage
    if (dataset) return { dataset, syntax };
    throw new BadImage("this DICOM file is truncated, or its header is damaged");
  }
};

// {patient, study} as text, null where the header has none.
export const readIds = (data) => {
  const { dataset } = parsed(data, { untilTag: TAGS.rows });
  const charset = dataset.string(TAGS.charset) || "";
  const decoder = new TextDecoder(charset.includes("192") ? "utf-8" : "latin1");
  const id = (tag) => {
    const element = dataset.elements[tag];
    if (!element) return null;
    const bytes = data.subarray(element.dataOffset, element.dataOffset + element.length);
    // Headers are padded with NUL.
    return decoder.decode(bytes).replace(/\p{Cc}/gu, " ").split(/\s+/).filter(Boolean).join(" ") || null;
  };
  return { patient: id(TAGS.patient), study: id(TAGS.study) };
};

export const decodeDicom = async (data) => {
  const { dataset, syntax } = parsed(data, {});
  if (!dataset.elements[TAGS.pixels]) {
    throw new BadImage("this DICOM file has no pixel data, or is truncated before them");
  }
  const header = checkedHeader(dataset);
  const { width, height } = header;
  const codes = await storedPixels(dataset, syntax, header);
  return { width, height, pixels: displayed(dataset, codes, header) };
};

// Whether the pixel data end before a second frame could.
const holdsOneFrame = (dataset) => {
  const { fragments, length } = dataset.elements[TAGS.pixels];
  const bits = [TAGS.rows, TAGS.columns, TAGS.allocated].map((tag) => dataset.uint16(tag) || 0);
  return fragments ? fragments.length === 1 : length < (2 * bits[0] * bits[1] * bits[2]) / 8;
};

const integer = (dataset, tag, name, otherwise) => {
  const value = dataset.uint16(tag);
  if (value === undefined && otherwise === undefined) throw new BadImage(`its DICOM header has no ${name}`);
  return value === undefined ? otherwise : value;
};

const checkedHeader = (dataset) => {
  const frames = Number(dataset.string(TAGS.frames) || 1);
  // Some devices write 0 for a single image.
  if (frames !== 1 && !(frames === 0 && holdsOneFrame(dataset))) throw new BadImage(`it has ${frames} frames; only single images are supported`);
  const kind = dataset.string(TAGS.photometric);
  if (!kind) {
    throw new BadImage("its DICOM header has no PhotometricInterpretation, so whether bright is white or black is unknown");
  }
  const samples = integer(dataset, TAGS.samples, "SamplesPerPixel", 1);
  if (!["MONOCHROME1", "MONOCHROME2"].includes(kind) || samples !== 1) {
    throw new BadImage(`it is a color image (${kind}, ${samples} samples per pixel); only MONOCHROME1 and ` +
      "MONOCHROME2 are supported");
  }
  const allocated = integer(dataset, TAGS.allocated, "BitsAllocated");
  const bits = integer(dataset, TAGS.stored, "BitsStored");
  if (![8, 16].includes(allocated) || bits < 8 || bits > allocated) {
    throw new BadImage(`its pixels have ${bits} of ${allocated} bits; 8 to 16 are supported`);
  }
  const highBit = integer(dataset, TAGS.highBit, "HighBit", bits - 1);
  if (highBit !== bits - 1) throw new BadImage(`its pixels end at bit ${highBit} instead of ${bits - 1}`);
  const [width, height] = [integer(dataset, TAGS.columns, "Columns"), integer(dataset, TAGS.rows, "Rows")];
  checkSize(width, height);
  return {
    width, height, allocated, bits, inverted: kind === "MONOCHROME1", signed: Boolean(integer(dataset, TAGS.signed, "", 0)),
  };
};

// uint16 codes of the pixels, without the bits above `header.bits`; corrects that for JPEG 2000.
const storedPixels = async (dataset, syntax, header) => {
  const { width, height, allocated } = header;
  const element = dataset.elements[TAGS.pixels];
  const n = width * height;
  if ([UIDS, `${UIDS}.1`, BIG_ENDIAN].includes(syntax)) {
    const expected = (n * allocated) / 8;
    const bytes = dataset.byteArray.subarray(element.dataOffset, element.dataOffset + element.length);
    if (bytes.length < expected) {
      throw new BadImage(`the file is truncated: ${bytes.length} of ${expected} bytes of pixels`);
    }
    if (syntax === BIG_ENDIAN && allocated === 8) throw new BadImage("8-bit pixels in big-endian order are not supported");
    return codesOf(dataset, masked(bytes, n, allocated / 8, 16, syntax !== BIG_ENDIAN), header);
  }
  const decode = DECODERS[syntax];
  if (!decode && syntax !== RLE) throw new BadImage(`its compression, ${syntax}, is not supported by this page`);
  if (!element.encapsulatedPixelData || !element.fragments.length || dataset.warnings.length) {
    throw new BadImage("its compressed data are damaged or truncated");
  }
  const coded = Uint8Array.from(dicomParser.readEncapsulatedPixelDataFromFragments(dataset, element, 0, element.fragments.length));
  if (syntax === RLE) {
    return codesOf(dataset, masked(unrolled(coded, n, allocated / 8), n, allocated / 8, 16, true), header);
  }
  const jpeg2000 = decode === decodeJpeg2000;
  const size = jpeg2000 ? jpeg2000Size(coded) : jpegSize(coded);
  if (!size || size.width !== width || size.height !== height || size.channels !== 1) {
    const actual = size ? `${size.width}x${size.height}, ${size.channels} channels` : "of unknown size";
    throw new BadImage(`its header says ${width}x${height}, grey, but its compressed data are ${actual}`);
  }
  if (!jpeg2000 && !hasEnd(coded)) throw new BadImage("its compressed data are truncated");
  if (decode === decodeJpeg && size.precision !== 8) {
    throw new BadImage(`lossy JPEG of ${size.precision} bits is not supported by this page`);
  }
  const image = await decode(coded);
  if (jpeg2000) header.bits = size.precision; // the header's sign applies to the codestream's bits
  const bytes = image.bytes.length / n;
  const depth = header.bits;
  if (image.width !== width || image.height !== height || ![1, 2].includes(bytes)) {
    throw new BadImage(`its compressed data are not ${width}x${height} pixels of ${depth} bits`);
  }
  const values = masked(image.bytes, n, bytes, 16, true);
  const highest = image.isSigned ? 0 : values.reduce((a, b) => Math.max(a, b), 0);
  const limit = 2 ** depth - 1;
  if (highest > limit) {
    // Lossy data may exceed the range of the original.
    if (![JPEG_EXTENDED, JPEG_LS_LOSSY].includes(syntax) || highest > 2 * limit + 1) {
      throw new BadImage(`its compressed data are not ${width}x${height} pixels of ${depth} bits`);
    }
    return values.map((value) => Math.min(value, limit));
  }
  return values.map((value) => value & limit);
};

const masked = (bytes, n, size, bits, littleEndian) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const mask = 2 ** bits - 1;
  return Uint16Array.from({ length: n }, (_, i) => (size === 1 ? bytes[i] : view.getUint16(2 * i, littleEndian)) & mask);
};

// The stored bits. The standard leaves those above undefined (PS3.5 8.1.1). They are part of the values, which would
// wrap without them, where neighbors in a row of which they differ are closer with them than without.
const codesOf = (dataset, words, { width, allocated, bits, signed }) => {
  const padding = dataset.uint16(TAGS.padding);
  const other = dataset.uint16(TAGS.paddingEnd);
  const ends = [padding, other === undefined ? padding : other];
  const isPadding = (word) => word >= Math.min(...ends) && word <= Math.max(...ends);
  const value = (word, used) => {
    const code = word & (2 ** used - 1);
    return signed && code >> (used - 1) ? code - 2 ** used : code;
  };
  const shift = bits - (signed ? 1 : 0); // of signed values, those from half the range on wrap
  const distance = [0, 0]; // with and without
  words.forEach((word, place) => {
    const before = words[place - 1];
    if (place % width === 0 || before >> shift === word >> shift || isPadding(before) || isPadding(word)) return;
    [allocated, bits].forEach((used, at) => {
      distance[at] += Math.abs(value(word, used) - value(before, used));
    });
  });
  if (distance[0] < distance[1]) {
    throw new BadImage(`its pixels have values of more than the ${bits} bits that its header says are stored`);
  }
  return words.map((word) => word & (2 ** bits - 1));
};

// RLE of DICOM PS3.5, annex G: a segment for each byte of the pixels, the highest first.
const unrolled = (coded, n, size) => {
  const view = new DataView(coded.buffer);
  const damaged = () => new BadImage("its RLE data are damaged or truncated");
  if (coded.length < 64 || view.getUint32(0, true) !== size) throw damaged();
  const result = new Uint8Array(n * size);
  for (let segment = 0; segment < size; segment += 1) {
    let place = view.getUint32(4 + 4 * segment, true);
    const next = segment + 1 < size ? view.getUint32(8 + 4 * segment, true) : coded.length;
    let filled = 0;
    const put = (value) => {
      if (filled < n) result[filled * size + size - 1 - segment] = value;
      filled += 1;
    };
    while (filled < n) {
      if (place >= next || next > coded.length) throw damaged();
      const count = view.getInt8(place);
      place += 1;
      if (count >= 0) {
        if (place + count >= next) throw damaged();
        for (let i = 0; i <= count; i += 1) put(coded[place + i]);
        place += count + 1;
      } else if (count !== -128) {
        if (place >= next) throw damaged();
        for (let i = 0; i <= -count; i += 1) put(coded[place]);
        place += 1;
      }
    }
  }
  return result;
};

const jpeg2000Size = (coded) => {
  // At the start, or inside a JP2 file's boxes.
  for (let place = 0; place + 43 < Math.min(coded.length, 4096); place += 1) {
    if (coded[place] !== 0xff || coded[place + 1] !== 0x4f || coded[place + 2] !== 0xff || coded[place + 3] !== 0x51) continue;
    const view = new DataView(coded.buffer, place + 8);
    const [right, lower, left, upper] = [0, 4, 8, 12].map((i) => view.getUint32(i));
    return { width: right - left, height: lower - upper, channels: view.getUint16(32), precision: (coded[place + 42] & 127) + 1 };
  }
  return null;
};

const hasEnd = (coded) => {
  for (let end = coded.length - 2; end >= 0; end -= 1) {
    if (coded[end] === 0xff && coded[end + 1] === 0xd9) {
      const padding = coded.subarray(end + 2);
      return padding.length <= MAX_PADDING || padding.every((byte) => byte === padding[0]);
    }
  }
  return false;
};

// uint8 of codes: modality, window or table, polarity; computed once for each possible value.
const displayed = (dataset, codes, { bits, signed, inverted }) => {
  const n = 2 ** bits;
  const numbers = Float64Array.from({ length: n }, (_, i) => (signed && i >= n / 2 ? i - n : i));
  const occurs = new Uint8Array(n);
  for (const code of codes) occurs[code] = 1;
  const padding = paddingOf(dataset, numbers);
  const present = [];
  for (let i = 0; i < n; i += 1) if (occurs[i] && !padding(numbers[i])) present.push(i);
  if (!present.length) throw new BadImage("all of its pixels are padding");
  const values = modality(dataset, numbers, signed);
  const { steps, low, high } = voi(dataset, values, signed) || ownRange(values, present, numbers);
  if (!(high > low)) throw new BadImage("its look-up table or rescaling maps all values to one grey");
  const span = high - low;
  const grey = Uint8Array.from(steps, (value) => {
    const step = inverted ? high - value : value - low;
    return rint(Math.min(span, Math.max(0, step)) * (255 / span));
  });
  if (present.length > 1 && present.every((i) => grey[i] === grey[present[0]])) {
    throw new BadImage("its window or look-up table maps all pixels to one grey");
  }
  numbers.forEach((number, i) => { if (padding(number)) grey[i] = 0; });
  return Uint8Array.from(codes, (code) => grey[code]);
};

const paddingOf = (dataset, numbers) => {
  const value = dataset.uint16(TAGS.padding);
  if (value === undefined) return () => false;
  const other = dataset.uint16(TAGS.paddingEnd);
  // Some devices write it as unsigned although the pixels are signed: the code is the same.
  const ends = [value, other === undefined ? value : other].map((end) => numbers[end % numbers.length]);
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  return (number) => number >= least && number <= most;
};

const decimal = (dataset, tag, name, otherwise) => {
  const text = (dataset.string(tag) || "").split("\\")[0].trim();
  if (text === "") return otherwise;
  const number = Number(text);
  if (Number.isNaN(number)) {
    throw new BadImage(`its ${name} '${text}' is not a number${text.includes(",") ? "; decimals need a point" : ""}`);
  }
  if (!(Math.abs(number) < 1e9)) throw new BadImage(`its ${name} is ${text}`);
  return number;
};

const items = (dataset, tag) => (dataset.elements[tag] && dataset.elements[tag].items) || [];

const modality = (dataset, numbers, signed) => {
  const tables = items(dataset, TAGS.modality);
  if (tables.length) return lookedUp(tables[0].dataSet, numbers, signed).values;
  const slope = decimal(dataset, TAGS.slope, "RescaleSlope", 1);
  const intercept = decimal(dataset, TAGS.intercept, "RescaleIntercept", 0);
  if (Math.abs(slope) < 1e-9) throw new BadImage(`its rescale slope is ${slope}`);
  return numbers.map((value) => value * slope + intercept);
};

// {steps, low, high}, in whose unit grey is linear; null without a table and a window.
const voi = (dataset, values, signed) => {
  const tables = items(dataset, TAGS.voi);
  if (tables.length) {
    const { values: steps, table } = lookedUp(tables[0].dataSet, values, signed);
    // The table's own range, not that of its bits: some 12-bit tables claim 16.
    return { steps, ...range(table) };
  }
  let center = decimal(dataset, TAGS.center, "WindowCenter");
  let width = decimal(dataset, TAGS.width, "WindowWidth");
  if (center === undefined && width === undefined) return null;
  if (center === undefined || width === undefined) throw new BadImage("its window lacks center or width");
  const kind = dataset.string(TAGS.voiFunction) || "LINEAR";
  if (!["LINEAR", "LINEAR_EXACT", "SIGMOID"].includes(kind)) {
    throw new BadImage(`its VOI LUT function '${kind.slice(0, 20)}' is unknown`);
  }
  if (width < (kind === "LINEAR" ? 1 : 1e-6)) throw new BadImage(`its window width ${width} is too small`);
  if (kind === "SIGMOID") {
    const exponent = (value) => Math.min(60, Math.max(-60, (-4 * (value - center)) / width));
    return { steps: values.map((value) => 1 / (1 + Math.exp(exponent(value)))), low: 0, high: 1 };
  }
  if (kind === "LINEAR") {
    center -= 0.5;
    width -= 1;
    if (width === 0) return { steps: values.map((value) => (value > center ? 1 : 0)), low: 0, high: 1 };
  }
  return { steps: values, low: center - width / 2, high: center + width / 2 };
};

const range = (values) => ({
  low: values.reduce((a, b) => Math.min(a, b), Infinity), high: values.reduce((a, b) => Math.max(a, b), -Infinity),
});

// Without a window: the image's own range, or that of all possible values.
const ownRange = (values, present, numbers) => {
  const unscaled = numbers.length === 256 && values.every((value, i) => value === numbers[i]);
  const used = unscaled || present.length === 1 ? values : present.map((i) => values[i]);
  return { steps: values, ...range(used) };
};

const lookedUp = (sequence, values, signed) => {
  const descriptor = sequence.elements[TAGS.descriptor];
  const content = sequence.elements[TAGS.table];
  if (!descriptor || !content || descriptor.length < 6) throw new BadImage("its look-up table is incomplete");
  const n = sequence.uint16(TAGS.descriptor, 0) || 1 << 16;
  let first = sequence.uint16(TAGS.descriptor, 1);
  const isSigned = descriptor.vr === "SS" || (!descriptor.vr && signed);
  if (first >= 1 << 15 && (isSigned || range(values).low < 0)) first -= 1 << 16;
  const bytes = sequence.byteArray.subarray(content.dataOffset, content.dataOffset + content.length);
  const isWord = ["US", "SS"].includes(content.vr) || ![n, n + (n % 2)].includes(bytes.length);
  const length = isWord ? bytes.length / 2 : bytes.length;
  if (length < n) throw new BadImage(`its look-up table has only ${length} of ${n} entries`);
  const table = Float64Array.from({ length: n }, (_, i) => (isWord ? sequence.uint16(TAGS.table, i) : bytes[i]));
  return { values: values.map((value) => table[Math.min(n - 1, Math.max(0, rint(value) - first))]), table };
};
