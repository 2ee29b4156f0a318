// <pellucid-view>: one input and its maps, to be looked at. Its child script holds the raw numbers; nothing is fetched.
import { floats, maskOf, planeOf, smoothed, spread, valueAt } from "./grid.js";
import { Pane, make } from "./pane.js";
import { colourTable, levels, limitsOf, number } from "./paint.js";
import { controls } from "./controls.js";
import { Timeline } from "./timeline.js";
import { Anatomy, LETTERS, inMillimetres, laid, voxelAt } from "./volume.js";
import { TEXTS } from "./texts.js";

const LARGEST = 1000, SMALLEST = 480, SMOOTH = 0.012, BEAT = 700; // pixels of a canvas; of its side; ms

class View extends HTMLElement {
  connectedCallback() {
    if (this.stage) return;
    this.about = JSON.parse(this.querySelector('script[type="application/json"]').textContent);
    this.maps = this.about.maps.map((m) => ({ ...m, values: floats(m.data), source: this.about.size }));
    this.media = this.querySelector("img.original, video.original");
    const { volume } = this.about;
    for (const m of this.maps) if (m.unseen) m.hidden = maskOf(m.unseen, this.about.size.reduce((a, b) => a * b, 1));
    if (volume) {
      this.maps = this.maps.map((m) => laid(m, volume.turn));
      Object.assign(this.about, { size: this.maps[0].source, start: volume.peak[0] });
      if (volume.ground) this.anatomy = new Anatomy(volume.ground, () => this.ground());
    }
    this.slices = volume?.peak.slice() ?? this.about.size.map((n) => n >> 1);
    const signed = this.maps.some((m) => m.signed);
    this.how = {
      a: 0, b: Math.min(1, this.maps.length - 1), mode: this.maps.length > 1 ? "grid" : "single", colours: "auto", opacity: 1, threshold: 0,
      sign: "both", scale: "own", smooth: true, zoom: 1, plane: 0, index: this.about.start ?? 0, boundary: 50,
      signed, ...Object.fromEntries(this.layers.map((name) => [name, true])),
    };
    this.kept = new Map();
    this.build();
    this.layout();
    const ready = this.media?.tagName === "IMG" && !this.media.complete;
    if (ready) this.media.addEventListener("load", () => this.ground());
  }

  disconnectedCallback() {
    clearInterval(this.beating);
  }

  build() {
    this.bar = controls(this.how, this.maps, this.about, (name) => this.changed(name));
    this.stage = make("div", "pv-stage", { tabindex: "0", role: "group", "aria-label": TEXTS.stage });
    this.said = make("output", "pv-said", { "aria-live": "polite" }, TEXTS.pointer);
    this.append(this.bar, this.stage);
    if (this.about.size.length === 3 && this.about.ticks.length > 1 && this.about.curves) {
      this.timeline = new Timeline(this.about, this.how, this.media, (index) => this.seek(index));
      this.append(this.timeline.root);
    }
    this.append(this.said);
    this.setAttribute("role", "group");
    this.setAttribute("aria-label", TEXTS.viewer.replace("{name}", this.about.name));
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("pointermove", (event) => this.pointed(event));
    this.stage.addEventListener("pointerleave", () => this.point(null));
  }

  /** The names of the layers over the maps: boxes and regions, each to be shown or not. */
  get layers() {
    return [...new Set((this.about.shapes ?? []).map((s) => s.layer))];
  }

  /** [rows, columns] of the original in the plane that is shown. */
  get flat() {
    const { size } = this.about;
    return size.length === 2 ? size : size.filter((_, axis) => axis !== this.how.plane);
  }

  /** How large that plane is: in millimetres where they are known, so that a thick slice is as thick as it is. */
  get extent() {
    const steps = this.about.volume?.spacing.filter((_, axis) => axis !== this.how.plane);
    return this.flat.map((n, k) => n * (steps?.[k] ?? 1));
  }

