// Volumes: their maps laid as radiologists look, their grey values under the maps, and millimetres in the patient.

/** A map with its axes turned: for each new axis, which it was, counted from 1, negative where it runs backwards. */
export function laid(map, turn) {
  const from = turn.map((t) => Math.abs(t) - 1), pick = (list) => from.map((a) => list[a]);
  const along = (spans, sizes) => spans && turn.map((t, k) => {
    const [low, high] = spans[from[k]], n = sizes[from[k]];
    return t > 0 ? [low, high] : [n - high, n - low];
  });
  const steps = map.grid.map((_, a) => map.grid.slice(a + 1).reduce((x, y) => x * y, 1));
  const step = turn.map((t, k) => Math.sign(t) * steps[from[k]]), grid = pick(map.grid);
  const first = turn.reduce((sum, t, k) => sum + (t > 0 ? 0 : (grid[k] - 1) * steps[from[k]]), 0);
  const values = new Float32Array(map.values.length);
  let at = 0;
  for (let i = 0; i < grid[0]; i++)
    for (let j = 0; j < grid[1]; j++)
      for (let k = 0; k < grid[2]; k++) values[at++] = map.values[first + i * step[0] + j * step[1] + k * step[2]];
  return {
    ...map, values, grid, source: pick(map.source), input: pick(map.input), box: along(map.box, map.source),
    span: along(map.span, map.input), reach: along(map.reach, map.input),
  };
}

/** The voxel of the original at a point of the viewer, whose axes have these `sizes`. */
export function voxelAt(point, whole, sizes) {
  const found = [0, 0, 0];
  whole.forEach((t, k) => (found[Math.abs(t) - 1] = t > 0 ? point[k] : sizes[k] - 1 - point[k]));
  return found;
}

/** Where a voxel lies in the patient, in words: "L 12.0, A 3.5, S 40.2 mm". */
export function inMillimetres(voxel, affine) {
  const letters = [["L", "R"], ["P", "A"], ["I", "S"]];
  const along = affine.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
  return along.map((mm, k) => `${letters[k][mm >= 0 ? 1 : 0]} ${Math.abs(mm).toFixed(1)}`).join(", ") + " mm";
}

/** What lies at the left, right, top and bottom of each plane, and the plane's name. */
export const LETTERS = ["RLAP", "RLSI", "APSI"], PLANES = ["axial", "coronal", "sagittal"];

/** The grey values of a volume; `ready` is called when they can be drawn. */
export class Anatomy {
  constructor({ uri, columns, size }, ready) {
    Object.assign(this, { columns, size });
    const image = new Image();
    image.onload = () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      this.wide = image.width;
      this.grey = context.getImageData(0, 0, image.width, image.height).data;
      ready();
    };
    image.src = uri;
  }

  /** One plane as a canvas: where `share` of the axis is in front of it; null while the picture is read. */
  slice(plane, share) {
    if (!this.grey) return null;
    const rest = [0, 1, 2].filter((a) => a !== plane), [height, width] = rest.map((a) => this.size[a]);
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    const point = [0, 0, 0], [, h, w] = this.size;
    point[plane] = Math.min(this.size[plane] - 1, Math.floor(share * this.size[plane]));
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        point[rest[0]] = y;
        point[rest[1]] = x;
        const [k, j, i] = point, row = Math.floor(k / this.columns) * h + j, column = (k % this.columns) * w + i;
        const v = this.grey[4 * (row * this.wide + column)], at = 4 * (y * width + x);
        image.data.set([v, v, v, 255], at);
      }
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
