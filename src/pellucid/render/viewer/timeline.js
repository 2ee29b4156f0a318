// When: the evidence of each cell of time as bars with their error band, under the frames; click to go there.
import { make, shape } from "./pane.js";
import { TEXTS } from "./texts.js";

const WIDE = 600, HIGH = 70;

export class Timeline {
  constructor(about, how, video, seek) {
    Object.assign(this, { about, how, seek, video: video?.tagName === "VIDEO" ? video : null });
    this.begin = about.edges[0];
    this.end = about.edges[about.edges.length - 1];
    this.plot = shape("svg", {
      viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": TEXTS.evidence,
    });
    this.plot.addEventListener("click", (event) => {
      const box = this.plot.getBoundingClientRect();
      this.seek(this.nearest(this.begin + ((event.clientX - box.left) / box.width) * (this.end - this.begin)));
    });
    this.button = make("button", "", { type: "button" }, TEXTS.play);
    this.button.addEventListener("click", () => this.toggle());
    this.said = make("span", "pv-at");
    this.root = make("div", "pv-time", {}, this.plot, make("p", "facts", {}, TEXTS.evidence), make("div", "", {}, this.button, this.said));
    if (this.video) {
      this.video.muted = true;
      this.video.addEventListener("ended", () => this.sync());
      this.video.addEventListener("seeked", () => this.seek(this.how.index));
    }
    this.sync();
  }

  nearest(time) {
    const away = this.about.ticks.map((t) => Math.abs(t - time));
    return away.indexOf(Math.min(...away));
  }

  bars() {
    const curve = this.about.curves[this.how.a], { edges } = this.about.curves[this.how.a];
    const errors = curve.error ?? curve.values.map(() => 0);
    const low = Math.min(0, ...curve.values.map((v, i) => v - errors[i])), high = Math.max(0, ...curve.values.map((v, i) => v + errors[i]));
    const span = high - low || 1, y = (v) => HIGH * (1 - (v - low) / span), x = (t) => ((t - this.begin) / (this.end - this.begin || 1)) * WIDE;
    const node = (css, x0, y0, width, height) =>
      shape("rect", { class: css, x: x0, y: y0, width: Math.max(0.5, width), height: Math.max(0.5, height) });
    const found = [];
    curve.values.forEach((v, i) => {
      const [left, right] = [x(edges[i]), x(edges[i + 1])];
      if (right <= left) return;
      const bar = node(v > 0 ? "pv-for" : "pv-against", left + 1, Math.min(y(v), y(0)), right - left - 2, Math.abs(y(v) - y(0)));
      bar.dataset.value = v;
      found.push(bar);
      if (curve.error) found.push(node("pv-band", left + 1, y(v + errors[i]), right - left - 2, y(v - errors[i]) - y(v + errors[i])));
    });
    found.push(node("pv-zero", 0, y(0), WIDE, 0.5), node("pv-now", Math.min(WIDE - 2, x(this.about.ticks[this.how.index])), 0, 2, HIGH));
    this.plot.replaceChildren(...found);
  }

  sync() {
    const time = this.about.ticks[this.how.index];
    this.bars();
    this.said.textContent = `${TEXTS.frame} ${this.how.index + 1} / ${this.about.ticks.length}, ${Number(time.toFixed(3))} ${this.about.unit}`;
    this.button.textContent = this.playing ? TEXTS.pause : TEXTS.play;
    if (this.video && !this.playing) {
      const at = this.about.moments[this.how.index];
      if (Math.abs(this.video.currentTime - at) > 1e-3) this.video.currentTime = at;
    }
  }

  /** Play from the shown frame on, or stop. Without a video the frames follow each other at their own times. */
  toggle() {
    this.playing = !this.playing;
    if (this.video) this.playing ? this.video.play() : this.video.pause();
    this.button.textContent = this.playing ? TEXTS.pause : TEXTS.play;
    const step = () => {
      if (!this.playing) return;
      if (this.video) {
        const now = this.video.currentTime, { moments } = this.about;
        let index = 0;
        while (index + 1 < moments.length && moments[index + 1] <= now + 0.002) index++;
        if (index !== this.how.index) this.seek(index);
        if (this.video.ended) return this.toggle();
        requestAnimationFrame(step);
      } else {
        if (this.how.index + 1 >= this.about.ticks.length) return this.toggle();
        this.seek(this.how.index + 1);
        setTimeout(step, 120);
      }
    };
    if (this.playing && this.how.index + 1 >= this.about.ticks.length) this.seek(0);
    step();
  }
}
