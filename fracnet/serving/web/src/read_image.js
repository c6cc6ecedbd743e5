// A file's bytes as grey uint8, equal to the last level to `read_grey` of fracnet/data/image_io.py.
import { decodeJpeg } from "./codecs.js";
import { decodeDicom, isDicom, readIds } from "./dicom.js";
import { BadImage, checkSize, fromColor } from "./grey.js";
import { jpegSize } from "./jpeg_size.js";
import { decodePng } from "./png.js";

const starts = (data, ...bytes) => bytes.every((byte, i) => data[i] === byte);

// {width, height, pixels, patient, study, error}; pixels are null where `error` says why.
export const readImage = async (data) => {
  const dicom = isDicom(data);
  let image = { width: 0, height: 0, pixels: null };
  let error = "";
  let ids = { patient: null, study: null };
  try {
    image = await (dicom ? decodeDicom(data) : decodePicture(data));
  } catch (fault) {
    error = reason(fault);
  }
  if (dicom) {
    try {
      ids = readIds(data); // even if the pixels are broken: then the study lacks a view
    } catch (fault) {
      error = error || reason(fault);
    }
  }
  return { ...image, ...ids, error, ...(error ? { pixels: null } : {}) };
};

const reason = (fault) => {
  if (fault instanceof BadImage) return fault.message;
  if (fault instanceof RangeError) return "it needs more memory than this browser gives";
  return `it cannot be read (${typeof fault === "string" ? fault : fault.message || fault})`;
};

const decodePicture = async (data) => {
  if (starts(data, 0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)) return decodePng(data);
  if (starts(data, 0xff, 0xd8, 0xff)) return jpegGrey(data);
  const others = { TIFF: [[0x49, 0x49, 42, 0], [0x4d, 0x4d, 0, 42]], GIF: [[0x47, 0x49, 0x46, 0x38]], BMP: [[0x42, 0x4d]] };
  for (const [name, kinds] of Object.entries(others)) {
    if (kinds.some((bytes) => starts(data, ...bytes))) {
      throw new BadImage(`${name} images are not supported by this page; use JPEG, PNG or DICOM`);
    }
  }
  throw new BadImage("it is not a JPEG, PNG or DICOM image");
};

const jpegGrey = async (data) => {
  const size = jpegSize(data);
  if (!size) throw new BadImage("its JPEG data are damaged or truncated");
  if (size.precision !== 8 || ![1, 3].includes(size.channels)) {
    throw new BadImage(`JPEG with ${size.channels} channels of ${size.precision} bits is not supported by this page`);
  }
  checkSize(size.width, size.height);
  const { width, height, channels, bytes } = await decodeJpeg(data);
  return { width, height, pixels: channels === 3 ? fromColor(bytes) : bytes };
};
