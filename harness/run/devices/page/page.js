// A page that is a device: it fetches tasks of one job, runs them, and sends their results. All else is harness/run/devices/web.py.

import { sha256 } from "./sha256.js";
import { HiddenError, NotRunError, breathe, clockResolution, findGpu, perform } from "./run.js";

const SAY_EVERY_S = 0.3, LOST_AFTER_S = 45, RETRY_S = 1, MAX_HIDDEN = 10;
const $ = id => document.getElementById(id);
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), byte => byte.toString(16).padStart(2, "0")).join("");
const page = random();
let browser = page;
try {
  browser = localStorage.getItem("browser") ?? page;
  localStorage.setItem("browser", browser);
} catch { /* stored nowhere: a reloaded page counts as another browser */ }

class EndError extends Error {} // there is nothing more to do here; the message says why
class OverError extends Error {} // this job is over; there may be another

function show(status, bad = false) {
  $("status").textContent = status;
  $("status").classList.toggle("bad", bad);
}

/** Asks the harness; tries again while it cannot be reached. A refusal ends the page, unless its status is in `allowed`. */
async function ask(path, options = {}, allowed = []) {
  for (const begin = performance.now(); ;) {
    try {
      const answer = await fetch(path, { cache: "no-store", ...options });
      if (answer.ok || allowed.includes(answer.status)) return answer;
      throw new (answer.status === 410 ? OverError : EndError)((await answer.text()).slice(0, 300));
    } catch (error) {
      if (error instanceof EndError || error instanceof OverError) throw error;
      if (performance.now() - begin > LOST_AFTER_S * 1000) throw new EndError("The run has ended. You may close this page.");
      await new Promise(resolve => setTimeout(resolve, RETRY_S * 1000));
    }
  }
}

const post = (path, body, allowed) => ask(path, { method: "POST", body: JSON.stringify({ page, ...body }) }, allowed);

let saidAt = 0, pending = null;

/** Progress, to the harness and on the page; not more often than anyone looks. Never waited for. */
function say(nonce, message, now = false) {
  const { task, done = 0, total = 0, variant = null, doing = "" } = message;
  $("bar").value = total ? done / total : 0;
  const row = document.querySelector("li.now span:last-child");
  if (row) row.textContent = doing || (total ? `${done} of ${total}` : "running");
  if (pending || (!now && performance.now() - saidAt < SAY_EVERY_S * 1000)) return;
  saidAt = performance.now();
  pending = post("say", { nonce, task, done, total, variant, doing }).catch(error => { refused ??= error; }).finally(() => { pending = null; });
}

let refused = null; // why the harness no longer wants this page, or its job

async function file(path, digest) {
  for (let attempt = 0; attempt < 3; attempt++) {
    const bytes = new Uint8Array(await (await ask(`files/${digest}`)).arrayBuffer());
    if (sha256(bytes) === digest) return bytes;
  }
  throw new Error(`${path}: arrives damaged, three times`);
}

/** The inputs of a .npy file of float32: {data, count, size}. */
function images(bytes, { offset, shape }) {
  const count = shape[0], size = shape.slice(1).reduce((a, b) => a * b, 1);
  return { data: new Float32Array(bytes.slice(offset, offset + 4 * count * size).buffer), count, size };
}

const cached = new Map(); // files by their hash

async function fetched(plan) {
  const wanted = [plan.inputs.sha256, ...Object.keys(plan.models)];
  for (const digest of cached.keys()) if (!wanted.includes(digest)) cached.delete(digest);
  for (const digest of wanted) if (!cached.has(digest)) cached.set(digest, await file("a file", digest));
  const files = Object.fromEntries(cached);
  return { ...files, images: images(files[plan.inputs.sha256], plan.inputs) };
}

/** A result: length of the header, header as JSON, arrays one after the other. */
function packed(header, arrays) {
  const list = Object.entries(arrays).map(([name, { shape, data, dtype }]) => {
    const type = dtype ?? data.constructor.name.replace("Array", "").replace("Big", "").toLowerCase();
    return { name, dtype: type, shape, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  });
  const about = { ...header, arrays: list.map(({ name, dtype, shape }) => ({ name, dtype, shape })) };
  const json = new TextEncoder().encode(JSON.stringify(about)), length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, json.length);
  const parts = [length, json, ...list.map(({ data }) => data)];
  const body = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    body.set(part, at);
    at += part.length;
  }
  return body;
}

async function deliver(plan, task, { ran, arrays, kinds = [] }) {
  const body = packed({ page, nonce: plan.nonce, task: task.name, ran, kinds }, arrays);
  const headers = { "X-SHA256": sha256(body), "Content-Type": "application/octet-stream" };
  for (let attempt = 0; attempt < 3; attempt++) {
    if ((await ask("result", { method: "POST", body, headers }, [422])).ok) return;
  }
  throw new Error(`${task.name}: its result arrives damaged, three times`);
}

