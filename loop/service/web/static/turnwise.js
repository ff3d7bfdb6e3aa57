"use strict";
// What the pages do beyond links and forms: the theme's switch and a pause of polling.
(function () {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const order = ["auto", "light", "dark"];
  const current = () => root.dataset.theme || "auto";
  const label = () => { button.textContent = "Theme: " + current(); };
  if (button) {
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(current()) + 1) % order.length];
      if (next === "auto") {
        delete root.dataset.theme;
        localStorage.removeItem("turnwise-theme");
      } else {
        root.dataset.theme = next;
        localStorage.setItem("turnwise-theme", next);
      }
      label();
      document.dispatchEvent(new Event("turnwise:theme"));
    });
  }
  // A page in the background asks for nothing.
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden) event.preventDefault();
  });
})();