  /** The panes that the mode needs, and how large their canvases are. */
  layout() {
    const [h, w] = this.extent, longer = Math.max(h, w), { mode } = this.how, all = this.maps.length;
    const side = Math.max(SMALLEST, Math.min(mode === "grid" && all > 2 ? SMALLEST : LARGEST, Math.max(...this.flat)));
    this.raster = [Math.max(1, Math.round((h * side) / longer)), Math.max(1, Math.round((w * side) / longer))];
    const count = mode === "grid" ? all : mode === "side" ? 2 : 1;
    this.panes = Array.from({ length: count }, () => new Pane(this.raster[1], this.raster[0], this.flat));
    this.stage.replaceChildren(...this.panes.map((p) => p.root));
    this.stage.style.setProperty("--wide", `${Math.min(this.raster[1], count > 2 ? 340 : count > 1 ? 540 : 720)}px`);
    clearInterval(this.beating);
    if (mode === "blink")
      this.beating = setInterval(() => {
        this.beat = !this.beat;
        this.draw();
      }, BEAT);
    this.zoomed();
    this.ground();
    this.draw();
  }

  ground() {
    const { plane, index } = this.how, { size } = this.about;
    const usable = this.media && (size.length === 2 || this.media.tagName === "VIDEO") && plane === 0;
    const under = this.anatomy ? this.anatomy.slice(plane, (index + 0.5) / size[plane]) : usable ? this.media : null;
    this.panes.forEach((pane) => pane.drawGround(under));
    this.panes.forEach((pane) => pane.root.classList.toggle("pv-bare", !under));
    if (this.about.volume) this.panes.forEach((pane) => pane.letter(LETTERS[plane]));
  }

  zoomed() {
    this.panes.forEach((pane) => pane.picture.style.setProperty("--zoom", this.how.zoom));
  }

  /** A map's values on the canvas, in the plane and at the sample that are shown. */
  values(map) {
    const { plane, index, smooth } = this.how, three = map.grid.length === 3;
    const key = [this.maps.indexOf(map), three ? plane : 0, three ? index : 0, map.fine && smooth].join();
    if (this.kept.has(key)) return this.kept.get(key);
    const flat = three ? planeOf(map, plane, index) : map, [h, w] = this.raster;
    let found = flat ? spread(flat, h, w) : new Float32Array(h * w).fill(NaN);
    if (flat && map.fine && smooth) {
      const [[y0, y1], [x0, x1]] = flat.box.map(([start, stop], a) => [Math.max(start, 0), Math.min(stop, flat.source[a])]);
      found = smoothed(found, h, w, SMOOTH * Math.max((y1 - y0) * (h / flat.source[0]), (x1 - x0) * (w / flat.source[1])));
    }
    if (map.hidden) {
      const [rows, columns] = this.flat;
      found.forEach((_, i) => {
        const at = [Math.floor(((Math.floor(i / w) + 0.5) * rows) / h), Math.floor((((i % w) + 0.5) * columns) / w)];
        if (this.isHidden(map, this.whole(at))) found[i] = NaN;
      });
    }
    if (this.kept.size > 24) this.kept.clear();
    this.kept.set(key, found);
    return found;
  }

  /** The raw values at the ends of a map's own scale. */
  own(map) {
    if (!map.fine) return (map.limits ??= limitsOf(map.values, map.signed, false));
    const name = this.how.smooth && map.grid.length === 2 ? "smoothLimits" : "rawLimits";
    return (map[name] ??= limitsOf(name === "smoothLimits" ? this.values(map) : map.values, map.signed, true));
  }

  limits(map) {
    if (this.how.scale === "own") return this.own(map);
    const all = this.maps.map((m) => this.own(m));
    const low = Math.min(...all.map((l) => l[0])), high = Math.max(...all.map((l) => l[1]));
    if (!map.signed) return [Math.min(low, 0) && this.own(map)[0] < 0 ? low : 0, high];
    const most = Math.max(-low, high);
    return [-most, most];
  }

  /** By what a map is divided before two are compared: its own largest value, or nothing on a shared scale. */
  divisor(map) {
    return this.how.scale === "own" ? Math.max(...this.own(map).map(Math.abs)) || 1 : 1;
  }

