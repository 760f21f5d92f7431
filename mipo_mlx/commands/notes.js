"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
let places = data.places, own = data.passages;
const at = id => document.getElementById(id);
const make = (tag, props = {}, ...inner) => { const e = Object.assign(document.createElement(tag), props); e.append(...inner); return e; };
const AT_ONCE = 100;
let shown = AT_ONCE, only = "", current = [];

// A file, then its folders from within, then all notes: the first that has a mark decides.
const placesOf = file => {
  const parts = file.split("/").slice(0, -1), names = [file];
  for (; parts.length; parts.pop()) names.push(parts.join("/") + "/");
  return [...names, ""];
};
const placeMark = file => placesOf(file).find(place => place in places);
const verdict = n => {
  if (n in own) return { keep: own[n], by: "you" };
  const place = placeMark(rows[n].file);
  return place === undefined ? { keep: null } : { keep: places[place], by: `you, with ${place || "all notes"}` };
};
const stateOf = n => {
  const { keep, by } = verdict(n), row = rows[n];
  if (keep === false) return { text: `dropped by ${by}`, out: true };
  if (keep === true) return { text: `kept by ${by}`, out: false };
  return row.state.startsWith("dropped by") ? { text: "back in", out: false } : { text: row.used ? row.state : `left out: ${row.state}`, out: !row.used };
};

async function save(change, what, focus) {
  try {
    const answer = await fetch("choice", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(change) });
    if (!answer.ok) throw new Error(await answer.text());
    ({ places, passages: own } = await answer.json());
    at("status").textContent = `Saved: ${what}.`;
  } catch (error) {
    at("status").textContent = `Not saved: ${error.message || "the program has ended; run mipo-mlx notes again"}`;
  }
  refresh();
}

function toggle(kind, label, get, set) {  // a button that is pressed while its choice stands; pressed again, the choice is taken back
  const keep = kind === "keep", button = make("button", { type: "button", className: kind, textContent: keep ? "Keep" : "Drop" });
  button.setAttribute("aria-label", `${button.textContent} ${label}`);
  button.refresh = () => button.setAttribute("aria-pressed", String(get() === keep));
  button.onclick = () => set(get() === keep ? null : keep);
  button.refresh();
  return button;
}
const words = (keep, what) => keep === null ? `no choice for ${what}` : `${keep ? "kept" : "dropped"} ${what}`;
const markPlace = (place, keep) => save({ place, keep }, words(keep, place || "all notes"));
const markPassage = (n, keep) => save({ passage: n, keep }, words(keep, `the passage at ${rows[n].file}:${rows[n].line}`));

function passage(n) {
  const row = rows[n], name = `${row.file}:${row.line}`;
  const box = make("article", { className: "passage", tabIndex: -1 });
  const title = make("h3", { textContent: name, dir: "auto", id: `p${n}` });
  const state = make("p", { className: "soft" });
  const text = make("p", { className: "text", textContent: row.text, dir: "auto" });
  const buttons = ["keep", "drop"].map(kind => toggle(kind, `the passage at ${name}`, () => n in own ? own[n] : null, keep => markPassage(n, keep)));
  const file = toggle("drop", `the file ${row.file}`, () => row.file in places ? places[row.file] : null, keep => markPlace(row.file, keep));
  file.textContent = "Drop its file";
  box.append(title, state, text, make("div", { className: "row" }, ...buttons, file));
  box.setAttribute("aria-labelledby", `p${n}`);
  box.refresh = () => {
    const now = stateOf(n);
    state.textContent = `${now.text} · rank ${row.rank >= 0 ? "+" : ""}${row.rank.toFixed(1)}: ${row.why}`;
    box.className = `passage ${now.out ? "out" : "in"}`;
    [...buttons, file].forEach(button => button.refresh());
  };
  box.n = n;
  box.refresh();
  return make("li", {}, box);
}

