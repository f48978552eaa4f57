/* kdbench's board: everything here is a comfort; the pages are whole without it. */
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try { const kept = localStorage.getItem("kdbench-theme"); if (kept) root.dataset.theme = kept; } catch { /* private mode */ }
})();
