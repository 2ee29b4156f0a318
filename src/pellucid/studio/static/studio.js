// What pages of the studio do by themselves: tell how jobs stand, and offer the names of classes while one is typed.
const told = (jobs) => {
  for (const job of jobs)
    for (const place of document.querySelectorAll(`[data-job="${job.id}"]`)) {
      const over = ["done", "failed", "cancelled"].includes(job.state);
      if (over && place.dataset.state !== job.state) return location.reload();
      place.dataset.state = job.state;
      place.querySelector(".state")?.replaceChildren(job.said);
      place.querySelector(".label")?.replaceChildren(job.label);
      const bar = place.querySelector("progress");
      if (bar && job.share > 0) bar.value = job.share;
      else bar?.removeAttribute("value");
    }
};

const waits = [...document.querySelectorAll("[data-job]")].some((e) => !["done", "failed", "cancelled"].includes(e.dataset.state));
if (waits) {
  const poll = async () => {
    const answer = await fetch("/jobs.json").catch(() => null);
    if (answer?.ok) told(await answer.json());
    setTimeout(poll, 1500);
  };
  const events = window.EventSource ? new EventSource("/events") : null;
  if (!events) poll();
  else {
    events.onmessage = (event) => told(JSON.parse(event.data));
    events.onerror = () => {
      events.close();
      poll();
    };
    addEventListener("pagehide", () => events.close());
  }
}

// What a question will cost, in seconds: asked of the studio for each model, added up for what is chosen.
const words = (seconds) => (seconds >= 90 ? `${Math.round(seconds / 60)} min` : `${Number(seconds.toPrecision(2))} s`);
for (const place of document.querySelectorAll("output.cost")) {
  const form = place.closest("form"), known = {};
  const one = (name) => form.querySelector(`[name="${name}"]`);
  const seconds = (costs) => {
    const methods = [...form.querySelectorAll("[name=method]:checked")];
    const each = methods.map((box) => (costs.methods[box.value] ?? 0) + (one("check")?.checked ? costs.check : 0));
    if (methods.length) return each.reduce((a, b) => a + b) * Math.max(1, one("target").value.split(",").length);
    const several = (text) => text.split(",").reduce((n, t) => n + Math.max(1, t.split(":")[1] - t.split(":")[0] || 1), 0);
    if (one("preset")) return (costs.presets[one("preset").value || "fast"] ?? 0) * several(one("channel").value) * (Number(one("seeds").value) || 1);
    return one("features") ? passes(costs.importance) * costs.pass : 0;
  };
  const bounded = () => one("features") && !Number(one("samples").value); // it samples until its error is small
  const passes = ({ players, most, each }) => {
    const by = one("by").value, samples = one("samples").value.trim(), table = most[by];
    const drawn = one("regions").value.split("\n").filter((line) => line.trim()).length;
    const count = (one("features").value === "regions" && drawn) || Number(one("count").value) || players[one("features").value];
    if (!table) return 0;
    if (samples === "exact") return 2 ** count;
    const [alone, times] = each[by];
    if (Number(samples) && (alone || times)) return Number(samples) * (alone + times * count);
    const last = table.length - 1;
    return count <= last ? table[count] : table[last] + (count - last) * (table[last] - table[last - 1]);
  };
  const tell = async () => {
    const model = one("model").value;
    known[model] ??= await fetch(`/costs?${new URLSearchParams({ model })}`).then((answer) => answer.json()).catch(() => ({}));
    const costs = known[model];
    place.textContent = "";
    form.querySelectorAll(".seconds").forEach((e) => (e.textContent = costs.methods ? `≈ ${words(costs.methods[e.dataset.method])}` : ""));
    if (!costs.pass) { // the worker has not timed this model yet
      delete known[model];
      clearTimeout(place.later);
      place.later = setTimeout(tell, 3000);
      return;
    }
    const found = seconds(costs);
    const about = bounded() ? place.dataset.most : place.dataset.about;
    place.textContent = (found ? about : place.dataset.least).replace("{seconds}", words(found || costs.pass));
  };
  form.addEventListener("input", tell);
  tell();
}

const target = document.querySelector("input[name=target][list]"), near = document.querySelector("#near");
let typed;
target?.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(async () => {
    const last = target.value.split(/[,>]/).pop().trim(), before = target.value.slice(0, target.value.length - last.length);
    const model = document.querySelector("[name=model]").value;
    const answer = await fetch(`/labels?${new URLSearchParams({ model, q: last })}`);
    const names = last && answer.ok ? await answer.json() : [];
    near.replaceChildren(...names.map((name) => Object.assign(document.createElement("option"), { value: before + name })));
  }, 150);
});
