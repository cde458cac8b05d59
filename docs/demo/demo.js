// The page on which a visitor draws a facade, and the worker that computes the house: this module is both.

const CLASSES = [
  // name and colour, as in the label maps of imtrans.data.facades
  ["Wall", [0, 0, 255]], ["Window", [0, 85, 255]], ["Balcony", [170, 255, 85]], ["Door", [0, 170, 255]],
  ["Shop", [170, 0, 0]], ["Roof", [255, 85, 0]], ["Sky", [0, 0, 170]], ["Street", [0, 0, 0]],
];
const BUILD = new URL("build/", import.meta.url); // written by examples/draw_a_facade.py
const SIZES = [128, 256, 384, 512]; // for a model that takes every size
const NAMES = { webgpu: "the graphics card (WebGPU)", wasm: "the processor (WebAssembly)" };

if (typeof document === "undefined") work();
else show();

/** The class whose colour is nearest. */
function nearest(colours, [r, g, b]) {
  const distances = colours.map(([x, y, z]) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2);
  return distances.indexOf(Math.min(...distances));
}

// --- Drawings: { width, height, labels }, with the index of a class for each pixel -----------------------------------

function blank(width, height) {
  return { width, height, labels: new Uint8Array(width * height) };
}

function resized(drawing, width, height) {
  const { labels } = blank(width, height);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * drawing.height) / height) * drawing.width;
    for (let x = 0; x < width; x++)
      labels[y * width + x] = drawing.labels[row + Math.floor(((x + 0.5) * drawing.width) / width)];
  }
  return { width, height, labels };
}

/** Fill the pixels from corner to corner, both included. */
function fillRectangle({ width, height, labels }, label, [x0, y0], [x1, y1]) {
  const [left, right] = [Math.max(0, Math.min(x0, x1)), Math.min(width - 1, Math.max(x0, x1))];
  for (let y = Math.max(0, Math.min(y0, y1)); y <= Math.min(height - 1, Math.max(y0, y1)); y++)
    labels.fill(label, y * width + left, y * width + right + 1);
}

/** Draw a line with a round brush. */
function drawLine(drawing, label, [x0, y0], [x1, y1], diameter) {
  const steps = Math.max(1, Math.abs(x1 - x0), Math.abs(y1 - y0)), radius = Math.max(0, (diameter - 1) / 2);
  for (let step = 0; step <= steps; step++) {
    const x = x0 + ((x1 - x0) * step) / steps, y = y0 + ((y1 - y0) * step) / steps;
    for (let dy = -Math.floor(radius); dy <= radius; dy++) {
      const reach = Math.sqrt(radius ** 2 - dy ** 2), row = Math.round(y + dy);
      fillRectangle(drawing, label, [Math.round(x - reach), row], [Math.round(x + reach), row]);
    }
  }
}

/** Fill a shape of `randomLayout`, in units of the drawing. `inset` gives how far a row is from the box's sides. */
function fillShape({ width, height, labels }, { label, box: [x0, y0, x1, y1], inset = () => [0, 0] }) {
  const top = Math.max(0, Math.round(y0 * height)), bottom = Math.min(height, Math.max(top + 1, Math.round(y1 * height)));
  for (let y = top; y < bottom; y++) {
    const [left, right] = inset((y + 0.5 - top) / (bottom - top)), start = Math.max(0, Math.round((x0 + left) * width));
    labels.fill(label, y * width + start, y * width + Math.min(width, Math.max(start + 1, Math.round((x1 - right) * width))));
  }
}

