// From raw values to colours: limits, levels, a table of colours for each level. A slider changes the table alone.
import { TABLES } from "./tables.js";

const LEVELS = 4096, GROUND = LEVELS, LINE = LEVELS + 1; // the last two: where the model never looked, hatched

/** The raw values at the ends of the colour bar: as `limits` of the figures, with robust ends for maps as fine as pixels. */
export function limitsOf(values, signed, robust) {
  const finite = values.filter(Number.isFinite);
  let low = 0, high = 0;
  for (const v of finite) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  if (robust && finite.length) {
    const sizes = finite.map(Math.abs).sort(), reach = sizes[Math.floor(0.995 * (sizes.length - 1))];
    if (reach > 0) {
      low = Math.max(low, -reach);
      high = Math.min(high, reach);
    }
  }
  if (signed) {
    high = Math.max(high, -low);
    low = -high;
  }
  return [low, high];
}

/** Which level each value has between two limits; what the model never saw is hatched. */
export function levels(values, width, [low, high]) {
  const found = new Uint16Array(values.length), scale = high > low ? (LEVELS - 1) / (high - low) : 0;
  const period = Math.max(8, Math.round(0.026 * Math.max(width, values.length / width)));
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (Number.isNaN(v)) {
      found[i] = ((i % width) + Math.floor(i / width)) % period < period / 5 ? LINE : GROUND;
      continue;
    }
    const at = (v - low) * scale;
    found[i] = at <= 0 ? 0 : at >= LEVELS - 1 ? LEVELS - 1 : at + 0.5;
  }
  return found;
}

const STOPS = Object.fromEntries(Object.entries(TABLES).map(([name, text]) =>
  [name, text.match(/../g).map((pair) => parseInt(pair, 16))])); // red, green, blue of each stop in turn

/** The colour [r, g, b] of a position in [0, 1] on a colour map. */
export function colourAt(name, position) {
  const stops = STOPS[name], last = stops.length / 3 - 1, at = Math.min(1, Math.max(0, position)) * last;
  const low = Math.floor(at), part = at - low, a = 3 * low, b = 3 * Math.min(low + 1, last);
  const between = (k) => stops[a + k] + part * (stops[b + k] - stops[a + k]);
  return [between(0), between(1), between(2)];
}

/**
 * The colour of each level, as a little-endian RGBA word: the stronger the value, the less the picture shows through.
 * `how` holds colours, signed, sign ("both", "for", "against"), threshold in [0, 1], limits, plain.
 */
export function colourTable(how) {
  const table = new Uint32Array(LEVELS + 2), [low, high] = how.limits, most = Math.max(Math.abs(low), Math.abs(high));
  const zero = high > low ? -low / (high - low) : 0;
  for (let i = 0; i < LEVELS && high > low; i++) {
    const position = i / (LEVELS - 1), value = low + position * (high - low);
    const strength = how.signed ? Math.abs(value) / most : (value - Math.min(low, 0)) / (high - Math.min(low, 0));
    const hidden = strength < how.threshold || (how.sign === "for" && value <= 0) || (how.sign === "against" && value >= 0);
    if (hidden || strength <= 0) continue;
    const [r, g, b] = colourAt(how.colours, how.signed ? 0.5 + (position - zero) / 2 / Math.max(zero, 1 - zero) : position);
    const alpha = how.plain ? 0.95 * Math.sqrt(strength) : 0.85 * strength;
    table[i] = word(r, g, b, Math.round(255 * alpha));
  }
  table[GROUND] = word(232, 232, 232, 205);
  table[LINE] = word(196, 196, 196, 225);
  return table;
}

function word(r, g, b, alpha) {
  return ((alpha << 24) | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;
}

/** Draw levels with a table of colours. */
export function paint(canvas, level, table) {
  const context = canvas.getContext("2d");
  const same = canvas.image && canvas.image.width === canvas.width && canvas.image.height === canvas.height;
  const image = same ? canvas.image : (canvas.image = context.createImageData(canvas.width, canvas.height));
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < level.length; i++) words[i] = table[level[i]];
  context.putImageData(image, 0, 0);
}

/** A colour bar over the limits, on white. */
export function paintBar(canvas, table) {
  canvas.width = 128;
  canvas.height = 1;
  const context = canvas.getContext("2d"), image = context.createImageData(128, 1), words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < 128; i++) words[i] = table[Math.round((i / 127) * (LEVELS - 1))];
  context.putImageData(image, 0, 0);
}

/** A value as people read it: three significant digits, a true minus sign. */
export function number(value) {
  if (Number.isNaN(value)) return "not seen";
  const size = Math.abs(value);
  const text = size === 0 ? "0" : size < 1e-3 || size >= 1e5 ? size.toExponential(1) : String(Number(size.toPrecision(3)));
  return (value < 0 ? "−" : "") + text;
}
