"use strict";

const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1) || sessionStorage.getItem("token") || "";
if (location.hash) {
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname); // not for the history, nor for who looks over a shoulder
}

let state = null;          // what the server said last
let cells = [];            // gallery cells, in the order of the list
let current = 0;
let hiding = false;
let hairs = false;
let busy = false;
let pending = Promise.resolve(); // answers are awaited one after the other, so that keys typed fast stay in order
let unanswered = 0;        // own scores that the server has yet to take: until then its list lacks them
let shown = 0;             // number of the last large picture that was asked for
const view = { side: 0, contrast: 1, own: false };
const pictures = new Map(); // key -> object URL, of the present list

// ---- the server ------------------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = { headers: { "X-Token": token } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: was the command stopped? Scores that were shown as stored are safe.");
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

const told = async (path, body) => (await ask(path, body)).json();

// Pictures: four at a time, the large one first.
const waiting = [];
let loading = 0;
let epoch = 0; // pictures of an earlier list or view are of no use

function picture(id, side, contrast, own, first = false) {
  const key = `${id}/${side}/${contrast}/${own}`;
  if (!pictures.has(key)) {
    const promise = new Promise((resolve, reject) =>
      waiting[first ? "unshift" : "push"]({ id, side, contrast, own, epoch, resolve, reject }));
    promise.catch(() => pictures.delete(key));
    pictures.set(key, promise);
    loadNext();
  }
  return pictures.get(key);
}

async function loadNext() {
  if (loading >= 4 || waiting.length === 0) return;
  loading += 1;
  const { id, side, contrast, own, epoch: asked, resolve, reject } = waiting.shift();
  try {
    const query = new URLSearchParams({ id, side, contrast, own: own ? 1 : 0 });
    const blob = await (await ask(`api/picture?${query}`)).blob();
    if (asked === epoch) resolve(URL.createObjectURL(blob)); // else nobody waits for it any more
  } catch (error) {
    reject(error);
  }
  loading -= 1;
  loadNext();
}

function forgetPictures() {
  const old = [...pictures.values()];
  epoch += 1;
  waiting.length = 0;
  pictures.clear();
  setTimeout(() => { for (const promise of old) promise.then(URL.revokeObjectURL, () => {}); }, 5000); // images may still load
}

// ---- drawing ---------------------------------------------------------------------------------------------------

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const number = (value) => (value === null ? "–" : Number(value).toPrecision(5).replace(/\.?0+(?=$|e)/, ""));
const colour = (score) => `var(--s${score})`;
const mine = (object) => state.mine[object.id];

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) paint(entry.target);
}, { rootMargin: "300px" });

function drawGallery() {
  const gallery = $("gallery");
  seen.disconnect();
  gallery.replaceChildren();
  cells = state.list.map((object, index) => {
    const cell = element("button", undefined, "cell");
    cell.type = "button";
    cell.tabIndex = -1;
    cell.dataset.index = index;
    cell.append(element("span", object.rank, "rank"));
    if (object.flags.length) {
      const warn = element("span", "⚑", "warn");
      warn.title = object.flags.join(", ");
      cell.append(warn);
    }
    cell.addEventListener("click", () => choose(index));
    gallery.append(cell);
    seen.observe(cell);
    return cell;
  });
  if (!cells.length) gallery.append(element("p", "No object passes: choose another score or condition.", "empty"));
  drawScores();
}

async function paint(cell) {
  const object = state.list[cell.dataset.index];
  if (state.noPixels) { numbers(cell, object); return; }
  const key = `${view.contrast}/${view.own}/${view.side}`;
  if (!object || cell.dataset.painted === key) return;
  cell.dataset.painted = key;
  try {
    const url = await picture(object.id, view.side, view.contrast, view.own);
    if (cell.dataset.painted !== key) return;
    let image = cell.querySelector("img");
    if (!image) { image = element("img"); image.alt = ""; cell.prepend(image); }
    image.src = url;
  } catch (error) {
    if (cell.dataset.painted !== key) return;
    numbers(cell, object);
    cell.title = error.message;
  }
}

