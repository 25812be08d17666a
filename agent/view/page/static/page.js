"use strict";
/* The page: one cursor for all runs, moved by keys, pointer and buttons. */

const KEYS = [
  ["← →", "one step"],
  ["Shift ← →", "ten steps"],
  ["Home End", "first and last step"],
  ["Space", "play, pause"],
  ["m s l r e", "next mode switch, surprise peak, lost life, reward, episode; with Shift the one before"],
  ["+ − 0", "fewer steps, more steps, the whole run"],
  ["g", "go to a step by number"],
  ["f", "fork from here"],
  ["1 2", "select the first or second run"],
  ["?", "these keys"],
];
const PLAYED_PER_S = 15;

class Page {
  constructor(runs, possible) {
    this.runs = runs;
    this.possible = possible;
    this.selected = runs[0];
    this.cursor = runs[0].first;
    this.view = this.span();
    this.dirty = { base: true, cursor: true };
    this.playing = 0;
    this.direction = 1;
    this.futures = new Futures();
    this.messages = new Messages();
    this.forkPanel = new ForkPanel(this);
    this.build();
  }

  // -- building ---------------------------------------------------------------------------

  build() {
    const place = document.getElementById("runs");
    place.classList.toggle("two", this.runs.length > 1);
    this.parts = this.runs.map((run) => {
      const section = make("section", "run");
      section.setAttribute("aria-label", `Run ${run.about.name}`);
      place.append(section);
      const stage = new Stage(section, run);
      const lanes = new Lanes(section, run, this);
      section.addEventListener("focusin", () => this.select(run));
      run.onFrame = () => this.mark("cursor");
      return { run, section, stage, lanes };
    });
    const title = this.runs.map((run) => run.about.name).join(" and ");
    const worlds = [...new Set(this.runs.map((run) => run.about.world))].join(", ");
    document.title = `${title} · Sextet`;
    document.getElementById("title").textContent = `${worlds} · ${title}`;
    this.buildJumps();
    this.buildTabs();
    this.buildKeys();
    this.notices();
    const step = document.getElementById("step");
    step.addEventListener("input", () => step.value !== "" && this.go(Number(step.value), true));
    document.getElementById("where").addEventListener("submit", (event) => {
      event.preventDefault();
      this.parts[0].lanes.plot.focus();
    });
    for (const button of document.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do));
    }
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("resize", () => this.mark("base"));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.paint = null;
      this.mark("base");
      this.requestLater(0);
    });
    this.select(this.selected);
  }

  buildJumps() {
    const place = document.getElementById("jumps");
    this.jumps = {};
    for (const [kind, { name, key }] of Object.entries(JUMPS)) {
      const group = make("span", "jump");
      const back = make("button", "", "‹");
      const on = make("button", "", "›");
      back.setAttribute("aria-label", `Previous ${name}`);
      on.setAttribute("aria-label", `Next ${name}`);
      back.title = `Shift ${key}`;
      on.title = key;
      back.dataset.jump = on.dataset.jump = kind;
      const count = make("b");
      const label = make("span");
      label.append(count, ` ${name}`);
      group.append(back, on, label, make("kbd", "", key));
      place.append(group);
      back.addEventListener("click", () => this.jump(kind, true));
      on.addEventListener("click", () => this.jump(kind, false));
      this.jumps[kind] = { back, on, count };
    }
  }

  buildTabs() {
    const place = document.getElementById("tabs");
    place.hidden = this.runs.length < 2;
    this.tabs = this.runs.map((run, i) => {
      const tab = make("button", "", `${i + 1}  ${run.about.name}`);
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => this.select(run));
      place.append(tab);
      return tab;
    });
    const rows = document.getElementById("rows");
    const most = Math.min(...this.runs.map((run) => run.about.rows));
    rows.hidden = most < 2 || !this.served;
    const select = document.getElementById("row");
    for (let row = 0; row < most; row += 1) select.append(new Option(String(row), String(row)));
    select.value = String(this.runs[0].row);
    select.addEventListener("change", () => {
      const there = new URL(window.location.href);
      there.searchParams.set("row", select.value);
      there.searchParams.set("step", String(this.cursor));
      window.location.href = there.href;
    });
  }

  buildKeys() {
    const list = document.getElementById("keys-list");
    for (const [keys, what] of KEYS) {
      const term = make("dt");
      for (const key of keys.split(" ")) term.append(make("kbd", "", key), " ");
      list.append(term, make("dd", "", what));
    }
    list.append(make("dt", "", "peak"), make("dd", "", "a surprise above the run's mean by two standard deviations, the largest within five steps"));
  }

  get served() {
    return this.runs[0] instanceof ServedRun;
  }

  notices() {
    const lines = [];
    for (const run of this.runs) {
      for (const line of run.about.missing) lines.push(`${run.about.name}: ${line}.`);
      if (run.exported) lines.push(...run.exported.notes.map((line) => `${run.about.name}: ${line}`));
    }
    const place = document.getElementById("notices");
    place.hidden = lines.length === 0;
    place.textContent = lines.join("\n");
  }

  // -- cursor and view --------------------------------------------------------------------

  /** The range of steps that covers all runs. */
  span() {
    const from = Math.min(...this.runs.map((run) => run.first));
    const to = Math.max(...this.runs.map((run) => run.first + Math.max(run.length, 1)));
    return { from, to };
  }

  mark(what) {
    this.dirty[what] = true;
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paintAll());
  }

  /** Moves the cursor; the view follows, `centre`d for a jump. */
  go(step, centre) {
    const { from, to } = this.span();
    const next = Math.min(Math.max(Math.round(step) || 0, from), to - 1);
    if (next !== this.cursor) this.direction = next > this.cursor ? 1 : -1;
    this.cursor = next;
    const width = this.view.to - this.view.from;
    if (next < this.view.from || next >= this.view.to) {
      const lead = centre ? 0.5 : this.direction > 0 ? 0.1 : 0.9;
      this.setView(next - lead * width, width);
    }
    this.mark("cursor");
    this.requestLater(90);
  }

  setView(from, width) {
    const span = this.span();
    const wide = Math.min(Math.max(width, 16), span.to - span.from);
    const left = Math.min(Math.max(Math.round(from), span.from), span.to - wide);
    this.view = { from: left, to: left + wide };
    this.mark("base");
  }

  zoom(factor, around) {
    const width = Math.round((this.view.to - this.view.from) * factor);
    const share = (around - this.view.from) / (this.view.to - this.view.from);
    this.setView(around - share * width, width);
  }

  pan(share) {
    const width = this.view.to - this.view.from;
    this.setView(this.view.from + Math.round(share * width), width);
  }

  /** Selects the run whose messages, futures and forks are shown. */
  select(run) {
    this.selected = run;
    this.parts.forEach((part, i) => {
      part.section.classList.toggle("selected", part.run === run);
      this.tabs[i].setAttribute("aria-selected", String(part.run === run));
    });
    for (const [kind, { count, back, on }] of Object.entries(this.jumps)) {
      const steps = run.events[kind] || [];
      count.textContent = counted(steps.length);
      back.disabled = on.disabled = steps.length === 0;
    }
    this.forkPanel.show(run, this.possible[this.runs.indexOf(run)]);
    this.requestLater(0);
  }

  jump(kind, back) {
    const there = this.selected.jump(kind, this.cursor, back);
    const { name } = JUMPS[kind];
    if (there === undefined) {
      this.notify(`no ${back ? "earlier" : "later"} ${name}`);
      return;
    }
    this.go(there, true);
    this.notify(`${name} at step ${there}`);
  }

  act(what) {
    const width = this.view.to - this.view.from;
    const { from, to } = this.span();
    const acts = {
      home: () => this.go(from),
      end: () => this.go(to - 1),
      back: () => this.go(this.cursor - 1),
      on: () => this.go(this.cursor + 1),
      play: () => this.play(),
      in: () => this.zoom(0.5, this.cursor),
      out: () => this.zoom(2, this.cursor),
      fit: () => this.setView(from, to - from),
      help: () => document.getElementById("keys").showModal(),
    };
    acts[what](width);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea, dialog");
    if (typing) {
      if (event.key === "Escape" && typing.tagName !== "DIALOG") typing.blur();
      return;
    }
    const onButton = event.target.closest("button, summary");
    const far = event.shiftKey ? 10 : 1;
    const moves = {
      ArrowLeft: () => this.go(this.cursor - far),
      ArrowRight: () => this.go(this.cursor + far),
      Home: () => this.act("home"),
      End: () => this.act("end"),
      "+": () => this.act("in"),
      "=": () => this.act("in"),
      "-": () => this.act("out"),
      0: () => this.act("fit"),
      "?": () => this.act("help"),
      g: () => document.getElementById("step").select(),
      f: () => (document.getElementById("fork-field") || document.getElementById("fork")).focus(),
      1: () => this.select(this.runs[0]),
      2: () => this.runs[1] && this.select(this.runs[1]),
    };
    if (event.key === " " && !onButton) moves[" "] = () => this.act("play");
    for (const [kind, { key }] of Object.entries(JUMPS)) {
      moves[key] = () => this.jump(kind, false);
      moves[key.toUpperCase()] = () => this.jump(kind, true);
    }
    if (Object.hasOwn(moves, event.key)) {
      event.preventDefault();
      moves[event.key]();
    }
  }

  // -- playing ----------------------------------------------------------------------------

  play() {
    this.playing = this.playing ? 0 : performance.now();
    this.shown = 0;
    const button = document.getElementById("play");
    button.setAttribute("aria-pressed", String(Boolean(this.playing)));
    button.textContent = this.playing ? "pause" : "play";
    if (this.playing && this.cursor >= this.span().to - 1) this.cursor = this.span().from;
    if (this.playing) this.tick();
  }

  tick() {
    if (!this.playing) return;
    const due = Math.floor(((performance.now() - this.playing) / 1000) * PLAYED_PER_S);
    if (due > this.shown) {
      // A slow machine plays fewer steps a second instead of skipping many.
      this.go(this.cursor + Math.min(due - this.shown, 3));
      this.shown = due;
      if (this.cursor >= this.span().to - 1 && !this.following) this.play();
    }
    requestAnimationFrame(() => this.tick());
  }

  // -- drawing ----------------------------------------------------------------------------

  paintAll() {
    this.frame = 0;
    const began = performance.now();
    if (!this.paint) this.paint = colours();
    const { base } = this.dirty;
    this.dirty = { base: false, cursor: false };
    for (const { stage, lanes } of this.parts) {
      if (base) lanes.draw(this.view, this.paint);
      lanes.cursor(this.cursor);
      stage.show(this.cursor);
    }
    const step = document.getElementById("step");
    if (document.activeElement !== step) step.value = String(this.cursor);
    document.getElementById("of").textContent = `of ${counted(this.span().to - 1)}`;
    this.drawn = performance.now() - began;
  }

  /** Requests messages and futures once the cursor has rested. */
  requestLater(wait) {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.requestDetails(), wait);
  }

  async requestDetails() {
    const run = this.selected;
    const step = Math.min(Math.max(this.cursor, run.first), run.last);
    const stale = () => this.selected !== run || Math.min(Math.max(this.cursor, run.first), run.last) !== step;
    if (!run.length) return;
    try {
      const moment = await run.moment(step);
      if (!stale()) {
        this.messages.show(moment, step);
        this.forkPanel.now(moment);
      }
    } catch (error) {
      if (!stale()) this.messages.clear(error.message);
    }
    try {
      const futures = await run.futures(step);
      if (!stale()) this.futures.show(futures);
    } catch (error) {
      if (!stale()) this.futures.clear(error.message);
    }
    if (!stale()) document.body.dataset.settled = String(step);
  }

  /** One line in the corner, which disappears unless it is to `stay`. */
  notify(text, stay) {
    const status = document.getElementById("status");
    status.textContent = text;
    clearTimeout(this.fading);
    if (!stay) this.fading = setTimeout(() => { status.textContent = ""; }, 4000);
  }

  // -- growth and forks -------------------------------------------------------------------

  /** Polls whether a run has grown, more often while it does. */
  async watch() {
    let grew = false;
    const { from, to } = this.span();
    for (const { run } of this.parts) {
      try {
        const before = JSON.stringify(run.about.missing);
        if (await run.grow()) grew = true;
        if (JSON.stringify(run.about.missing) !== before) this.notices();
      } catch {
        // The server was stopped: the page goes on with the data it has.
      }
    }
    if (grew) {
      this.following = true;
      // The cursor and the view may have moved while the requests were under way.
      if (this.view.to - this.view.from >= to - from) this.setView(from, Infinity);
      if (this.cursor >= to - 1 && !this.playing) this.go(this.span().to - 1);
      this.mark("base");
      this.select(this.selected);
    } else {
      this.following = false;
    }
    setTimeout(() => this.watch(), grew ? 500 : 2000);
  }

  /** Forks a run on the server and shows the fork in its lanes. */
  async forked(run, request) {
    const token = document.querySelector("meta[name=sextet-token]").content;
    const response = await fetch("fork", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Sextet-Token": token },
      body: JSON.stringify({ run: run.number, row: run.row, ...request }),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    const other = new ServedRun(answer.number, answer.about, run.row);
    await other.load();
    other.continueReturn(run);
    other.onFrame = () => this.mark("cursor");
    for (const part of this.parts) {
      if (part.run !== run) continue;
      part.lanes.fork = part.stage.fork = other;
      if (this.view.to - this.view.from > 6 * answer.steps) this.setView(answer.at - answer.steps, 4 * answer.steps);
    }
    this.mark("base");
    return answer;
  }

  unfork() {
    for (const part of this.parts) part.lanes.fork = part.stage.fork = null;
    this.mark("base");
  }
}

