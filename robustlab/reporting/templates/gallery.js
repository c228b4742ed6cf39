"use strict";
(() => {
  const form = document.querySelector("form.filters");
  if (!form) return;
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  const cards = [...document.querySelectorAll("article")];
  const sections = [...document.querySelectorAll("section.image")];
  const selects = [...form.querySelectorAll("select")];
  const count = form.querySelector("output");
  const nothing = document.querySelector(".nothing");

  // A picture is decoded when its card comes near the window, not all at once.
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) fill(target);
    },
    { rootMargin: "800px" },
  );

  function fill(card) {
    seen.unobserve(card);
    for (const image of card.querySelectorAll("img[data-picture]")) {
      image.src = pictures[image.dataset.picture];
    }
  }

  function filter() {
    let shown = 0;
    for (const card of cards) {
      card.hidden = !selects.every((s) => !s.value || card.dataset[s.name] === s.value);
      shown += card.hidden ? 0 : 1;
    }
    for (const section of sections) {
      section.hidden = !section.querySelector("article:not([hidden])");
    }
    nothing.hidden = shown > 0;
    document.body.classList.toggle("alone", form.elements.alone.checked);
    count.textContent = `${shown} of ${cards.length} cards`;
  }

  function remember() {
    const state = new URLSearchParams();
    for (const s of selects) if (s.value) state.set(s.name, s.value);
    if (form.elements.alone.checked) state.set("alone", "1");
    history.replaceState(null, "", `#${state}`);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const s of selects) {
      const wanted = state.get(s.name) ?? "";
      s.value = [...s.options].some((o) => o.value === wanted) ? wanted : "";
    }
    form.elements.alone.checked = state.has("alone");
    filter();
  }

  const dialog = document.querySelector("dialog");
  const stage = dialog.querySelector(".frame");
  const words = dialog.querySelector("p");
  let views = [];
  let place = 0;

  function show(step) {
    place = (place + step + views.length) % views.length;
    const view = views[place];
    const frame = view.querySelector(".frame");
    fill(view.closest("article"));
    stage.className = frame.className;
    stage.classList.toggle("crisp", !!view.closest(".crisp"));
    stage.replaceChildren(...[...frame.children].map((image) => image.cloneNode()));
    const caption = view.querySelector(".caption").textContent;
    words.textContent = `${caption} · ${view.dataset.title} · ${place + 1} of ${views.length}`;
  }

  function open(view) {
    views = [...view.closest(".views").querySelectorAll("button")];
    place = views.indexOf(view);
    show(0);
    dialog.showModal();
  }

  document.querySelector("main").addEventListener("click", (event) => {
    const view = event.target.closest(".views button");
    if (view) open(view);
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && button.dataset.step) show(Number(button.dataset.step));
    else if (!event.target.closest(".below")) dialog.close();
    else if (button) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(-1);
    if (event.key === "ArrowRight") show(1);
  });
  dialog.addEventListener("close", () => views[place].focus());

  form.addEventListener("change", () => {
    filter();
    remember();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", recall);
  addEventListener("beforeprint", () => cards.forEach(fill));
  form.hidden = false;
  recall();
  for (const card of cards) seen.observe(card);
})();
