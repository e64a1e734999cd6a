// Curves with uPlot (a global of its own script). Colours come from the style sheet, so dark mode is one redraw.

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// What the axes of every plot look like.
export function axisStyle() {
  return {
    stroke: () => colour("--muted"),
    font: "12px 'Plex Sans', sans-serif",
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { show: false },
  };
}

function axes(percent) {
  const common = axisStyle();
  const values = percent
    ? (_, ticks) => ticks.map((value) => `${Number((value * 100).toFixed(1))} %`)
    : (_, ticks) => ticks.map((value) => String(Number(value.toPrecision(3))));
  return [
    { ...common, grid: { show: false }, size: 28, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : "")) },
    { ...common, size: 52, values },
  ];
}

const MOST_ROWS = 60; // of a curve's table: more is not read

function cell(kind, text) {
  const made = document.createElement(kind);
  made.className = "num";
  made.textContent = text;
  return made;
}

function row(kind, texts) {
  const made = document.createElement("tr");
  made.append(...texts.map((text) => cell(kind, text)));
  return made;
}

export class Curve {
  constructor(figure, { percent }) {
    this.figure = figure;
    this.percent = percent;
    this.reference = null;
    this.points = new Map(); // step -> value: a replayed event changes nothing
    this.plot = null;
    this.numbers = figure.querySelector("details.numbers");
    this.numbers.addEventListener("toggle", () => this.fill());
    new ResizeObserver(() => this.resize()).observe(figure.querySelector(".plot"));
  }

  words(value) {
    return this.percent ? `${(value * 100).toFixed(1)}\u00a0%` : value.toPrecision(3);
  }

  // The same as a table, for those who cannot see the curve; filled while it is open.
  fill() {
    if (!this.numbers.open) return;
    const [steps, values] = this.data();
    const every = Math.ceil(steps.length / MOST_ROWS);
    const shown = [...steps.keys()].filter((at) => at % every === 0 || at === steps.length - 1);
    const known = this.reference === null ? [] : [this.words(this.reference)];
    this.numbers.querySelector("thead").replaceChildren(row("th", ["Step", "Value", ...known.map(() => "Original")]));
    this.numbers.querySelector("tbody").replaceChildren(
      ...shown.map((at) => row("td", [String(steps[at]), this.words(values[at]), ...known])),
    );
  }

  add(step, value) {
    this.points.set(step, value);
  }

  compareWith(reference) {
    if (this.reference === reference) return;
    this.reference = reference;
    this.figure.querySelector(".ref").hidden = false;
    this.redraw();
  }

  clear() {
    this.points.clear();
  }

  data() {
    const steps = [...this.points.keys()].sort((a, b) => a - b);
    const values = steps.map((step) => this.points.get(step));
    return this.reference === null ? [steps, values] : [steps, values, steps.map(() => this.reference)];
  }

  draw() {
    if (this.points.size === 0) return;
    this.figure.hidden = false;
    const data = this.data();
    const last = data[1].at(-1);
    this.figure.querySelector("output").textContent = this.words(last);
    this.fill();
    if (this.plot) this.plot.setData(data);
    else this.create(data);
  }

  redraw() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  create(data) {
    const place = this.figure.querySelector(".plot");
    if (!place.clientWidth) return;
    const few = (plot) => plot.data[0].length < 30;
    const series = [{}, { stroke: () => colour("--accent"), width: 2, points: { show: few, size: 6, fill: () => colour("--accent") } }];
    if (this.reference !== null) series.push({ stroke: () => colour("--line-strong"), width: 2, dash: [6, 5], points: { show: false } });
    this.plot = new window.uPlot({
      width: place.clientWidth,
      height: place.clientHeight,
      scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) } },
      axes: axes(this.percent),
      series,
      legend: { show: false },
      cursor: { show: false },
      padding: [10, 10, 0, 0],
    }, data, place);
  }

  resize() {
    const place = this.figure.querySelector(".plot");
    if (this.plot) this.plot.setSize({ width: place.clientWidth, height: place.clientHeight });
    else this.draw();
  }
}
