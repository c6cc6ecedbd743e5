// What the page shows: the image at most 1024 pixels a side, and the class map in its place.
import { rint } from "./grey.js";

const MAX_SIDE = 1024;

export const shownImage = ({ width, height, pixels }) => {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  if (scale === 1) return { width, height, values: pixels };
  const [wide, high] = [width, height].map((side) => Math.max(1, rint(side * scale)));
  // Means over areas, along one axis after the other.
  const rows = averaged(pixels, height, width, high, (row, column) => row * width + column);
  const values = averaged(rows, width, high, wide, (column, row) => row * width + column);
  const turned = new Uint8Array(wide * high);
  for (let x = 0; x < wide; x += 1) for (let y = 0; y < high; y += 1) turned[y * wide + x] = rint(values[x * high + y]);
  return { width: wide, height: high, values: turned };
};

// float32 [to, across]: means of `from` lines of `across` values at place(line, position).
const averaged = (values, from, across, to, place) => {
  const result = new Float32Array(to * across);
  const step = from / to;
  for (let line = 0; line < to; line += 1) {
    const [start, end] = [line * step, Math.min(from, (line + 1) * step)];
    for (let source = Math.floor(start); source < end; source += 1) {
      const share = (Math.min(end, source + 1) - Math.max(start, source)) / (end - start);
      for (let i = 0; i < across; i += 1) result[line * across + i] += share * values[place(source, i)];
    }
  }
  return result;
};

// The map of class `choice`, what lowers its score cut off, with the maximum 255, like `image`; null if empty.
export const shownMap = ({ class_map: maps, mapShape: [, rows, columns] }, choice, image, original, { preprocess, image_size: side }) => {
  const map = maps.slice(choice * rows * columns, (choice + 1) * rows * columns);
  const { width, height } = image;
  const { left, top, wide, high } = frame(original, preprocess, side);
  const at = (n, size, start, length, cells) => {
    const place = ((start + ((n + 0.5) / size) * length) / side) * cells - 0.5;
    const inside = Math.min(cells - 1, Math.max(0, place));
    const first = Math.floor(inside);
    return [first, Math.min(cells - 1, first + 1), inside - first];
  };
  const across = Array.from({ length: width }, (_, x) => at(x, width, left, wide, columns));
  const smooth = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const [upper, lower, down] = at(y, height, top, high, rows);
    for (let x = 0; x < width; x += 1) {
      const [before, after, share] = across[x];
      const value = (row) => Math.max(0, map[row * columns + before]) * (1 - share) +
        Math.max(0, map[row * columns + after]) * share;
      smooth[y * width + x] = value(upper) * (1 - down) + value(lower) * down;
    }
  }
  const highest = smooth.reduce((a, b) => Math.max(a, b), 0);
  return { width, height, empty: !highest, values: Uint8Array.from(smooth, (value) => (highest ? rint((255 * value) / highest) : 0)) };
};

// Where the image lies in the preprocessed one, as `Preprocess.frame` says.
const frame = ({ width, height }, steps, side) => {
  if (steps.find(({ name }) => name === "resize").mode === "squash") return { left: 0, top: 0, wide: side, high: side };
  const scale = side / Math.max(width, height);
  const [wide, high] = [width, height].map((length) => Math.max(1, rint(length * scale)));
  return { left: Math.floor((side - wide) / 2), top: Math.floor((side - high) / 2), wide, high };
};
