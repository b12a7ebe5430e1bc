"""The one script of the trace page: it moves and enlarges search trees, and shows a node's text.

The page's policy allows this script alone, by its hash. It takes texts from the page's data and sets them as text,
never as markup; without it the trees are there all the same.
"""

from __future__ import annotations

import base64
import hashlib

SCRIPT = r"""
(() => {
"use strict";
const FURTHEST = 4, SLACK = 4, LEGIBLE = 0.55;

function bring(box) {
  const data = JSON.parse(box.querySelector("script[type='application/json']").textContent);
  const svg = box.querySelector(".stage svg"), view = svg.querySelector(".view");
  const panel = box.querySelector(".panel");
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const dots = [], spots = [], below = data.map(() => []), layers = [];
  for (const dot of svg.querySelectorAll(".node")) {
    const n = Number(dot.dataset.n), at = /\(([^ ]+) ([^)]+)\)/.exec(dot.getAttribute("transform"));
    const level = Number(dot.getAttribute("aria-level")) - 1;
    dots[n] = dot;
    spots[n] = {x: Number(at[1]), y: Number(at[2]), level};
    (layers[level] = layers[level] || []).push(n);
    if (data[n].up >= 0) below[data[n].up].push(n);
  }
  for (const layer of layers) {
    layer.sort((a, b) => spots[a].x - spots[b].x);
    layer.forEach((n, i) => { spots[n].place = i; });
  }

  // -- the view: what was at p is drawn at k * p + (x, y), all in units of the drawing
  let k = 1, x = 0, y = 0, moves = 0;
  const draw = () => view.setAttribute("transform", `translate(${x} ${y}) scale(${k})`);
  const frame = () => {  // pixels of a unit, where the drawing begins on the screen, and its visible part
    const r = svg.getBoundingClientRect(), scale = Math.min(r.width / width, r.height / height) || 1;
    const e = r.left + (r.width - width * scale) / 2, f = r.top;
    return {scale, e, f, left: (r.left - e) / scale, top: 0, right: (r.right - e) / scale, bottom: r.height / scale};
  };
  const most = () => FURTHEST * Math.max(1, 1 / frame().scale);
  const keep = () => {  // some of the tree stays in sight
    const v = frame(), edge = 40 / v.scale;
    x = Math.min(v.right - edge, Math.max(v.left + edge - width * k, x));
    y = Math.min(v.bottom - edge, Math.max(v.top + edge - height * k, y));
  };
  const zoom = (factor, px, py) => {
    const next = Math.min(most(), Math.max(1, k * factor));
    if (Math.abs(next - k) < 1e-9) return false;
    x = px - (px - x) * next / k;
    y = py - (py - y) * next / k;
    k = next;
    keep();
    draw();
    return true;
  };
  const middle = (factor) => { const v = frame(); zoom(factor, (v.left + v.right) / 2, (v.top + v.bottom) / 2); };
  const fit = () => { k = 1; x = 0; y = 0; draw(); };
  const reveal = (n) => {
    const v = frame(), room = 36 * k, px = k * spots[n].x + x, py = k * spots[n].y + y;
    if (px < v.left + room) x += v.left + room - px;
    else if (px > v.right - room) x += v.right - room - px;
    if (py < v.top + room) y += v.top + room - py;
    else if (py > v.bottom - room) y += v.bottom - room - py;
    draw();
  };

  // -- nodes
  const first = dots.findIndex((dot) => dot.getAttribute("tabindex") === "0");
  let here = first, picked = -1;
  const show = (name, text) => {
    const place = panel.querySelector(name);
    place.textContent = text;
    place.parentElement.hidden = text === "";
  };
  const pick = (n) => {
    if (picked >= 0) {
      dots[picked].classList.remove("picked");
      dots[picked].setAttribute("aria-selected", "false");
    }
    picked = n;
    dots[n].classList.add("picked");
    dots[n].setAttribute("aria-selected", "true");
    const node = data[n];
    panel.querySelector("h4").textContent = node.head;
    panel.querySelector("dl").replaceChildren(...node.facts.map(([name, value]) => {
      const row = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = value;
      row.append(dt, dd);
      return row;
    }));
    show(".step", node.text);
    const before = [];
    for (let up = node.up, next = node.text; up >= 0; next = data[up].text, up = data[up].up) {
      const text = data[up].text;  // where steps are told without what parts them, a blank line does
      before.push(text !== "" && next !== "" && !/\s$/.test(text) ? text + "\n\n" : text);
    }
    const soft = document.createElement("span");
    soft.className = "before";
    soft.textContent = before.reverse().join("");
    show(".whole", soft.textContent);
    panel.querySelector(".whole").replaceChildren(soft, node.text);
    const notes = panel.querySelector(".notes"), known = node.notes ?? [];
    if (notes === null) return;
    notes.parentElement.hidden = known.length === 0;
    notes.replaceChildren(...known.map(([from, text]) => {
      const row = document.createElement("li"), source = document.createElement("span");
      source.className = "source";
      source.textContent = from;
      row.append(source, " ", text);
      return row;
    }));
  };
  const step = (n) => {
    if (n === undefined || n < 0) return;
    dots[here].setAttribute("tabindex", "-1");
    here = n;
    dots[n].setAttribute("tabindex", "0");
    dots[n].focus({preventScroll: true});
    reveal(n);
  };
  const beside = (by) => layers[spots[here].level][spots[here].place + by];
  const onward = () => below[here].find((n) => dots[n].classList.contains("on")) ?? below[here][0];

  box.querySelector(".stage").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onNode = event.target.closest(".node") !== null;
    const does = {"+": () => middle(1.3), "=": () => middle(1.3), "-": () => middle(1 / 1.3), "0": fit};
    if (onNode) {
      Object.assign(does, {ArrowUp: () => step(data[here].up), ArrowDown: () => step(onward()),
        ArrowLeft: () => step(beside(-1)), ArrowRight: () => step(beside(1)),
        Enter: () => pick(here), " ": () => pick(here)});
    }
    if (Object.hasOwn(does, event.key)) {
      event.preventDefault();
      does[event.key]();
    }
  });
  svg.addEventListener("click", (event) => {
    const dot = event.target.closest(".node");
    if (dot === null || moves > 0) return;
    step(Number(dot.dataset.n));
    pick(here);
  });

  // -- wheel, mouse and fingers
  svg.addEventListener("wheel", (event) => {
    const v = frame(), lines = event.deltaMode === 1 ? 16 : 1;
    const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015));
    if (zoom(factor, (event.clientX - v.e) / v.scale, (event.clientY - v.f) / v.scale)) event.preventDefault();
  }, {passive: false});
  const fingers = new Map();
  const lift = (event) => {
    fingers.delete(event.pointerId);
    if (fingers.size === 0) svg.classList.remove("moving");
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (fingers.size === 0) moves = 0;
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
  });
  svg.addEventListener("pointermove", (event) => {
    const was = fingers.get(event.pointerId);
    if (was === undefined) return;
    if (event.buttons === 0) {  // let go of outside the drawing
      lift(event);
      return;
    }
    const is = {x: event.clientX, y: event.clientY}, v = frame();
    if (moves === 0 && fingers.size === 1 && Math.hypot(is.x - was.x, is.y - was.y) < SLACK) return;
    if (moves === 0) {
      svg.setPointerCapture(event.pointerId);
      svg.classList.add("moving");
    }
    moves += 1;
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    fingers.set(event.pointerId, is);
    if (other === undefined) {
      x += (is.x - was.x) / v.scale;
      y += (is.y - was.y) / v.scale;
      keep();
      draw();
    } else {
      const o = other[1], before = Math.hypot(was.x - o.x, was.y - o.y), after = Math.hypot(is.x - o.x, is.y - o.y);
      x += (is.x - was.x) / 2 / v.scale;
      y += (is.y - was.y) / 2 / v.scale;
      draw();
      if (before > 0) zoom(after / before, ((is.x + o.x) / 2 - v.e) / v.scale, ((is.y + o.y) / 2 - v.f) / v.scale);
    }
  });
  svg.addEventListener("pointerup", lift);
  svg.addEventListener("pointercancel", lift);

  // -- begin
  const tools = {nearer: () => middle(1.3), farther: () => middle(1 / 1.3), fit,
    chosen: () => { step(first); pick(first); }};
  for (const button of box.querySelectorAll(".tools button")) button.addEventListener("click", tools[button.value]);
  box.classList.add("live");
  for (const hidden of box.querySelectorAll("[hidden]")) hidden.hidden = false;
  pick(here);
  const v = frame();
  if (v.scale < LEGIBLE) {  // too small as a whole: begin at the root of what is shown first
    let root = first;
    while (data[root].up >= 0) root = data[root].up;
    k = Math.min(most(), LEGIBLE / v.scale);
    x = (v.left + v.right) / 2 - k * spots[root].x;
    y = v.top - k * spots[root].y + 40 / v.scale;
    keep();
    draw();
  } else fit();
}
document.querySelectorAll(".search").forEach((box) => { if (box.querySelector(".stage")) bring(box); });
})();
"""

SCRIPT_SOURCE = "'sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode() + "'"
"""What the page's policy names the script by."""