function numbers(cell, object) {
  if (cell.querySelector(".numbers")) return;
  const lines = object.values.slice(0, 4).map((value) => `${value.name} ${value.value}`);
  cell.append(element("span", [number(object.score), object.id, ...lines].join("\n"), "numbers"));
}

function drawScores() {
  state.list.forEach((object, index) => {
    const cell = cells[index], given = mine(object), others = state.others[object.id];
    cell.querySelector(".badge")?.remove();
    cell.querySelector(".others")?.remove();
    cell.classList.toggle("scored", Boolean(given));
    cell.classList.toggle("hidden", hiding && Boolean(given) && index !== current);
    cell.setAttribute("aria-label", `rank ${object.rank}, object ${object.id}${given ? `, score ${given.score}` : ""}`);
    if (given) {
      cell.style.setProperty("--colour", colour(given.score));
      cell.append(element("span", given.score, "badge"));
    }
    if (others) cell.append(element("span", others.map((item) => item.score).join(" "), "others"));
  });
  const scores = Object.values(state.mine).map((given) => given.score);
  const here = state.list.filter(mine).length;
  const everyone = Object.keys(state.others).length;
  $("counts").textContent = `${here} of ${state.list.length} scored here · ${scores.length} by ${state.who}` +
    (everyone ? ` · ${everyone} by others` : "");
  const counts = [0, 1, 2, 3, 4, 5].map((score) => scores.filter((given) => given === score).length);
  $("histogram").replaceChildren(...counts.map((count, score) => {
    const bar = element("span");
    bar.style.height = `${2 + (28 * count) / Math.max(1, ...counts)}px`;
    bar.style.background = colour(score);
    bar.title = `${count} × ${score}`;
    return bar;
  }));
}

function drawHead() {
  const name = state.catalog.split("/").filter(Boolean).pop();
  $("catalog").textContent = name;
  $("catalog").title = `${state.catalog} · scores go to ${state.scoresFile}`;
  document.title = `Scores · ${name}`;
  $("by").textContent = `Ranked by ${state.by} · ${state.list.length} shown of ${state.ranked.toLocaleString("en")} ranked` +
    (state.objects > state.ranked ? ` (${(state.objects - state.ranked).toLocaleString("en")} without a value or scored)` : "");
  for (const [id, kind] of [["by-score", "score"], ["by-learned", "learned"], ["by-like", "like"]])
    $(id).setAttribute("aria-pressed", String(state.kind === kind));
  $("banner").hidden = !state.noPixels;
  $("banner").textContent = state.noPixels ? `${state.noPixels} Objects can be scored by their numbers.` : "";
}

function row(table, name, value, title, className) {
  const line = table.insertRow();
  const head = element("th", name);
  if (title) head.title = title;
  line.append(head, element("td", value, className));
}

function drawCurrent() {
  const object = state.list[current];
  cells.forEach((cell, index) => cell.classList.toggle("current", index === current));
  for (const id of ["info", "values", "said"]) $(id).replaceChildren();
  if (!object) return;
  cells[current].scrollIntoView({ block: "nearest" });
  const info = $("info");
  row(info, "Rank", `${object.rank} of ${state.list.length}`);
  row(info, "Value", number(object.score), state.by);
  row(info, "Object", object.id);
  if (object.ra !== null && object.dec !== null) {
    row(info, "RA, Dec", `${object.ra.toFixed(6)} ${object.dec >= 0 ? "+" : ""}${object.dec.toFixed(6)}`, "ICRS, degrees");
    row(info, "", object.sky, "ICRS, hours and degrees");
  } else row(info, "RA, Dec", "none given");
  if (object.x !== null) row(info, "x, y", `${object.x.toFixed(2)} ${object.y.toFixed(2)}`, "0-based pixels of the image");
  row(info, "Image", object.image === object.tile ? object.tile : `${object.image} · ${object.tile}`);
  row(info, "Flags", object.flags.join(", ") || "none", undefined, object.flags.length ? "flag" : "");
  if (object.folded) row(info, "Folded", `${object.folded} near-duplicate${object.folded > 1 ? "s" : ""}`);
  for (const value of object.values) row($("values"), value.name, `${value.value} ${value.unit}`, value.about);
  drawGiven();
  drawLarge(object);
}

