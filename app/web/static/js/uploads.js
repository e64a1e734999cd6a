// Files to the server by tus: what breaks off goes on at the last byte that arrived, after a reload too.

import { ProblemError, UNREACHABLE, call, problemOf } from "./api.js";

const ENDPOINT = "/v1/uploads";
// A refusal is seen after so many bytes at the latest: a browser reads no answer before its request is sent.
const CHUNK_BYTES = 32 * 1024 * 1024;
const PATIENCE_MS = 15 * 60 * 1000; // without any progress; what was sent is kept for a day all the same
const LONGEST_WAIT_MS = 5000;
const PREFIX = "basisconv";
const KEYS = `tus::${PREFIX}-`; // where tus-js-client remembers ours

// Loaded when a file is there to be sent: the first page is lighter without it.
export async function library() {
  try {
    await import("/static/vendor/tus/tus.min.js");
  } catch {
    throw new ProblemError(UNREACHABLE);
  }
  return window.tus;
}

const remembered = async () => (await library()).defaultOptions.urlStorage;
const addressOf = (url) => new URL(url, window.location.href).pathname;
const fingerprint = (kind, file) => [PREFIX, kind, file.name, file.size, file.lastModified].join("-");

// Whether trying again can help: no answer, another request still writing, too many at once, a server away.
function mayPass(status) {
  return status === 0 || status >= 500 || [409, 423, 429].includes(status);
}

// Calls `attempt` until it works; told of every failure that may pass, throws the ones that will not.
async function patiently(attempt, onWait) {
  let since = null;
  let wait = 500;
  for (;;) {
    const { status, problem, progressed } = await attempt();
    if (status === undefined) return;
    if (!mayPass(status)) throw new ProblemError(problem);
    if (progressed || since === null) [since, wait] = [Date.now(), 500];
    if (Date.now() - since > PATIENCE_MS) {
      throw new ProblemError({ ...problem, hint: "What was sent is kept: choose the same file again to go on." });
    }
    onWait();
    await pause(wait);
    wait = Math.min(wait * 1.6, LONGEST_WAIT_MS);
  }
}

function pause(milliseconds) {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    window.addEventListener("online", () => { clearTimeout(timer); done(); }, { once: true });
  });
}

const tried = async (work) => {
  try {
    return { value: await work() };
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    return { status: error.problem.status ?? 0, problem: error.problem };
  }
};

// What an earlier visit began with this file, if the server still has it.
async function begun(kind, file, onWait) {
  const [before] = await (await remembered()).findUploadsByFingerprint(fingerprint(kind, file));
  if (!before) return null;
  let found = null;
  await patiently(async () => {
    const { value, status, problem } = await tried(() => call("GET", addressOf(before.uploadUrl)));
    if (status === 404) return {};
    found = value ?? null;
    return { status, problem };
  }, onWait);
  if (!found) await forget(kind, file);
  return found ? before : null;
}

function once(upload) {
  return new Promise((settle) => {
    let progressed = false;
    upload.options.onChunkComplete = () => { progressed = true; };
    upload.options.onSuccess = () => settle({});
    upload.options.onError = (error) => {
      const answer = error.originalResponse;
      const status = answer?.getStatus() ?? 0;
      settle({ status, problem: answer ? problemOf(status, answer.getBody()) : UNREACHABLE, progressed });
    };
    upload.start();
  });
}

// Sends the file, or the rest of it. `told({done, total, waiting})` follows; gives the id of the upload.
export async function send(kind, file, told) {
  let done = 0;
  const tell = (waiting) => told({ done, total: file.size, waiting });
  const before = await begun(kind, file, () => tell(true));
  const { Upload } = await library();
  const upload = new Upload(file, {
    endpoint: before ? null : ENDPOINT,
    uploadUrl: before?.uploadUrl,
    chunkSize: CHUNK_BYTES,
    retryDelays: null,
    metadata: { filename: file.name, kind },
    fingerprint: async () => fingerprint(kind, file),
    onProgress: (sent) => { done = sent; tell(false); },
    // From here on a server in trouble must not be a reason to begin again.
    onUploadUrlAvailable: () => { upload.options.endpoint = null; },
  });
  await patiently(() => once(upload), () => tell(true));
  return addressOf(upload.url).split("/").pop();
}

// Makes a network or a data set of a complete upload. The key gives the first answer again if it was lost.
export async function use(path, id, fields, onWait) {
  let made = null;
  await patiently(async () => {
    const { value, status, problem } = await tried(() => call("POST", path, { upload: id, ...fields }, { "Idempotency-Key": id }));
    made = value;
    return status === 409 ? { status: 422, problem } : { status, problem };
  }, onWait);
  return made;
}

export async function forget(kind, file) {
  const storage = await remembered();
  for (const entry of await storage.findUploadsByFingerprint(fingerprint(kind, file))) {
    await storage.removeUpload(entry.urlStorageKey);
  }
}

// Uploads of an earlier visit that can go on, the last one of each kind: {model: {filename, received, length}}.
export async function interrupted() {
  const found = {};
  if (!hasRemembered()) return found;
  const storage = await remembered();
  const ours = (await storage.findAllUploads()).filter((entry) => entry.urlStorageKey.startsWith(KEYS));
  for (const entry of ours.sort((a, b) => new Date(a.creationTime) - new Date(b.creationTime))) {
    const { value, status } = await tried(() => call("GET", addressOf(entry.uploadUrl)));
    if (value) found[entry.metadata.kind] = value;
    else if (status === 404) await storage.removeUpload(entry.urlStorageKey);
  }
  return found;
}

function hasRemembered() {
  try {
    return Object.keys(localStorage).some((key) => key.startsWith(KEYS));
  } catch {
    return false; // a browser that keeps nothing
  }
}