  /** What a pane shows of a map: levels, colours, limits, title. */
  shown(map) {
    const limits = this.limits(map), values = this.values(map);
    return this.coloured(values, limits, map.signed, map.fine, this.title(map), map.problem);
  }

  difference() {
    const [a, b] = [this.maps[this.how.a], this.maps[this.how.b]], [da, db] = [this.divisor(a), this.divisor(b)];
    const left = this.values(a), right = this.values(b), values = left.map((v, i) => v / da - right[i] / db);
    const title = TEXTS.less.replace("{a}", this.title(a)).replace("{b}", this.title(b));
    const how = this.how.scale === "own" ? ` (${TEXTS.relative})` : "";
    return this.coloured(values, limitsOf(values, true, false), true, false, title + how, "");
  }

  coloured(values, limits, signed, plain, title, problem) {
    const { threshold, sign, opacity } = this.how;
    const colours = this.how.colours === "auto" ? (signed ? "RdBu_r" : "inferno") : this.how.colours;
    const how = { colours, signed, sign: signed ? sign : "both", threshold, limits, plain };
    const key = `levels ${limits}`;
    values.levels ??= {};
    if (!values.levels[key]) values.levels = { [key]: levels(values, this.raster[1], limits) };
    return { levels: values.levels[key], table: colourTable(how), limits, title, problem, opacity };
  }

  title(map) {
    return map.target ? `${map.name}, ${map.target}` : map.name;
  }

  draw() {
    const { mode, a, b } = this.how, [first, second] = this.panes;
    const put = (pane, shown, over) => {
      pane.drawMap(shown, over);
      pane.label(shown.title, shown.limits, shown.table, shown.problem);
    };
    if (mode === "grid") this.panes.forEach((pane, i) => put(pane, this.shown(this.maps[i])));
    else if (mode === "difference") put(first, this.difference());
    else if (mode === "blink") put(first, this.shown(this.maps[this.beat ? b : a]));
    else put(first, this.shown(this.maps[a]));
    if (mode === "side") put(second, this.shown(this.maps[b]));
    if (mode === "swipe") {
      const over = this.shown(this.maps[b]);
      first.drawMap(over, true);
      first.title.textContent = `${this.title(this.maps[a])} | ${over.title}`;
      first.map.style.clipPath = `inset(0 ${100 - this.how.boundary}% 0 0)`;
      first.over.style.clipPath = `inset(0 0 0 ${this.how.boundary}%)`;
    }
    first.over.hidden = mode !== "swipe";
    this.panes.forEach((pane, i) => {
      const shown = mode === "grid" ? [i] : mode === "side" ? [i ? b : a] : mode === "blink" ? [this.beat ? b : a] : [a];
      pane.drawOutlines(this.shapes(mode === "swipe" || mode === "difference" ? [a, b] : shown));
      pane.root.classList.toggle("pv-dim", this.how.opacity > 0);
    });
  }

  /** The boxes and regions over some maps, of the layers that are on. */
  shapes(maps) {
    const { plane, index } = this.how;
    return (this.about.shapes ?? []).filter((s) => this.how[s.layer] && (s.map === undefined || maps.includes(s.map))
      && (s.index === undefined || (plane === 0 && s.index === index))
      && (s.slices === undefined || (plane === s.plane && s.slices[0] <= index && index <= s.slices[1])));
  }

  /** A control was used. */
  changed(name) {
    if (name === "opacity") {
      this.panes.forEach((p) => [p.map, p.over].forEach((canvas) => (canvas.style.opacity = this.how.opacity)));
      this.panes.forEach((p) => p.root.classList.toggle("pv-dim", this.how.opacity > 0));
    } else if (name === "zoom") this.zoomed();
    else if (name === "plane") {
      this.point(null);
      this.how.index = this.slices[this.how.plane];
      this.bar.sync();
      this.layout();
    } else if (name === "mode") this.layout();
    else if (name === "index") this.seek(this.how.index);
    else this.draw();
    this.say();
  }

