"use strict";

/** The bytes of a text in base64. */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function joined(first, second) {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

/** The network: its module with SIMD where the browser takes that, else the one without. */
class Network {
  static async load(data) {
    if (typeof WebAssembly !== "object") {
      throw new Error("this browser has no WebAssembly: open the page in a newer one");
    }
    const tail = bytesOf(data.tail);
    const fast = joined(bytesOf(data.simd), tail);
    const simd = WebAssembly.validate(fast);
    const code = simd ? fast : joined(bytesOf(data.plain), tail);
    const { instance } = await WebAssembly.instantiate(code, { env: { expf: Math.exp } });
    return new Network(data, instance.exports, simd);
  }

  constructor(data, exported, simd) {
    this.simd = simd;
    this.shape = data.shape;
    this.takesFloats = data.mapping !== null;
    this.exported = exported;
    const memory = exported.memory;
    const size = this.shape[0] * this.shape[1] * this.shape[2];
    const at = Math.ceil(exported.__heap_base.value / 16) * 16;
    const logits = at + Math.ceil((size * (this.takesFloats ? 4 : 1)) / 16) * 16;
    const missing = logits + 4 * data.classes.length - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    const Numbers = this.takesFloats ? Float32Array : Uint8Array;
    this.image = new Numbers(memory.buffer, at, size);
    this.logits = new Float32Array(memory.buffer, logits, data.classes.length);
    const kept = exported.frostbit_debug_words;
    this.kept = kept ? new Uint8Array(memory.buffer, kept.value, data.keptBytes) : new Uint8Array(0);
  }

  /** Logits of one image: numbers in rows, channels last, as the network takes them. */
  run(image) {
    this.image.set(image);
    this.exported.frostbit_run(this.image.byteOffset, this.logits.byteOffset);
    return this.logits.slice();
  }

  /** Milliseconds a run, of `calls` runs on the image of the last one; clocks here are coarse. */
  time(calls) {
    const start = performance.now();
    for (let i = 0; i < calls; i++) {
      this.exported.frostbit_run(this.image.byteOffset, this.logits.byteOffset);
    }
    return (performance.now() - start) / calls;
  }

  /** So many runs that together they take a few milliseconds. */
  callsAtOnce() {
    let calls = 1;
    while (calls < 4096 && calls * this.time(calls) < 4) calls *= 2;
    return calls;
  }
}

const CRC = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** CRC-32, as in zip files. */
function checksum(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Pixels of the stored answers' picture number `index`: noise, from each pixel's number. */
function noise(size, index) {
  return Uint8Array.from({ length: size }, (_, pixel) => {
    let h = Math.imul(index * size + pixel, 0x9e3779b1);
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    return (h ^ (h >>> 16)) & 255;
  });
}

/** Pixels as the network takes them: float32 of a double, as the engine's preprocessing. */
function asGiven(pixels, data) {
  if (data.mapping === null) return pixels;
  const [mul, add] = data.mapping;
  const channels = data.shape[2];
  return Float32Array.from(pixels, (pixel, i) => pixel * mul[i % channels] + add[i % channels]);
}

/** Runs the pictures of the stored answers; says what is equal. */
async function check(network, data) {
  const size = data.shape[0] * data.shape[1] * data.shape[2];
  const count = data.allowance.length;
  const stored = new Float32Array(bytesOf(data.logits).buffer);
  const found = { count, equal: 0, within: 0, signs: 0, agree: 0, largest: 0 };
  for (let index = 0; index < count; index++) {
    const wanted = stored.subarray(index * data.classes.length, (index + 1) * data.classes.length);
    const got = network.run(asGiven(noise(size, index), data));
    const apart = Math.max(...got.map((value, k) => Math.abs(value - wanted[k])));
    found.equal += apart === 0;
    found.within += apart <= data.allowance[index];
    found.signs += data.signs.length > 0 && checksum(network.kept) === data.signs[index];
    found.agree += got.indexOf(Math.max(...got)) === wanted.indexOf(Math.max(...wanted));
    found.largest = Math.max(found.largest, apart);
    await new Promise((done) => setTimeout(done));
  }
  return found;
}
