// Keeps a page live, and gives it a keyboard. Pages work without any of this.
(() => {
  "use strict";
  const EVERY_MS = 4000;
  const $ = (id) => document.getElementById(id);

  // Ages of last frames, counted here so that a page needs no request to grow older.
  const ago = (seconds) => seconds < 0 ? "now" : seconds < 90 ? `${Math.round(seconds)} s ago`
    : seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : seconds < 129600 ? `${Math.round(seconds / 3600)} h ago`
    : `${Math.round(seconds / 86400)} d ago`;
  const showAges = () => {
    for (const time of document.querySelectorAll("time.age")) time.textContent = ago((Date.now() - Date.parse(time.dateTime)) / 1000);
  };

  // Finding a camera among many.
  const find = $("find");
  const filter = () => {
    if (!find) return;
    const words = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of document.querySelectorAll("[data-find]")) {
      row.hidden = !row.dataset.find.includes(words);
      shown += !row.hidden;
    }
    $("nothing").hidden = shown > 0;
  };
  find?.addEventListener("input", filter);
  $("clear")?.addEventListener("click", () => { find.value = ""; filter(); find.focus(); });

  // New content takes the place of the old, part by part; focus and what was typed stay.
  const swap = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement?.dataset?.key;
    for (const part of document.querySelectorAll("[data-swap], #state")) {
      const now = fresh.getElementById(part.id);
      if (now && now.innerHTML !== part.pristine) {
        part.innerHTML = now.innerHTML;
        part.pristine = now.innerHTML;
      }
    }
    filter();
    showAges();
    wireKeys();
    if (focused && document.activeElement?.dataset?.key !== focused)
      document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  };
  for (const part of document.querySelectorAll("[data-swap], #state")) part.pristine = part.innerHTML;

  let mark = null, answered = Date.now();
  const update = async () => {
    if (document.hidden) return;
    try {
      const headers = mark ? { "If-None-Match": mark } : {};
      const answer = await fetch(location.href, { headers, cache: "no-store", redirect: "manual" });
      if (answer.type === "opaqueredirect") { location.reload(); return; } // the session has ended: sign in again
      if (answer.status === 200) {
        mark = answer.headers.get("ETag");
        swap(await answer.text());
      } else if (answer.status !== 304) throw new Error(`status ${answer.status}`);
      answered = Date.now();
      $("lost").hidden = true;
    } catch {
      $("lost-since").textContent = ago((Date.now() - answered) / 1000);
      $("lost").hidden = false;
    }
  };
  if (document.body.hasAttribute("data-live")) {
    setInterval(update, EVERY_MS);
    document.addEventListener("visibilitychange", update);
  }
  showAges();
  setInterval(showAges, 1000);

  // Keyboard.
  const help = $("help");
  const wireKeys = () => $("keys")?.addEventListener("click", () => help.showModal());
  wireKeys();
  const move = (step) => {
    const links = [...document.querySelectorAll("a[data-key]")].filter((link) => !link.closest("[hidden]"));
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
    links[next].focus();
    links[next].scrollIntoView({ block: "nearest" });
  };
  const escape = () => {
    if (find && (find.value || document.activeElement === find)) { find.value = ""; filter(); find.blur(); }
    else $("up")?.click();
  };
  const keys = { j: () => move(1), k: () => move(-1), "/": () => find?.focus(), "?": () => help.showModal(),
    "[": () => $("before")?.click(), "]": () => $("after")?.click() };
  let going = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.key === "Escape") { escape(); return; }
    if (event.target.matches("input, textarea, select")) return;
    if (event.timeStamp - going < 1500) {
      going = 0;
      const target = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (target) { event.preventDefault(); target.click(); return; }
    }
    if (event.key === "g") { going = event.timeStamp; return; }
    if (Object.hasOwn(keys, event.key)) { event.preventDefault(); keys[event.key](); }
  });
})();
