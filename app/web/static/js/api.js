// Calls of the REST interface with the page's session; a refusal is thrown as the problem it came with.

export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

export const UNREACHABLE = {
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

// The problem in a refusal's body.
export function problemOf(status, text) {
  return { status, ...(text ? parse(text, status) : UNREACHABLE) };
}

function accept(status, text) {
  if (status >= 400) throw new ProblemError(problemOf(status, text));
  return text ? parse(text, status) : null;
}

export async function call(method, path, body, extra = {}) {
  const headers = { Accept: "application/json", ...extra };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ProblemError(UNREACHABLE);
  }
  return accept(response.status, await response.text());
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
