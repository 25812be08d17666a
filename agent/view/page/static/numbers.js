"use strict";
/* Numbers as short text, and helpers for the DOM. */

/** A number in three digits with a minus sign (U+2212); a dash where there is none. */
function short(value) {
  if (typeof value === "string") return value;
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e6 || size < 1e-3) text = value.toExponential(1);
  else if (size >= 100) text = value.toFixed(0);
  else if (size >= 10) text = value.toFixed(1);
  else if (size >= 1) text = value.toFixed(2);
  else text = value.toFixed(3);
  if (text.includes(".") && !text.includes("e")) text = text.replace(/\.?0+$/, "");
  return text.replace("-", "−");
}

/** A count with thin spaces between thousands. */
function counted(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

/** An element with a class and text. All text of runs passes here: as text, never as markup. */
function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** `LEFT LEFT LEFT FIRE` as `LEFT×3 FIRE`. */
function runsOf(words) {
  const runs = [];
  for (const word of words) {
    const last = runs[runs.length - 1];
    if (last && last[0] === word) last[1] += 1;
    else runs.push([word, 1]);
  }
  return runs.map(([word, times]) => (times === 1 ? word : `${word}×${times}`)).join(" ");
}

/** The first place in a sorted list whose value is above `limit`. */
function above(sorted, limit) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The colours of the page; read again when the colour scheme changes. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  const named = {};
  for (const name of ["paper", "panel", "ink", "dim", "line", "grid", "accent", "accent-soft",
    "cursor", "fork", "bad", "good"]) named[name] = read(name);
  named.drives = [0, 1, 2, 3, 4, 5].map((i) => read(`c${i}`));
  named.kinds = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => read(`k${i}`));
  return named;
}
