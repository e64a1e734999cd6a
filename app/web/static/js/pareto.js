// Networks by what they cost and how well they answer: a plot whose points are links, and the same in a table.
//
// Takes plain objects, so that any page can use it:
//   { id, label, href, note?, original?, macs, params, latency, bytes, accuracy, agreement }
// Costs are absolute (latency in milliseconds), qualities are shares; what was not measured is null.
// The markup is the macro `chart` of templates/pareto.html, the style static/css/pareto.css.

import { axisStyle, colour } from "./charts.js";
import { count, percent, size } from "./format.js";

const milliseconds = (value) => `${Number(value.toPrecision(3))}\u00a0ms`;
const COSTS = {
  macs: { name: "Operations", shown: count },
  params: { name: "Parameters", shown: count },
  latency: { name: "Latency", shown: milliseconds },
  bytes: { name: "File size", shown: size },
};
const QUALITIES = { accuracy: "Accuracy", agreement: "Same answers as the original" };
const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

const known = (value) => typeof value === "number" && Number.isFinite(value);

// Those that no other beats: nothing costs as little and answers better. Expects them by rising cost.
export function front(points, cost, quality) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1);
    if (last && point[quality] <= last[quality]) continue;
    if (last && point[cost] === last[cost]) found.pop();
    found.push(point);
  }
  return found;
}

export class Pareto {
  constructor(root) {
    this.root = root;
    this.cost = root.querySelector("[data-cost]");
    this.quality = root.querySelector("[data-quality]");
    this.place = root.querySelector(".plot");
    this.links = root.querySelector("[data-points]");
    this.empty = root.querySelector("[data-empty]");
    this.body = root.querySelector("tbody");
    this.all = [];
    this.plot = null;
    this.current = null; // the id of the point that the keyboard is at
    for (const select of [this.cost, this.quality]) select.addEventListener("change", () => this.draw());
    this.links.addEventListener("keydown", (event) => this.step(event));
    this.links.addEventListener("focusin", (event) => this.at(event.target.dataset.id));
    for (const place of [this.links, this.body]) {
      place.addEventListener("pointerover", (event) => this.mark(event.target.closest("[data-id]")?.dataset.id));
      place.addEventListener("pointerleave", () => this.mark(null));
    }
    this.body.addEventListener("focusin", (event) => this.mark(event.target.closest("[data-id]")?.dataset.id));
    new ResizeObserver(() => this.resize()).observe(this.place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot?.redraw());
  }

  show(points) {
    this.all = points;
    this.offer(this.cost, Object.keys(COSTS));
    this.offer(this.quality, Object.keys(QUALITIES));
    this.draw();
  }

  // Only what was measured can be chosen; a choice that can no longer be made gives way to the first.
  offer(select, names) {
    for (const name of names) {
      const option = select.querySelector(`[value=${name}]`);
      option.disabled = !this.all.some((point) => known(point[name]));
    }
    if (select.selectedOptions[0]?.disabled) {
      select.value = [...select.options].find((option) => !option.disabled)?.value ?? select.options[0].value;
    }
  }

  seen() {
    const [cost, quality] = [this.cost.value, this.quality.value];
    const points = this.all.filter((point) => known(point[cost]) && known(point[quality]));
    return points.sort((a, b) => a[cost] - b[cost] || b[quality] - a[quality]);
  }

  draw() {
    this.points = this.seen();
    this.best = front(this.points, this.cost.value, this.quality.value);
    const ids = new Set(this.best.map((point) => point.id));
    this.empty.hidden = this.points.length > 0;
    this.create();
    this.link(ids);
    this.fill(ids);
    this.root.querySelector("[data-cost-name]").textContent = COSTS[this.cost.value].name;
    this.root.querySelector("[data-quality-name]").textContent = QUALITIES[this.quality.value];
  }

