// The bar of controls: what each changes is written into `how`, and told by its name.
import { make } from "./pane.js";
import { TABLES } from "./tables.js";
import { TEXTS } from "./texts.js";
import { PLANES } from "./volume.js";

let count = 0;

/** The controls that make sense for these maps. `bar.sync()` shows what was changed elsewhere. */
export function controls(how, maps, about, changed) {
  const bar = make("div", "pv-controls", { role: "toolbar", "aria-label": TEXTS.controls });
  const inputs = {}, id = `pv${++count}`;
  const several = maps.length > 1, three = about.size.length === 3;

  const add = (name, input, read) => {
    input.id = `${id}-${name}`;
    input.dataset.control = name;
    input.addEventListener(input.tagName === "SELECT" || input.type === "checkbox" ? "change" : "input", () => {
      how[name] = read(input);
      when();
      changed(name);
    });
    inputs[name] = input;
    bar.append(make("span", "pv-control", {}, make("label", "", { for: input.id }, TEXTS[name] ?? name), input));
  };
  const choice = (name, options, read = (i) => i.value) => {
    const select = make("select", "", {}, ...options.map(([value, text]) => make("option", "", { value }, text)));
    select.value = how[name];
    add(name, select, read);
  };
  const range = (name, min, max, step) => {
    const input = make("input", "", { type: "range", min, max, step });
    input.value = how[name];
    add(name, input, (i) => Number(i.value));
  };
  const box = (name) => {
    const input = make("input", "", { type: "checkbox" });
    input.checked = how[name];
    add(name, input, (i) => i.checked);
  };
  const titles = maps.map((m, i) => [i, m.target ? `${m.name}, ${m.target}` : m.name]);
  const words = (...names) => names.map((n) => [n, TEXTS[n]]);

  if (several) {
    choice("a", titles, (i) => Number(i.value));
    choice("mode", words("grid", "single", "side", "swipe", "blink", "difference"));
    choice("b", titles, (i) => Number(i.value));
    range("boundary", 0, 100, 1);
    choice("scale", words("own", "shared"));
  }
  choice("colours", [["auto", TEXTS.usual], ...Object.keys(TABLES).map((n) => [n, n])]);
  range("opacity", 0, 1, 0.01);
  range("threshold", 0, 1, 0.01);
  if (how.signed) choice("sign", words("both", "for", "against"));
  if (maps.some((m) => m.fine)) box("smooth");
  const layers = [...new Set((about.shapes ?? []).map((s) => s.layer))];
  layers.forEach(box);
  range("zoom", 1, 8, 0.05);
  if (three && !about.unit.match(/^(s|frame)$/)) choice("plane", [0, 1, 2].map((k) => [k, about.volume ? TEXTS[PLANES[k]] : "zyx"[k]]), (i) => Number(i.value));
  if (three) range("index", 0, about.size[0] - 1, 1);

  const relabel = (name, text) => inputs[name]?.previousSibling.replaceChildren(text);
  relabel("a", TEXTS.map);
  relabel("b", TEXTS.other);
  relabel("index", /^(s|frame)$/.test(about.unit) ? TEXTS.frame : TEXTS.slice);

  function when() {
    const show = (name, visible) => inputs[name] && (inputs[name].parentElement.hidden = !visible);
    show("a", how.mode !== "grid");
    show("b", how.mode !== "single" && how.mode !== "grid");
    show("boundary", how.mode === "swipe");
    if (inputs.index) inputs.index.max = about.size[how.plane] - 1;
    how.index = Math.min(how.index, about.size[how.plane] - 1);
  }
  bar.sync = () => {
    when();
    for (const name of ["zoom", "index"]) if (inputs[name]) inputs[name].value = how[name];
    for (const name of layers) inputs[name].checked = how[name];
  };
  when();
  return bar;
}
