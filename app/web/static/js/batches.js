// New batches: a grid of choices, or a file of jobs. The server looks at every line before any job starts; what
// it finds is shown here by line, and then the rest can be started.

import { ProblemError, UNREACHABLE, call, problemOf } from "./api.js";
import { size, whole } from "./format.js";

const grid = document.getElementById("grid");
const file = document.getElementById("file");
const lines = document.getElementById("lines");
const refused = document.getElementById("refused");
const skip = document.getElementById("skip");
let again = null; // sends what was refused once more, without the lines that are not valid

class FieldError extends Error {}

// The grid's fields as the body that the REST interface takes

function shares() {
  const parts = grid.shares.value.replaceAll("%", " ").split(/[\s,;]+/).filter(Boolean);
  const values = parts.map((part) => Number(part) / 100);
  if (!values.length || values.some((value) => !(value > 0 && value <= 1))) {
    throw new FieldError("Write shares between 0 and 100, separated by commas, such as 30, 50, 70.");
  }
  return [...new Set(values.map((value) => Number(value.toPrecision(12))))];
}

const chosen = () => [...grid.querySelectorAll("[name=models]:checked")].map((box) => box.value);

function gridBody() {
  const models = chosen();
  if (!models.length) throw new FieldError("Choose at least one network.");
  const body = { models, grid: { [`compression.target.${grid.target.value}`]: shares() }, base: {} };
  const bases = grid.basis.value.split(",").filter(Boolean);
  if (bases.length) body.grid["compression.basis"] = bases;
  if (grid.dataset.value) Object.assign(body.base, { dataset: grid.dataset.value, training: { epochs: Number(grid.epochs.value) } });
  if (grid.batch_name.value.trim()) body.name = grid.batch_name.value.trim();
  return body;
}

function showCount() {
  const place = document.getElementById("grid-count");
  try {
    const body = gridBody();
    const jobs = Object.values(body.grid).reduce((product, values) => product * values.length, body.models.length);
    place.textContent = jobs === 1 ? "1 job" : `${whole(jobs)} jobs`;
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    place.textContent = "";
  }
}

// Sending, and what comes back

async function sendFile(chosenFile, onError) {
  const query = new URLSearchParams({ on_error: onError });
  const name = file.batch_name.value.trim();
  if (name) query.set("name", name);
  let response;
  try {
    response = await fetch(`/v1/batches?${query}`, {
      method: "POST", headers: { Accept: "application/json", "Content-Type": "application/jsonl" }, body: chosenFile,
    });
  } catch {
    throw new ProblemError(UNREACHABLE);
  }
  const text = await response.text();
  if (!response.ok) throw new ProblemError(problemOf(response.status, text));
  return JSON.parse(text);
}

async function start(button, place, send) {
  refused.hidden = true;
  place.hidden = true;
  button.disabled = true;
  try {
    const batch = await send("abort");
    window.location.assign(`/batches/${batch.id}`);
  } catch (error) {
    if (error instanceof FieldError) {
      place.textContent = error.message;
      place.hidden = false;
    } else if (error instanceof ProblemError) {
      again = () => send("skip");
      show(error.problem);
    } else throw error;
  } finally {
    button.disabled = false;
  }
}

function cell(text, kind = "td") {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function show(problem) {
  refused.querySelector("[data-title]").textContent = problem.title ?? "Something went wrong";
  refused.querySelector("[data-detail]").textContent = problem.detail;
  const errors = (problem.errors ?? []).filter((error) => error.line);
  refused.querySelector("[data-hint]").textContent = errors.length ? "" : problem.hint ?? "";
  const rows = errors.map((error) => {
    const row = document.createElement("tr");
    const line = cell(whole(error.line));
    line.className = "num";
    const place = document.createElement("td");
    place.append(cell(error.pointer === "#" ? "" : error.pointer ?? "", "code"));
    row.append(line, place, cell(error.detail));
    return row;
  });
  refused.querySelector("tbody").replaceChildren(...rows);
  refused.querySelector(".table-wrap").hidden = rows.length === 0;
  const rest = rows.length ? problem.total - problem.invalid : 0;
  skip.hidden = rest === 0;
  skip.textContent = rest === 1 ? "Start the other job" : `Start the other ${whole(rest)} jobs`;
  refused.hidden = false;
  refused.focus();
}

skip.addEventListener("click", async () => {
  skip.disabled = true;
  try {
    const batch = await again();
    window.location.assign(`/batches/${batch.id}`);
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    show(error.problem);
  } finally {
    skip.disabled = false;
  }
});

grid.addEventListener("input", () => { document.getElementById("grid-problem").hidden = true; showCount(); });
grid.addEventListener("submit", (event) => {
  event.preventDefault();
  const send = (onError) => call("POST", "/v1/batches", { ...gridBody(), on_error: onError });
  start(event.submitter, document.getElementById("grid-problem"), send);
});

file.addEventListener("submit", (event) => {
  event.preventDefault();
  const send = (onError) => {
    const [given] = lines.files;
    if (!given) throw new FieldError("Choose a file first.");
    return sendFile(given, onError);
  };
  start(event.submitter, document.getElementById("lines-problem"), send);
});

// Choosing or dropping the file

const box = document.getElementById("lines-drop");
lines.addEventListener("change", () => {
  const [given] = lines.files;
  document.getElementById("lines-problem").hidden = true;
  refused.hidden = true;
  box.classList.toggle("filled", Boolean(given));
  if (!given) return;
  box.querySelector("[data-empty]").textContent = given.name;
  document.getElementById("lines-help").textContent = `${size(given.size)}, choose again to replace it`;
});
let depth = 0; // dragenter and dragleave come for every child passed over
box.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; box.classList.add("over"); });
box.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) { depth = 0; box.classList.remove("over"); } });
box.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  box.classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  lines.files = event.dataTransfer.files;
  lines.dispatchEvent(new Event("change"));
});
// A file dropped beside the box must not replace the page.
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
}

if (grid.target) showCount();