  create() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.place.clientWidth || this.points.length === 0) return;
    const [cost, quality] = [this.cost.value, this.quality.value];
    const best = new Set(this.best);
    const steps = this.points.map((point) => (best.has(point) ? point[quality] : null));
    steps[steps.length - 1] ??= this.best.at(-1)[quality]; // whoever pays more has it still
    const style = axisStyle();
    this.plot = new window.uPlot({
      width: this.place.clientWidth,
      height: this.place.clientHeight,
      scales: {
        x: { time: false, range: (_, low, high) => padded(low, high, Math.abs(high) || 1, 0) },
        y: { range: (_, low, high) => padded(low, high, 0.1, -Infinity) }, // shares: little above all of it
      },
      axes: [
        { ...style, size: 28, space: 80, values: (_, ticks) => ticks.map((tick) => COSTS[cost].shown(tick)) },
        { ...style, size: 58, values: (_, ticks) => ticks.map((tick) => (tick > 1 ? "" : percent(tick, decimals(ticks)))) },
      ],
      series: [
        {},
        { width: 0, paths: () => null, points: { show: false } }, // gives the axis its range
        { stroke: () => colour("--accent"), width: 2, spanGaps: true, paths: window.uPlot.paths.stepped({ align: 1 }), points: { show: false } },
      ],
      legend: { show: false },
      cursor: { show: false },
      padding: [12, 24, 0, 0],
      hooks: { draw: [() => this.position()] }, // places are known then, and change with the size
    }, [this.points.map((point) => point[cost]), this.points.map((point) => point[quality]), steps], this.place);
  }

  // Links over the canvas: they can be focused, opened in a tab and read aloud.
  link(best) {
    const links = this.points.map((point) => {
      const link = document.createElement("a");
      link.href = point.href;
      link.dataset.id = point.id;
      link.className = point.original ? "original" : best.has(point.id) ? "best" : "";
      link.setAttribute("aria-label", this.words(point, best.has(point.id)));
      link.title = link.getAttribute("aria-label");
      link.tabIndex = -1;
      return link;
    });
    this.links.replaceChildren(...links);
    const first = links.find((link) => link.dataset.id === this.current) ?? links[0];
    if (first) first.tabIndex = 0;
  }

  position() {
    if (!this.plot) return;
    const ratio = window.uPlot.pxRatio;
    const { left, top } = this.plot.bbox;
    for (const [index, link] of [...this.links.children].entries()) {
      const point = this.points[index];
      link.style.left = `${left / ratio + this.plot.valToPos(point[this.cost.value], "x")}px`;
      link.style.top = `${top / ratio + this.plot.valToPos(point[this.quality.value], "y")}px`;
    }
  }

  words(point, isBest) {
    const figures = `${COSTS[this.cost.value].shown(point[this.cost.value])}, ${percent(point[this.quality.value], 2)}`;
    return `${point.label}: ${figures}${isBest ? ", on the front" : ""}`;
  }

  fill(best) {
    const rows = this.points.map((point) => {
      const row = document.createElement("tr");
      row.dataset.id = point.id;
      const name = document.createElement("th");
      name.scope = "row";
      const link = document.createElement("a");
      link.href = point.href;
      link.textContent = point.label;
      name.append(link);
      if (point.note) name.append(note(point.note));
      const cost = cell(COSTS[this.cost.value].shown(point[this.cost.value]));
      const quality = cell(percent(point[this.quality.value], 2));
      const isBest = cell(best.has(point.id) ? "yes" : "");
      isBest.className = "";
      row.append(name, cost, quality, isBest);
      return row;
    });
    this.body.replaceChildren(...rows);
  }

  step(event) {
    const by = KEYS[event.key];
    const links = [...this.links.children];
    const to = event.key === "Home" ? 0 : event.key === "End" ? links.length - 1 : links.indexOf(document.activeElement) + by;
    if (!links[to] || (by === undefined && !["Home", "End"].includes(event.key))) return;
    event.preventDefault();
    links[to].focus();
  }

  // One of the points is in the order of the Tab key; the arrow keys move from it to the others.
  at(id) {
    this.current = id;
    for (const link of this.links.children) link.tabIndex = link.dataset.id === id ? 0 : -1;
    this.mark(id);
    const row = this.body.querySelector(`[data-id="${CSS.escape(id)}"]`);
    const scroll = this.body.closest(".table-wrap");
    if (row && scroll) scroll.scrollTop = row.offsetTop - scroll.clientHeight / 2;
  }

  mark(id) {
    for (const one of this.root.querySelectorAll("[data-id].marked")) one.classList.remove("marked");
    if (!id) return;
    for (const one of this.root.querySelectorAll(`[data-id="${CSS.escape(id)}"]`)) one.classList.add("marked");
  }

  resize() {
    if (!this.plot) {
      if (this.points) this.draw();
      return;
    }
    this.plot.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
  }
}

// `usual`: the width of a range that has none.
function padded(low, high, usual, least) {
  const room = (high - low || usual) * 0.06;
  return [Math.max(low - room, least), high + room];
}

// As many digits as tell two ticks apart.
function decimals(ticks) {
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  return step < 0.00099 ? 2 : step < 0.0099 ? 1 : 0;
}

function cell(text) {
  const made = document.createElement("td");
  made.className = "num";
  made.textContent = text;
  return made;
}

function note(text) {
  const made = document.createElement("span");
  made.className = "note";
  made.textContent = text;
  return made;
}
