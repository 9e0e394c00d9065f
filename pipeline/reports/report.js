// Draws each plot when it first comes into view or the browser is idle, in the colours of the page, and again when
// those change. Before printing all that are not folded away are drawn.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const finePointer = matchMedia("(hover: hover) and (pointer: fine)");
  const narrow = matchMedia("(max-width: 760px)");

  // "@name" anywhere in a figure stands for the CSS variable --name.
  const paint = (node, styles) => {
    if (typeof node === "string" && node.startsWith("@")) return styles.getPropertyValue("--" + node.slice(1)).trim();
    if (Array.isArray(node)) return node.every((item) => typeof item === "number") ? node : node.map((item) => paint(item, styles));
    if (node === null || typeof node !== "object") return node;
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, paint(value, styles)]));
  };

  const draw = (plot) => {
    const source = plot.figure ??= JSON.parse(plot.querySelector("script").textContent);
    const { data, layout } = paint(source, getComputedStyle(document.documentElement));
    layout.dragmode = finePointer.matches ? "zoom" : false; // a finger scrolls the page
    if (narrow.matches) {
      layout.xaxis.nticks = 4;
      layout.margin.l = Math.min(layout.margin.l, 72);
      // Row titles use the whole width, from the page's edge on, and shrink where even that is too little.
      for (const title of layout.annotations ?? []) {
        title.xshift = -layout.margin.l;
        const letters = title.text.replace(/<[^>]*>/g, "").length;
        title.font.size = Math.max(9.5, Math.min(title.font.size, (plot.clientWidth - 8) / letters / 0.56));
      }
      layout.legend.font = { size: 11.5 };
      // Its entries stand below each other there; without room for all, plotly cuts them off and puts a scrollbar.
      const entries = data.filter((trace) => trace.name && trace.showlegend !== false).length;
      if (layout.legend.yref === "container") layout.height += 18 * Math.max(0, entries - 2);
    }
    const config = { displayModeBar: false, responsive: true };
    plot.target ??= plot.appendChild(document.createElement("div"));
    Plotly.react(plot.target, data, layout, config);
  };

  const drawn = new Set();
  const inView = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) drawFirst(target);
    }
  }, { rootMargin: "400px" });
  const drawFirst = (plot) => {
    if (drawn.has(plot)) return;
    drawn.add(plot);
    inView.unobserve(plot);
    draw(plot);
  };
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) inView.observe(plot); // folded ones come into view when opened

  // The rest follows while nothing else is to be done, so that a picture of the whole page has no empty places.
  const idle = window.requestIdleCallback?.bind(window) ?? ((work) => setTimeout(work, 20));
  const unfolded = (plot) => !drawn.has(plot) && plot.checkVisibility?.() !== false;
  const drawNext = () => {
    const plot = plots.find(unfolded);
    if (!plot) return;
    drawFirst(plot);
    idle(drawNext);
  };
  idle(drawNext);

  const redraw = () => drawn.forEach(draw);
  dark.addEventListener("change", redraw);
  narrow.addEventListener("change", redraw);
  addEventListener("beforeprint", () => plots.filter(unfolded).forEach(drawFirst));

  // A link to what is folded opens it, also when it is followed a second time.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const folded = target ? target.closest("details:not([open])") : null;
    if (folded) { folded.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  addEventListener("click", ({ target }) => {
    if (target.closest("a[href^='#']")?.hash === location.hash) reveal();
  });
  reveal();
})();
