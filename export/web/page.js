const data = JSON.parse(document.getElementById("try-data").textContent);
const element = (name) => document.getElementById(`try-${name}`);
const [HEIGHT, WIDTH, CHANNELS] = data.shape;
const SHOWN = 5;
const number = (value) => value.toLocaleString("en");

function said(place, text, kind = "") {
  element(place).textContent = text;
  element(place).className = kind;
}

/** One line on what the stored answers showed, and whether it is good. */
function verdict(network, found) {
  const module = network.simd
    ? "WebAssembly with SIMD"
    : "WebAssembly without SIMD, which this browser does not have";
  const pictures = `${found.count} pictures, ${module}`;
  const signs = data.signs.length === found.count && found.count > 0;
  const bits = signs ? `${number(found.count * data.signBits)} sign bits and ` : "";
  if (signs && found.signs < found.count) {
    return [`DIFFERENT: signs of ${found.count - found.signs} of ${pictures}`, "bad"];
  }
  if (found.equal === found.count) {
    const logits = number(found.count * data.classes.length);
    return [`equal: ${bits}${logits} logits, bit for bit, on ${pictures}`, "good"];
  }
  const apart = `differ by at most ${found.largest.toPrecision(3)}`;
  if (found.within === found.count) {
    return [`equal: ${bits}answers; logits ${apart}, as rounding may, on ${pictures}`, "good"];
  }
  if (!data.exact) {
    const agree = `${found.agree} of ${found.count} answers agree, logits ${apart}`;
    return [`not an exact network, so rounding may flip signs: ${agree} (${module})`, ""];
  }
  return [`DIFFERENT: logits ${apart} on ${pictures}`, "bad"];
}

function scores(logits) {
  if (data.probabilities) return logits;
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

function showAnswers(logits) {
  const shares = scores(logits);
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  const rows = order.slice(0, SHOWN).map((k) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = data.classes[k];
    row.append(name);
    for (const text of [`${(100 * shares[k]).toFixed(1)} %`, logits[k].toPrecision(4)]) {
      row.insertCell().textContent = text;
    }
    return row;
  });
  element("answers").replaceChildren(...rows);
  said("best", `${data.classes[order[0]]}, ${(100 * shares[order[0]]).toFixed(1)} %`);
}

function showPixels(pixels) {
  const context = element("seen").getContext("2d");
  const image = context.createImageData(WIDTH, HEIGHT);
  for (let i = 0; i < WIDTH * HEIGHT; i++) {
    for (let k = 0; k < 3; k++) {
      image.data[4 * i + k] = pixels[i * CHANNELS + (CHANNELS === 1 ? 0 : k)];
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function middle(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

async function showLatency(network) {
  const calls = network.callsAtOnce();
  const times = [];
  const end = performance.now() + 1000;
  while (times.length < 3 || (times.length < 31 && performance.now() < end)) {
    times.push(network.time(calls));
    await new Promise((done) => setTimeout(done));
  }
  const module = network.simd ? "with SIMD" : "without SIMD";
  const text = `${middle(times).toPrecision(3)} ms, WebAssembly ${module}, one thread`;
  said("browser", `${text}, median of ${times.length} times ${calls} runs`);
}

class Tool {
  constructor(network) {
    this.network = network;
    this.canvas = element("draw");
    const zoom = Math.max(1, Math.round(320 / Math.max(HEIGHT, WIDTH)));
    this.canvas.width = WIDTH * zoom;
    this.canvas.height = HEIGHT * zoom;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.last = null;
    this.canvas.style.width = `min(100%, ${(75 * WIDTH) / HEIGHT}vh)`;
    element("seen").width = WIDTH;
    element("seen").height = HEIGHT;
    element("seen").style.width = `${(11 * WIDTH) / Math.max(HEIGHT, WIDTH)}rem`;
    this.listen();
    this.clear();
  }

  listen() {
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.draw(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, () => (this.last = null));
    }
    element("clear").addEventListener("click", () => this.clear());
    element("paper").addEventListener("change", () => this.clear());
    element("file").addEventListener("change", (event) => this.open(event.target.files[0]));
    const place = document.getElementById("try");
    for (const name of ["dragover", "dragleave", "drop"]) {
      place.addEventListener(name, (event) => {
        event.preventDefault();
        place.classList.toggle("try-over", name === "dragover");
      });
    }
    place.addEventListener("drop", (event) => this.open(event.dataTransfer.files[0]));
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    return [across * this.canvas.width, down * this.canvas.height];
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.at(event);
    this.draw(event);
  }

  draw(event) {
    if (this.last === null) return;
    const next = this.at(event);
    const side = Math.min(this.canvas.width, this.canvas.height);
    this.context.strokeStyle = element("ink").value;
    this.context.lineWidth = (element("width").value / 100) * side;
    this.context.lineCap = this.context.lineJoin = "round";
    this.context.beginPath();
    this.context.moveTo(...this.last);
    this.context.lineTo(...next);
    this.context.stroke();
    this.last = next;
    this.soon();
  }

  clear() {
    this.context.fillStyle = element("paper").value;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.soon();
  }

  /** Answers what is drawn, once before the next frame. */
  soon() {
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => {
      const { width, height } = this.canvas;
      this.answer(this.context.getImageData(0, 0, width, height));
    });
  }

  answer(image) {
    said("error", "");
    const pixels = preprocessed(image, data);
    showPixels(pixels);
    showAnswers(this.network.run(asGiven(pixels, data)));
    return pixels;
  }

  async open(file) {
    try {
      if (!file) throw new Error("that was no file: drop a picture in PNG or JPEG");
      this.answer(await decoded(file));
    } catch (error) {
      said("error", error.message);
    }
  }
}

async function start() {
  said("engine", data.engine || "not measured: pipeline bench model.bnn, then write the page again");
  try {
    const network = await Network.load(data);
    const found = await check(network, data);
    said("check", ...verdict(network, found));
    setTimeout(() => showLatency(network));
    return new Tool(network);
  } catch (error) {
    said("check", error.message, "bad");
    throw error;
  }
}

globalThis.frostbit = start();
