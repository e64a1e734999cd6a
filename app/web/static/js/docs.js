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
};

async function newest(kind, address) {
  const answer = await fetch(address);
  const found = answer.ok ? (await answer.json()).data[0] : undefined;
  return [new RegExp(`${kind}_01k0{23}`, "g"), found?.id];
}

async function readyToSend(signedIn) {
  const own = Object.entries(signedIn ? OWN : {}).map(([kind, address]) => newest(kind, address));
  const [text, ...ids] = await Promise.all([fetch("/openapi.json").then((answer) => answer.text()), ...own]);
  return JSON.parse(ids.reduce((made, [placeholder, id]) => (id ? made.replace(placeholder, id) : made), text));
}

const place = document.getElementById("swagger-ui");
window.SwaggerUIBundle({
  spec: await readyToSend("signedIn" in place.dataset),
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // the default would ask a stranger's server
  persistAuthorization: false,
});
