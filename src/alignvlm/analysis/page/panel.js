// ---- words of a cell ---------------------------------------------------------------------------
const NAMES = { "\n": "line break", " ": "space", "\t": "tab", "": "nothing" };
const shown = (word) => isSpace(word) ? NAMES[word] || "whitespace" : word.replace(/^ /, "␣");
const percent = (share) => share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
const make = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
};

const describe = (cell) => {
  const nodes = [], slot = slots.get(cell);
  if (slot === undefined) nodes.push(make("p", "Empty: more than 99 % whitespace", "blank"));
  for (let rank = 0; slot !== undefined && rank < data.topK; rank++) {
    const [id, word] = wordAt(slot, rank), share = shareAt(slot, rank);
    const row = make("div", undefined, "word"), bar = make("i");
    row.title = `token ${id}`;
    bar.style.setProperty("--share", share);
    row.append(make("b", shown(word), isSpace(word) ? "space" : ""), bar, make("span", percent(share)));
    nodes.push(row);
  }
  const facts = make("div", undefined, "facts");
  const fact = (name, value) => {
    const row = make("div");
    row.append(make("span", name), make("span", value));
    facts.append(row);
  };
  const entropy = entropyOf(cell), box = boxOf(cell), inTile = cell % cellsInTile;
  fact("Entropy", `${entropy.toFixed(2)} nats = ${(entropy / Math.LN2).toFixed(2)} bits`);
  fact("Cell", `${cell}: tile ${Math.floor(cell / cellsInTile) + 1}, row ${Math.floor(inTile / columns) + 1}, column ${inTile % columns + 1}`);
  fact("On the page", `x ${Math.round(box[0])}, y ${Math.round(box[1])}, ${box[2].toFixed(1)} × ${box[3].toFixed(1)} px`);
  nodes.push(facts);
  return nodes;
};

let described = -1;
const placeTip = () => {
  const cell = state.hover >= 0 ? state.hover : state.chosen;
  tip.hidden = cell < 0;
  if (cell < 0) { described = -1; return; }
  if (cell !== described) { tip.replaceChildren(...describe(cell)); described = cell; }
  const [x, y, width, height] = boxOf(cell), [left, top] = toScreen(x, y);
  const right = left + width * state.zoom, bottom = top + height * state.zoom;
  if (right < 0 || bottom < 0 || left > stage.clientWidth || top > stage.clientHeight) { tip.hidden = true; return; }
  const gap = 14, tall = tip.offsetHeight, wide = tip.offsetWidth;
  const goesLeft = right + gap + wide > scroller.clientWidth;
  tip.style.left = `${Math.max(6, goesLeft ? left - gap - wide : right + gap)}px`;
  const goesUp = bottom + gap + tall > scroller.clientHeight;
  tip.style.top = `${Math.max(6, goesUp ? top - gap - tall : bottom + gap)}px`;
};
const speak = (cell) => {
  const slot = slots.get(cell);
  byId("spoken").textContent = slot === undefined ? "Empty" :
    Array.from({ length: data.topK }, (_, rank) => `${shown(wordAt(slot, rank)[1])} ${percent(shareAt(slot, rank))}`)
      .join(", ") + `; entropy ${entropyOf(cell).toFixed(2)} nats`;
};