function drawGiven() {
  const object = state.list[current];
  if (!object) return;
  const given = mine(object);
  for (const button of $("scores").children)
    button.setAttribute("aria-pressed", String(Boolean(given) && given.score === Number(button.dataset.score)));
  const others = (state.others[object.id] || []).map((item) => `${item.who}: ${item.score}${item.note ? ` “${item.note}”` : ""}`);
  $("said").textContent = others.join(" · ");
  if (document.activeElement !== $("note")) $("note").value = given ? given.note : "";
}

async function drawLarge(object) {
  shown += 1;
  const wanted = shown, large = $("large"), missing = $("no-picture");
  $("view").textContent = state.noPixels ? "" : `${view.side} px` +
    (state.pixelScale ? ` · ${(view.side * state.pixelScale).toFixed(1)}″` : "") + ` · ${state.bands.join(" ")}` +
    (view.own ? " · own stretch" : "") + (view.contrast !== 1 ? ` · contrast ${number(view.contrast)}` : "");
  const bar = $("bar");
  bar.hidden = !state.pixelScale || Boolean(state.noPixels);
  if (!bar.hidden) {
    const field = view.side * state.pixelScale;
    const length = [60, 30, 20, 10, 5, 2, 1, 0.5].find((value) => value < field / 2.5) || field / 4;
    bar.style.width = `${(100 * length) / field}%`;
    bar.dataset.label = `${number(length)}″`;
  }
  if (state.noPixels) { large.hidden = true; missing.textContent = "no picture"; return; }
  try {
    const url = await picture(object.id, view.side, view.contrast, view.own, true);
    if (wanted !== shown) return;
    large.src = url;
    large.alt = `object ${object.id}`;
    large.hidden = false;
    missing.textContent = "";
  } catch (error) {
    if (wanted !== shown) return;
    large.hidden = true;
    missing.textContent = error.message;
  }
}

function repaint() {
  forgetPictures();
  for (const cell of cells) delete cell.dataset.painted;
  seen.disconnect();
  cells.forEach((cell) => seen.observe(cell));
  drawCurrent();
}

let toastTimer = 0;
function say(text, bad = false) {
  const toast = $("toast");
  toast.textContent = text;
  toast.className = bad ? "bad" : "";
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { toast.hidden = true; }, bad ? 9000 : 2500);
}

// ---- doing -----------------------------------------------------------------------------------------------------

function choose(index) {
  if (!state.list.length) return;
  const before = current;
  current = Math.max(0, Math.min(state.list.length - 1, index));
  if (hiding && before !== current) drawScores();
  drawCurrent();
}

function step(count) {
  let index = current + count;
  const way = Math.sign(count);
  while (hiding && state.list[index] && mine(state.list[index])) index += way;
  if (state.list[index]) choose(index);
}

const columns = () => getComputedStyle($("gallery")).gridTemplateColumns.split(" ").length;

function nextUnscored(from) {
  for (let index = from; index < state.list.length; index += 1) if (!mine(state.list[index])) return index;
  return state.list.findIndex((object) => !mine(object));
}

function inOrder(work) {
  pending = pending.then(work).catch((error) => say(error.message, true));
  return pending;
}

function score(value) {
  const object = state.list[current];
  if (!object) return;
  const note = $("note").value.trim();
  state.mine[object.id] = { score: value, note }; // shown at once; the server's word follows
  drawScores();
  const next = nextUnscored(current + 1);
  if (next >= 0) choose(next); else { drawGiven(); say("All that is shown is scored: r ranks anew."); }
  unanswered += 1;
  inOrder(async () => {
    let answer, failed;
    try {
      answer = await told("api/score", { object_id: object.id, score: value, note });
    } catch (error) {
      failed = error;
    }
    unanswered -= 1;
    took(answer || await told("api/scores"));
    if (failed) throw new Error(`Object ${object.id} was not scored: ${failed.message}`);
  });
}

