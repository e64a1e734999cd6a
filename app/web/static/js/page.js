// On every page: times in the reader's own zone, copy buttons, and a word when htmx cannot reach the server.

let date; // made when it is needed: that takes longer than to draw a small page

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const when = new Date(time.dateTime);
    date ??= new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
    if (!Number.isNaN(when.valueOf())) time.textContent = date.format(when);
  }
}

function copyButtons(root) {
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
}

function prepare(root) {
  localTimes(root);
  copyButtons(root);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  button.firstChild.data = "Copied";
  document.getElementById("said").textContent = "Copied";
  setTimeout(() => {
    button.firstChild.data = "Copy";
    document.getElementById("said").textContent = "";
  }, 2000);
});

// After the first paint, which shows the times as the server writes them.
requestAnimationFrame(() => setTimeout(() => localTimes(document)));
copyButtons(document);
document.addEventListener("htmx:after:swap", () => prepare(document));
