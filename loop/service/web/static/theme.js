"use strict";
// Runs before the first paint, so that a stored choice doesn't flash.
(function () {
  const stored = localStorage.getItem("turnwise-theme");
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
})();