function choose() {
  const show = at("show").value, order = at("order").value, sought = at("search").value.toLowerCase();
  const fits = n => {
    const row = rows[n], now = stateOf(n);
    if (only && row.file !== only && !(only.endsWith("/") && row.file.startsWith(only))) return false;
    if (show === "used" && now.out || show === "out" && !now.out || show === "mine" && verdict(n).keep === null) return false;
    if (show.startsWith("=") && row.state !== show.slice(1)) return false;
    return !sought || row.text.toLowerCase().includes(sought) || row.file.toLowerCase().includes(sought);
  };
  current = rows.map((_, n) => n).filter(fits);
  if (order !== "file") current.sort((a, b) => (order === "best" ? -1 : 1) * (rows[a].rank - rows[b].rank));
}
function draw() {
  choose();
  at("list").replaceChildren(...current.slice(0, shown).map(passage));
  at("more").hidden = current.length <= shown;
  at("count").replaceChildren(`${current.length.toLocaleString()} passages${only ? ` of ${only} ` : ""}`);
  if (only) {
    const all = make("button", { type: "button", textContent: "Show all files" });
    all.onclick = () => { only = ""; draw(); };
    at("count").append(all);
  }
}
function refresh() {
  document.querySelectorAll(".passage, .tree button").forEach(e => e.refresh && e.refresh());
}

function branch(folders, files, within) {  // a level of the tree; the one below is drawn when it is opened
  const list = [];
  for (const [name, inner] of [...folders].sort((a, b) => a[0].localeCompare(b[0]))) {
    const place = `${within}${name}/`, below = make("ul"), fold = make("details", {}, make("summary", { textContent: `${name}/ (${inner.length})`, dir: "auto" }));
    fold.append(controls(place, `the folder ${place}`), below);
    fold.addEventListener("toggle", () => { if (!below.childElementCount) below.append(...level(inner, place)); });
    list.push(make("li", {}, fold));
  }
  for (const [name, count] of [...files].sort((a, b) => a[0].localeCompare(b[0]))) {
    const place = within + name, button = make("button", { type: "button", className: "name", textContent: name, dir: "auto" });
    button.onclick = () => { only = place; shown = AT_ONCE; draw(); at("passages-title").scrollIntoView(); };
    button.setAttribute("aria-label", `Show the passages of ${place}`);
    list.push(make("li", {}, button, make("span", { className: "count", textContent: ` ${count}` }), controls(place, `the file ${place}`)));
  }
  return list;
}
function controls(place, label) {
  const set = keep => markPlace(place, keep), get = () => place in places ? places[place] : null;
  return make("div", { className: "row" }, ...["keep", "drop"].map(kind => toggle(kind, label, get, set)));
}
function level(names, within) {
  const folders = new Map(), files = new Map();
  for (const file of names) {
    const [first, ...rest] = file.slice(within.length).split("/");
    if (rest.length) folders.has(first) ? folders.get(first).push(file) : folders.set(first, [file]);
    else files.set(first, rows.filter(row => row.file === file).length);
  }
  return branch(folders, files, within);
}

const reasons = new Map();
rows.forEach(row => reasons.set(row.state, (reasons.get(row.state) || 0) + 1));
const options = [["", "all"], ["used", "what is used"], ["out", "what is left out"], ["mine", "what I chose"]];
[...reasons].sort().forEach(([state, count]) => options.push([`=${state}`, `${state} (${count.toLocaleString()})`]));
at("show").append(...options.map(([value, text]) => make("option", { value, textContent: text })));
at("tree").append(...level([...new Set(rows.map(row => row.file))], ""));
at("tree-fold").open = window.innerWidth > 820;
["show", "order"].forEach(id => at(id).addEventListener("change", () => { shown = AT_ONCE; draw(); }));
at("search").addEventListener("input", () => { shown = AT_ONCE; draw(); });
at("filter").addEventListener("submit", event => event.preventDefault());
at("more").onclick = () => {
  const before = shown;
  shown += AT_ONCE;
  draw();
  const next = at("list").children[before];
  if (next) next.firstChild.focus();
};
at("again").onclick = () => location.reload();
at("done").onclick = async () => {
  try {
    await fetch("done", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
    at("status").textContent = "Done. You can close this page.";
  } catch { at("status").textContent = "The program has ended already. You can close this page."; }
};
// Single keys work in the list alone, so that they disturb no other use of the keyboard.
at("list").addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const box = event.target.closest(".passage"), go = { j: "nextElementSibling", k: "previousElementSibling" }[event.key];
  if (box && go) (box.parentElement[go]?.firstChild || box).focus();
  else if (box && event.key === "a") box.querySelector(".keep").click();
  else if (box && event.key === "x") box.querySelector(".drop").click();
  else return;
  event.preventDefault();
});
draw();
const first = at("list").firstChild?.firstChild;
if (first) first.tabIndex = 0;  // the way into the list
