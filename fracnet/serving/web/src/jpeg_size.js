// {width, height, channels, precision} from a JPEG or JPEG-LS codestream; null if unclear.
export const jpegSize = (coded) => {
  let place = 2;
  while (place + 9 < coded.length && coded[place] === 0xff) {
    const marker = coded[place + 1];
    if (marker === 0xff) { // padding
      place += 1;
      continue;
    }
    if ((marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) || marker === 0xf7) {
      const pair = (i) => (coded[place + i] << 8) | coded[place + i + 1];
      return { precision: coded[place + 4], height: pair(5), width: pair(7), channels: coded[place + 9] };
    }
    place += 2 + ((coded[place + 2] << 8) | coded[place + 3]);
  }
  return null;
};
