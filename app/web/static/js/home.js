// The form of the first page: choose or drop files, upload, wait for the inspector, send the job, follow it.

import { fill, inWords, withRest } from "./again.js";
import { ProblemError, call, inspected } from "./api.js";
import { count, size, whole } from "./format.js";
import { FieldError, classesBody, fieldOf, inputBody, jobBody, targetKind } from "./request.js";
import { forget, interrupted, library, send, use } from "./uploads.js";

const form = document.getElementById("compress");
const go = document.getElementById("go");
const fields = ["model", "dataset", "target", "training", "basis", "layers", "exports", "form"];
// What was uploaded already: a second try after a wrong field does not send the file again.
const sent = { model: null, dataset: null };

// Beside the field, which gets the focus: the control that is wrong, or the first that shows.
function showProblem(field, problem, control) {
  const place = document.getElementById(`${field}-problem`);
  const hint = document.createElement("span");
  hint.className = "hint";
  hint.textContent = problem.hint ?? "";
  place.replaceChildren(problem.detail, " ", hint);
  place.hidden = false;
  if (["basis", "layers", "exports"].includes(field)) document.getElementById("more").open = true;
  if (control === "classes") document.getElementById("classes-field").open = true;
  const described = [...form.querySelectorAll(`[aria-describedby~="${field}-problem"]:is(input, select, textarea)`)];
  const wrong = control ? [form[control]] : described;
  if (control && !described.includes(form[control])) {
    const before = form[control].getAttribute("aria-describedby") ?? "";
    form[control].setAttribute("aria-describedby", `${before} ${field}-problem`.trim());
  }
  for (const one of wrong) one.setAttribute("aria-invalid", "true");
  place.scrollIntoView({ block: "center", behavior: "auto" });
  (wrong.find((one) => one.checkVisibility()) ?? place).focus({ preventScroll: true });
}

function clearProblems() {
  for (const field of fields) {
    const place = document.getElementById(`${field}-problem`);
    place.hidden = true;
    place.replaceChildren(); // what is hidden still describes its field
  }
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

// A job that is to be run again

const NOTHING = { compression: {}, training: {}, limits: {} };
let rest = NOTHING; // of its body, what no field shows

function fillAgain() {
  if (!form.hasAttribute("data-again")) return;
  rest = fill(form, JSON.parse(form.getAttribute("data-again")));
  form.removeAttribute("data-again"); // once: what is changed then stays
  const words = inWords(rest);
  document.querySelector("#again-rest [data-words]").textContent = words.join(", ");
  document.getElementById("again-rest").hidden = !words.length;
}

document.getElementById("leave-out")?.addEventListener("click", () => {
  rest = NOTHING;
  document.getElementById("again-rest").hidden = true;
});

// Choosing files

function chooser(kind) {
  const input = document.getElementById(kind);
  const box = document.getElementById(`${kind}-drop`);
  const face = box.querySelector("[data-empty]");
  const help = document.getElementById(`${kind}-help`);
  const empty = { face: [...face.childNodes], help: help.textContent };
  const existing = document.getElementById(`${kind}-id`);

  function show() {
    const file = input.files[0];
    box.classList.toggle("filled", Boolean(file));
    if (file) {
      library().catch(() => {}); // ahead of time; what fails now is told when the file is sent
      document.getElementById(`${kind}-rest`).hidden = true;
      face.textContent = file.name;
      help.textContent = `${size(file.size)}, choose again to replace it`;
      existing.value = "";
    } else {
      face.replaceChildren(...empty.face);
      help.textContent = empty.help;
    }
    showChoice();
  }

  input.addEventListener("change", () => { clearProblems(); show(); });
  existing.addEventListener("change", () => {
    if (existing.value) input.value = "";
    show();
  });
  let depth = 0; // dragenter and dragleave come for every child passed over
  box.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; box.classList.add("over"); });
  box.addEventListener("dragover", (event) => event.preventDefault());
  box.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) { depth = 0; box.classList.remove("over"); } });
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    box.classList.remove("over");
    if (event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change"));
    }
  });
  return { input, existing, show };
}

const choosers = { model: chooser("model"), dataset: chooser("dataset") };

// A file dropped beside the boxes must not replace the page.
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
}

// What the fields mean at the moment

function chosenTarget() {
  if (form.aim.value === "other") return form.other.selectedOptions[0];
  return [...form.aim].find((radio) => radio.checked);
}

