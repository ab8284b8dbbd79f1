// What a page of recorded runs does: probabilities where one points, trees where one clicks.
// Texts reach the page by textContent alone, so no token is ever read as HTML.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const PADDING = 10, GAP = 66, GAP_OF_TWO = 104, LINE = 34, HEIGHT = 22, MARGIN = 8; // pixels
const prob = (p) => (p == null ? "?" : p >= 0.001 ? p.toFixed(3) : p === 0 ? "0" : p.toExponential(1));
const short = (p) => (p >= 0.995 ? "1" : p >= 0.01 ? p.toFixed(2).slice(1) : p > 0 ? "<.01" : "0");
const piece = (token) => data.pieces[token] ?? `<${token}>`;

function make(parent, tag, text, attributes = {}) {
  const svg = parent instanceof SVGElement || tag === "svg";
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text != null) made.textContent = text;
  return parent.appendChild(made);
}

// ---- what became of each node of a tree; the target's own token is one node more, of kind "bonus"

function nodesOf(tree) {
  const nodes = tree.token.map((token, node) => ({
    token, parent: tree.parent[node], p: tree.p?.[node], q: tree.q?.[node], children: [],
    kind: node === 0 ? "root" : tree.path.includes(node) ? "accepted" : "refused",
  }));
  nodes.forEach((one, node) => { if (node) nodes[one.parent].children.push(node); });
  if (tree.bonus != null) {
    const parent = tree.path.at(-1);
    nodes[parent].children.unshift(nodes.length); // above the drafts that it came in place of
    nodes.push({ token: tree.bonus, parent, p: tree.bonus_p, children: [], kind: "bonus" });
  }
  return nodes;
}

function emitted(tree) {
  const nodes = nodesOf(tree);
  return nodes.filter((one) => one.kind === "accepted" || one.kind === "bonus");
}

// ---- the tree as a drawing: a leaf has a line of its own, a parent stands beside its children

const measure = document.createElement("canvas").getContext("2d");
measure.font = "13px ui-monospace, monospace";

function place(nodes) {
  // Above a line stand p, and q where there is one.
  const gap = nodes.some((one) => one.q != null) ? GAP_OF_TWO : GAP;
  const columns = [], stack = [[0, 0, false]];
  let leaves = 0;
  while (stack.length) {
    const [node, depth, placed] = stack.pop(), one = nodes[node], below = one.children;
    one.depth = depth;
    one.width = measure.measureText(piece(one.token)).width + 2 * PADDING;
    columns[depth] = Math.max(columns[depth] ?? 0, one.width);
    if (!below.length) one.y = leaves++;
    else if (placed) one.y = (nodes[below[0]].y + nodes[below.at(-1)].y) / 2;
    else {
      stack.push([node, depth, true]);
      for (const child of below.toReversed()) stack.push([child, depth + 1, false]);
    }
  }
  const left = columns.map((_, at) => MARGIN + columns.slice(0, at).reduce((a, b) => a + b + gap, 0));
  for (const one of nodes) [one.x, one.y] = [left[one.depth], MARGIN + (one.y + 0.5) * LINE];
  return [left.at(-1) + columns.at(-1) + MARGIN, leaves * LINE + 2 * MARGIN];
}

function draw(parent, name, round) {
  const text = data.texts[name.slice(1)], nodes = nodesOf(text.trees[round]);
  const [width, height] = place(nodes);
  const svg = make(parent, "svg", null, { width, height, role: "img" });
  make(svg, "title", `the tree of round ${round}`);
  // What is accepted lies above what is not.
  for (const one of nodes.toSorted((a, b) => (b.kind === "refused") - (a.kind === "refused"))) {
    if (one.kind === "root") continue;
    const from = nodes[one.parent], start = from.x + from.width, bend = start + 10;
    make(svg, "path", null, { class: one.kind, d: `M${start} ${from.y}H${bend}V${one.y}H${one.x}` });
  }
  for (const one of nodes) {
    const group = make(svg, "g", null, { class: one.kind });
    const box = { x: one.x, y: one.y - HEIGHT / 2, width: one.width, height: HEIGHT, rx: 4 };
    make(group, "rect", null, box);
    make(group, "text", piece(one.token), { x: one.x + PADDING, y: one.y + 4.5 });
    const note = [one.p == null ? "" : `p ${short(one.p)}`, one.q == null ? "" : `q ${short(one.q)}`];
    const above = { class: "note", x: one.x - 3, y: one.y - 4, "text-anchor": "end" };
    if (one.kind !== "root") make(group, "text", note.join(" ").trim(), above);
    describe(group, () => nodeLines(one, text.method, round));
  }
}

