// The interactive description of the REST interface, from our own files.
window.addEventListener("load", () => {
  window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", deepLinking: true, withCredentials: true });
});