// ---- choosing ------------------------------------------------------------------------------------
const link = () => {
  const parts = [`view=${state.view}`];
  if (state.chosen >= 0) parts.unshift(`cell=${state.chosen}`);
  try { history.replaceState(null, "", `#${parts.join("&")}`); } catch { /* not in this browser's sandbox */ }
};
const reveal = (x, y, width, height) => {
  const [left, top] = toScreen(x, y), border = 40;
  const right = left + width * state.zoom, bottom = top + height * state.zoom;
  if (left < border || right > scroller.clientWidth - border)
    scroller.scrollLeft += (left + right - scroller.clientWidth) / 2;
  if (top < border || bottom > scroller.clientHeight - border)
    scroller.scrollTop += (top + bottom - scroller.clientHeight) / 2;
};
const choose = (cell) => {
  state.chosen = cell;
  state.hover = -1;
  if (cell >= 0) {
    setLayer(isThumbnail(cell) ? "thumbnail" : "tiles");
    reveal(...boxOf(cell));
    speak(cell);
  }
  link();
  redraw();
};
const setView = (view) => {
  state.view = view;
  document.querySelectorAll("input[name=view]").forEach((input) => { input.checked = input.value === view; });
  showLegend();
  redraw();
};
const setLayer = (layer) => {
  state.layer = layer;
  document.querySelectorAll("input[name=layer]").forEach((input) => { input.checked = input.value === layer; });
  redraw();
};
const setLine = (line, scrolls) => {
  state.line = line;
  byId("lines").querySelectorAll("li").forEach((item, index) => {
    item.classList.toggle("active", index === line);
    if (index === line && !scrolls) item.scrollIntoView({ block: "nearest" });
  });
  if (line >= 0 && scrolls) reveal(...boxOf(data.lines[line].cells.find((cell) => cell >= 0)));
  redraw();
};
const lineAt = (x, y) => data.lines.findIndex((line) => segmentsOf(line).some((run) => {
  const ends = [middleOf(run[0]), middleOf(run[run.length - 1])], half = bandWidth / 2;
  const ys = run.map((cell) => middleOf(cell)[1]);
  return x >= ends[0][0] - half && x <= ends[1][0] + half &&
    y >= Math.min(...ys) - half && y <= Math.max(...ys) + half;
}));
const step = (dx, dy, toWord) => {
  const from = state.chosen >= 0 ? state.chosen : state.hover;
  if (from < 0) return choose(keptCells.find(inLayer) ?? 0);
  const tile = data.tiles[Math.floor(from / cellsInTile)], [x, y] = middleOf(from);
  const says = (cell) => slots.has(cell) && !isSpace(wordAt(slots.get(cell), 0)[1]);
  for (let count = 1; ; count++) {
    const cell = cellAt(x + dx * count * tile.width, y + dy * count * tile.height);
    if (cell < 0) return;
    if (!toWord || says(cell)) return choose(cell);
  }
};

// ---- the panel -------------------------------------------------------------------------------------
const count = (value) => value.toLocaleString("en");
const fillSummary = () => {
  const cells = Array.from(entropies.keys()).filter((cell) => !isThumbnail(cell) && isOnPage(cell));
  const says = cells.filter((cell) => slots.has(cell) && !isSpace(wordAt(slots.get(cell), 0)[1]));
  const mean = (some) => some.length ? some.reduce((sum, cell) => sum + entropyOf(cell), 0) / some.length : 0;
  const tile = data.tiles[data.tiles.length - 1];
  const entries = [
    ["Page", `${count(data.width)} × ${count(data.height)} px`],
    ["Cells", `${count(cells.length)} of ${tile.width.toFixed(1)} × ${tile.height.toFixed(1)} px`],
    ["Cells that say a word first", `${count(says.length)} (${percent(says.length / cells.length)})`],
    ["Mean entropy there", `${mean(says).toFixed(2)} nats`],
    ["Mean entropy of all cells", `${mean(cells).toFixed(2)} nats`],
    ["Words it can say", `${count(data.numWords)} (ln = ${maxEntropy.toFixed(2)} nats)`],
  ];
  for (const [name, value] of entries) byId("summary").append(make("dt", name), make("dd", value));
};
const fillLines = () => {
  byId("text-section").hidden = byId("reading-choice").hidden = data.lines === null;
  (data.lines || []).forEach((line, index) => {
    const item = make("li"), text = make("span"), number = make("button", String(index + 1));
    number.type = "button";
    number.setAttribute("aria-label", `Find line ${index + 1} on the page`);
    let plain = "";
    Array.from(line.text).forEach((char, place) => {
      if (line.probabilities[place] >= 0.8 || isSpace(char)) { plain += char; return; }
      text.append(plain, make("u", char));
      plain = "";
    });
    text.append(plain);
    item.append(number, text);
    item.addEventListener("click", () => setLine(index === state.line && !String(getSelection()) ? -1 : index, true));
    byId("lines").append(item);
  });
  if (data.lines && !data.lines.length) byId("lines").append(make("li", "No text was read on this page."));
};
const fillFrequent = () => {
  const counts = new Map();
  keptCells.forEach((cell, slot) => {
    if (isThumbnail(cell)) return;
    const word = best[slot * data.topK];
    if (!isSpace(data.words[word][1])) counts.set(word, (counts.get(word) || 0) + 1);
  });
  const ranked = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 24);
  for (const [word, number] of ranked) {
    const item = make("li"), button = make("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(make("span", shown(data.words[word][1]), "frequent-word"), make("small", count(number)));
    button.addEventListener("click", () => {
      state.word = state.word === word ? -1 : word;
      byId("frequent").querySelectorAll("button").forEach((other) =>
        other.setAttribute("aria-pressed", String(other === button && state.word >= 0)));
      redraw();
    });
    item.append(button);
    byId("frequent").append(item);
  }
  if (!ranked.length) byId("frequent").append(make("li", "Every cell says whitespace.", "note"));
};
const showLegend = () => {
  byId("legend").style.visibility = ["entropy", "words"].includes(state.view) ? "visible" : "hidden";
  const isHeat = state.view === "entropy";
  byId("legend-low").textContent = isHeat ? "0 nats" : "unsure";
  byId("legend-high").textContent = isHeat ? `${heatTop.toFixed(2)} nats` : "sure";
  const stops = [0, 0.25, 0.5, 0.75, 1].map(isHeat ? heat : (share) => inkOf(share));
  byId("legend-bar").style.background = `linear-gradient(90deg, ${stops.join(",")}), #fff`;
};

