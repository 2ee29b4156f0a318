// What pages can do beside the viewer: find among many, and show the way of a picture through a tree.
for (const box of document.querySelectorAll("input[data-filter]"))
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase();
    for (const part of document.querySelectorAll(box.dataset.filter)) part.hidden = !part.textContent.toLowerCase().includes(wanted);
  });

for (const button of document.querySelectorAll(".ways button"))
  button.addEventListener("click", () => {
    const home = button.closest("article") ?? document;
    home.querySelectorAll(".on").forEach((e) => e.classList.remove("on"));
    home.querySelectorAll(".ways button").forEach((b) => b.setAttribute("aria-pressed", b === button));
    for (const node of button.dataset.path.split(" "))
      for (const kind of ["edge-", "node-"]) document.getElementById(kind + node)?.classList.add("on");
  });
