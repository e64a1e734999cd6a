// Calls of the REST interface with the page's session; a refusal is thrown as the problem it came with.

export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

const UNREACHABLE = {
  code: "unreachable",
  title: "The server does not answer",
  detail: "The server did not answer.",
  hint: "Check that it runs, then try again.",
};

function parse(text, status) {
  try {
    return JSON.parse(text);
  } catch {
    return { ...UNREACHABLE, detail: `The server answered ${status} without saying why.` };
  }
}

function accept(status, text) {
  const body = text ? parse(text, status) : null;
  if (status >= 400) throw new ProblemError(body ?? UNREACHABLE);
  return body;
}

export async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ProblemError(UNREACHABLE);
  }
  return accept(response.status, await response.text());
}

// fetch tells nothing of an upload's progress; XMLHttpRequest does.
export function upload(path, file, fields, onProgress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value); // fields before the long part
  form.append("file", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded, event.total);
    });
    request.addEventListener("load", () => {
      try {
        resolve(accept(request.status, request.responseText));
      } catch (error) {
        reject(error);
      }
    });
    const lost = () => reject(new ProblemError({ ...UNREACHABLE, detail: "The connection broke during the upload." }));
    request.addEventListener("error", lost);
    request.addEventListener("abort", lost);
    request.send(form);
  });
}

// Polls until the inspector has made up its mind; a rejection is thrown as its problem.
export async function inspected(path, resource) {
  let wait = 250;
  while (resource.status === "inspecting") {
    await new Promise((done) => { setTimeout(done, wait); });
    wait = Math.min(wait * 1.3, 2000);
    resource = await call("GET", `${path}/${resource.id}`);
  }
  if (resource.status === "rejected") throw new ProblemError(resource.error);
  return resource;
}