// ---- events ----------------------------------------------------------------------------------------
const pointed = (event) => {
  const frame = scroller.getBoundingClientRect();
  return toPage(event.clientX - frame.left, event.clientY - frame.top);
};
scroller.addEventListener("pointermove", (event) => {
  const cell = cellAt(...pointed(event));
  if (cell !== state.hover) { state.hover = cell; redraw(); }
});
scroller.addEventListener("pointerleave", () => { state.hover = -1; redraw(); });
scroller.addEventListener("click", (event) => {
  const [x, y] = pointed(event);
  if (state.view === "reading") setLine(lineAt(x, y), false);
  choose(cellAt(x, y));
});
scroller.addEventListener("scroll", redraw);
scroller.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  const frame = scroller.getBoundingClientRect();
  zoomTo(state.zoom * Math.exp(-event.deltaY / 300), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
scroller.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const view = views["1234".indexOf(event.key)];
  if (arrows[event.key]) step(...arrows[event.key], event.shiftKey);
  else if (event.key === "Escape") { setLine(-1, false); choose(-1); }
  else if (event.key === "+" || event.key === "=") zoomTo(1.25 * state.zoom);
  else if (event.key === "-") zoomTo(state.zoom / 1.25);
  else if (event.key === "0") zoomTo(fitZoom());
  else if (view && (view !== "reading" || data.lines)) { setView(view); link(); }
  else return;
  event.preventDefault();
});
document.querySelectorAll("input[name=view]").forEach((input) =>
  input.addEventListener("change", () => { setView(input.value); link(); }));
document.querySelectorAll("input[name=layer]").forEach((input) =>
  input.addEventListener("change", () => { state.chosen = state.hover = -1; setLayer(input.value); link(); }));
byId("grid").addEventListener("change", (event) => { state.grid = event.target.checked; redraw(); });
byId("zoom-in").addEventListener("click", () => zoomTo(1.25 * state.zoom));
byId("zoom-out").addEventListener("click", () => zoomTo(state.zoom / 1.25));
byId("zoom-fit").addEventListener("click", () => zoomTo(fitZoom()));
byId("select-text").addEventListener("click", () => getSelection().selectAllChildren(byId("lines")));
// Drawn at once: a frame later the canvas would have been seen in its old size.
new ResizeObserver(() => { layOut(); draw(); placeTip(); }).observe(scroller);

const follow = () => {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const view = wanted.get("view"), cell = Number(wanted.get("cell") ?? -1), line = Number(wanted.get("line") ?? 0);
  if (views.includes(view) && (view !== "reading" || data.lines)) setView(view);
  if (Number(wanted.get("zoom")) > 0) zoomTo(Number(wanted.get("zoom")));
  if (data.lines && Number.isInteger(line) && line > 0 && line <= data.lines.length) setLine(line - 1, true);
  if (Number.isInteger(cell) && cell >= 0 && cell < entropies.length && isOnPage(cell)) choose(cell);
};
const start = () => {
  fillSummary();
  fillLines();
  fillFrequent();
  byId("layers").hidden = !data.tiles.some((tile) => tile.thumbnail);
  state.zoom = Math.min(fitZoom(), 2);
  setView("words");
  layOut();
  follow();
  window.addEventListener("hashchange", follow);
};
picture.decode().catch(() => undefined).then(start);
