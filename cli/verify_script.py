"""The one script of the verification page: it shows the evidence of one claim at a time.

The page's policy allows this script alone, by its hash. It moves no text; without it all claims stand in a list.
"""

from __future__ import annotations

import base64
import hashlib

VERIFY_SCRIPT = r"""
(() => {
"use strict";
const main = document.querySelector("main"), panels = [...document.querySelectorAll(".panel")];
if (panels.length === 0) return;
const numbers = [...document.querySelectorAll(".number")];
let here = -1;
const show = (n, focus) => {
  here = n;
  panels.forEach((panel, i) => { panel.hidden = i !== n && n >= 0; });
  for (const number of numbers) number.setAttribute("aria-current", String(Number(number.dataset.n) === n));
  if (n < 0) return;
  if (focus) {
    panels[n].focus({preventScroll: true});
    panels[n].scrollIntoView({block: "nearest"});
  }
};
const back = () => {
  const number = numbers.find((one) => Number(one.dataset.n) === here);
  if (number) number.focus();
};
for (const number of numbers) number.addEventListener("click", (event) => {
  event.preventDefault();
  show(Number(number.dataset.n), true);
});
for (const claim of document.querySelectorAll(".given .claim")) claim.addEventListener("click", () => {
  if (String(getSelection()) === "") show(Number(claim.dataset.n), true);
});
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const inside = event.target instanceof Element && event.target.closest(".panel, .number");
  if (event.key === "Escape" && here >= 0) back();
  else if (inside && event.key === "ArrowRight") show(Math.min(panels.length - 1, here + 1), true);
  else if (inside && event.key === "ArrowLeft") show(Math.max(0, here - 1), true);
  else return;
  event.preventDefault();
});
const steps = {before: () => show(Math.max(0, here - 1), true),
  after: () => show(Math.min(panels.length - 1, here + 1), true), all: () => show(-1, false)};
for (const button of document.querySelectorAll(".steps button")) button.addEventListener("click", steps[button.value]);
main.classList.add("live");
for (const hidden of document.querySelectorAll(".steps, .hint")) hidden.hidden = false;
const wanted = panels.findIndex((panel) => "#" + panel.id === location.hash);
const gravest = panels.findIndex((panel) => panel.classList.contains("refuted"));
show(wanted >= 0 ? wanted : Math.max(0, gravest), false);
})();
"""

VERIFY_SCRIPT_SOURCE = "'sha256-" + base64.b64encode(hashlib.sha256(VERIFY_SCRIPT.encode()).digest()).decode() + "'"
"""What the page's policy names the script by."""
