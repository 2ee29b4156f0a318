// From the cells of a raw map to the pixels of the original: the same straight line between cells as `Geometry.to_source`.

/** Numbers that came as base64 of little-endian float32. */
export function floats(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** A mask of `count` samples from the places where it changes, as base64 of little-endian uint32; it begins with no. */
export function maskOf(text, count) {
  const ends = new Uint32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer), mask = new Uint8Array(count);
  for (let k = 0; k < ends.length; k += 2) mask.fill(1, ends[k], ends[k + 1] ?? count);
  return mask;
}

/**
 * The weights of a map's cells for each of n pixels along one axis of the original.
 * A row is {first, weights}, or null where the model never looked.
 */
export function rows(map, axis, n) {
  const scale = n / map.source[axis];
  const [start, stop] = map.box[axis].map((v) => v * scale);
  const size = map.input[axis], cells = map.grid[axis];
  const [low, high] = map.span ? map.span[axis] : [0, size];
  const step = Math.max(1, (cells * size) / ((high - low) * (stop - start)));
  const found = new Array(n).fill(null);
  for (let i = 0; i < n; i++) {
    const centre = i + 0.5, at = ((centre - start) / (stop - start)) * size;
    if (centre < start || centre >= stop) continue;
    if (map.reach && (at < map.reach[axis][0] || at >= map.reach[axis][1])) continue;
    const middle = ((at - low) / (high - low)) * cells - 0.5;
    const first = Math.max(0, Math.ceil(middle - step)), last = Math.min(cells - 1, Math.floor(middle + step));
    const weights = [];
    let total = 0;
    for (let k = first; k <= last; k++) {
      const w = Math.max(0, 1 - Math.abs(middle - k) / step);
      weights.push(w);
      total += w;
    }
    found[i] = { first, weights: weights.map((w) => w / Math.max(total, 1e-12)) };
  }
  return found;
}

/** All rows of a map at the original's own size, made once. */
function exact(map) {
  map.exact ??= map.source.map((n, axis) => rows(map, axis, n));
  return map.exact;
}

/** The raw value at a pixel of the original ([y, x], or [z, y, x]); NaN where the model never looked. */
export function valueAt(map, point) {
  const taps = point.map((i, axis) => exact(map)[axis][i]);
  if (taps.some((t) => !t)) return NaN;
  const sum = (axis, offset) => {
    const { first, weights } = taps[axis];
    let total = 0;
    for (let k = 0; k < weights.length; k++) {
      if (!weights[k]) continue;
      const at = offset * map.grid[axis] + first + k;
      total += weights[k] * (axis === taps.length - 1 ? map.values[at] : sum(axis + 1, at));
    }
    return total;
  };
  return sum(0, 0);
}

/** One plane of a map of three axes, as a map of two: at sample `index` of axis `plane`; null where nothing was seen. */
export function planeOf(map, plane, index) {
  const row = exact(map)[plane][index];
  if (!row) return null;
  const rest = [0, 1, 2].filter((a) => a !== plane);
  const [n0, n1, n2] = map.grid, stride = [n1 * n2, n2, 1];
  const [h, w] = rest.map((a) => map.grid[a]);
  const values = new Float32Array(h * w);
  row.weights.forEach((weight, k) => {
    const base = (row.first + k) * stride[plane];
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) values[y * w + x] += weight * map.values[base + y * stride[rest[0]] + x * stride[rest[1]]];
  });
  const pick = (list) => list && rest.map((a) => list[a]);
  return {
    values, grid: [h, w], source: pick(map.source), input: pick(map.input), box: pick(map.box),
    span: pick(map.span), reach: pick(map.reach),
  };
}

/** A map of two axes over `height` x `width` pixels; NaN where the model never looked. Not finite counts as 0. */
export function spread(map, height, width) {
  const down = rows(map, 0, height), across = rows(map, 1, width), [h, w] = map.grid;
  const half = new Float32Array(h * width).fill(NaN), out = new Float32Array(height * width).fill(NaN);
  for (let y = 0; y < h; y++)
    for (let x = 0; x < width; x++) {
      const tap = across[x];
      if (!tap) continue;
      let total = 0;
      for (let k = 0; k < tap.weights.length; k++) {
        const v = map.values[y * w + tap.first + k];
        if (Number.isFinite(v)) total += tap.weights[k] * v;
      }
      half[y * width + x] = total;
    }
  for (let y = 0; y < height; y++) {
    const tap = down[y];
    if (!tap) continue;
    for (let x = 0; x < width; x++) {
      let total = 0;
      for (let k = 0; k < tap.weights.length; k++) total += tap.weights[k] * half[(tap.first + k) * width + x];
      out[y * width + x] = total;
    }
  }
  return out;
}

/** A Gaussian over the seen part alone, for the display of maps as fine as pixels; NaN stays NaN. */
export function smoothed(values, height, width, sigma) {
  const reach = Math.ceil(3 * sigma), kernel = [];
  for (let k = -reach; k <= reach; k++) kernel.push(Math.exp(-(k * k) / (2 * sigma * sigma)));
  const blur = (from, n, m, inner, outer) => {
    const to = new Float32Array(from.length);
    for (let j = 0; j < m; j++)
      for (let i = 0; i < n; i++) {
        let total = 0;
        for (let k = Math.max(-reach, -i); k <= Math.min(reach, n - 1 - i); k++)
          total += kernel[k + reach] * from[(i + k) * inner + j * outer];
        to[i * inner + j * outer] = total;
      }
    return to;
  };
  const both = (from) => blur(blur(from, width, height, 1, width), height, width, width, 1);
  const total = both(values.map((v) => (Number.isNaN(v) ? 0 : v))), weight = both(values.map((v) => (Number.isNaN(v) ? 0 : 1)));
  return values.map((v, i) => (Number.isNaN(v) ? NaN : total[i] / Math.max(weight[i], 1e-6)));
}
