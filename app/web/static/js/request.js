// The form's fields as the bodies that the REST interface takes.

const NORMALISATIONS = {
  unit: {},
  cifar10: { mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.201] },
  imagenet: { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
};

export class FieldError extends Error {
  constructor(field, message, control) {
    super(message);
    this.field = field;
    this.control = control; // the name of the one that is wrong
  }
}

function numbers(form, name, what) {
  const parts = form[name].value.split(/[\s,;]+/).filter(Boolean);
  const values = parts.map(Number);
  if (values.some(Number.isNaN)) {
    throw new FieldError("model", `${what}: write numbers separated by commas, such as 0.5, 0.5, 0.5.`, name);
  }
  return values;
}

function normalisation(form) {
  const kind = form.normalisation.value;
  if (kind !== "custom") return NORMALISATIONS[kind];
  const input = { scale: Number(form.input_scale.value) };
  if (!(input.scale > 0)) throw new FieldError("model", "The divisor of the pixels must be above 0.", "input_scale");
  const mean = numbers(form, "mean", "Mean");
  const std = numbers(form, "std", "Deviation");
  if (mean.length) input.mean = mean;
  if (std.length) input.std = std;
  return input;
}

function pixels(form, name, what) {
  const value = form[name].value.trim();
  if (!value) return {};
  const side = Number(value);
  if (!Number.isInteger(side) || side < 1) throw new FieldError("model", `${what} must be a whole number of pixels.`, name);
  return { [name]: side };
}

export function inputBody(form) {
  return { ...normalisation(form), ...pixels(form, "resize", "The shorter side"), ...pixels(form, "crop", "The crop") };
}

// Lines such as "name = 8" as {name: 8}.
function numbered(text, field, form) {
  const chosen = {};
  for (const line of text.split("\n").map((part) => part.trim()).filter(Boolean)) {
    const found = /^(.+?)\s*[=:\s]\s*(\d+)$/.exec(line);
    if (!found) throw new FieldError(field, `“${line}” is not of the form ${form}.`, "classes");
    chosen[found[1]] = Number(found[2]);
  }
  return chosen;
}

export function classesBody(form) {
  const classes = numbered(form.classes.value, "dataset", "folder = class number");
  return Object.keys(classes).length ? classes : null;
}

// Lines such as "conv1 = 8", "conv2 = kx1_1xk 12" or "conv3 = dense".
function ranks(text) {
  const chosen = {};
  for (const line of text.split("\n").map((part) => part.trim()).filter(Boolean)) {
    const found = /^(.+?)\s*[=:\s]\s*(?:(basis|kx1_1xk|1xk_kx1)\s+)?(\d+|dense)$/.exec(line);
    if (!found) throw new FieldError("target", `“${line}” is not of the form layer = rank.`, "ranks");
    const [, layer, form, rank] = found;
    if (rank === "dense") chosen[layer] = { form: "dense" };
    else chosen[layer] = form ? { form, rank: Number(rank) } : Number(rank);
  }
  if (!Object.keys(chosen).length) throw new FieldError("target", "Give at least one line such as conv1 = 8.", "ranks");
  return chosen;
}

function drop(text) {
  const points = Number(text);
  if (!text.trim() || !(points >= 0 && points < 100)) {
    throw new FieldError("target", "Give the points of accuracy that may be lost, such as 1 or 0.5.", "drop");
  }
  return points / 100;
}

function expansion(text) {
  const filters = Number(text);
  if (!(filters > 0)) throw new FieldError("target", "Give how many filters each channel gets, such as 1 or 1.5.", "expansion");
  return filters;
}

// Which target is chosen: one of the common ones, or what the list of others says.
export function targetKind(form) {
  return form.aim.value === "other" ? form.other.value : form.aim.value;
}

export function target(form) {
  const kind = targetKind(form);
  if (kind === "ranks") return { ranks: ranks(form.ranks.value) };
  if (kind === "accuracy_drop") return { accuracy_drop: drop(form.drop.value) };
  if (kind === "expansion") return { expansion: expansion(form.expansion.value) };
  return { [kind]: Number((Number(form.share.value) / 100).toPrecision(8)) };
}

export function jobBody(form, modelId, datasetId) {
  const compression = { target: target(form) };
  if (form.basis.value) compression.basis = form.basis.value;
  if (form.forms.value) compression.forms = form.forms.value;
  const exclude = form.exclude.value.split(",").map((part) => part.trim()).filter(Boolean);
  if (exclude.length) compression.layers = { include: ["*"], exclude };
  const fromScratch = form.basis.value === "random";
  const body = {
    kind: fromScratch ? "train" : "compress",
    model: modelId,
    compression,
    training: { epochs: 0 },
    exports: [...form.querySelectorAll("[name=exports]:checked")].map((box) => box.value),
  };
  if (!body.exports.length) throw new FieldError("exports", "Choose at least one kind of file.");
  if (datasetId) {
    body.dataset = datasetId;
    body.training = { epochs: Number(form.epochs.value) };
    // From scratch only the mixing learns, from labels.
    if (!fromScratch) Object.assign(body.training, { update: form.update.value, objective: form.objective.value });
  }
  if (form.job_name.value.trim()) body.name = form.job_name.value.trim();
  return body;
}

// Which field a problem of POST /v1/jobs speaks of: the first JSON pointer tells.
export function fieldOf(problem) {
  const place = problem.errors?.find((error) => error.pointer)?.pointer ?? "";
  for (const [start, field] of [
    ["/compression/target", "target"],
    ["/compression/layers", "layers"],
    ["/compression/basis", "basis"],
    ["/compression/forms", "basis"],
    ["/training", "training"],
    ["/exports", "exports"],
    ["/model", "model"],
    ["/dataset", "dataset"],
  ]) {
    if (place.replace(/^#/, "").startsWith(start)) return field;
  }
  return problem.code === "target_infeasible" ? "target" : null;
}
