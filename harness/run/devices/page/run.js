// The worker of a page: what harness/run/worker.py does on other devices, in LiteRT.js. See there for the measurement.

import { loadLiteRt, unloadLiteRt, loadAndCompile, getWebGpuDevice, Tensor } from "@litertjs/core";

const MAX_TIMED_IMAGES = 256, REPORT_EVERY = 32, REPORT_MS = 10_000, SETTLED = 1.02, CONTROL = "control";
const TICKS_PER_SAMPLE = 20; // a sample is as many inferences as take so many ticks of the clock
const ARRAYS = { float32: Float32Array, int8: Int8Array, uint8: Uint8Array, int32: Int32Array };

export class NotRunError extends Error { // the model is refused, or fails while it runs
  constructor(ran, problem) {
    super(problem);
    this.ran = { ...ran, problem };
  }
}

export class HiddenError extends Error {} // the page was hidden while it measured time

const now = () => performance.now() / 1000;
const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];
const text = error => String(error?.message ?? error).split(/\s+/).join(" ").slice(0, 300);

// Lets the browser draw, hear its user and send what is waiting; setTimeout would be slowed down.
const channel = new MessageChannel();
const resumed = [];
channel.port2.onmessage = () => resumed.shift()();
export const breathe = () => new Promise(resolve => { resumed.push(resolve); channel.port1.postMessage(0); });

// The library's warnings since it was last emptied. What it says of every model is left out, as in worker.py.
let heard = [];
for (const level of ["warn", "error"]) {
  const print = console[level].bind(console);
  console[level] = (...words) => {
    const line = String(words[0]).replaceAll("%c", "").trim().slice(0, 300);
    if (!/^(INFO|I\d{4})\b|npu_registry|InitGoogle|unknown SDK|buffer requirements/.test(line) && heard.length < 20) heard.push(line);
    print(...words);
  };
}

export function clockResolution() {
  let least = Infinity;
  for (let i = 0, last = now(); i < 20;) {
    const next = now();
    if (next > last) {
      least = Math.min(least, next - last);
      last = next;
      i++;
    }
  }
  return least;
}

const float16 = () => getWebGpuDevice()?.features.has("shader-f16") ?? false;

/** A model that is ready to run. tensors: its inputs and outputs, as the plan describes them. */
class Model {
  static async load(content, tensors, accelerator, facts) {
    const model = new Model();
    Object.assign(model, tensors, { accelerator, facts, operations: null, fellBack: false, warnings: [] });
    heard = [];
    try {
      model.compiled = await loadAndCompile(content, { accelerator });
    } catch (error) {
      throw new NotRunError(model.ran(), `refused: ${[text(error), ...heard].join("; ").slice(0, 500)}`);
    }
    model.fellBack = accelerator === "webgpu"
      && (model.compiled.options.accelerator !== "webgpu" || !model.compiled.isFullyAccelerated);
    const names = model.compiled.getOutputDetails().map(details => details.name);
    model.order = model.outputs.map((output, i) => names.includes(output.name) ? names.indexOf(output.name) : i);
    return model;
  }

  /** float32 images [N, ...] as the input's type: a typed array for each. */
  quantize(images, first, count) {
    const { dtype, scale, zero_point } = this.inputs[0], size = images.size, step = Math.fround(scale);
    const [low, high] = { int8: [-128, 127], uint8: [0, 255] }[dtype] ?? [-(2 ** 31), 2 ** 31 - 1];
    return Array.from({ length: count }, (_, i) => {
      const image = images.data.subarray((first + i) * size, (first + i + 1) * size);
      if (!scale) return ARRAYS[dtype].from(image);
      return ARRAYS[dtype].from(image, x => Math.min(high, Math.max(low, even(Math.fround(Math.fround(x / step) + zero_point)))));
    });
  }

  async set(array) {
    this.input?.delete();
    this.input = new Tensor(array, this.inputs[0].shape);
    if (this.accelerator === "webgpu" && !this.fellBack) this.input = await this.input.moveTo("webgpu");
  }

  /** Ends when the outputs were read. */
  async invoke() {
    try {
      const results = await this.compiled.run(this.input);
      this.read = [];
      for (const i of this.order) this.read.push(await results[i].data());
      for (const result of results) result.delete();
    } catch (error) {
      throw new NotRunError(this.ran(), `failed while running: ${[text(error), ...heard].join("; ").slice(0, 500)}`);
    }
  }

  /** All that the last inference gave, in one row: as stored, of several outputs as real numbers. */
  numbers() {
    if (this.read.length === 1) return this.read[0];
    const rows = this.read.map((row, i) => {
      const { scale, zero_point } = this.outputs[i];
      return Float32Array.from(row, x => scale ? Math.fround(x - zero_point) * Math.fround(scale) : x);
    });
    return Float32Array.from(rows.flatMap(row => [...row]));
  }

