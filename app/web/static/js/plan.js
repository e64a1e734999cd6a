// The plan on a network's page: what a job would make of it, told while the slider moves, edited, and run.
//
// One plan is asked for at a time. What is wished meanwhile waits, and only the last of it is asked for next;
// a plan on another data set is dropped at once, because measuring for it would be in vain.

import { ProblemError, call } from "./api.js";
import { count, decibels, percent, points } from "./format.js";
import { Sensitivity } from "./sensitivity.js";

const DEBOUNCE = 250; // milliseconds after the last movement
const POLL = { first: 120, most: 1000 };
const FORMS = { basis: "k×k, then 1×1", kx1_1xk: "k×1, then 1×k", "1xk_kx1": "1×k, then k×1" };

const pause = (milliseconds) => new Promise((done) => { setTimeout(done, milliseconds); });

// A layer's name as a pattern that matches itself alone.
const asPattern = (name) => name.replace(/[*?[]/g, "[$&]");

class Panel {
  constructor(root) {
    this.root = root;
    this.model = root.dataset.model;
    this.reasons = JSON.parse(root.dataset.reasons);
    this.form = root.querySelector("form");
    this.rows = new Map([...root.querySelectorAll("tr[data-layer]")].map((row) => [row.dataset.layer, row]));
    this.sensitivity = new Sensitivity(root.querySelector("#sensitivity"));
    this.edited = null; // ranks by hand: { layer: what target.ranks says }
    this.plan = null; // the one that is shown
    this.asked = null; // the wish that is being answered: { text, id, controller }
    this.live = false;
    this.timer = null;
    this.listen();
    this.showShare();
    this.resume();
  }

  // What is wished

  excluded() {
    return [...this.rows].filter(([, row]) => row.querySelector("[data-exclude]").checked).map(([name]) => name);
  }

  wish() {
    const excluded = this.excluded();
    const body = { model: this.model, compression: { target: { macs: Number(this.form.share.value) / 100 } } };
    if (this.edited) {
      const open = [...this.rows.keys()].filter((name) => !excluded.includes(name));
      const ranks = open.map((name) => [name, this.edited[name] ?? { form: "dense" }]);
      body.compression.target = { ranks: Object.fromEntries(ranks) };
    }
    if (excluded.length) body.compression.layers = { include: ["*"], exclude: excluded.map(asPattern) };
    if (this.form.dataset_id.value) body.dataset = this.form.dataset_id.value;
    return body;
  }

  listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.form.share.addEventListener("input", () => {
      this.edited = null;
      this.showShare();
      this.askSoon();
    });
    this.form.dataset_id.addEventListener("change", () => {
      this.drop();
      this.edited = null;
      this.showTuning();
      this.askSoon();
    });
    this.root.addEventListener("change", (event) => {
      if (event.target.matches("[data-rank]")) this.edit(event.target);
      else if (event.target.matches("[data-exclude]")) this.askSoon();
    });
    this.root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-curve]");
      if (button) this.sensitivity.choose(button.closest("tr").dataset.layer, true);
    });
    this.root.querySelector("#by-share").addEventListener("click", () => {
      this.edited = null;
      this.ask();
    });
    this.root.querySelector("#run-plan").addEventListener("click", () => this.run());
    window.addEventListener("pagehide", () => this.drop());
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.sensitivity.redraw());
    this.showTuning();
  }

  edit(input) {
    const name = input.closest("tr").dataset.layer;
    const before = this.plan.ranks[name];
    this.edited ??= { ...this.plan.ranks };
    if (!input.value) {
      this.edited[name] = { form: "dense" };
    } else {
      const rank = Math.min(Math.max(Math.round(Number(input.value)), 1), Number(input.max));
      const form = before?.form && before.form !== "dense" ? before.form : "basis";
      this.edited[name] = form === "basis" ? rank : { form, rank };
    }
    this.ask();
  }

  askSoon() {
    if (!this.live) return; // measuring takes a while: it begins when it is asked for
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), DEBOUNCE);
  }

  // Asking

  async ask() {
    clearTimeout(this.timer);
    this.live = true;
    this.root.querySelector("#plan-problem").hidden = true;
    if (this.asked) return; // the loop below looks at the wish again
    try {
      for (let text = null; text !== JSON.stringify(this.wish());) {
        text = JSON.stringify(this.wish());
        const plan = await this.answer(text);
        if (!plan) return; // dropped: who did that asks anew
        if (text === JSON.stringify(this.wish())) this.show(plan);
        else this.forget(plan.id); // something else is wished by now
      }
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      this.complain(error.problem);
    }
  }

  // The plan for one wish; null when it was dropped meanwhile.
  async answer(text) {
    const asked = { id: null, dropped: false };
    this.asked = asked;
    this.busy("Planning");
    try {
      let plan = await call("POST", "/v1/plans", JSON.parse(text));
      asked.id = plan.id;
      for (let wait = POLL.first; plan.status === "queued" && !asked.dropped; wait = Math.min(wait * 1.2, POLL.most)) {
        await pause(wait);
        if (asked.dropped) break;
        plan = await call("GET", `/v1/plans/${plan.id}`);
        if (plan.progress.message) this.busy(plan.progress.message, plan.progress.fraction);
      }
      if (asked.dropped) return this.forget(plan.id);
      if (plan.status === "failed") throw new ProblemError(plan.error);
      return plan;
    } catch (error) {
      if (asked.dropped) return null;
      throw error;
    } finally {
      if (this.asked === asked) this.asked = null;
      this.idle();
    }
  }

  // Stop what is being made; its worker sees the row gone within a second.
  drop() {
    if (!this.asked) return;
    this.asked.dropped = true;
    if (this.asked.id) this.forget(this.asked.id);
    this.asked = null;
  }

  forget(id) {
    fetch(`/v1/plans/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
    return null;
  }

  // The last plan of this network, so that coming back costs nothing.
  async resume() {
    const query = new URLSearchParams({ model: this.model, status: "ready", limit: "1" });
    const last = (await call("GET", `/v1/plans?${query}`).catch(() => null))?.data[0];
    if (!last || this.asked || this.plan) return;
    const options = [...this.form.dataset_id.options].map((option) => option.value);
    if (!options.includes(last.dataset ?? "")) return;
    const plan = await call("GET", `/v1/plans/${last.id}`).catch(() => null);
    if (!plan || this.asked || this.plan) return;
    this.form.dataset_id.value = plan.dataset ?? "";
    const { target } = plan.compression;
    if (target.macs) this.form.share.value = Math.round(target.macs * 100);
    else if (target.ranks) this.edited = plan.ranks;
    for (const layer of plan.layers) {
      const box = this.rows.get(layer.name)?.querySelector("[data-exclude]");
      if (box) box.checked = layer.reason === "excluded";
    }
    this.live = true;
    this.showShare();
    this.showTuning();
    this.show(plan);
  }

  // Showing

  showShare() {
    const { value } = this.form.share;
    const unit = document.createElement("small");
    unit.textContent = " %";
    this.root.querySelector("#plan-share-out").replaceChildren(value, unit);
    this.form.share.setAttribute("aria-valuetext", `${value} per cent`);
  }

  showTuning() {
    this.form.epochs.disabled = !this.form.dataset_id.value;
    if (this.form.epochs.disabled) this.form.epochs.value = "0";
  }

  busy(message, fraction) {
    this.root.setAttribute("aria-busy", "true");
    const share = fraction ? `, ${percent(fraction, 0)}` : "";
    this.status(`${message}${share} …`);
    const bar = this.root.querySelector("#plan-bar");
    bar.hidden = fraction === undefined;
    bar.value = fraction ?? 0;
  }

  idle() {
    this.root.removeAttribute("aria-busy");
    this.root.querySelector("#plan-bar").hidden = true;
  }

  status(text) {
    const place = this.root.querySelector("#plan-status");
    if (place.textContent !== text) place.textContent = text;
  }

  complain(problem) {
    this.status("");
    const place = this.root.querySelector("#plan-problem");
    const hint = document.createElement("span");
    hint.className = "hint";
    hint.textContent = problem.hint ?? "";
    place.replaceChildren(problem.detail, " ", hint);
    place.hidden = false;
  }

  show(plan) {
    if (this.plan && this.plan.id !== plan.id) this.forget(this.plan.id); // the last one is enough
    this.plan = plan;
    this.root.querySelector("#planned").hidden = false;
    this.root.querySelector("#plan-edited").hidden = !this.edited;
    this.root.querySelector("#plan-least").textContent = `smallest: ${percent(plan.limits.macs)}`;
    this.root.querySelector("#run-plan").disabled = !plan.layers.some((layer) => layer.replaced);
    this.showFacts(plan);
    this.showWarnings(plan);
    for (const layer of plan.layers) this.showLayer(layer);
    this.sensitivity.show(plan.layers);
    const replaced = plan.layers.filter((layer) => layer.replaced).length;
    const kept = percent(plan.predicted.macs / plan.original.macs);
    this.status(`${replaced} of ${plan.layers.length} layers would be replaced; ${kept} of the operations remain.`);
  }

  showFacts({ predicted, original }) {
    const facts = {
      macs: [count(predicted.macs), `${percent(predicted.macs / original.macs)} of ${count(original.macs)}`],
      params: [count(predicted.params), `${percent(predicted.params / original.params)} of ${count(original.params)}`],
      ...expectations(predicted),
    };
    for (const [name, [value, note]] of Object.entries(facts)) {
      const place = this.root.querySelector(`[data-fact="${name}"]`);
      place.firstChild.textContent = value;
      place.querySelector(".note").textContent = note;
    }
  }

  showWarnings(plan) {
    const notices = plan.warnings.map((warning) => {
      const notice = document.createElement("div");
      notice.className = "notice warn";
      const text = document.createElement("p");
      text.textContent = warning.detail;
      notice.append(text);
      return notice;
    });
    this.root.querySelector("#plan-warnings").replaceChildren(...notices);
  }

  showLayer(layer) {
    const row = this.rows.get(layer.name);
    if (!row) return; // it can never become cheaper; the table of layers says why
    const part = (name) => row.querySelector(`[data-${name}]`);
    const open = layer.name in this.plan.ranks;
    row.classList.toggle("kept", !layer.replaced);
    part("form").textContent = layer.replaced
      ? FORMS[layer.form] ?? layer.form
      : `Whole. ${this.reasons[layer.reason] ?? layer.reason}`;
    const rank = part("rank");
    rank.disabled = !open;
    rank.max = layer.max_rank;
    rank.value = layer.replaced ? layer.rank : "";
    part("most").textContent = open ? `of ${layer.max_rank}` : "";
    part("after").textContent = layer.replaced ? `${count(layer.macs_before)} → ${count(layer.macs)}` : count(layer.macs_before);
    const bar = row.querySelector("progress");
    bar.value = layer.macs_before ? layer.macs / layer.macs_before : 1;
    bar.classList.toggle("yes", layer.replaced);
    part("share").textContent = percent(bar.value, 0);
    part("harm").textContent = layer.harm ? percent(layer.harm, layer.harm < 0.001 ? 3 : 2) : "–";
  }

  // Running

  async run() {
    const button = this.root.querySelector("#run-plan");
    const { plan } = this;
    button.disabled = true;
    const kept = percent(plan.predicted.macs / plan.original.macs, 0);
    const compression = { basis: plan.compression.basis, target: { ranks: plan.ranks } };
    const excluded = this.excluded();
    if (excluded.length) compression.layers = { include: ["*"], exclude: excluded.map(asPattern) };
    const body = { kind: "compress", model: plan.model, name: `Planned: ${kept} of the operations`, compression };
    if (plan.dataset) Object.assign(body, { dataset: plan.dataset, training: { epochs: Number(this.form.epochs.value) } });
    try {
      const job = await call("POST", "/v1/jobs", body);
      window.location.assign(`/jobs/${job.id}`);
    } catch (error) {
      button.disabled = false;
      if (!(error instanceof ProblemError)) throw error;
      this.complain(error.problem);
    }
  }
}

// What is expected of the answers, in the two facts that have room for it.
function expectations({ error, agreement, accuracy_drop: drop }) {
  if (error === null) {
    const none = ["–", "by its weights alone nothing can be said"];
    return { agreement: none, accuracy: none };
  }
  const answers = agreement === null
    ? [error > 0 ? decibels(-10 * Math.log10(error)) : "equal", "signal over error of the outputs, expected"]
    : [percent(agreement), "as the original answers, expected without tuning"];
  const accuracy = drop === null ? ["–", "needs labelled images"] : [points(-drop), "expected without tuning"];
  return { agreement: answers, accuracy };
}

function start() {
  const root = document.getElementById("plan");
  if (root && !root.dataset.started) {
    root.dataset.started = "yes";
    new Panel(root);
  }
}

await document.fonts.ready;
start();
document.addEventListener("htmx:after:swap", start); // once the inspection is over