// ---- the box that says what is known of a token

const tip = make(document.body, "div", null, { id: "tip", role: "tooltip", hidden: "" });
const KINDS = {
  root: () => "emitted before the round",
  accepted: (method) => `drafted by ${method}, accepted`,
  refused: (method) => `drafted by ${method}, refused`,
  bonus: () => "the target's own token",
};

function nodeLines(one, method, round) {
  const lines = [`${KINDS[one.kind](method)}, ${round ? `round ${round}` : "prefill"}`];
  if (one.kind !== "root" && one.p != null) lines.push(`p = ${prob(one.p)} (target)`);
  if (one.q != null) lines.push(`q = ${prob(one.q)} (drafter)`);
  return [piece(one.token), `token ${one.token}`, ...lines];
}

function tokenLines(element) {
  const [round, at] = element.dataset.at.split(".").map(Number);
  const text = data.texts[element.parentElement.dataset.text.slice(1)], tree = text.trees[round];
  const one = emitted(tree)[at], lines = nodeLines(one, text.method, round);
  const others = nodesOf(tree).filter((node) => node.parent === one.parent && node.kind === "refused");
  for (const node of others.slice(0, 5)) {
    const q = node.q == null ? "" : `, q = ${prob(node.q)}`;
    lines.push(`refused here: ${piece(node.token)}  p = ${prob(node.p)}${q}`);
  }
  if (others.length > 5) lines.push(`and ${others.length - 5} more`);
  return lines;
}

function changeLines(text, place) {
  const lines = (text.changes[place] ?? []).map(([pass, token]) =>
    token == null ? `pass ${pass}: masked again` : `pass ${pass}: ${piece(token)}`);
  const earlier = lines.length > 8 ? [`${lines.length - 8} earlier changes`] : [];
  return [`place ${place}`, ...earlier, ...(lines.length ? lines.slice(-8) : ["never decided"])];
}

function entryLines(element) {
  const text = data.texts[element.parentElement.dataset.canvas.slice(1)];
  const entry = element.dataset.entry;
  if (text.changes) return changeLines(text, entry);
  if (entry == null) return ["_", "still open"];
  const [pass, p, drafted] = text.passes[entry], token = text.tokens[entry];
  const by = drafted ? "an accepted draft" : "the pass's own token";
  return [piece(token), `token ${token}, entry ${entry}`, `decided in pass ${pass}: ${by}`, `p = ${prob(p)}`];
}

function show(element, lines) {
  tip.replaceChildren();
  lines.forEach((line, at) => make(make(tip, "div"), at ? "span" : "b", line));
  tip.hidden = false;
  const here = element.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(here.left, document.documentElement.clientWidth - own.width - 8);
  const fits = here.bottom + own.height + 8 < innerHeight;
  tip.style.left = `${Math.max(left, 4) + scrollX}px`;
  tip.style.top = `${(fits ? here.bottom + 6 : here.top - own.height - 6) + scrollY}px`;
}

const hide = () => { tip.hidden = true; };

function describe(element, lines) {
  element.addEventListener("pointerenter", () => show(element, lines()));
  element.addEventListener("pointerleave", hide);
}

// ---- tokens of a text: pointed at, or gone through with the arrow keys

