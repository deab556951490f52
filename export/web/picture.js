/** Pictures -> the pixels that the network sees, in the integers of `pipeline predict`. */
const MOST_PIXELS = 1 << 26;
const FRACTION = 22; // bits behind the point of a weight when a picture is resized

/** A number rounded as in Python: the even one at a half. */
function roundEven(x) {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

/** Size to which a picture is scaled before its middle is cropped: [height, width]. */
function scaledSize(height, width, data) {
  if (data.margin === null) {
    const scale = Math.max(data.shape[0] / height, data.shape[1] / width);
    return [height, width].map((side, i) => Math.max(data.shape[i], roundEven(side * scale)));
  }
  const [high, wide] = data.margin;
  if (high * width >= wide * height) {
    return [high, Math.max(wide, Math.floor((high * width) / height))];
  }
  return [Math.max(high, Math.floor((wide * height) / width)), wide];
}

/** For each new place along one side: the first old one, and the weights of it and the next. */
function triangles(before, after) {
  const scale = before / after;
  const reach = Math.max(scale, 1);
  return Array.from({ length: after }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(before, Math.trunc(centre + reach + 0.5));
    const weights = [];
    for (let x = first; x < end; x++) {
      weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / reach))));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return [first, weights.map((weight) => Math.trunc(0.5 + (weight / total) * (1 << FRACTION)))];
  });
}

/** One side resized: bilinear with antialiasing, 8 bits, as Pillow rounds. `step` is from one
 * pixel to the next along that side, `lines` where each line starts, in and out. */
function resizeSide(pixels, made, after, lines, step, plan, channels) {
  for (const [from, to] of lines) {
    for (let place = 0; place < after; place++) {
      const [first, weights] = plan[place];
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (FRACTION - 1);
        let at = from + first * step + channel;
        for (const weight of weights) {
          sum += pixels[at] * weight;
          at += step;
        }
        made[to + place * step + channel] = Math.min(255, Math.max(0, sum >> FRACTION));
      }
    }
  }
}

function withWidth(picture, width) {
  const { height, channels } = picture;
  const made = new Uint8Array(height * width * channels);
  const lines = Array.from({ length: height }, (_, y) => [
    y * picture.width * channels,
    y * width * channels,
  ]);
  const plan = triangles(picture.width, width);
  resizeSide(picture.pixels, made, width, lines, channels, plan, channels);
  return { pixels: made, channels, height, width };
}

function withHeight(picture, height) {
  const { width, channels } = picture;
  const made = new Uint8Array(height * width * channels);
  const lines = Array.from({ length: width }, (_, x) => [x * channels, x * channels]);
  const plan = triangles(picture.height, height);
  resizeSide(picture.pixels, made, height, lines, width * channels, plan, channels);
  return { pixels: made, channels, height, width };
}

function resized(picture, [height, width]) {
  // Between both sides values are rounded, so the order counts. This is that of Pillow 13, found
  // by comparing: rows first where enough of them go.
  const gone = picture.height - height;
  if (gone > 0 && gone > 2 * (picture.width - width)) {
    return withWidth(withHeight(picture, height), width);
  }
  return withHeight(withWidth(picture, width), height);
}

function centre(picture, height, width) {
  const { pixels, channels } = picture;
  const top = Math.floor((picture.height - height) / 2);
  const left = Math.floor((picture.width - width) / 2);
  const made = new Uint8Array(height * width * channels);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * picture.width + left) * channels;
    made.set(pixels.subarray(from, from + width * channels), y * width * channels);
  }
  return made;
}

/** Red, green, blue, alpha -> grey (ITU-R 601, rounded) or the colours. */
function withoutAlpha(image, channels) {
  const count = image.width * image.height;
  const pixels = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    const [red, green, blue] = image.data.subarray(4 * i, 4 * i + 3);
    if (channels === 1) pixels[i] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
    else pixels.set([red, green, blue], 3 * i);
  }
  return { pixels, channels, height: image.height, width: image.width };
}

/** What the network sees of `image` (of a canvas): uint8 in rows, channels last. */
function preprocessed(image, data) {
  const size = scaledSize(image.height, image.width, data);
  if (size[0] * size[1] > MOST_PIXELS) {
    throw new Error(`a picture of ${image.width} x ${image.height} pixels is too thin: crop it`);
  }
  const plain = withoutAlpha(image, data.shape[2]);
  return centre(resized(plain, size), data.shape[0], data.shape[1]);
}

/** The picture in a file, upright, on white. */
async function decoded(file) {
  const plain = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, plain);
  } catch {
    throw new Error(`'${file.name}' is no picture that this browser reads: take PNG or JPEG`);
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    throw new Error(`'${file.name}' has more than ${MOST_PIXELS} pixels: make it smaller`);
  }
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}