/** A building at random, as the label maps that the network learned from. */
function randomLayout() {
  const uniform = (low, high) => low + (high - low) * Math.random();
  const pick = items => items[Math.floor(Math.random() * items.length)];
  const [WALL, WINDOW, BALCONY, DOOR, SHOP, ROOF, SKY, STREET] = CLASSES.keys();
  const shapes = [];
  const add = (label, x0, y0, x1, y1, arched = false) => {
    const rise = arched ? Math.min(1, (x1 - x0) / 3 / (y1 - y0)) : 0;
    const arch = down => {
      const side = ((x1 - x0) / 2) * (1 - Math.sqrt(1 - Math.max(0, 1 - down / rise) ** 2));
      return [side, side];
    };
    shapes.push({ label, box: [x0, y0, x1, y1], inset: rise ? arch : undefined });
  };

  const family = pick([
    { window: [0.56, 0.7], roof: [0.115, 0.165], balconies: [0, 1, 1, 1, 2, 2], dormers: true },
    { window: [0.62, 0.62], roof: [0.028, 0.04], balconies: [0], arched: true },
    { window: [1, 0.57], roof: [0.06, 0.085], balconies: [0, 0, 1] },
  ]);
  const side = () => (Math.random() < 0.22 ? uniform(0.03, 0.09) : 0);
  const left = side(), right = 1 - side(), street = 0.97, top = uniform(0.1, 0.19);
  const eaves = top + uniform(...family.roof), ground = street - uniform(0.165, 0.2), storeys = pick([3, 3, 4, 4, 5]);
  const storey = (ground - eaves) / storeys, opening = family.window[0] * family.window[1] * storey;
  const room = right - left - 0.04, count = Math.min(7, Math.max(3, Math.round(room / (opening * uniform(1.7, 2.5)))));
  const bay = room / count, bays = Array.from({ length: count }, (_, i) => left + 0.02 + (i + 0.5) * bay);

  add(SKY, 0, 0, 1, 1);
  if (left) add(STREET, 0, uniform(0.2, 0.5), left, 1);
  if (right < 1) add(STREET, right, uniform(0.2, 0.5), 1, 1);
  add(STREET, 0, street, 1, 1);
  for (let chimneys = pick([1, 2, 3]); chimneys > 0; chimneys--) {
    const x = uniform(left + 0.06, right - 0.06), half = uniform(0.018, 0.032), crown = top - uniform(0.03, 0.055);
    add(ROOF, x - half, crown, x + half, eaves);
    for (let pot = x - half + 0.004; pot < x + half - 0.008; pot += 0.012)
      add(ROOF, pot, crown - 0.013, pot + 0.008, crown);
  }
  const slope = down => [left && 0.3 * (eaves - top) * (1 - down), right < 1 && 0.3 * (eaves - top) * (1 - down)];
  shapes.push({ label: ROOF, box: [left, top, right, eaves], inset: slope });
  add(WALL, left, eaves, right, street);

  const halfWidth = Math.min(opening / 2, 0.38 * bay);
  if (family.dormers)
    for (const x of bays)
      add(WINDOW, x - 0.8 * halfWidth, top + 0.36 * (eaves - top), x + 0.8 * halfWidth, eaves - 0.16 * (eaves - top));
  for (let floor = 0; floor < storeys; floor++) {
    const y = eaves + floor * storey, kind = pick(family.balconies), high = y + 0.18 * storey;
    const low = kind ? y + 0.92 * storey : high + family.window[1] * storey, rail = low - 0.3 * (low - high);
    for (const x of bays) add(WINDOW, x - halfWidth, high, x + halfWidth, low, family.arched);
    if (kind === 1) for (const x of bays) add(BALCONY, x - halfWidth - 0.012, rail, x + halfWidth + 0.012, low + 0.004);
    if (kind === 2) add(BALCONY, left + 0.012, rail, right - 0.012, y + storey);
  }

  const shops = Math.random() < 0.6, at = pick([Math.floor((count - 1) / 2), Math.floor(uniform(0, count))]);
  const arched = family.arched || !shops, half = Math.min(0.05, 0.36 * bay);
  add(DOOR, bays[at] - half, ground + 0.045, bays[at] + half, street, arched);
  for (const [first, last] of shops ? [[0, at - 1], [at + 1, count - 1]] : [])
    if (last >= first) add(SHOP, bays[first] - bay / 2 + 0.008, ground + 0.022, bays[last] + bay / 2 - 0.008, street);
  for (const x of shops ? [] : bays.filter((_, i) => i !== at))
    add(WINDOW, x - Math.min(0.035, halfWidth), ground + 0.045, x + Math.min(0.035, halfWidth), street - 0.05, arched);
  return shapes;
}

// --- The page --------------------------------------------------------------------------------------------------------