  ran() {
    const gpu = this.accelerator === "webgpu" ? this.facts.gpu : null;
    return {
      accelerator: this.accelerator,
      runtime: this.facts.runtime,
      adapter: gpu?.name ?? null,
      driver: gpu?.driver ?? null,
      precision: gpu ? (gpu.float16 ? "float16 where LiteRT chooses it" : "float32") : null,
      software: gpu?.software ?? false,
      fell_back: this.fellBack,
      warnings: [...new Set(heard)],
    };
  }

  delete() {
    this.input?.delete();
    this.compiled?.delete();
  }
}

function even(x) { // to the nearest, halves to the even one, as NumPy does
  const rounded = Math.round(x);
  return Math.abs(x % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** The adapter that LiteRT.js asks for. Null if there is none; then `problem` says why. */
export async function findGpu() {
  if (!navigator.gpu) {
    const why = isSecureContext ? "this browser has no WebGPU" : "WebGPU needs https or a loopback address";
    return { gpu: null, problem: why };
  }
  try {
    const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return { gpu: null, problem: "WebGPU finds no adapter" };
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
    const name = [...new Set([vendor, architecture, device, description])].filter(Boolean).join(" ") || "not named";
    const software = Boolean(isFallbackAdapter ?? adapter.isFallbackAdapter)
      || /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|\bwarp\b/i.test(name);
    return { gpu: { name, driver: null, software, float16: adapter.features.has("shader-f16") }, problem: "" };
  } catch (error) {
    return { gpu: null, problem: text(error) };
  }
}

/** The library anew, as a process of its own is on other devices. */
async function restart(accelerator) {
  unloadLiteRt();
  const jspi = accelerator === "webgpu" && "Suspending" in WebAssembly; // so that WASM may run what the GPU leaves
  await loadLiteRt(new URL(".", location.href).pathname, { jspi });
}

/** One task's arrays: {name: {dtype, shape, data}}, its `ran`, and `kinds` of a task that measures. */
export async function perform(task, plan, files, facts, say) {
  const images = files.images;
  say({ task: task.name, doing: `starting ${facts.runtime}` }, true);
  await restart(task.accelerator);
  if (task.do === "answers") return answers(task, plan, files, images, facts, say);
  if (task.do === "latency") return latency(task, plan, files, images, facts, say);
  throw new Error(`${task.do}: a page does not do this`);
}

function load(kind, task, plan, files, facts) {
  const [, digest] = task.variants[kind === CONTROL ? task.control : kind];
  return Model.load(files[digest], plan.models[digest], task.accelerator, facts);
}

async function answers(task, plan, files, images, facts, say) {
  const [kind] = Object.keys(task.variants);
  say({ task: task.name, doing: `compiling for ${task.accelerator}` }, true);
  await breathe();
  const model = await load(kind, task, plan, files, facts);
  try {
    let outputs, width;
    const means = new Float64Array(images.count);
    let reported = performance.now();
    for (let first = 0; first < images.count; first += REPORT_EVERY) {
      const prepared = model.quantize(images, first, Math.min(REPORT_EVERY, images.count - first));
      for (const [i, image] of prepared.entries()) {
        means[first + i] = image.reduce((sum, x) => sum + x, 0) / image.length;
        await model.set(image);
        await model.invoke();
        const row = model.numbers();
        width ??= row.length;
        outputs ??= new row.constructor(images.count * width);
        outputs.set(row, (first + i) * width);
        if (performance.now() - reported > REPORT_MS) {  // of a slow model: a page that is silent too long is given up
          say({ task: task.name, done: first + i + 1, total: images.count });
          await breathe();
          reported = performance.now();
        }
      }
      say({ task: task.name, done: first + prepared.length, total: images.count });
      await breathe();
    }
    const [output] = model.outputs, single = model.outputs.length === 1;
    return {
      ran: model.ran(),
      arrays: {
        outputs: { shape: [images.count, width], data: outputs },
        scale: { shape: [], data: Float64Array.of(single ? output.scale : 0) },
        zero_point: { shape: [], data: BigInt64Array.of(BigInt(single ? output.zero_point : 0)) },
        input_means: { shape: [images.count], data: means },
      },
    };
  } finally {
    model.delete();
  }
}

async function latency(task, plan, files, images, facts, say) {
  let hidden = document.hidden;
  const note = () => { hidden ||= document.hidden; };
  document.addEventListener("visibilitychange", note);
  const timed = Math.min(images.count, MAX_TIMED_IMAGES), subjects = new Map(), arrays = {};
  const chosen = Array.from({ length: timed }, (_, i) => Math.floor(i * images.count / timed));
  let ran;
  try {
    for (let second = 0; second < Math.round(task.cooldown_s); second++) {
      say({ task: task.name, done: second, total: Math.round(task.cooldown_s) });
      await new Promise(resolve => setTimeout(resolve, 1000));
    }
    for (const kind of task.order) {
      say({ task: task.name, variant: kind, doing: `compiling for ${task.accelerator}` }, true);
      await breathe();
      const begin = now();
      let model;
      try {
        model = await load(kind, task, plan, files, facts);
        const loaded = now();
        say({ task: task.name, variant: kind }, true);
        ran ??= model.ran();
        if (ran.software) return { ran, arrays: {} };
        await model.set(model.quantize(images, 0, 1)[0]);
        const before = now();
        await model.invoke();
        arrays[`${kind}.first`] = numbers([Math.max(now() - before, facts.clock_s)]);
        arrays[`${kind}.load`] = numbers([loaded - begin]);
      } catch (error) { // the task of its answers says so, too
        if (!(error instanceof NotRunError)) throw error;
        ran ??= error.ran;
        continue;
      }
      const subject = new Subject(model, chosen.flatMap(i => model.quantize(images, i, 1)), facts.clock_s, task);
      arrays[`${kind}.settled`] = { shape: [], data: Uint8Array.of(await subject.warmUp(task)), dtype: "bool" };
      arrays[`${kind}.warmup`] = numbers(subject.warmup, [subject.warmup.length]);
      subjects.set(kind, subject);
    }
    const kinds = [...subjects.keys()], order = [], states = [];
    for (const kind of turns(subjects, task)) {
      say({ task: task.name, variant: kind, done: order.length, total: 2 * task.turns * kinds.length ** 2 });
      await breathe();
      order.push(kinds.indexOf(kind));
      for (const clock of await subjects.get(kind).block()) {
        states.push(clock, ...Array(plan.state - 1).fill(NaN)); // a page sees nothing of its machine's state
      }
      if (hidden) throw new HiddenError();
    }
    for (const [kind, subject] of subjects) {
      arrays[`${kind}.samples`] = numbers(subject.blocks.flat(), [subject.blocks.length, subject.count]);
    }
    if (!kinds.length) return { ran, arrays: {} };
    arrays.order = { shape: [order.length], data: Int32Array.from(order) };
    arrays.state = numbers(states, [order.length, 3, plan.state]);
    return { ran, arrays, kinds };
  } finally {
    document.removeEventListener("visibilitychange", note);
    for (const subject of subjects.values()) subject.model.delete();
  }
}

const numbers = (values, shape = []) => ({ shape, data: Float64Array.from(values) });

class Subject { // see worker.py
  constructor(model, prepared, clock, task) {
    Object.assign(this, { model, prepared, clock, task, blocks: [], repeats: 1, seconds: 0 });
  }

  /** Seconds of `count` inferences, each on the next image; setting the input is not counted. */
  async measure(start, count, pause = 0) {
    const seconds = [];
    for (let i = 0; i < count; i++) {
      if (pause) await new Promise(resolve => setTimeout(resolve, 1000 * pause));
      await this.model.set(this.prepared[(start + i) % this.prepared.length]);
      const begin = now();
      for (let k = 0; k < this.repeats; k++) await this.model.invoke();
      seconds.push((now() - begin) / this.repeats);
    }
    return seconds;
  }

  async warmUp(task) {
    this.repeats = 10;
    const estimate = median(await this.measure(0, 5));
    const coarse = Math.ceil(TICKS_PER_SAMPLE * this.clock / Math.max(estimate, this.clock / 100));
    this.repeats = task.pause_s ? 1 : Math.max(1, coarse); // after a pause there is one
    let seconds = await this.measure(0, 2), medians = [], settled = false;
    for (;;) {
      const part = await this.measure(seconds.length, Math.max(1, Math.round(task.block_s / (seconds.at(-1) * this.repeats || 1))));
      medians = [...medians.slice(-2), median(part)];
      seconds = seconds.concat(part);
      await breathe();
      settled = medians.length === 3 && Math.max(...medians) < SETTLED * Math.min(...medians);
      const taken = this.repeats * seconds.reduce((sum, x) => sum + x, 0);
      if (taken >= task.warmup_s && (settled || taken >= 6 * task.warmup_s)) break;
    }
    this.warmup = seconds;
    this.count = task.inferences || Math.max(1, Math.round(task.block_s / (median(seconds.slice(-3)) * this.repeats)));
    return settled;
  }

  /** Measures one more; the clock before, during and after it. */
  async block() {
    const start = this.blocks.length * this.count, half = (this.count + 1) >> 1, { lead_in, pause_s } = this.task;
    await this.measure(start, lead_in);
    const before = now(), first = await this.measure(start, half, pause_s);
    const during = now(), second = await this.measure(start + half, this.count - half, pause_s);
    this.blocks.push([...first, ...second]);
    this.seconds += this.repeats * this.blocks.at(-1).reduce((sum, x) => sum + x, 0);
    return [before, during, now()];
  }

  has(samples, seconds) {
    return this.blocks.length * this.count >= samples && this.seconds >= seconds;
  }
}

function* turns(subjects, task) {
  const kinds = [...subjects.keys()];
  for (let led = 0; kinds.length && (led < task.turns * kinds.length
    || ![...subjects.values()].every(subject => subject.has(task.min_samples, task.min_s))); led++) {
    const lead = led % kinds.length, order = [...kinds.slice(lead), ...kinds.slice(0, lead)];
    yield* [...order, ...order.toReversed()];
  }
}
