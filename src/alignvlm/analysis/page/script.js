"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const picture = byId("page"), scroller = byId("scroller"), sheet = byId("sheet");
  const canvas = byId("canvas"), tip = byId("tip"), stage = byId("stage");
  const pen = canvas.getContext("2d");

  // ---- what the file holds -----------------------------------------------------------------
  const unpack = (text, type) => {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    return new type(bytes.buffer);
  };
  const [rows, columns] = data.grid;
  const cellsInTile = rows * columns;
  const maxEntropy = Math.log(data.numWords);
  const entropies = unpack(data.entropy, Uint16Array);
  const best = unpack(data.best, Uint32Array);
  const shares = unpack(data.probabilities, Uint16Array);
  const keptCells = unpack(data.cells, Uint32Array);
  const slots = new Map(Array.from(keptCells, (cell, slot) => [cell, slot]));
  const entropyOf = (cell) => entropies[cell] / 65535 * maxEntropy;
  const wordAt = (slot, rank) => data.words[best[slot * data.topK + rank]];
  const shareAt = (slot, rank) => shares[slot * data.topK + rank] / 65535;
  const isSpace = (word) => word.trim() === "";

  const boxOf = (cell) => {
    const tile = data.tiles[Math.floor(cell / cellsInTile)], inTile = cell % cellsInTile;
    const x = tile.x + (inTile % columns) * tile.width;
    const y = tile.y + Math.floor(inTile / columns) * tile.height;
    const [left, top, right, bottom] = tile.part;
    const x0 = Math.max(left, x), y0 = Math.max(top, y);
    return [x0, y0, Math.min(right, x + tile.width) - x0, Math.min(bottom, y + tile.height) - y0];
  };
  const isOnPage = (cell) => { const box = boxOf(cell); return box[2] > 0 && box[3] > 0; };
  const isThumbnail = (cell) => data.tiles[Math.floor(cell / cellsInTile)].thumbnail;
  const inLayer = (cell) => isThumbnail(cell) === (state.layer === "thumbnail");

  const cellAt = (x, y) => {
    for (let index = 0; index < data.tiles.length; index++) {
      const tile = data.tiles[index], [left, top, right, bottom] = tile.part;
      if (tile.thumbnail !== (state.layer === "thumbnail")) continue;
      if (x < left || y < top || x >= right || y >= bottom) continue;
      const column = Math.floor((x - tile.x) / tile.width);
      const row = Math.floor((y - tile.y) / tile.height);
      if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
      return index * cellsInTile + row * columns + column;
    }
    return -1;
  };

  // ---- state ---------------------------------------------------------------------------------
  const views = ["none", "words", "entropy", "reading"];
  const state = { view: "words", layer: "tiles", grid: false, zoom: 1, hover: -1, chosen: -1, line: -1, word: -1 };
  const heatTop = Math.max(0.1, Array.from(entropies.keys()).reduce(
    (most, cell) => isOnPage(cell) ? Math.max(most, entropyOf(cell)) : most, 0));
  const fitZoom = () => Math.max(0.05, (scroller.clientWidth - 2 * margin) / data.width);
  const margin = 20;
  let originX = margin;  // of the page on the sheet, in screen pixels
  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); placeTip(); });
  };

  const layOut = () => {
    const width = data.width * state.zoom, height = data.height * state.zoom;
    sheet.style.width = `${width + 2 * margin}px`;
    sheet.style.height = `${height + 2 * margin}px`;
    originX = Math.max(margin, (scroller.clientWidth - width) / 2);
    redraw();
  };
  const zoomTo = (zoom, x = scroller.clientWidth / 2, y = scroller.clientHeight / 2) => {
    const [pageX, pageY] = toPage(x, y);
    state.zoom = Math.min(16, Math.max(0.05, zoom));
    layOut();
    scroller.scrollLeft = pageX * state.zoom + originX - x;
    scroller.scrollTop = pageY * state.zoom + margin - y;
  };
  const toPage = (x, y) =>
    [(x + scroller.scrollLeft - originX) / state.zoom, (y + scroller.scrollTop - margin) / state.zoom];
  const toScreen = (x, y) =>
    [x * state.zoom + originX - scroller.scrollLeft, y * state.zoom + margin - scroller.scrollTop];

  // ---- drawing: only what is visible, in page coordinates --------------------------------------
  const heat = (share) => {  // amber to dark red, and more opaque
    const t = Math.sqrt(Math.min(1, share));
    return `rgba(${Math.round(250 - 80 * t)},${Math.round(170 - 150 * t)},${Math.round(30 + 20 * t)},${(0.12 + 0.73 * t).toFixed(3)})`;
  };
  const inkOf = (share, alpha = 1) =>
    `rgba(${Math.round(214 - 197 * share)},${Math.round(40 + 20 * share)},${Math.round(40 + 100 * share)},${alpha})`;

  const draw = () => {
    const density = window.devicePixelRatio || 1;
    const width = scroller.clientWidth, height = scroller.clientHeight;
    if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    const [x, y] = toScreen(0, 0), unit = state.zoom * density;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(unit, 0, 0, unit, x * density, y * density);
    pen.imageSmoothingQuality = "high";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, data.width, data.height);
    pen.drawImage(picture, 0, 0, data.width, data.height);
    const [left, top] = toPage(0, 0), [right, bottom] = toPage(width, height);
    const isSeen = ([x0, y0, w, h]) =>
      w > 0 && h > 0 && x0 < right && y0 < bottom && x0 + w > left && y0 + h > top;
    if (state.view === "words") drawWords(isSeen);
    if (state.view === "entropy") drawEntropy(isSeen);
    if (state.view === "reading") drawReading();
    if (state.word >= 0) drawMarked(isSeen);
    if (state.grid) drawGrid(left, top, right, bottom);
    if (state.line >= 0) drawLine(data.lines[state.line], "rgba(36,86,199,.30)");
    const cell = state.hover >= 0 ? state.hover : state.chosen;
    if (cell >= 0) drawCell(cell);
    pen.lineWidth = 1 / state.zoom;
    pen.strokeStyle = "rgba(90,102,117,.45)";
    pen.strokeRect(0, 0, data.width, data.height);
  };

  const drawWords = (isSeen) => {
    pen.fillStyle = "rgba(255,255,255,.84)";
    pen.fillRect(0, 0, data.width, data.height);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    keptCells.forEach((cell, slot) => {
      const word = wordAt(slot, 0)[1].trim(), box = boxOf(cell), share = shareAt(slot, 0);
      if (!word || share < 0.1 || !inLayer(cell) || !isSeen(box)) return;
      const tile = data.tiles[Math.floor(cell / cellsInTile)];
      const letters = Array.from(word).length;
      // A letter stands for a character larger than its cell; a word must fit into it.
      let size = letters === 1 && tile.width < tile.height ? 1.9 * tile.height : 0.62 * tile.height;
      if (letters > 1) size = Math.min(size, 1.62 * tile.width / letters);
      pen.font = `600 ${size}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
      pen.fillStyle = inkOf(share, (0.45 + 0.55 * share).toFixed(3));
      pen.fillText(word, box[0] + box[2] / 2, box[1] + box[3] / 2);
    });
  };

  const drawEntropy = (isSeen) => {
    pen.fillStyle = "rgba(255,255,255,.45)";
    pen.fillRect(0, 0, data.width, data.height);
    for (let cell = 0; cell < entropies.length; cell++) {
      const share = entropyOf(cell) / heatTop;
      if (share < 0.004 || !inLayer(cell)) continue;
      const box = boxOf(cell);
      if (!isSeen(box)) continue;
      pen.fillStyle = heat(share);
      pen.fillRect(...box);
    }
  };

  const segmentsOf = (line) => {  // runs of characters without a jump to another column
    const runs = [[]];
    line.cells.forEach((cell) => {
      if (cell >= 0) runs[runs.length - 1].push(cell);
      else if (runs[runs.length - 1].length) runs.push([]);
    });
    return runs.filter((run) => run.length);
  };
  const middleOf = (cell) => { const box = boxOf(cell); return [box[0] + box[2] / 2, box[1] + box[3] / 2]; };
  const cellHeight = Math.max(...data.tiles.filter((tile) => !tile.thumbnail).map((tile) => tile.height));
  const bandWidth = 2.6 * cellHeight;

  const drawLine = (line, color) => {
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = bandWidth;
    pen.strokeStyle = color;
    for (const run of segmentsOf(line)) {
      pen.beginPath();
      run.forEach((cell, index) => {
        const [x, y] = middleOf(cell);
        if (index) pen.lineTo(x, y); else { pen.moveTo(x, y); pen.lineTo(x + 0.01, y); }
      });
      pen.stroke();
    }
  };
  const drawReading = () => {
    pen.fillStyle = "rgba(255,255,255,.35)";
    pen.fillRect(0, 0, data.width, data.height);
    const size = Math.max(7, 11 / state.zoom);
    let end = null;
    data.lines.forEach((line, index) => {
      drawLine(line, index === state.line ? "rgba(36,86,199,.05)" : "rgba(36,86,199,.16)");
      segmentsOf(line).forEach((run, part) => {
        const start = middleOf(run[0]);
        if (end) {
          pen.lineWidth = 1 / state.zoom;
          pen.setLineDash([4 / state.zoom, 3 / state.zoom]);
          pen.strokeStyle = "rgba(36,86,199,.5)";
          pen.beginPath(); pen.moveTo(...end); pen.lineTo(...start); pen.stroke();
          pen.setLineDash([]);
        }
        end = middleOf(run[run.length - 1]);
        if (part) return;
        pen.font = `600 ${size}px system-ui, sans-serif`;
        const label = String(index + 1), wide = pen.measureText(label).width + 0.8 * size;
        const x = start[0] - bandWidth / 2 - wide - 2, y = start[1] - 0.75 * size;
        pen.fillStyle = "#2456c7";
        pen.beginPath(); pen.roundRect(x, y, wide, 1.5 * size, 0.4 * size); pen.fill();
        pen.fillStyle = "#fff"; pen.textAlign = "center"; pen.textBaseline = "middle";
        pen.fillText(label, x + wide / 2, start[1] + 0.05 * size);
      });
    });
  };

  const drawMarked = (isSeen) => {
    pen.fillStyle = "rgba(0,140,110,.28)";
    pen.strokeStyle = "rgba(0,110,85,.9)";
    pen.lineWidth = 1 / state.zoom;
    keptCells.forEach((cell, slot) => {
      const box = boxOf(cell);
      if (best[slot * data.topK] !== state.word || !inLayer(cell) || !isSeen(box)) return;
      pen.fillRect(...box);
      pen.strokeRect(...box);
    });
  };

  const drawGrid = (left, top, right, bottom) => {
    for (const tile of data.tiles) {
      if (tile.thumbnail !== (state.layer === "thumbnail")) continue;
      const [x0, y0, x1, y1] = tile.part;
      pen.lineWidth = 1 / state.zoom;
      if (tile.width * state.zoom >= 3) {
        pen.strokeStyle = "rgba(36,86,199,.22)";
        pen.beginPath();
        for (let column = 0; column <= columns; column++) {
          const x = tile.x + column * tile.width;
          if (x < Math.max(x0, left) || x > Math.min(x1, right)) continue;
          pen.moveTo(x, Math.max(y0, tile.y, top));
          pen.lineTo(x, Math.min(y1, tile.y + rows * tile.height, bottom));
        }
        for (let row = 0; row <= rows; row++) {
          const y = tile.y + row * tile.height;
          if (y < Math.max(y0, top) || y > Math.min(y1, bottom)) continue;
          pen.moveTo(Math.max(x0, tile.x, left), y);
          pen.lineTo(Math.min(x1, tile.x + columns * tile.width, right), y);
        }
        pen.stroke();
      }
      pen.lineWidth = 1.5 / state.zoom;
      pen.strokeStyle = "rgba(36,86,199,.75)";
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  };

  const drawCell = (cell) => {
    const [x, y, width, height] = boxOf(cell), gap = 2 / state.zoom;
    for (const [color, line] of [["#fff", 5], ["#2456c7", 2.2]]) {
      pen.lineWidth = line / state.zoom;
      pen.strokeStyle = color;
      pen.strokeRect(x - gap, y - gap, width + 2 * gap, height + 2 * gap);
    }
  };

  // ---- words of a cell ---------------------------------------------------------------------------
  const NAMES = { "\n": "line break", " ": "space", "\t": "tab", "": "nothing" };
  const shown = (word) => isSpace(word) ? NAMES[word] || "whitespace" : word;
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
})();
