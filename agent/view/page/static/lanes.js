"use strict";
/* The lanes of one run. They are drawn once; a move of the cursor redraws an overlay. */

const OVERVIEW = 34;
const GAP = 7;
const AXIS = 20;

/** The lanes of a run, from top to bottom. */
function lanesOf(run) {
  const { drives, heads } = run.about;
  const many = (prefix, names) => names.map((name, i) => ({ series: `${prefix}.${i}`, name, colour: i }));
  const one = (series) => [{ series, name: "", colour: null }];
  return [
    { key: "mode", label: "mode", height: 18, draw: "bands" },
    { key: "reason", label: "reason", height: 22, draw: "reasons" },
    { key: "horizon", label: "horizon", height: 30, draw: "steps", lines: one("horizon"), zero: true },
    { key: "weights", label: "weights u", height: 40, draw: "steps", lines: many("u", drives), zero: true },
    { key: "energy", label: "energy", height: 54, draw: "steps", lines: many("energy", drives), zero: true },
    { key: "critic", label: "critic", height: 54, draw: "line", lines: many("critic", heads), zero: true },
    { key: "surprise", label: "surprise", height: 54, draw: "line", lines: one("surprise"), zero: true, fill: true, marks: "surprise" },
    { key: "return", label: "return", height: 60, draw: "steps", lines: one("return"), zero: true, marks: "events" },
    { key: "novelty", label: "novelty", height: 36, draw: "line", lines: one("novelty"), zero: true, fill: true },
    { key: "calls", label: "model calls", height: 34, draw: "bars", lines: one("calls"), zero: true },
  ];
}

class Lanes {
  constructor(place, run, page) {
    this.run = run;
    this.page = page;
    this.lanes = lanesOf(run);
    this.fork = null;
    let y = OVERVIEW + 12;
    for (const lane of this.lanes) {
      lane.top = y;
      y += lane.height + GAP;
    }
    this.height = y + AXIS;
    this.build(place);
  }

