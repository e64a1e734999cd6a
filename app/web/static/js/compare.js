// The runs of a page as points of cost against quality.

import { Pareto } from "./pareto.js";

const root = document.getElementById("compare");
if (root) {
  await document.fonts.ready;
  new Pareto(root.querySelector(".pareto")).show(JSON.parse(root.dataset.points));
}
