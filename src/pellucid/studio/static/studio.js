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

const target = document.querySelector("input[name=target]"), near = document.querySelector("#near");
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
