"use strict";
// The scripts are joined in the order data, draw, panel and run as one.

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
