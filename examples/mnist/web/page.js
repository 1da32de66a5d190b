// This file is the page: it draws, asks the model while drawing, and shows
// what the model answers.

import { side, toDigit } from "./digit.js";

const paper = document.getElementById("paper");
const pen = document.getElementById("pen");
const seen = document.getElementById("seen");
const answer = document.getElementById("answer");
const error = document.getElementById("error");
const size = paper.width;
const empty = answer.textContent;
const ctx = paper.getContext("2d", { willReadFrequently: true });

// Drawing. The ink takes the colour of the text; only its opacity counts.

function ink() {
  ctx.lineWidth = size / 13;
  ctx.lineCap = ctx.lineJoin = "round";
  ctx.strokeStyle = getComputedStyle(document.body).color;
}

function line(from, to) {
  ink();
  ctx.beginPath();
  ctx.moveTo(from.x, from.y);
  ctx.lineTo(to.x, to.y);
  ctx.stroke();
}

// When the colours change, so does the ink that is there.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  ctx.save();
  ctx.globalCompositeOperation = "source-in";
  ctx.fillStyle = getComputedStyle(document.body).color;
  ctx.fillRect(0, 0, size, size);
  ctx.restore();
});

function place(event) {
  const r = paper.getBoundingClientRect();
  return { x: (event.clientX - r.left) * size / r.width, y: (event.clientY - r.top) * size / r.height };
}

const strokes = new Map(); // the last place of each pointer that is down

paper.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  paper.setPointerCapture(event.pointerId);
  pen.hidden = true;
  const at = place(event);
  strokes.set(event.pointerId, at);
  line(at, at);
  ask();
});

paper.addEventListener("pointermove", (event) => {
  let last = strokes.get(event.pointerId);
  if (!last) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const e of events.length ? events : [event]) {
    const at = place(e);
    line(last, at);
    last = at;
  }
  strokes.set(event.pointerId, last);
  ask();
});

for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
  paper.addEventListener(name, (event) => strokes.delete(event.pointerId));
}

// Drawing by keyboard.

const start = { x: size / 2, y: size / 4, down: false };
const key = { ...start };
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function showPen() {
  pen.hidden = false;
  pen.classList.toggle("down", key.down);
  pen.style.left = 100 * key.x / size + "%";
  pen.style.top = 100 * key.y / size + "%";
}

paper.addEventListener("keydown", (event) => {
  const move = arrows[event.key];
  if (move) {
    const from = { x: key.x, y: key.y };
    key.x = Math.max(0, Math.min(size, key.x + move[0] * size / 40));
    key.y = Math.max(0, Math.min(size, key.y + move[1] * size / 40));
    if (key.down) line(from, key);
  } else if (event.key === " ") {
    key.down = !key.down;
    if (key.down) line(key, key);
  } else if (event.key === "Escape") {
    clear();
    return;
  } else {
    return;
  }
  event.preventDefault();
  showPen();
  if (key.down) ask();
});

paper.addEventListener("blur", () => {
  key.down = false;
  pen.hidden = true;
});

function clear() {
  ctx.clearRect(0, 0, size, size);
  Object.assign(key, start);
  pen.hidden = true;
  ask();
}

document.getElementById("clear").addEventListener("click", clear);

// Asking: one request at a time, and after it another if the drawing changed.

let asking = false, changed = false;

async function ask() {
  changed = true;
  if (asking) return;
  asking = true;
  while (changed) {
    await new Promise(requestAnimationFrame);
    changed = false;
    const digit = look();
    showSeen(digit);
    if (!digit) {
      show(null);
      continue;
    }
    try {
      const p = await predict(digit);
      if (!changed || look()) show(p);
    } catch (e) {
      fail(e.message);
    }
  }
  asking = false;
}

function look() {
  const data = ctx.getImageData(0, 0, size, size).data;
  const opacity = new Uint8Array(size * size);
  for (let i = 0; i < opacity.length; i++) opacity[i] = data[4 * i + 3];
  return toDigit(opacity, size, size);
}

async function predict(digit) {
  let response;
  try {
    response = await fetch("api/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ instances: [digit] }),
    });
  } catch {
    throw new Error("The page's own server does not answer.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `The server answers with status ${response.status}.`);
  return body.predictions[0];
}

// Showing.

const bars = [];
for (let k = 0; k < 10; k++) {
  const row = document.createElement("li");
  row.append(element("span", "digit", k), element("div", "track"), element("span", "share", "0 %"));
  const bar = element("div", "bar");
  row.children[1].append(bar);
  document.getElementById("bars").append(row);
  bars.push({ row, bar, share: row.children[2] });
}

function element(tag, name, text = "") {
  const e = document.createElement(tag);
  e.className = name;
  e.textContent = text;
  return e;
}

function show(p) {
  error.hidden = true;
  const best = p ? p.indexOf(Math.max(...p)) : -1;
  bars.forEach(({ row, bar, share }, k) => {
    const percent = p ? 100 * p[k] : 0;
    bar.style.width = percent + "%";
    share.textContent = Math.round(percent) + " %";
    row.classList.toggle("best", k === best);
  });
  say(p ? `This looks like a ${best}.` : empty);
}

function fail(message) {
  show(null);
  say("No answer.");
  error.textContent = message;
  error.hidden = false;
}

// A screen reader speaks each change, so there is one only when it is news.
function say(text) {
  if (answer.textContent !== text) answer.textContent = text;
}

function showSeen(digit) {
  const c = seen.getContext("2d");
  const img = c.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    img.data.fill(digit ? 255 * digit[i] : 0, 4 * i, 4 * i + 3);
    img.data[4 * i + 3] = 255;
  }
  c.putImageData(img, 0, 0);
}

showSeen(null);
