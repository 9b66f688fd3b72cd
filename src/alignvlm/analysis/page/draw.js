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
    const isLetter = letters === 1 && tile.width < tile.height;
    const size = isLetter ? 1.9 * tile.height : Math.min(0.62 * tile.height, 1.62 * box[2] / letters);
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