function took(answer) {
  Object.assign(state, { mine: unanswered ? state.mine : answer.mine, others: answer.others, who: answer.who });
  drawScores();
  drawGiven();
}

function undo() {
  inOrder(async () => {
    const answer = await told("api/undo", {});
    took(answer);
    if (!answer.undone) { say("There is nothing to undo."); return; }
    const index = state.list.findIndex((object) => object.id === answer.undone);
    if (index >= 0) choose(index);
    say(`Undone: object ${answer.undone}.`);
  });
}

function rank(kind) {
  const object = state.list[current];
  if (busy || (kind === "like" && !object)) return;
  busy = true;
  $("by").textContent = "Ranking …";
  inOrder(async () => {
    try {
      take(await told("api/rank", { kind, object_id: kind === "like" ? object.id : null }));
      say(`Ranked by ${state.by}.`);
    } finally {
      busy = false;
      drawHead();
    }
  });
}

function take(answer) {
  state = answer;
  forgetPictures();
  view.side = view.side || state.side;
  drawHead();
  drawGallery();
  current = Math.max(0, nextUnscored(0));
  $("gallery").scrollTop = 0;
  drawCurrent();
}

function storeNote() {
  const object = state.list[current], given = object && mine(object), note = $("note").value.trim();
  $("note").blur();
  if (!given) { say("Give a score too: the note is stored with it."); return; }
  inOrder(async () => {
    took(await told("api/score", { object_id: object.id, score: given.score, note }));
    say("Note stored.");
  });
}

function toggleHidden() {
  hiding = !hiding;
  $("hide").setAttribute("aria-pressed", String(hiding));
  drawScores();
}

const KEYS = {
  ArrowLeft: () => step(-1), h: () => step(-1), ArrowRight: () => step(1), l: () => step(1),
  ArrowUp: () => step(-columns()), k: () => step(-columns()), ArrowDown: () => step(columns()), j: () => step(columns()),
  Home: () => choose(0), End: () => choose(state.list.length - 1),
  u: undo, r: () => rank("learned"), m: () => rank("like"), b: () => rank("score"), f: toggleHidden,
  n: () => $("note").focus(), "?": () => $("help").showModal(),
  "[": () => { view.contrast = Math.max(0.125, view.contrast / 1.5); repaint(); },
  "]": () => { view.contrast = Math.min(20, view.contrast * 1.5); repaint(); },
  s: () => { view.own = !view.own; repaint(); },
  "+": () => { view.side = Math.max(16, Math.round(view.side / 1.5 / 2) * 2); repaint(); },
  "=": () => KEYS["+"](),
  "-": () => { view.side = Math.min(256, Math.round(view.side * 1.5 / 2) * 2); repaint(); },
  x: () => { hairs = !hairs; $("frame").classList.toggle("hairs", hairs); },
};

document.addEventListener("keydown", (event) => {
  if (!state || $("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === $("note")) {
    if (event.key === "Escape") { $("note").blur(); drawGiven(); event.preventDefault(); }
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); storeNote(); }
    return;
  }
  const digit = /^[0-5]$/.test(event.key);
  if (!digit && !KEYS[event.key]) return;
  event.preventDefault();
  if (digit) { if (!event.repeat) score(Number(event.key)); } else KEYS[event.key]();
});

for (const value of [0, 1, 2, 3, 4, 5]) {
  const button = element("button", value);
  button.dataset.score = value;
  button.style.setProperty("--colour", colour(value));
  button.addEventListener("click", () => { button.blur(); score(value); });
  $("scores").append(button);
}
for (const [id, work] of [["by-score", () => rank("score")], ["by-learned", () => rank("learned")], ["by-like", () => rank("like")],
  ["hide", toggleHidden], ["help-button", () => $("help").showModal()]])
  $(id).addEventListener("click", () => { $(id).blur(); if (state) work(); });

async function watch() { // what others score meanwhile
  if (!state || document.hidden) return;
  await inOrder(async () => took(await told("api/scores")));
}

(async () => {
  try {
    take(await told("api/state"));
    setInterval(watch, 5000);
  } catch (error) {
    $("banner").hidden = false;
    $("banner").textContent = error.message;
  }
})();