function show() {
  const find = selector => document.querySelector(selector);
  const canvas = find("#drawing"), house = find("#house"), cursor = find("#cursor"), frame = find("#house-frame");
  const rgba = new Uint32Array(new Uint8Array(CLASSES.flatMap(([, colour]) => [...colour, 255])).buffer);
  let drawing = blank(256, 256), past = [], future = [];

  // Messages: `tell` is seen and read out, `announce` is read out alone.
  const tell = (text, { bad = false, loading = false } = {}) => {
    find("#status").textContent = text;
    find("#message").classList.toggle("bad", bad);
    find("#progress").hidden = !loading;
    if (loading) find("#progress").removeAttribute("value");
  };
  const announce = text => void (find("#announcement").textContent = text);

  // What to paint, and with which tool
  find("#classes").append(
    ...CLASSES.map(([name, colour], index) => {
      const label = document.createElement("label");
      label.innerHTML = '<input type="radio" name="class"><span><i></i><b></b><kbd aria-hidden="true"></kbd></span>';
      label.querySelector("i").style.background = `rgb(${colour})`;
      label.querySelector("b").textContent = name;
      label.querySelector("kbd").textContent = index + 1;
      label.querySelector("input").checked = name === "Window";
      return label;
    }),
  );
  const classInputs = [...document.querySelectorAll('[name="class"]')];
  const label = () => classInputs.findIndex(input => input.checked);
  const usesBrush = () => find('[value="brush"]').checked;
  const showTool = () => void (find("#brush-size").hidden = !usesBrush());
  find("#tools").addEventListener("change", showTool);

  // Changes of the drawing
  const paint = () => {
    if (canvas.width !== drawing.width) canvas.width = drawing.width;
    if (canvas.height !== drawing.height) canvas.height = drawing.height;
    const image = new ImageData(drawing.width, drawing.height), pixels = new Uint32Array(image.data.buffer);
    drawing.labels.forEach((each, i) => (pixels[i] = rgba[each]));
    canvas.getContext("2d").putImageData(image, 0, 0);
    request();
  };
  const showHistory = () => {
    find("#undo").disabled = !past.length;
    find("#redo").disabled = !future.length;
  };
  const keep = before => {
    if (before.labels.every((each, i) => each === drawing.labels[i])) return;
    past = [...past.slice(-99), before];
    future = [];
    showHistory();
  };
  const replace = (after, name) => {
    stroke.end();
    const before = drawing;
    drawing = after;
    keep(before);
    paint();
    announce(name);
  };
  const step = (from, to, name) => {
    if (!from.length) return;
    stroke.drop();
    to.push(drawing);
    drawing = resized(from.pop(), drawing.width, drawing.height);
    showHistory();
    paint();
    announce(name);
  };
  const resize = (width, height) => {
    stroke.drop();
    drawing = resized(drawing, width, height);
    paint();
  };
  const undo = () => step(past, future, "Undone");
  const redo = () => step(future, past, "Redone");
  const layout = () => {
    const after = blank(drawing.width, drawing.height);
    for (const shape of randomLayout()) fillShape(after, shape);
    return after;
  };
  const readDrawing = async blob => {
    const picture = await createImageBitmap(blob), { width, height } = drawing;
    const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height), colours = CLASSES.map(([, colour]) => colour);
    const after = blank(width, height);
    for (let i = 0; i < after.labels.length; i++) after.labels[i] = nearest(colours, data.subarray(4 * i, 4 * i + 3));
    return after;
  };
  find("#undo").addEventListener("click", undo);
  find("#redo").addEventListener("click", redo);
  find("#clear").addEventListener("click", () => replace(blank(drawing.width, drawing.height), "Cleared: all wall"));
  find("#random").addEventListener("click", () => replace(layout(), "A random layout"));

  // Strokes, which a pointer and the keyboard draw alike
  const stroke = {
    before: null, // the drawing before the stroke, during one
    begin(point) {
      this.drop();
      this.before = drawing;
      this.from = this.last = point;
      drawing = { ...drawing, labels: drawing.labels.slice() };
      this.move(point);
    },
    move(point) {
      if (usesBrush()) {
        const width = Math.round((find("#brush-size input").value * drawing.width) / 256);
        drawLine(drawing, label(), this.last, point, Math.max(1, width));
      } else {
        drawing.labels.set(this.before.labels);
        fillRectangle(drawing, label(), this.from, point);
      }
      this.last = point;
      paint();
    },
    end() {
      if (this.before) keep(this.before);
      this.before = null;
    },
    drop() {
      if (!this.before) return;
      drawing = this.before;
      this.before = null;
      paint();
    },
  };
  const pointOf = event => {
    const box = canvas.getBoundingClientRect();
    return [
      Math.floor(((event.clientX - box.left) / box.width) * drawing.width),
      Math.floor(((event.clientY - box.top) / box.height) * drawing.height),
    ];
  };
  canvas.addEventListener("pointerdown", event => {
    if (!event.isPrimary || event.button) return;
    cursor.hidden = true;
    canvas.setPointerCapture(event.pointerId);
    stroke.begin(pointOf(event));
  });
  canvas.addEventListener("pointermove", event => {
    if (!stroke.before || !event.isPrimary || !canvas.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of usesBrush() && events.length ? events : [event]) stroke.move(pointOf(each));
  });
  canvas.addEventListener("pointerup", event => event.isPrimary && stroke.end());
  canvas.addEventListener("pointercancel", event => event.isPrimary && stroke.drop());

  // The keyboard's cursor
  let [x, y] = [0.5, 0.5], resting;
  const cell = () => [Math.floor(x * drawing.width), Math.floor(y * drawing.height)];
  const showCursor = () => {
    cursor.hidden = false;
    cursor.style.setProperty("--x", x);
    cursor.style.setProperty("--y", y);
    cursor.classList.toggle("down", stroke.before !== null);
    clearTimeout(resting);
    resting = setTimeout(() => {
      const [column, row] = cell(), name = CLASSES[drawing.labels[row * drawing.width + column]][0];
      announce(`${column}, ${row}: ${name}`);
    }, 400);
  };
  const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && showCursor());
  canvas.addEventListener("blur", () => {
    cursor.hidden = true;
    clearTimeout(resting);
    stroke.end();
  });
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in DIRECTIONS) {
      const { width, height } = drawing, far = event.shiftKey ? 1 : Math.max(1, Math.round(width / 64));
      const [dx, dy] = DIRECTIONS[event.key], [column, row] = cell();
      x = (Math.min(width - 1, Math.max(0, column + far * dx)) + 0.5) / width;
      y = (Math.min(height - 1, Math.max(0, row + far * dy)) + 0.5) / height;
      if (stroke.before) stroke.move(cell());
    } else if (event.key === " " || event.key === "Enter") {
      if (stroke.before) stroke.end();
      else stroke.begin(cell());
    } else if (event.key === "Escape") stroke.drop();
    else return;
    event.preventDefault();
    showCursor();
  });
  document.addEventListener("keydown", event => {
    const key = event.key.toLowerCase();
    if (event.altKey || event.target.matches("select")) return;
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      (key === "y" || event.shiftKey ? redo : undo)();
      event.preventDefault();
    } else if (key >= "1" && key <= String(CLASSES.length)) {
      classInputs[key - 1].checked = true;
      announce(CLASSES[key - 1][0]);
    } else if (key === "b" || key === "r") {
      find(`[value="${key === "b" ? "brush" : "rectangle"}"]`).checked = true;
      showTool();
      announce(key === "b" ? "Brush" : "Rectangle");
    }
  });

  // The house: one drawing at a time is with the worker, and the newest one follows.
  const worker = new Worker(import.meta.url, { type: "module" });
  let ready = false, busy = false, waiting = false;
  const request = () => {
    waiting = true;
    house.ariaBusy = "true";
    if (!ready || busy) return;
    [busy, waiting] = [true, false];
    worker.postMessage({ kind: "translate", drawing });
  };
  const received = {
    progress({ done, total, bytes }) {
      const text = `Loading the network, ${(bytes / 1e6).toFixed(0)} MB …`;
      if (find("#status").textContent !== text) tell(text, { loading: true });
      Object.assign(find("#progress"), { value: done, max: total });
    },
    starting: () => tell("Starting the network …", { loading: true }),
    loaded({ name, runtime, size }) {
      ready = true;
      find("#model-name").textContent = name;
      find("#sizes").hidden = size !== null;
      const [height, width] = size ?? [find("select").value, find("select").value].map(Number);
      tell(`The network runs on ${NAMES[runtime]}.`);
      resize(width, height);
    },
    picture({ width, height, pixels, seconds }) {
      busy = false;
      Object.assign(house, { width, height });
      house.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
      frame.classList.remove("empty");
      find("#download").disabled = false;
      find("#time").textContent = `${seconds.toFixed(2)} s`;
      if (waiting) request();
      else house.ariaBusy = "false";
    },
    failed({ text, translating }) {
      if (translating) busy = false;
      tell(text, { bad: true });
    },
  };
  worker.addEventListener("message", ({ data }) => received[data.kind](data));
  worker.addEventListener("error", event => {
    event.preventDefault();
    tell(`This browser cannot run the network: ${event.message || "it has no module workers"}.`, { bad: true });
  });

  find("#download").addEventListener("click", () =>
    house.toBlob(blob => {
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "house.png" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }),
  );
  find("select").append(...SIZES.map(size => new Option(`${size} × ${size}`, size, size === 256, size === 256)));
  find("select").addEventListener("change", ({ target }) => resize(Number(target.value), Number(target.value)));

  // Files of the visitor
  const open = async file => {
    if (file.name.toLowerCase().endsWith(".onnx")) {
      tell(`Loading ${file.name} …`, { loading: true });
      worker.postMessage({ kind: "load", name: file.name, model: await file.arrayBuffer() });
    } else if (file.type.startsWith("image/")) {
      try {
        replace(await readDrawing(file), file.name);
      } catch {
        tell(`${file.name} is not a picture that this browser can read.`, { bad: true });
      }
    } else tell(`${file.name} is neither an ONNX file nor a picture.`, { bad: true });
  };
  find("#model input").addEventListener("change", event => {
    for (const file of event.target.files) open(file);
    event.target.value = "";
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
    document.addEventListener(kind, event => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      const outside = kind === "drop" || (kind === "dragleave" && !event.relatedTarget);
      document.body.classList.toggle("dropping", !outside);
      if (kind === "drop") for (const file of event.dataTransfer.files) open(file);
    });

  const start = async () => {
    const answer = await fetch(new URL("build.json", BUILD), { cache: "no-cache" });
    if (!answer.ok)
      throw new Error("The network is not here yet. In a clone of imtrans, run: python examples/draw_a_facade.py");
    const build = await answer.json();
    worker.postMessage({ kind: "start", build });
    find("#examples").append(
      ...build.examples.map((file, index) => {
        const button = document.createElement("button"), image = document.createElement("img");
        Object.assign(image, { src: new URL(file, BUILD), alt: `Example ${index + 1}`, draggable: false });
        Object.assign(button, { type: "button" }).append(image);
        button.addEventListener("click", async () =>
          replace(await readDrawing(await (await fetch(image.src)).blob()), image.alt),
        );
        return button;
      }),
    );
  };
  drawing = layout();
  paint();
  tell("Loading …", { loading: true });
  start().catch(error => tell(error.message, { bad: true }));
}