/** The runs of this page: embedded in this file, or from the server. */
async function open() {
  const inside = document.getElementById("embedded");
  if (inside) {
    const { runs } = JSON.parse(inside.textContent);
    const why = { reason: "An exported page cannot fork: open the run with `sextet view`." };
    return { runs: runs.map((exported, i) => new EmbeddedRun(i, exported)), possible: runs.map(() => why) };
  }
  const answer = await (await fetch("about")).json();
  const query = new URL(window.location.href).searchParams;
  const row = Number(query.get("row") || answer.row) || 0;
  const runs = answer.runs.map((about, i) => new ServedRun(i, about, row));
  return { runs, possible: answer.forks };
}

let page = null;

async function begin() {
  const status = document.getElementById("status");
  try {
    const { runs, possible } = await open();
    await Promise.all(runs.map((run) => run.load()));
    page = new Page(runs, possible);
    const step = new URL(window.location.href).searchParams.get("step");
    if (step !== null) page.go(Number(step), true);
    cancelAnimationFrame(page.frame);
    page.paintAll();
    document.body.dataset.state = "ready";
    document.body.dataset.readyMs = String(Math.round(performance.now()));
    status.textContent = "";
    if (page.served) page.watch();
  } catch (error) {
    document.body.dataset.state = "failed";
    status.textContent = `could not be opened: ${error.message || error}`;
  }
}

begin();
