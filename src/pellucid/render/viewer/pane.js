// One pane: the original, a map over it, outlines, the pointer, and the colour bar with its raw values.
import { paint, paintBar, number } from "./paint.js";

/** An element with a class, some attributes and children. */
export function make(tag, css, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (css) element.className = css;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const DRAWING = Object.assign(document.createElement("div"), { innerHTML: "<svg/>" }).firstChild.namespaceURI;

/** The same for a drawing. */
export function shape(tag, attributes = {}, ...children) {
  const element = document.createElementNS(DRAWING, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export class Pane {
  constructor(width, height, source) {
    const canvas = (css) => make("canvas", css, { width, height, "aria-hidden": "true" });
    this.source = source; // [rows, columns] of the original
    this.ground = canvas("pv-ground");
    this.map = canvas("pv-map");
    this.over = canvas("pv-map");
    this.outlines = shape("svg", { viewBox: `0 0 ${source[1]} ${source[0]}`, preserveAspectRatio: "none", role: "group" });
    this.cross = make("span", "pv-cross", { hidden: "" });
    this.picture = make("div", "pv-picture", {}, this.ground, this.map, this.over, this.outlines, this.cross);
    this.title = make("strong");
    this.low = make("span");
    this.high = make("span");
    this.bar = make("canvas", "pv-bar", { "aria-hidden": "true" });
    this.scale = make("span", "pv-scale", {}, this.low, this.bar, this.high);
    this.problem = make("p", "warn");
    this.root = make("figure", "pv-pane", {}, make("div", "pv-frame", {}, this.picture),
      make("figcaption", "", {}, this.title, this.scale, this.problem));
    this.over.hidden = true;
  }

  /** The original under the map, if it is at hand. */
  drawGround(media) {
    const context = this.ground.getContext("2d");
    if (media) context.drawImage(media, 0, 0, this.ground.width, this.ground.height);
    else {
      context.fillStyle = "#969696";
      context.fillRect(0, 0, this.ground.width, this.ground.height);
    }
  }

  /** A map's levels in its colours; `over` draws the second one, of which only a part shows (swipe). */
  drawMap({ levels, table, opacity }, over = false) {
    const canvas = over ? this.over : this.map;
    paint(canvas, levels, table);
    canvas.style.opacity = opacity;
  }

  label(title, [low, high], table, problem) {
    this.title.textContent = title;
    this.low.textContent = number(low);
    this.high.textContent = number(high);
    this.problem.textContent = problem ? `⚠ ${problem}` : "";
    this.problem.hidden = !problem;
    this.scale.hidden = !table || !(high > low);
    if (table) paintBar(this.bar, table);
  }

  /** Outlines in the original's pixels: {box: [x0, y0, x1, y1]} or {path}, with {layer, name, at: [x, y], rank}. */
  drawOutlines(shapes) {
    const size = Math.max(...this.source) / 32;
    this.outlines.replaceChildren(...shapes.map(({ box, path, name, layer, at, rank }) => {
      const parts = [shape("title", {}, name ?? "")];
      if (path) parts.push(shape("path", { d: path }));
      else parts.push(shape("rect", { x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] }));
      const text = { x: Math.max(at[0], 0) + size / 4, y: Math.max(at[1], 0) + size, "font-size": size };
      if (name) parts.push(shape("text", text, name));
      return shape("g", { class: `pv-layer-${layer} pv-rank-${rank ?? 0}`, role: "img", "aria-label": name ?? "" }, ...parts);
    }));
  }

  /** What lies at the left, right, top and bottom, a letter each. */
  letter(letters) {
    this.letters?.forEach((e) => e.remove());
    this.letters = [...letters].map((text, k) => make("span", `pv-letter pv-${["left", "right", "top", "bottom"][k]}`, {}, text));
    this.picture.append(...this.letters);
  }

  /** The pixel [y, x] of the original under a pointer event, or null beside it. */
  pixel(event) {
    const box = this.picture.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.source[1]);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.source[0]);
    return x >= 0 && y >= 0 && x < this.source[1] && y < this.source[0] ? [y, x] : null;
  }

  pointAt(at) {
    this.cross.hidden = !at;
    if (!at) return;
    this.cross.style.left = `${(100 * (at[1] + 0.5)) / this.source[1]}%`;
    this.cross.style.top = `${(100 * (at[0] + 0.5)) / this.source[0]}%`;
  }
}
