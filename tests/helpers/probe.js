// What a reader of the page would stumble over, as lists of sentences; empty ones are well.
(() => {
  const found = { wide: [], faint: [], small: [], cut: [], crossed: [], broken: [], unnamed: [], links: [], outside: [] };
  const name = (e) => `${e.tagName.toLowerCase()}.${e.getAttribute("class") || ""} "${(e.textContent || "").trim().slice(0, 40)}"`;
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) found.wide.push(`page: ${root.scrollWidth} on ${root.clientWidth}`);
  const shown = (e) => e.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true });

  for (const e of document.body.querySelectorAll("*")) {
    if (!shown(e) || e.closest("svg") !== null && e.tagName !== "svg") continue;
    const box = e.getBoundingClientRect();
    const scrolls = e.closest(".scroll");
    if (box.width > 1 && box.right > root.clientWidth + 0.5 && !(scrolls && scrolls !== e)) found.wide.push(name(e));
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible" && box.width > 1 && !e.matches("[tabindex]"))
      found.wide.push(`scrolls without the keyboard: ${name(e)}`);
  }

  // Contrast of text against what lies behind it, as WCAG 2.2 counts (AA).
  const pixel = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const numbers = (color) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = color;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const rgba = numbers(getComputedStyle(at).backgroundColor);
      if (rgba[3] > 0.99) return rgba;
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !shown(e) || e.closest("style, title, .unseen, .skip")) continue;
    const style = getComputedStyle(e);
    const range = document.createRange();
    range.selectNodeContents(walk.currentNode);
    const box = range.getBoundingClientRect();
    if (box.width < 1) continue;
    // A word on four lines stands in a column that is far too narrow for it.
    const words = walk.currentNode.data.trim().split(/[\s_\-/.]+/).length;
    if (!e.closest("svg") && range.getClientRects().length > 3 * words) found.broken.push(name(e));
    const inside = e.closest("svg");
    const size = inside && inside.viewBox.baseVal.width
      ? parseFloat(style.fontSize) * inside.getBoundingClientRect().width / inside.viewBox.baseVal.width
      : parseFloat(style.fontSize);
    if (size < 9) found.small.push(`${size.toFixed(1)} px: ${name(e)}`);
    const ink = numbers(inside ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(inside ? inside.parentElement : e))].sort((x, y) => y - x);
    const least = size >= 24 || size >= 18.6 && parseInt(style.fontWeight) >= 700 ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least) found.faint.push(`${((a + 0.05) / (b + 0.05)).toFixed(2)}: ${name(e)}`);
  }

  for (const chart of document.querySelectorAll("svg[role=img]")) {
    if (!shown(chart)) continue;
    if (!chart.getAttribute("aria-label")) found.unnamed.push(name(chart));
    const frame = chart.getBoundingClientRect();
    const boxes = [...chart.querySelectorAll("text")].filter((t) => t.textContent.trim()).map((t) => [t, t.getBoundingClientRect()]);
    for (const [text, box] of boxes)
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.cut.push(`${chart.getAttribute("aria-label")}: ${text.textContent}`);
    boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([two, b]) => {
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
        found.crossed.push(`${chart.getAttribute("aria-label")}: ${one.textContent} / ${two.textContent}`);
    }));
  }
  for (const picture of document.images) if (!picture.alt) found.unnamed.push(name(picture));
  for (const link of document.querySelectorAll("a[href^='#']"))
    if (!document.getElementById(link.hash.slice(1))) found.links.push(link.hash);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  ids.forEach((id, i) => { if (ids.indexOf(id) !== i) found.links.push(`twice: ${id}`); });
  for (const e of performance.getEntriesByType("resource")) if (!e.name.startsWith("data:")) found.outside.push(e.name);
  return found;
})()
