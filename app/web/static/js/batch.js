// A batch's page: the points of what has finished so far, drawn again whenever more has.

import { ProblemError, call } from "./api.js";
import { Pareto } from "./pareto.js";

const root = () => document.getElementById("batch");
const chart = new Pareto(document.getElementById("pareto"));
let drawn = null; // how many finished jobs the points were asked for with

async function draw() {
  const ended = root().dataset.ended;
  if (ended === drawn) return;
  drawn = ended;
  try {
    chart.show(await call("GET", `/batches/${root().dataset.batch}/points`));
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    drawn = null; // the next swap tries again
  }
}

document.addEventListener("htmx:after:swap", draw);
draw();