  build(place) {
    const root = make("div", "lanes");
    const names = make("div", "names");
    const values = make("div", "values");
    this.plot = make("div", "plot");
    this.plot.style.height = `${this.height}px`;
    this.base = make("canvas", "base");
    this.over = make("canvas", "over");
    this.base.setAttribute("aria-hidden", "true");
    this.over.setAttribute("aria-hidden", "true");
    this.plot.append(this.base, this.over);
    this.plot.tabIndex = 0;
    this.plot.setAttribute("role", "slider");
    this.plot.setAttribute("aria-label", `Cursor in run ${this.run.about.name}`);
    const row = (parent, top, height, text) => {
      const cell = make("div", "", text);
      cell.style.top = `${top}px`;
      cell.style.height = `${height}px`;
      parent.append(cell);
      return cell;
    };
    row(names, 0, OVERVIEW, "whole run");
    for (const lane of this.lanes) {
      row(names, lane.top, lane.height, lane.label);
      lane.cell = row(values, lane.top - 2, lane.height + 4, "");
      this.cellOf(lane);
    }
    this.place = row(values, 0, OVERVIEW, "");
    root.append(names, this.plot, values);
    place.append(root);
    this.plot.addEventListener("pointerdown", (event) => this.press(event));
    this.plot.addEventListener("pointermove", (event) => this.drag(event));
    this.plot.addEventListener("pointerup", () => { this.dragging = null; });
    this.plot.addEventListener("pointercancel", () => { this.dragging = null; });
    this.plot.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
      event.preventDefault();
      if (event.ctrlKey) this.page.zoom(event.deltaY > 0 ? 1.25 : 0.8, this.stepAt(event, false));
      else this.page.pan(event.deltaX / this.width);
    }, { passive: false });
  }

  /** The elements for the values of a lane at the cursor. */
  cellOf(lane) {
    lane.shown = [];
    if (!lane.lines) {
      lane.text = make("span", "text");
      lane.cell.append(lane.text);
      return;
    }
    for (const line of lane.lines) {
      const holder = make("span");
      if (line.name) holder.append(make("span", "name", line.name));
      const number = make("span");
      const forked = make("span", "forked");
      holder.append(number, forked);
      lane.cell.append(holder);
      lane.shown.push({ line, number, forked });
    }
  }

  // -- pointing ---------------------------------------------------------------------------

  stepAt(event, whole) {
    const box = this.plot.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const { from, to } = whole ? this.page.span() : this.page.view;
    return Math.floor(from + share * (to - from));
  }

  press(event) {
    if (event.button) return;
    this.plot.setPointerCapture(event.pointerId);
    this.dragging = event.offsetY < OVERVIEW + 4 ? "whole" : "view";
    this.page.select(this.run);
    this.drag(event);
  }

  drag(event) {
    if (this.dragging) this.page.go(this.stepAt(event, this.dragging === "whole"), this.dragging === "whole");
  }

  // -- lanes ------------------------------------------------------------------------------

  sized(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.width * ratio);
    const height = Math.round(this.height * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    return pen;
  }

  draw(view, paint) {
    this.width = this.plot.clientWidth || 600;
    this.paint = paint;
    this.view = view;
    this.scale = this.width / (view.to - view.from);
    const pen = this.sized(this.base);
    this.drawOverview(pen);
    this.drawGrid(pen);
    for (const lane of this.lanes) {
      this.drawLane(pen, lane, this.run, false);
      if (this.fork) this.drawLane(pen, lane, this.fork, true);
    }
  }

  x(step) {
    return (step - this.view.from) * this.scale;
  }

  drawOverview(pen) {
    const { run, paint } = this;
    const span = this.page.span();
    const before = [this.view, this.scale];
    this.view = span;
    this.scale = this.width / (span.to - span.from);
    pen.fillStyle = paint.grid;
    pen.fillRect(0, 0, this.width, OVERVIEW);
    this.bands(pen, run, 0, 7, false);
    const lane = { top: 10, height: OVERVIEW - 12 };
    this.path(pen, run, "return", lane, this.range(["return"], true), paint.dim, false, true);
    [this.view, this.scale] = before;
    const scale = this.width / (span.to - span.from);
    const left = (this.view.from - span.from) * scale;
    const right = (this.view.to - span.from) * scale;
    if (right - left < this.width - 1) {
      pen.strokeStyle = paint.dim;
      pen.lineWidth = 1;
      pen.strokeRect(left + 0.5, 0.5, Math.max(right - left - 1, 3), OVERVIEW - 1);
    }
  }

  /** Thin lines where episodes begin, and the steps along the bottom. */
  drawGrid(pen) {
    const { run, paint, view } = this;
    const top = OVERVIEW + 12;
    const bottom = this.height - AXIS;
    for (const lane of this.lanes) {
      pen.fillStyle = paint.grid;
      pen.fillRect(0, lane.top + lane.height, this.width, 1);
    }
    const begins = run.events.episode || [];
    const a = above(begins, view.from - 1);
    const b = above(begins, view.to);
    if (b - a < this.width / 12) {
      pen.fillStyle = paint.line;
      for (let i = a; i < b; i += 1) {
        if (begins[i] > run.first) pen.fillRect(Math.round(this.x(begins[i])), top, 1, bottom - top);
      }
    }
    if (this.fork) {
      pen.fillStyle = paint.fork;
      pen.globalAlpha = 0.08;
      pen.fillRect(this.x(this.fork.first), top, this.fork.length * this.scale, bottom - top);
      pen.globalAlpha = 1;
    }
    pen.fillStyle = paint.dim;
    pen.font = "10.5px system-ui, sans-serif";
    pen.textBaseline = "alphabetic";
    const least = (view.to - view.from) / Math.max(this.width / 90, 1);
    const size = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
    const every = [1, 2, 5, 10].map((n) => n * size).find((n) => n >= least) || size;
    for (let step = Math.ceil(view.from / every) * every; step < view.to; step += every) {
      const x = this.x(step + 0.5);
      const text = counted(step);
      const width = pen.measureText(text).width;
      pen.fillRect(Math.round(x), bottom, 1, 4);
      pen.fillText(text, Math.min(Math.max(x - width / 2, 0), this.width - width), bottom + 15);
    }
  }

  /** Least and greatest of some series over the whole run, fork included. */
  range(names, zero) {
    let least = zero ? 0 : Infinity;
    let most = zero ? 0 : -Infinity;
    for (const run of [this.run, this.fork]) {
      if (!run) continue;
      for (const name of names) {
        const values = run.series[name];
        for (let i = 0; i < run.length; i += 1) {
          if (values[i] < least) least = values[i];
          if (values[i] > most) most = values[i];
        }
      }
    }
    if (!(most > least)) return { least: Math.min(least, 0) - 0.5, most: Math.max(most, 0) + 0.5, flat: true };
    return { least, most };
  }

  /** The range of a lane, computed again when the run grows or is forked. */
  rangeOf(lane) {
    const mark = `${this.run.length} ${this.fork ? this.fork.number : ""}`;
    if (lane.mark !== mark) {
      lane.mark = mark;
      lane.range = this.range(lane.lines.map((line) => line.series), lane.zero);
    }
    return lane.range;
  }

  drawLane(pen, lane, run, forked) {
    const { paint } = this;
    if (lane.draw === "bands") {
      const half = this.fork && !forked ? 1 : this.fork ? 0.45 : 1;
      const top = forked ? lane.top + lane.height * 0.55 : lane.top;
      if (forked) {
        pen.fillStyle = paint.panel;
        pen.fillRect(this.x(run.first), top - 1, run.length * this.scale, lane.height * half + 1);
      }
      this.bands(pen, run, top, lane.height * half, forked);
      return;
    }
    if (lane.draw === "reasons") {
      if (!forked) this.reasons(pen, lane);
      return;
    }
    const range = this.rangeOf(lane);
    for (const { series, colour } of lane.lines) {
      const plain = lane.key === "surprise" || lane.key === "return" ? paint.ink : paint.dim;
      const own = colour === null ? plain : paint.drives[colour % paint.drives.length];
      const shade = forked && colour === null ? paint.fork : own;
      if (lane.draw === "bars") this.bars(pen, run, series, lane, range, forked ? paint.fork : paint.accent, forked);
      else this.path(pen, run, series, lane, range, shade, forked, lane.draw === "steps", lane.fill);
    }
    if (!forked) {
      this.scaleOf(pen, lane, range);
      this.marks(pen, lane);
    }
  }

  scaleOf(pen, lane, range) {
    if (range.flat) return;
    pen.font = "9.5px system-ui, sans-serif";
    pen.textBaseline = "top";
    const write = (text, y) => {
      const width = pen.measureText(text).width;
      pen.globalAlpha = 0.75;
      pen.fillStyle = this.paint.panel;
      pen.fillRect(0, y, width + 4, 10);
      pen.globalAlpha = 1;
      pen.fillStyle = this.paint.dim;
      pen.fillText(text, 1, y);
    };
    write(short(range.most), lane.top);
    if (lane.height > 32) write(short(range.least), lane.top + lane.height - 10);
  }

  /** Least, greatest and mean of a series within each pixel; `visit(x, least, most, mean)`. */
  columns(run, values, visit) {
    const ratio = window.devicePixelRatio || 1;
    const pixels = Math.round(this.width * ratio);
    const wide = (this.view.to - this.view.from) / pixels;
    for (let p = 0; p < pixels; p += 1) {
      const a = Math.max(Math.floor(this.view.from + p * wide - run.first), 0);
      const b = Math.min(Math.floor(this.view.from + (p + 1) * wide - run.first), run.length);
      let least = Infinity;
      let most = -Infinity;
      let sum = 0;
      for (let i = a; i < b; i += 1) {
        const value = values[i];
        if (value < least) least = value;
        if (value > most) most = value;
        sum += value;
      }
      if (most >= least) visit(p / ratio, least, most, sum / (b - a));
      else if (b > a) visit(p / ratio, NaN, NaN, NaN);
    }
  }

  /** A series as a line, or as steps where one step is wide; NaN leaves a gap.
   *
   * Where many steps share a pixel: all between least and greatest shaded, the mean as a line.
   */
  path(pen, run, name, lane, range, colour, dashed, stepped, fill) {
    const values = run.series[name];
    const high = lane.height - 3;
    const y = (value) => lane.top + 1.5 + high * (1 - (value - range.least) / (range.most - range.least));
    const points = [];
    if (this.scale < 0.7) {
      const ratio = window.devicePixelRatio || 1;
      pen.fillStyle = colour;
      pen.globalAlpha = 0.3;
      this.columns(run, values, (x, least, most, mean) => {
        if (most > least) pen.fillRect(x, y(most), 1 / ratio, y(least) - y(most));
        points.push(x, mean);
      });
      pen.globalAlpha = 1;
    } else {
      const a = Math.max(Math.floor(this.view.from) - run.first - 1, 0);
      const b = Math.min(Math.ceil(this.view.to) - run.first + 1, run.length);
      for (let i = a; i < b; i += 1) {
        const left = this.x(run.first + i);
        if (stepped) points.push(left, values[i], left + this.scale, values[i]);
        else points.push(left + this.scale / 2, values[i]);
      }
    }
    if (!points.length) return;
    pen.strokeStyle = colour;
    pen.lineWidth = dashed ? 1.6 : 1.1;
    pen.setLineDash(dashed ? [4, 2.5] : []);
    pen.beginPath();
    let drawing = false;
    for (let p = 0; p < points.length; p += 2) {
      if (Number.isNaN(points[p + 1])) drawing = false;
      else if (drawing) pen.lineTo(points[p], y(points[p + 1]));
      else {
        pen.moveTo(points[p], y(points[p + 1]));
        drawing = true;
      }
    }
    pen.stroke();
    pen.setLineDash([]);
    if (fill && !dashed && this.scale >= 0.7) {
      pen.lineTo(points[points.length - 2], y(Math.max(range.least, 0)));
      pen.lineTo(points[0], y(Math.max(range.least, 0)));
      pen.globalAlpha = 0.1;
      pen.fillStyle = colour;
      pen.fill();
      pen.globalAlpha = 1;
    }
  }

  bars(pen, run, name, lane, range, colour, forked) {
    const values = run.series[name];
    const high = (value) => (lane.height * value) / range.most;
    pen.fillStyle = colour;
    pen.globalAlpha = forked ? 0.55 : 0.75;
    if (this.scale < 1) {
      const ratio = window.devicePixelRatio || 1;
      this.columns(run, values, (x, least, most) => {
        if (most > 0) pen.fillRect(x, lane.top + lane.height - high(most), 1 / ratio, high(most));
      });
    } else {
      const a = Math.max(Math.floor(this.view.from) - run.first, 0);
      const b = Math.min(Math.ceil(this.view.to) - run.first, run.length);
      const width = Math.max(this.scale * 0.8, 1) * (forked ? 0.5 : 1);
      for (let i = a; i < b; i += 1) {
        if (values[i] > 0) {
          pen.fillRect(this.x(run.first + i) + this.scale * 0.1, lane.top + lane.height - high(values[i]), width, high(values[i]));
        }
      }
    }
    pen.globalAlpha = 1;
  }

  /** Mode-2 filled; where many steps share a pixel, by the share of Mode-2. */
  bands(pen, run, top, height, forked) {
    const mode = run.series.mode;
    const { paint } = this;
    const ratio = window.devicePixelRatio || 1;
    const pixels = Math.round(this.width * ratio);
    const wide = (this.view.to - this.view.from) / pixels;
    let current = -1;
    let since = 0;
    const flush = (p) => {
      if (current < 0 || p <= since) return;
      const x = since / ratio;
      const width = (p - since) / ratio;
      pen.fillStyle = paint.line;
      pen.globalAlpha = 1;
      pen.fillRect(x, top, width, height);
      if (current > 0) {
        pen.fillStyle = forked ? paint.fork : paint.accent;
        pen.globalAlpha = 0.15 + 0.85 * current;
        pen.fillRect(x, top, width, height);
        pen.globalAlpha = 1;
      }
    };
    for (let p = 0; p < pixels; p += 1) {
      const a = Math.max(Math.floor(this.view.from + p * wide - run.first), 0);
      const b = Math.min(Math.max(Math.floor(this.view.from + (p + 1) * wide - run.first), a + 1), run.length);
      let planned = 0;
      let seen = 0;
      const reached = this.view.from + p * wide >= run.first;
      for (let i = a; reached && i < b; i += 1) {
        if (mode[i] > 0) {
          seen += 1;
          if (mode[i] === 2) planned += 1;
        }
      }
      const share = seen ? Math.round((8 * planned) / seen) / 8 : -1;
      if (share !== current) {
        flush(p);
        current = share;
        since = p;
      }
    }
    flush(pixels);
  }

  /** The kinds of reasons as bands, with their text where there is room. */
  reasons(pen, lane) {
    const { run, paint } = this;
    const kind = run.series.kind;
    const ratio = window.devicePixelRatio || 1;
    const pixels = Math.round(this.width * ratio);
    const wide = (this.view.to - this.view.from) / pixels;
    pen.font = "10.5px system-ui, sans-serif";
    pen.textBaseline = "middle";
    let current = -1;
    let since = 0;
    const flush = (p) => {
      if (current < 0) return;
      const x = since / ratio;
      const width = (p - since) / ratio;
      pen.globalAlpha = run.kinds[current].startsWith("acts") ? 0.35 : 0.8;
      pen.fillStyle = paint.kinds[this.rank(current) % paint.kinds.length];
      pen.fillRect(x, lane.top, Math.max(width - (width > 3 ? 1 : 0), 0.5), lane.height);
      pen.globalAlpha = 1;
      if (width > 46) {
        const words = run.kinds[current].replace(/^(thinks|acts): /, "").replace(/#/g, "…");
        pen.save();
        pen.beginPath();
        pen.rect(x + 4, lane.top, width - 9, lane.height);
        pen.clip();
        pen.fillStyle = paint.ink;
        pen.fillText(words, x + 5, lane.top + lane.height / 2 + 0.5);
        pen.restore();
      }
    };
    for (let p = 0; p < pixels; p += 1) {
      const i = Math.floor(this.view.from + (p + 0.5) * wide - run.first);
      const here = i >= 0 && i < run.length ? kind[i] : -1;
      if (here !== current) {
        flush(p);
        current = here;
        since = p;
      }
    }
    flush(pixels);
  }

  /** The colour index of a kind of reason, by frequency; reasons of Mode-1 share a pale one. */
  rank(kind) {
    const { run } = this;
    if (this.ranked !== run.length) {
      this.ranked = run.length;
      const counts = run.kinds.map(() => 0);
      for (let i = 0; i < run.length; i += 1) counts[run.series.kind[i]] += 1;
      const order = run.kinds.map((_, i) => i).filter((i) => !run.kinds[i].startsWith("acts"));
      order.sort((a, b) => counts[b] - counts[a]);
      this.ranks = run.kinds.map((_, i) => {
        const place = order.indexOf(i);
        return place < 0 ? 1 : place === 0 ? 0 : 1 + ((place - 1) % 6) + 1;
      });
    }
    return this.ranks[kind];
  }

  /** Surprise peaks; rewards, and lives lost. */
  marks(pen, lane) {
    const { run, paint, view } = this;
    let crowded = false;
    const each = (kind, visit) => {
      const steps = run.events[kind] || [];
      crowded = above(steps, view.to) - above(steps, view.from) > this.width / 9;
      let before = -10;
      for (let i = above(steps, view.from - 1); i < steps.length && steps[i] < view.to; i += 1) {
        const x = this.x(steps[i] + 0.5);
        if (x - before < 3) continue;
        before = x;
        visit(x, steps[i]);
      }
    };
    if (lane.marks === "surprise") {
      pen.fillStyle = paint.drives[2];
      each("surprise", (x) => {
        if (crowded) {
          pen.fillRect(x, lane.top - 4, 1, 4);
          return;
        }
        pen.beginPath();
        pen.moveTo(x - 3, lane.top - 4);
        pen.lineTo(x + 3, lane.top - 4);
        pen.lineTo(x, lane.top + 1);
        pen.fill();
      });
    } else if (lane.marks === "events") {
      each("reward", (x, step) => {
        const good = run.value("score", step) > 0;
        pen.fillStyle = good ? paint.good : paint.bad;
        pen.fillRect(x - 1, lane.top + lane.height - 5, 2, 5);
      });
      pen.strokeStyle = paint.bad;
      pen.lineWidth = 1.4;
      each("life", (x) => {
        const y = lane.top + 3;
        if (crowded) {
          pen.fillStyle = paint.bad;
          pen.fillRect(x, y - 3, 1, 4);
          return;
        }
        pen.beginPath();
        pen.moveTo(x - 3, y - 3);
        pen.lineTo(x + 3, y + 3);
        pen.moveTo(x + 3, y - 3);
        pen.lineTo(x - 3, y + 3);
        pen.stroke();
      });
    }
  }

  // -- cursor -----------------------------------------------------------------------------

  cursor(step) {
    const pen = this.sized(this.over);
    const { paint, run } = this;
    const span = this.page.span();
    const whole = ((step + 0.5 - span.from) * this.width) / (span.to - span.from);
    pen.fillStyle = paint.cursor;
    pen.fillRect(Math.round(whole) - 0.5, 0, 1.5, OVERVIEW);
    const x = this.x(step);
    const top = OVERVIEW + 8;
    const bottom = this.height - AXIS;
    if (this.scale > 3) {
      pen.globalAlpha = 0.1;
      pen.fillRect(x, top, this.scale, bottom - top);
      pen.globalAlpha = 1;
    }
    pen.fillRect(Math.round(x + this.scale / 2) - 0.5, top, 1, bottom - top);
    if (run.at(step) >= 0) {
      for (const lane of this.lanes) {
        if (!lane.lines || lane.draw === "bars") continue;
        const range = this.rangeOf(lane);
        for (const { series, colour } of lane.lines) {
          const value = run.value(series, step);
          if (Number.isNaN(value)) continue;
          const y = lane.top + 1.5 + (lane.height - 3) * (1 - (value - range.least) / (range.most - range.least));
          pen.fillStyle = colour === null ? paint.ink : paint.drives[colour % paint.drives.length];
          pen.beginPath();
          pen.arc(x + this.scale / 2, y, 2.6, 0, 7);
          pen.fill();
        }
      }
    }
    this.values(step);
  }

  /** The values at the cursor, as text. */
  values(step) {
    const { run, fork, paint } = this;
    const inFork = fork && fork.at(step) >= 0;
    const set = (node, text) => {
      if (node.textContent !== text) node.textContent = text;
    };
    for (const lane of this.lanes) {
      if (lane.key === "mode") {
        const mode = run.value("mode", step);
        const other = inFork ? ` → Mode-${fork.value("mode", step)}` : "";
        set(lane.text, mode > 0 ? `Mode-${mode}${other}` : "–");
      } else if (lane.key === "reason") {
        set(lane.text, run.reason(step));
        lane.text.title = run.reason(step);
      } else {
        for (const { line, number, forked } of lane.shown) {
          set(number, short(run.value(line.series, step)));
          number.style.color = line.colour === null ? "" : paint.drives[line.colour % paint.drives.length];
          const other = inFork ? short(fork.value(line.series, step)) : "";
          set(forked, other && other !== number.textContent ? ` → ${other}` : "");
        }
      }
    }
    set(this.place, run.at(step) < 0 ? "beyond this run" : `${counted(step)} of ${counted(run.last)}`);
    this.plot.setAttribute("aria-valuemin", run.first);
    this.plot.setAttribute("aria-valuemax", run.last);
    this.plot.setAttribute("aria-valuenow", step);
    this.plot.setAttribute("aria-valuetext",
      `step ${step}, Mode-${short(run.value("mode", step))}, ${run.reason(step)}, return ${short(run.value("return", step))}`);
  }
}
