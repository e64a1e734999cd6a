// A job's page while the job runs. Rows in the database are the truth: events move the bar and the curves at
// once, and whenever a stage or the status changes the server renders the page's parts anew.

import { ProblemError, call } from "./api.js";
import { Curve } from "./charts.js";
import { duration } from "./format.js";

const ORIGINAL = "original_accuracy"; // measured once, drawn as a line
const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const root = () => document.getElementById("job");
const id = root().dataset.job;
const charts = document.getElementById("charts");
const curves = {};
let eta = null; // { at, seconds }: counted down between two events
let drawing = false;

for (const figure of charts.querySelectorAll("[data-chart]")) {
  curves[figure.dataset.chart] = new Curve(figure, { percent: figure.dataset.chart !== "train_loss" });
}

function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const drawn = Object.values(curves).filter((curve) => curve.points.size > 0);
    charts.hidden = drawn.length === 0;
    for (const curve of drawn) curve.draw();
  });
}

async function loadCurves() {
  const metrics = await call("GET", `/v1/jobs/${id}/metrics`);
  for (const [name, curve] of Object.entries(curves)) {
    for (const point of metrics[name] ?? []) curve.add(point.step, point.value);
  }
  for (const point of metrics[ORIGINAL] ?? []) curves.accuracy.compareWith(point.value);
  drawSoon();
}

function refresh() {
  window.htmx.trigger(root(), "refresh");
}

function tick() {
  if (eta) {
    const left = eta.seconds - (Date.now() - eta.at) / 1000;
    document.getElementById("eta").textContent = left > 1 ? `about ${duration(left)} left` : "nearly done";
  }
  for (const place of document.querySelectorAll("[data-since]")) {
    place.textContent = duration((Date.now() - Date.parse(place.dataset.since)) / 1000);
  }
}

const HANDLERS = {
  stage: () => { eta = null; refresh(); },
  warning: refresh,
  error: refresh,
  done: () => { stop(); refresh(); },
  metric(event) {
    const { name, step, value } = event.data;
    if (!Number.isFinite(value)) return;
    if (name === ORIGINAL) curves.accuracy.compareWith(value);
    else curves[name]?.add(step, value);
    drawSoon();
  },
  progress(event) {
    const { fraction, eta_seconds: seconds } = event.data;
    if (typeof fraction === "number") document.getElementById("bar").value = fraction;
    else { // an attempt began anew: what the lost one measured is gone
      for (const curve of Object.values(curves)) curve.clear();
      refresh();
    }
    eta = typeof seconds === "number" ? { at: Date.now(), seconds } : null;
    if (event.message) {
      const doing = document.getElementById("doing");
      doing.textContent = event.message;
      doing.hidden = false;
    }
    tick();
  },
};

let source = null;
let ticking = null;
let seen = Number(root().dataset.lastEvent || 0);

function stop() {
  source?.close();
  source = null;
  clearInterval(ticking);
  eta = null;
}

function receive(message) {
  let event;
  try {
    event = JSON.parse(message.data);
  } catch {
    return;
  }
  if (event.seq <= seen && event.type !== "done") return; // already in what the server rendered
  seen = Math.max(seen, event.seq);
  HANDLERS[event.type]?.(event);
}

// EventSource comes back by itself with Last-Event-ID, except after an answer that is no stream.
function follow() {
  source = new EventSource(`/v1/jobs/${id}/events`);
  for (const type of ["message", ...Object.keys(HANDLERS)]) source.addEventListener(type, receive);
  source.addEventListener("error", () => {
    if (source?.readyState !== EventSource.CLOSED) return;
    setTimeout(() => { if (source && !ENDED.has(root().dataset.status)) follow(); }, 3000);
  });
  clearInterval(ticking);
  ticking = setInterval(tick, 1000);
}

document.addEventListener("submit", async (event) => {
  if (event.target.id !== "cancel") return;
  event.preventDefault();
  event.target.querySelector("button").disabled = true;
  try {
    await call("POST", `/v1/jobs/${id}/cancel`);
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error; // 409: it ended meanwhile, which the refresh shows
  }
  refresh();
});

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const curve of Object.values(curves)) curve.redraw();
});

await document.fonts.ready;
await loadCurves().catch(() => {}); // the page stands without curves
if (!ENDED.has(root().dataset.status)) follow();