// --- The worker ------------------------------------------------------------------------------------------------------

function work() {
  let build, model, received = 0, expected = 0;
  const runtimes = {};

  const download = async (file, size) => {
    const answer = await fetch(new URL(file, BUILD), { cache: "no-cache" }), parts = [];
    if (!answer.ok) throw new Error(`${file} cannot be loaded: the server answers ${answer.status}`);
    expected += size;
    for await (const part of chunks(answer.body)) {
      parts.push(part);
      received += part.length;
      postMessage({ kind: "progress", done: received, total: expected, bytes: expected });
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  };

  const loadRuntime = async kind => {
    const { module, binary, bytes } = build.runtimes[kind];
    const wasmBinary = await download(binary, bytes), ort = await import(new URL(module, BUILD));
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1; // more would need headers that many servers of static files do not send
    ort.env.wasm.wasmBinary = wasmBinary.buffer;
    return ort;
  };

  const runtimeOf = kind =>
    (runtimes[kind] ??= loadRuntime(kind).catch(error => {
      delete runtimes[kind]; // may succeed later
      throw error;
    }));

  /** The runtimes that this browser may be able to use, the fastest one first. */
  const kinds = async () => ((await navigator.gpu?.requestAdapter().catch(() => null)) ? ["webgpu", "wasm"] : ["wasm"]);

  /** Load a model into the fastest runtime that can run it. */
  const load = async (name, bytes) => {
    const facts = factsOf(bytes);
    let failure;
    for (const runtime of await kinds()) {
      try {
        const ort = await runtimeOf(runtime);
        postMessage({ kind: "starting" });
        const session = await ort.InferenceSession.create(bytes, { executionProviders: [runtime], logSeverityLevel: 3 });
        const loaded = { ort, session, ...interfaceOf(session, facts) };
        if (runtime === "webgpu") await translate(loaded, blank(...(loaded.size?.toReversed() ?? [256, 256])));
        await model?.session.release();
        model = loaded;
        postMessage({ kind: "loaded", name, runtime, size: model.size });
        return;
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  };

  const handlers = {
    async start({ build: found }) {
      build = found;
      const [first] = await kinds();
      runtimeOf(first).catch(() => {}); // at the same time; `load` waits for it, and sees its error
      await load(build.name, await download(build.model, build.bytes));
    },
    load: ({ name, model: buffer }) => load(name, new Uint8Array(buffer)),
    async translate({ drawing }) {
      const picture = await translate(model, drawing);
      postMessage({ kind: "picture", ...picture }, [picture.pixels.buffer]);
    },
  };
  let queue = Promise.resolve();
  self.addEventListener("message", ({ data }) => {
    const name = data.kind === "load" ? `${data.name} cannot be used: ` : "";
    queue = queue
      .then(() => handlers[data.kind](data))
      .catch(({ message }) => {
        const text = `${name}${message.split("\n")[0].slice(0, 300)}`;
        postMessage({ kind: "failed", text, translating: data.kind === "translate" });
      });
  });
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (let part; !(part = await reader.read()).done; ) yield part.value;
}

/** The length-delimited fields of a protocol buffer. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), skipped = { 1: 8, 5: 4 }[tag % 8];
    if (skipped) at += skipped;
    else if (tag % 8 === 0) varint();
    else {
      const length = varint();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    }
  }
}

/** What imtrans.export_onnx wrote about the model, in field 14, the metadata. Empty for a model of another program. */
function factsOf(bytes) {
  const decode = text => new TextDecoder().decode(text);
  for (const [number, entry] of fields(bytes)) {
    if (number !== 14) continue;
    const [key, value] = [...fields(entry)].map(([, text]) => decode(text));
    if (key === "imtrans") return JSON.parse(value);
  }
  return {};
}

/** How to call a model: its inputs, the value of each class in each channel, and its size, null for every size. */
function interfaceOf({ inputNames, inputMetadata, outputNames }, { palette, colours }) {
  const [source] = inputMetadata, noise = inputMetadata.find(({ name }) => name === "noise");
  const [, channels, height, width] = source.shape;
  const drawn = CLASSES.map(([, colour]) => colour);
  if (source.shape.length !== 4 || source.type !== "float32" || inputNames.length > (noise ? 2 : 1) || colours === "lab")
    throw new Error("it does not translate one picture into another, in float32.");
  if (channels !== (palette?.length ?? 3))
    throw new Error(`it takes ${channels} channels, and a drawing has 3, or one for each colour of a palette.`);
  const classes = palette && drawn.map(colour => nearest(palette, colour));
  const values = Array.from({ length: channels }, (_, channel) =>
    palette ? classes.map(index => Number(index === channel)) : drawn.map(colour => colour[channel] / 127.5 - 1),
  );
  const size = typeof height === "number" && typeof width === "number" ? [height, width] : null;
  return { source: source.name, fake: outputNames[0], values, size, noise: noise && normal(noise.shape[1]) };
}

/** Numbers from N(0, 1), by the method of Box and Muller. */
function normal(count) {
  const one = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  return Float32Array.from({ length: count }, one);
}

/** Translate a drawing; the seconds are from the labels to the pixels. */
async function translate({ ort, session, source, fake, values, noise }, { width, height, labels }) {
  const begin = performance.now(), area = width * height;
  const planes = new Float32Array(values.length * area);
  values.forEach((value, channel) => {
    for (let i = 0; i < area; i++) planes[channel * area + i] = value[labels[i]];
  });
  const inputs = { [source]: new ort.Tensor("float32", planes, [1, values.length, height, width]) };
  if (noise) inputs.noise = new ort.Tensor("float32", noise, [1, noise.length]);
  const { [fake]: output } = await session.run(inputs, [fake]);
  const [, channels, rows, columns] = output.dims, data = await output.getData(), size = rows * columns;
  if (channels !== 3 && channels !== 1) throw new Error(`The model gives ${channels} channels, which are not a picture.`);
  const pixels = new Uint8ClampedArray(4 * size).fill(255);
  for (let i = 0; i < size; i++)
    for (let channel = 0; channel < 3; channel++)
      pixels[4 * i + channel] = (data[(channel % channels) * size + i] + 1) * 127.5;
  output.dispose();
  return { width: columns, height: rows, pixels, seconds: (performance.now() - begin) / 1000 };
}