function walk(group, tokens, lines, press) {
  const tokenOf = (event) => event.target.closest(".t") ?? event.target;
  const known = (element) => tokens.includes(element);
  tokens.forEach((one, at) => { one.tabIndex = at ? -1 : 0; });
  const focus = (one) => {
    for (const other of tokens) if (other.tabIndex === 0) other.tabIndex = -1;
    one.tabIndex = 0;
    one.focus();
  };
  group.addEventListener("pointerover", (event) => {
    const one = tokenOf(event);
    known(one) ? show(one, lines(one)) : hide();
  });
  group.addEventListener("pointerleave", hide);
  group.addEventListener("focusin", (event) => { if (known(event.target)) show(event.target, lines(event.target)); });
  group.addEventListener("focusout", hide);
  group.addEventListener("click", (event) => { if (known(tokenOf(event))) press(tokenOf(event)); });
  group.addEventListener("keydown", (event) => {
    const at = tokens.indexOf(event.target), last = tokens.length - 1;
    if (at < 0) return;
    const next = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (next != null) focus(tokens[next]);
    else if (event.key === "Enter" || event.key === " ") press(event.target);
    else return;
    event.preventDefault();
  });
}

addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

function open(id) {
  const round = document.getElementById(id);
  if (!round) return;
  const tab = round.closest("[role=tabpanel]")?.getAttribute("aria-labelledby");
  if (tab) choose(document.getElementById(tab));
  round.open = true;
  round.scrollIntoView({ block: "nearest" });
  round.querySelector("summary")?.focus({ preventScroll: true });
}

for (const round of document.querySelectorAll("[data-tree]")) {
  const drawn = () => {
    const parent = round.lastElementChild;
    if (round.open && !parent.firstChild) draw(parent, round.dataset.tree, +round.dataset.round);
  };
  round.addEventListener("toggle", drawn);
}

for (const text of document.querySelectorAll("[data-text]")) {
  const press = (one) => open(`${text.dataset.text}-${one.dataset.at.split(".")[0]}`);
  walk(text, [...text.querySelectorAll("[data-at]")], tokenLines, press);
}

// ---- a fill or a denoised canvas, played pass by pass

function reveal(element, text, pass) {
  element.classList.toggle("open", text.passes[element.dataset.entry][0] > pass);
}

// Passes may change a place several times. A mask keeps the width of what stands there in the end.
function rewrite(element, text, pass) {
  const states = text.shown[element.dataset.entry] ?? [], now = states.findLast(([at]) => at <= pass);
  element.classList.toggle("open", now?.[1] == null);
  element.textContent = now?.[1] ?? states.findLast(([, shown]) => shown != null)?.[1] ?? "_";
  if (now) element.style.setProperty("--s", (now[0] - 1) / Math.max(text.last - 1, 1));
}

for (const canvas of document.querySelectorAll("[data-canvas]")) {
  const player = document.querySelector(`[data-player=${canvas.dataset.canvas}]`);
  const [play, slider, shown] = ["button", "input", "output"].map((tag) => player.querySelector(tag));
  const text = data.texts[canvas.dataset.canvas.slice(1)];
  const update = () => {
    const step = text.changes ? rewrite : reveal;
    for (const one of canvas.querySelectorAll("[data-entry]")) step(one, text, +slider.value);
    shown.textContent = `${slider.value} of ${slider.max}`;
  };
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "Pause";
    update();
    timer = setInterval(() => {
      slider.value = +slider.value + 1;
      update();
      if (slider.value === slider.max) stop();
    }, 500);
  });
  slider.addEventListener("input", () => { stop(); update(); });
  walk(canvas, [...canvas.querySelectorAll(".target")], entryLines, () => {});
  player.hidden = false;
}

// ---- tabs; without a script all their contents are shown

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const one of tabs) {
    one.setAttribute("aria-selected", one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    document.getElementById(one.getAttribute("aria-controls")).hidden = one !== tab;
  }
}

tabs.forEach((tab, at) => {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(at + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
});
if (tabs.length) {
  document.querySelector(".tabs").hidden = false;
  choose(tabs[0]);
}

// A round may be linked to: run.html#t0-12.
addEventListener("hashchange", () => open(location.hash.slice(1)));
open(location.hash.slice(1));
