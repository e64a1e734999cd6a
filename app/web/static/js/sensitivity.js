// One layer's harm against the operations it keeps, as a curve and as the same numbers in a table.

import { colour } from "./charts.js";
import { count, percent } from "./format.js";

const FORMS = { basis: "k×k, 1×1", kx1_1xk: "k×1, 1×k", "1xk_kx1": "1×k, k×1", dense: "whole" };
const DECADES = 6; // below the largest harm nothing is worth drawing

export class Sensitivity {
  constructor(root) {
    this.root = root;
    this.select = root.querySelector("select");
    this.place = root.querySelector(".plot");
    this.body = root.querySelector("tbody");
    this.layers = new Map();
    this.plot = null;
    this.select.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  show(layers) {
    this.layers = new Map(layers.filter((layer) => layer.sensitivity).map((layer) => [layer.name, layer]));
    this.root.hidden = this.layers.size === 0;
    const before = this.select.value;
    const options = [...this.layers.keys()].map((name) => new Option(name, name));
    this.select.replaceChildren(...options);
    this.select.value = this.layers.has(before) ? before : this.largest();
    this.draw();
  }

  // Where most operations are, a choice matters most.
  largest() {
    const all = [...this.layers.values()];
    return all.reduce((best, layer) => (layer.macs_before > best.macs_before ? layer : best), all[0] ?? {}).name ?? "";
  }

  choose(name, andGo) {
    if (!this.layers.has(name)) return;
    this.select.value = name;
    this.draw();
    if (andGo) this.select.focus();
  }

  draw() {
    const layer = this.layers.get(this.select.value);
    if (!layer) return;
    this.fill(layer);
    this.create(layer);
  }

  redraw() {
    if (this.plot) this.draw();
  }

  fill(layer) {
    const chosen = (point) => point.form === layer.form && point.rank === layer.rank;
    const all = [...layer.sensitivity];
    if (!all.some(chosen)) all.push(layer);
    all.sort((a, b) => a.macs - b.macs);
    const rows = all.map((point) => {
      const row = document.createElement("tr");
      if (chosen(point)) row.className = "chosen";
      const cells = [
        `${count(point.macs)} (${percent(point.macs / layer.macs_before, 0)})`,
        FORMS[point.form] ?? point.form,
        point.rank ?? "–",
        point.harm ? percent(point.harm, point.harm < 0.001 ? 4 : 2) : "none",
      ];
      row.append(...cells.map((text) => {
        const cell = document.createElement("td");
        cell.className = "num";
        cell.textContent = text;
        return cell;
      }));
      return row;
    });
    this.body.replaceChildren(...rows);
  }

  // A logarithm has no place for nothing: the whole layer's point is left out of the curve.
  data(layer) {
    const seen = layer.sensitivity.filter((point) => point.harm > 0);
    const share = (point) => point.macs / layer.macs_before;
    const points = seen.map((point) => [share(point), point.harm, null]);
    if (layer.replaced && layer.harm > 0) points.push([layer.macs / layer.macs_before, null, layer.harm]);
    points.sort((a, b) => a[0] - b[0]);
    return [0, 1, 2].map((column) => points.map((point) => point[column]));
  }

  create(layer) {
    this.plot?.destroy();
    this.plot = null;
    this.place.replaceChildren();
    const data = this.data(layer);
    if (!this.place.clientWidth || data[0].length === 0) return;
    const most = Math.max(...data[1], ...data[2]);
    const least = Math.min(...[...data[1], ...data[2]].filter((harm) => harm > 0));
    const range = [Math.max(least, most / 10 ** DECADES) / 1.5, most * 1.5];
    const common = {
      stroke: () => colour("--muted"),
      font: "12px 'Plex Sans', sans-serif",
      grid: { stroke: () => colour("--line"), width: 1 },
      ticks: { show: false },
    };
    this.plot = new window.uPlot({
      width: this.place.clientWidth,
      height: this.place.clientHeight,
      scales: { x: { time: false, range: [0, 1] }, y: { distr: 3, range: () => range } },
      axes: [
        { ...common, grid: { show: false }, size: 28, values: (_, ticks) => ticks.map((tick) => percent(tick, 0)) },
        { ...common, size: 64, grid: { ...common.grid, filter: decades }, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : shown(tick))) },
      ],
      series: [
        {},
        { stroke: () => colour("--accent"), width: 2, spanGaps: true, points: { show: true, size: 5, fill: () => colour("--surface") } },
        { stroke: () => colour("--ink"), width: 0, paths: () => null, points: { show: true, size: 11, fill: () => colour("--ink") } },
      ],
      legend: { show: false },
      cursor: { show: false },
      padding: [10, 24, 0, 0],
    }, data, this.place);
  }

  resize() {
    if (this.plot) this.plot.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
    else this.draw();
  }
}

// Lines at powers of ten alone.
function decades(_, ticks) {
  return ticks.map((tick) => (tick !== null && Math.abs(Math.log10(tick) % 1) < 1e-9 ? tick : null));
}

// A share of the outputs' square, on a logarithmic axis.
function shown(tick) {
  const share = tick * 100;
  return `${share >= 0.001 ? Number(share.toPrecision(2)) : share.toExponential(0)} %`;
}
