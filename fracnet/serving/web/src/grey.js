// From decoded samples to the grey levels that fracnet/data/image_io.py gives, exactly.

// A reason that is shown to the reader, without a period.
export class BadImage extends Error {}

export const MAX_PIXELS = 178956970; // of fracnet/data/image_io.py

export const checkSize = (width, height) => {
  if (width < 1 || height < 1) throw new BadImage(`it has no pixels (${width}x${height})`);
  if (width * height > MAX_PIXELS) {
    throw new BadImage(`its ${width}x${height} pixels exceed the limit of ${MAX_PIXELS}`);
  }
};

// Rounds halves to even, as NumPy and Python do.
export const rint = (value) => {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 ? floor + 1 : floor;
};

// Luma by ITU-R 601 as Pillow computes it.
export const luma = (red, green, blue) => (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;

export const onBlack = (grey, alpha) => Math.floor((grey * alpha + 127) / 255);

// Numbers from their own minimum..maximum to 0..255; a constant keeps its place in 16 bits.
export const stretched = (values) => {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const grey = new Uint8Array(values.length);
  if (high === low) return grey.fill(Math.min(255, rint(low / 257)));
  const scale = 255 / (high - low);
  for (let i = 0; i < values.length; i += 1) grey[i] = rint((values[i] - low) * scale);
  return grey;
};

export const fromColor = (pixels) => {
  const grey = new Uint8Array(pixels.length / 3);
  for (let i = 0; i < grey.length; i += 1) {
    grey[i] = luma(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
  }
  return grey;
};
