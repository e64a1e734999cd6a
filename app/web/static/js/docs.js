// The interactive description of the REST interface, from our own files.

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// The examples name a network and images by placeholders. The reader's own newest ones make them ready to send.
const OWN = {
  model: "/v1/models?status=ready&limit=1",
  dataset: "/v1/datasets?status=ready&limit=1",
  upload: "/v1/uploads?limit=1",
  job: "/v1/jobs?limit=1",
  batch: "/v1/batches?limit=1",
  webhook: "/v1/webhooks?limit=1",
};

async function newest([kind, address]) {
  const answer = await fetch(address);
  const found = answer.ok ? (await answer.json()).data[0] : undefined;
  return found ? [[kind, found.id]] : [];
}

// Also where an address asks for one; only to look at it, as nothing should be deleted by a click out of curiosity.
function fillAddresses(document, own) {
  for (const { get } of Object.values(document.paths)) {
    for (const asked of get?.parameters ?? []) {
      const id = own.get(asked.name.replace(/_id$/, ""));
      if (asked.in === "path" && id) asked.example = id;
    }
  }
  return document;
}

async function readyToSend(signedIn) {
  const looked = Object.entries(signedIn ? OWN : {}).map(newest);
  const [text, ...found] = await Promise.all([fetch("/openapi.json").then((answer) => answer.text()), ...looked]);
  const own = new Map(found.flat());
  const named = [...own].reduce((made, [kind, id]) => made.replaceAll(`${kind}_01k${"0".repeat(23)}`, id), text);
  return fillAddresses(JSON.parse(named), own);
}

const place = document.getElementById("swagger-ui");
window.SwaggerUIBundle({
  spec: await readyToSend("signedIn" in place.dataset),
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // the default would ask a stranger's server
  persistAuthorization: false,
});