function showTarget() {
  const kind = targetKind(form);
  const fields = { ranks: "ranks-field", accuracy_drop: "drop-field", expansion: "expansion-field" };
  const shown = fields[kind] ?? "dial";
  for (const id of ["dial", ...Object.values(fields)]) document.getElementById(id).hidden = id !== shown;
  document.getElementById("other-field").hidden = form.aim.value !== "other";
  showShare();
}

function showShare() {
  const unit = document.createElement("small");
  unit.textContent = " %";
  document.getElementById("share-out").replaceChildren(form.share.value, unit);
  form.share.setAttribute("aria-valuetext", `${form.share.value} per cent`);
  const help = document.getElementById("target-help");
  const network = choosers.model.existing.selectedOptions[0];
  const total = Number(network?.dataset[targetKind(form)] ?? 0);
  const explained = chosenTarget().dataset.help;
  help.textContent = total
    ? `${explained} Here ${count(total)} become ${count(total * Number(form.share.value) / 100)}.`
    : explained;
}

function showNormalisation() {
  for (const field of form.querySelectorAll("[data-custom]")) field.hidden = form.normalisation.value !== "custom";
}

const basisHelp = document.getElementById("basis-help");
const usualBasisHelp = basisHelp.textContent;

function showBasis() {
  const random = form.basis.value === "random";
  basisHelp.textContent = random ? basisHelp.dataset.random : usualBasisHelp;
  for (const name of ["forms", "update", "objective"]) form[name].disabled = random;
  go.textContent = random ? "Train" : "Compress";
}

// Weights alone: only with the name of their network.
const isWeights = () => /\.(safetensors|pt|pth)$/i.test(choosers.model.input.files[0]?.name ?? "");

function showChoice() {
  document.getElementById("architecture-field").hidden = !isWeights();
  const chosen = Boolean(choosers.model.existing.value);
  for (const id of ["input-fields", "sizes-help"]) document.getElementById(id).hidden = chosen;
  document.getElementById("classes-field").hidden = Boolean(choosers.dataset.existing.value);
  const without = !choosers.dataset.input.files.length && !choosers.dataset.existing.value;
  form.epochs.disabled = without;
  document.getElementById("epochs-help").textContent = without
    ? "Needs images."
    : "Most of what was lost comes back in the first.";
  showShare();
}

for (const control of [...form.aim, form.other]) {
  control.addEventListener("change", () => {
    form.share.step = "1";
    const { value } = chosenTarget().dataset;
    if (value) form.share.value = value;
    clearProblems();
    showTarget();
  });
}
form.share.addEventListener("input", showShare);
form.normalisation.addEventListener("change", showNormalisation);
form.basis.addEventListener("change", showBasis);

// Sending

const line = (kind) => document.querySelector(`[data-run="${kind}"]`);

function tell(kind, text, done, total) {
  const item = line(kind);
  item.hidden = false;
  item.querySelector("[data-text]").textContent = text;
  const bar = item.querySelector("progress");
  if (!bar) return;
  bar.hidden = total === undefined;
  if (total) bar.value = done / total;
}

const KINDS = {
  model: {
    path: "/v1/models",
    fields: () => {
      if (!isWeights()) return { input: inputBody(form) };
      if (!form.architecture.value) throw new FieldError("model", "Choose the network that the weights are of.", "architecture");
      return { input: inputBody(form), architecture: form.architecture.value };
    },
    summary: (model) =>
      `${model.name}: ${count(model.summary.macs)} operations, ${model.summary.compressible} of ${model.summary.layers} layers can become cheaper`,
  },
  dataset: {
    path: "/v1/datasets",
    fields: () => {
      const classes = classesBody(form);
      return classes ? { classes } : {};
    },
    summary: (data) => `${data.name}: ${whole(data.examples.train)} to learn from, ${whole(data.examples.test)} to judge by`,
  },
};

function sameFile(kind, file, extra) {
  const last = sent[kind];
  return last && last.file === file && last.extra === JSON.stringify(extra) ? last.resource : null;
}

