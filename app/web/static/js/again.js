// A job that was sent before, filled into the form. What the form has no field for is kept and said in words.

const USUAL = { rank_multiple: 1, batch_size: 128, learning_rate: null, augment: "flip_crop", seed: 0, patience: null };
const WORDS = {
  rank_multiple: (value) => `ranks in multiples of ${value}`,
  include: (value) => `only layers ${value.join(", ")}`,
  batch_size: (value) => `batches of ${value}`,
  learning_rate: (value) => `learning rate ${value}`,
  augment: (value) => (value === "none" ? "images as they are" : `images changed by ${value}`),
  seed: (value) => `seed ${value}`,
  patience: (value) => `patience of ${value} epochs`,
  accuracy_drop: (value) => `limit of ${Number((value * 100).toPrecision(6))} points lost`,
  learnable_params: (value) => `limit of ${Number((value * 100).toPrecision(6))} % left to learn`,
};

const known = (entries) => Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null));
const unusual = (options, names) => known(names.filter((name) => options[name] !== USUAL[name]).map((name) => [name, options[name]]));

// The parts of a job's body that no field shows.
function restOf({ compression, training, limits }) {
  const rest = {
    compression: unusual(compression, ["rank_multiple"]),
    training: unusual(training, ["batch_size", "learning_rate", "augment", "seed", "patience"]),
    limits: known(Object.entries(limits)),
  };
  const { include } = compression.layers;
  if (include.length !== 1 || include[0] !== "*") rest.compression.include = include;
  return rest;
}

export function inWords(rest) {
  return Object.values(rest).flatMap((part) => Object.entries(part).map(([name, value]) => WORDS[name](value)));
}

// A list that lacks the job's value gets it.
function choose(select, value, words) {
  if (![...select.options].some((option) => option.value === value)) select.add(new Option(words, value));
  select.value = value;
}

function rankLine([layer, asked]) {
  if (typeof asked === "number") return `${layer} = ${asked}`;
  return `${layer} = ${asked.form}${asked.rank ? ` ${asked.rank}` : ""}`;
}

function fillTarget(form, target) {
  const [[kind, value]] = Object.entries(known(Object.entries(target)));
  const common = [...form.aim].some((radio) => radio.value === kind);
  form.aim.value = common ? kind : "other";
  if (!common) form.other.value = kind;
  if (kind === "ranks") form.ranks.value = Object.entries(value).map(rankLine).join("\n");
  else if (kind === "accuracy_drop") form.drop.value = String(Number((value * 100).toPrecision(6)));
  else if (kind === "expansion") form.expansion.value = String(value);
  else {
    const share = Number((value * 100).toPrecision(6));
    if (!Number.isInteger(share)) form.share.step = "any";
    form.share.value = String(share);
  }
}

// Fill the form; returns what it cannot show.
export function fill(form, job) {
  fillTarget(form, job.compression.target);
  form.basis.value = job.compression.basis ?? "";
  form.forms.value = job.compression.forms ?? "";
  form.exclude.value = job.compression.layers.exclude.join(", ");
  choose(form.epochs, String(job.training.epochs), `${job.training.epochs} epochs`);
  form.update.value = job.training.update;
  form.objective.value = job.training.objective;
  form.job_name.value = job.name ?? "";
  for (const box of form.querySelectorAll("[name=exports]")) box.checked = job.exports.includes(box.value);
  return restOf(job);
}

// A body of the form's fields with what the form could not show.
export function withRest(body, rest) {
  const { include, ...compression } = rest.compression;
  Object.assign(body.compression, compression);
  if (include) body.compression.layers = { exclude: [], ...body.compression.layers, include };
  if (body.dataset) body.training = { ...rest.training, ...body.training };
  if (Object.keys(rest.limits).length) body.limits = rest.limits;
  return body;
}