async function visible() {
  while (document.hidden) await new Promise(resolve => document.addEventListener("visibilitychange", resolve, { once: true }));
}

async function run(plan, facts) {
  const files = await fetched(plan);
  let at = null;
  refused = null;
  try {
    for (const task of plan.tasks) {
      at = task.name;
      const row = document.createElement("li");
      row.className = "now";
      row.append(...[task.name, "running"].map(words => Object.assign(document.createElement("span"), { textContent: words })));
      $("tasks").append(row);
      show(`Running ${task.name}`);
      $("bar").hidden = false;
      let result;
      for (let attempt = 0; !result; attempt++) {
        try {
          result = await perform(task, plan, files, facts, (message, now) => {
            if (refused) throw refused;
            say(plan.nonce, message, now);
          });
        } catch (error) {
          if (error instanceof NotRunError) result = { ran: error.ran, arrays: {} };
          else if (!(error instanceof HiddenError) || attempt > MAX_HIDDEN) throw error;
          await visible();
        }
      }
      await pending;
      await deliver(plan, task, result);
      row.className = "";
      row.lastChild.textContent = result.ran.problem ? "does not run here" : result.ran.software ? "done, in software" : "done";
    }
    await pending;
    await post("say", { nonce: plan.nonce, task: at, ended: 0 });
  } catch (error) {
    if (error instanceof EndError) throw error;
    if (error instanceof OverError) return $("tasks").lastChild?.classList.remove("now");
    await post("say", { nonce: plan.nonce, task: at, ended: 1, tail: String(error?.message ?? error).slice(0, 300) });
  }
}

async function keepAwake() {
  const lock = () => { if (!document.hidden) navigator.wakeLock?.request("screen").catch(() => {}); };
  document.addEventListener("visibilitychange", lock);
  lock();
}

/** What this browser tells of itself, its system and its machine. */
async function facts() {
  const data = navigator.userAgentData, agent = navigator.userAgent;
  const hints = ["architecture", "model", "platformVersion", "fullVersionList", "bitness"];
  const more = (await data?.getHighEntropyValues?.(hints).catch(() => ({}))) ?? {};
  const brands = more.fullVersionList ?? data?.brands ?? [];
  const brand = brands.find(({ brand }) => !/not.?a.?brand|^chromium$/i.test(brand)) ?? brands.find(({ brand }) => brand === "Chromium");
  const match = agent.match(/(Firefox|FxiOS|CriOS|EdgiOS|Edg|Chrome)\/([\d.]+)/) ?? agent.match(/(Version)\/([\d.]+)/);
  const name = brand ? `${brand.brand} ${brand.version}` : match ? `${match[1].replace("Version", "Safari").replace("CriOS", "Chrome").replace("FxiOS", "Firefox")} ${match[2]}` : "a browser";
  const platform = agent.match(/\((?:[^;)]+; )?((?:Android|CPU (?:iPhone )?OS|Mac OS X|Windows NT|Linux|CrOS)[^;)]*)/);
  const { gpu, problem } = await findGpu();
  return {
    browser,
    name,
    system: (data?.platform ? `${data.platform} ${more.platformVersion ?? ""}` : platform?.[1] ?? navigator.platform ?? "").trim(),
    model: more.model ?? agent.match(/iPhone|iPad/)?.[0] ?? "",
    architecture: [more.architecture, more.bitness].filter(Boolean).join(" "),
    cores: navigator.hardwareConcurrency ?? null,
    secure: isSecureContext,
    isolated: self.crossOriginIsolated ?? false,
    clock_s: clockResolution(),
    gpu,
    gpu_problem: problem.slice(0, 200),
  };
}

function describe(known) {
  const rows = {
    Browser: known.name,
    System: [known.system, known.model].filter(Boolean).join(", "),
    GPU: known.gpu ? known.gpu.name + (known.gpu.software ? " (in software: not timed)" : "") : `none: ${known.gpu_problem}`,
  };
  for (const [term, words] of Object.entries(rows)) {
    $("facts").append(...[["dt", term], ["dd", words || "not told"]].map(([tag, textContent]) => Object.assign(document.createElement(tag), { textContent })));
  }
}

async function main() {
  const known = await facts();
  describe(known);
  const { runtime } = await (await post("hello", known)).json();
  addEventListener("pagehide", () => navigator.sendBeacon("say", JSON.stringify({ page, bye: true })));
  keepAwake();
  for (;;) {
    show("Waiting for the harness");
    $("bar").hidden = true;
    const answer = await ask(`job?page=${page}`);
    if (answer.status === 200) await run(await answer.json(), { ...known, runtime });
    await breathe();
  }
}

main().catch(error => {
  show(error instanceof EndError ? error.message : `This page failed: ${error?.message ?? error}`, !/run has ended/.test(error?.message ?? ""));
  $("bar").hidden = true;
  $("advice").hidden = true;
});