async function uploaded(kind, file) {
  const { path, fields: extras } = KINDS[kind];
  const extra = extras();
  const limit = Number(form.getAttribute(`data-max-${kind}`)); // form.dataset is its field of that name
  if (file.size > limit) {
    throw new ProblemError({
      detail: `The file has ${size(file.size)}; the limit is ${size(limit)}.`,
      hint: "The limit is a setting of this server.",
    });
  }
  const before = sameFile(kind, file, extra);
  if (before) return call("GET", `${path}/${before.id}`);
  tell(kind, `Uploading ${file.name}`, 0, file.size);
  const id = await send(kind, file, ({ done, total, waiting }) => {
    const share = `${size(done)} of ${size(total)}`;
    tell(kind, waiting ? `Interrupted at ${share}; goes on by itself` : `Uploading ${file.name}: ${share}`, done, total);
  });
  tell(kind, "Uploaded, being stored", file.size, file.size);
  const resource = await use(path, id, extra, () => tell(kind, "Uploaded; waiting for the server"));
  await forget(kind, file);
  sent[kind] = { file, extra: JSON.stringify(extra), resource };
  return resource;
}

async function ready(kind, id) {
  const { path, summary } = KINDS[kind];
  const { input, existing } = choosers[kind];
  const chosen = id ?? existing.value;
  let resource;
  if (!id && input.files.length) resource = await uploaded(kind, input.files[0]);
  else if (chosen) resource = await call("GET", `${path}/${chosen}`);
  else return null;
  if (resource.status === "inspecting") tell(kind, "Being inspected");
  resource = await inspected(path, resource);
  tell(kind, summary(resource));
  return resource;
}

async function placed(field, promise) {
  try {
    return await promise;
  } catch (error) {
    error.field ??= field;
    throw error;
  }
}

async function prepared(ids) {
  const parts = await Promise.allSettled([
    placed("model", ready("model", ids.model)),
    placed("dataset", ready("dataset", ids.dataset)),
  ]);
  const refused = parts.filter((part) => part.status === "rejected").map((part) => part.reason);
  for (const error of refused.slice(1).reverse()) report(error);
  if (refused.length) throw refused[0];
  return parts.map((part) => part.value);
}

function report(error) {
  if (error instanceof ProblemError) showProblem(error.field ?? fieldOf(error.problem) ?? "form", error.problem);
  else if (error instanceof FieldError) showProblem(error.field, { detail: error.message }, error.control);
  else throw error;
}

function busy(isBusy) {
  go.disabled = isBusy;
  const example = document.querySelector("#example button");
  if (example) example.disabled = isBusy;
  document.getElementById("running").hidden = !isBusy;
  if (!isBusy) return;
  for (const kind of ["model", "dataset", "job"]) line(kind).hidden = true;
  document.getElementById("running").scrollIntoView({ block: "nearest" });
}

async function run(ids, body) {
  clearProblems();
  busy(true);
  try {
    const [model, dataset] = await prepared(ids);
    tell("job", "Being sent");
    const job = await call("POST", "/v1/jobs", body(model, dataset));
    tell("job", "Accepted");
    window.location.assign(`/jobs/${job.id}`);
  } catch (error) {
    busy(false);
    report(error);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!choosers.model.input.files.length && !choosers.model.existing.value) {
    clearProblems();
    showProblem("model", { detail: "Choose a network first.", hint: "Or try the bundled example." });
    return;
  }
  try {
    jobBody(form, "", ""); // wrong fields are told before anything is sent
    for (const { fields: extras } of Object.values(KINDS)) extras();
  } catch (error) {
    clearProblems();
    report(error);
    return;
  }
  run({}, (model, dataset) => withRest(jobBody(form, model.id, dataset?.id), rest));
});

document.getElementById("example")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    clearProblems();
    busy(true);
    const example = await call("POST", "/example");
    await run({ model: example.model, dataset: example.dataset }, () => example.job);
  } catch (error) {
    busy(false);
    report(error);
  }
});

// After a reload the browser gives no file back, but the server still has what was sent.
async function showInterrupted() {
  for (const [kind, { filename, received, length }] of Object.entries(await interrupted())) {
    const place = document.getElementById(`${kind}-rest`);
    place.textContent = `The upload of ${filename} was interrupted at ${size(received)} of ${size(length)}. Choose the same file and it goes on there.`;
    place.hidden = Boolean(choosers[kind].input.files.length);
  }
}

window.addEventListener("pageshow", () => { // also when the browser brings the page back as it was left
  busy(false);
  fillAgain();
  showTarget();
  showNormalisation();
  showBasis();
  for (const kind of ["model", "dataset"]) choosers[kind].show();
  showInterrupted();
});