  seek(index) {
    this.how.index = this.slices[this.how.plane] = index;
    this.bar.sync?.();
    this.timeline?.sync();
    this.ground();
    this.draw();
    this.say();
  }

  pointed(event) {
    for (const pane of this.panes) {
      const at = pane.root.contains(event.target) && pane.pixel(event);
      if (at) return this.point(at);
    }
  }

  point(at) {
    this.at = at;
    this.panes.forEach((pane) => pane.pointAt(at));
    this.say();
  }

  /** A place in the plane that is shown, in all axes. */
  whole(at) {
    if (this.about.size.length === 2) return at;
    const point = [...at];
    point.splice(this.how.plane, 0, this.how.index);
    return point;
  }

  /** Whether nothing was measured at a point, as in the padding of a medical picture. */
  isHidden(map, point) {
    if (!map.hidden) return false;
    const { volume, size } = this.about, voxel = volume ? voxelAt(point, volume.whole, size) : point;
    const sizes = volume ? voxelAt(size, volume.whole.map(Math.abs), size) : size;
    return map.hidden[voxel.reduce((sum, v, axis) => sum * sizes[axis] + v, 0)] === 1;
  }

  /** The raw value under the pointer, of each map that is shown, in the original's pixels. */
  say() {
    if (!this.at) {
      this.said.textContent = TEXTS.pointer;
      return;
    }
    const { mode, a, b } = this.how, point = this.whole(this.at);
    const value = (m) => (this.isHidden(m, point) ? NaN : valueAt(m, point));
    const [left, right] = [this.maps[a], this.maps[b]];
    const parts = [];
    if (mode === "difference") {
      const found = value(left) / this.divisor(left) - value(right) / this.divisor(right);
      parts.push([TEXTS.less.replace("{a}", this.title(left)).replace("{b}", this.title(right)), found]);
    } else for (const m of mode === "grid" ? this.maps : mode === "single" ? [left] : [left, right]) parts.push([this.title(m), value(m)]);
    this.said.replaceChildren(make("span", "pv-at", {}, this.place(point)),
      ...parts.map(([name, v]) => make("span", "", { "data-value": v }, `${name}: ${number(v)}`)));
    const { volume, size } = this.about;
    this.said.dataset.point = (volume ? voxelAt(point, volume.whole, size) : point).join();
  }

  place(point) {
    const { ticks, unit, volume, size } = this.about, [y, x] = point.slice(-2);
    if (volume) {
      const voxel = voxelAt(point, volume.whole, size);
      return `${TEXTS.voxel.replace("{at}", voxel.join(", "))}: ${inMillimetres(voxel, volume.affine)}`;
    }
    if (point.length === 2) return `x ${x}, y ${y}`;
    const at = ticks.length ? `${Number(ticks[point[0]].toFixed(3))} ${unit}` : `${point[0]}`;
    return `x ${x}, y ${y}, ${at}`;
  }

  key(event) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key], far = event.shiftKey ? 10 : 1;
    if (move) {
      const from = this.at ?? this.flat.map((n) => Math.floor(n / 2));
      this.point(from.map((v, k) => Math.min(this.flat[k] - 1, Math.max(0, v + far * move[k]))));
    } else if (event.key === "+" || event.key === "-") {
      this.how.zoom = Math.min(8, Math.max(1, this.how.zoom * (event.key === "+" ? 1.25 : 0.8)));
      this.bar.sync?.();
      this.zoomed();
    } else if ((event.key === "," || event.key === ".") && this.about.size.length === 3) {
      const n = this.about.size[this.how.plane];
      this.seek(Math.min(n - 1, Math.max(0, this.how.index + (event.key === "." ? 1 : -1))));
    } else if (event.key === "o" && this.layers.length) {
      const any = this.layers.some((name) => this.how[name]);
      this.layers.forEach((name) => (this.how[name] = !any));
      this.bar.sync?.();
      this.draw();
    } else if (event.key === "Escape") this.point(null);
    else return;
    event.preventDefault();
  }
}

customElements.define("pellucid-view", View);
