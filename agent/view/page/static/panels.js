"use strict";
/* The panels around the lanes: frame, facts, futures, messages, forks. */

/** Draws pixels [H W C] into a canvas of their size: gray, or the first three channels. */
function paintFrame(canvas, frame) {
  const { width, height, channels, pixels } = frame;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const image = new ImageData(width, height);
  const out = image.data;
  const colour = channels >= 3;
  for (let i = 0, j = 0, k = 0; i < width * height; i += 1, j += channels, k += 4) {
    out[k] = pixels[j];
    out[k + 1] = colour ? pixels[j + 1] : pixels[j];
    out[k + 2] = colour ? pixels[j + 2] : pixels[j];
    out[k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The frame of a run at the cursor, with the main facts of the moment. */
class Stage {
  constructor(place, run) {
    this.run = run;
    this.fork = null;
    const stage = make("div", "stage");
    const screens = make("div", "screens");
    [this.figure, this.canvas, this.caption] = this.screen("screen");
    [this.other, this.otherCanvas, this.otherCaption] = this.screen("screen fork");
    this.other.hidden = true;
    screens.append(this.figure, this.other);
    this.facts = make("dl", "facts");
    this.values = {};
    for (const name of ["run", "mode", "reason", "return", "lives", "episode", "seed"]) {
      const value = make("dd");
      if (name === "reason") value.className = "wide";
      else this.facts.append(make("dt", "", name));
      this.facts.append(value);
      this.values[name] = value;
    }
    const { about } = run;
    this.values.run.append(make("span", "runname", about.name));
    this.values.seed.textContent = short(about.seed);
    this.facts.append(make("dt", "", "world"), make("dd", "", about.world));
    this.facts.append(make("dt", "", "configurator"), make("dd", "", about.kinds.configurator || "–"));
    this.facts.append(make("dt", "", "world model"), make("dd", "", about.kinds.world_model || "–"));
    this.pill = make("span", "pill");
    this.values.mode.append(this.pill);
    stage.append(screens, this.facts);
    place.append(stage);
    if (!about.pixels) this.caption.textContent = "this world has no pixels";
  }

  screen(kind) {
    const figure = make("figure", kind);
    const canvas = make("canvas", "frame");
    canvas.width = 84;
    canvas.height = 84;
    canvas.setAttribute("role", "img");
    const caption = make("figcaption");
    figure.append(canvas, caption);
    return [figure, canvas, caption];
  }

  show(step) {
    const { run, fork } = this;
    const frame = run.frame(step);
    if (frame && this.drawn !== frame) {
      paintFrame(this.canvas, frame);
      this.drawn = frame;
    }
    const label = frame ? `frame of step ${frame.step}` : run.pending(step) ? "" : "no frame of this step";
    if (run.about.pixels && label) this.caption.textContent = label;
    this.canvas.setAttribute("aria-label", `${run.about.world}, ${label || "loading"}`);
    this.other.hidden = !fork;
    if (fork) {
      const at = Math.min(Math.max(step, fork.first), fork.last);
      const forked = fork.frame(at);
      if (forked) paintFrame(this.otherCanvas, forked);
      this.otherCaption.textContent = `fork, step ${at}`;
      this.otherCanvas.setAttribute("aria-label", `fork, frame of step ${at}`);
    }
    const mode = run.value("mode", step);
    this.pill.textContent = mode === 2 ? "Mode-2, plans" : mode === 1 ? "Mode-1, policy" : "–";
    this.pill.classList.toggle("plans", mode === 2);
    this.values.reason.textContent = run.reason(step) || "–";
    this.values.return.textContent = short(run.value("return", step));
    this.values.lives.textContent = short(run.value("lives", step));
    this.values.episode.textContent = String(run.episodeAt(step) || "–");
  }
}

/** The candidates of a moment as strips of frames, and the frames that were recorded. */
class Futures {
  constructor() {
    this.how = document.getElementById("futures-how");
    this.body = document.getElementById("futures-body");
  }

  clear(text) {
    this.how.textContent = text;
    this.body.replaceChildren();
  }

  show({ facts, arrays }) {
    const { note, how, futures, recorded, subgoals = [] } = facts;
    this.how.textContent = [note, how].filter(Boolean).join(" ");
    this.body.replaceChildren();
    for (const subgoal of subgoals) {
      const row = make("div", "future subgoal");
      const head = make("div", "head");
      head.append(make("span", "energy chosen", `sub-goal of level ${subgoal.level}`));
      head.append(make("span", "dim", subgoal.note));
      row.append(head);
      this.strip(row, arrays.frames, subgoal.frames, subgoal.at);
      this.body.append(row);
    }
    const energies = futures.map((f) => f.energy).filter(Number.isFinite);
    const least = Math.min(...energies);
    const most = Math.max(...energies);
    futures.forEach((future, i) => {
      const row = make("div", "future");
      const head = make("div", "head");
      const chosen = i === 0;
      head.append(make("span", `energy${chosen ? " chosen" : ""}`, `energy ${short(future.energy)}`));
      if (most > least) {
        const meter = make("span", `meter${chosen ? " chosen" : ""}`);
        const bar = make("i");
        bar.style.width = `${100 * (0.06 + 0.94 * ((future.energy - least) / (most - least)))}%`;
        meter.append(bar);
        head.append(meter);
      }
      if (chosen) head.append(make("span", "chosen", "chosen"));
      const notes = [];
      if (future.score) notes.push(`score ${future.score > 0 ? "+" : ""}${short(future.score)}`);
      if (future.ended) notes.push(`ends after ${future.ended}`);
      if (future.note) notes.push(future.note);
      head.append(make("span", "dim", notes.join(", ")));
      row.append(head, make("div", "acts", runsOf(future.actions)));
      this.strip(row, arrays.frames, future.frames, future.at);
      for (const other of future.others) this.strip(row, arrays.frames, other.frames, other.at);
      this.body.append(row);
    });
    if (recorded.frames.length && futures.length) {
      const row = make("div", "future");
      const head = make("div", "head");
      head.append(make("span", "energy recorded", "recorded"));
      row.append(head);
      this.strip(row, arrays.frames, recorded.frames, recorded.at);
      this.body.append(row);
    }
  }

  /** Frames side by side in one canvas, each with its number of steps ahead. */
  strip(row, frames, places, at) {
    if (!frames || !places.length) return;
    const [, height, width, channels] = frames.shape;
    const size = height * width * channels;
    const ratio = window.devicePixelRatio || 1;
    const canvas = make("canvas", "strip");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", at[0] ? `frames ${at.join(", ")} steps ahead` : "a state");
    row.append(canvas);
    const [gap, foot, slots] = [4, 14, Math.max(places.length, 12)];
    const whole = (this.body.clientWidth || 600) + gap;
    const wide = Math.min(whole / slots - gap, 160);
    const high = (wide * height) / width;
    canvas.width = Math.round((whole - gap) * ratio);
    canvas.height = Math.round((high + foot) * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.imageSmoothingQuality = "high";
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "bottom";
    pen.fillStyle = colours().dim;
    const cell = document.createElement("canvas");
    places.forEach((place, i) => {
      const pixels = frames.subarray(place * size, (place + 1) * size);
      paintFrame(cell, { width, height, channels, pixels });
      const x = i * (wide + gap);
      pen.drawImage(cell, x, 0, wide, high);
      if (at[i]) pen.fillText(`+${at[i]}`, x + 1, high + foot);
    });
  }
}

const SPARKS = "▁▂▃▄▅▆▇█";

/** Many numbers as a line of bars, in a few characters. */
function spark(values) {
  const numbers = values.filter((v) => typeof v === "number" && Number.isFinite(v));
  if (numbers.length < 9) return "";
  const bins = Math.min(24, numbers.length);
  const means = [];
  for (let b = 0; b < bins; b += 1) {
    const part = numbers.slice(Math.floor((b * numbers.length) / bins), Math.floor(((b + 1) * numbers.length) / bins));
    means.push(part.reduce((x, y) => x + y, 0) / part.length);
  }
  const least = Math.min(...means);
  const most = Math.max(...means);
  if (!(most > least)) return "";
  return means.map((v) => SPARKS[Math.round((7 * (v - least)) / (most - least))]).join("");
}

/** One-hot actions by name, of the first plan: `RIGHT×3 FIRE`; "" for other values. */
function wordsOf({ axes, values, labels }) {
  const across = axes.length ? axes[axes.length - 1] : ["", 0];
  if (across[0] !== "A" || !labels || labels.length !== across[1]) return "";
  const words = [];
  const length = axes.length > 1 ? axes[axes.length - 2][1] : 1;
  for (let at = 0; at < length; at += 1) {
    const choice = values.slice(at * across[1], (at + 1) * across[1]);
    const ones = choice.filter((v) => v === 1).length;
    if (ones !== 1 || choice.some((v) => v !== 0 && v !== 1)) break;
    words.push(labels[choice.indexOf(1)]);
  }
  return words.length ? runsOf(words) + (axes.length > 2 ? " …" : "") : "";
}

/** Every message of a moment as a tree. Open branches stay open from moment to moment. */
class Messages {
  constructor() {
    this.body = document.getElementById("messages-body");
    this.open = new Set(["directive", "plan"]);
  }

  clear(text) {
    this.body.replaceChildren(make("p", "dim", text));
  }

  show(moment, step) {
    const top = this.body.scrollTop;
    const focused = document.activeElement && this.body.contains(document.activeElement)
      ? document.activeElement.dataset.path : null;
    const tree = document.createDocumentFragment();
    if (moment.step !== step) tree.append(make("p", "dim", `the nearest exported moment: step ${moment.step}`));
    if (!moment.readable) tree.append(make("p", "dim", moment.why || "This moment cannot be read."));
    for (const field of moment.own) tree.append(this.field("", field));
    for (const part of moment.parts) {
      const branch = this.branch(part.name, (summary) => {
        summary.append(make("span", "part", part.name));
        summary.append(make("span", "type", `  ${part.fields.length} fields`));
      }, () => part.fields.map((field) => this.field(part.name, field)));
      tree.append(branch);
    }
    this.body.replaceChildren(tree);
    this.body.scrollTop = top;
    if (focused !== null) {
      const again = [...this.body.querySelectorAll("summary")].find((s) => s.dataset.path === focused);
      if (again) again.focus({ preventScroll: true });
    }
  }

  /** A branch whose content is built when it is first opened. */
  branch(path, head, fill) {
    const branch = document.createElement("details");
    const summary = document.createElement("summary");
    summary.dataset.path = path;
    head(summary);
    branch.append(summary);
    const ready = () => {
      if (branch.open && branch.childNodes.length === 1) branch.append(...fill());
    };
    branch.open = this.open.has(path);
    ready();
    branch.addEventListener("toggle", () => {
      if (branch.open) this.open.add(path);
      else this.open.delete(path);
      ready();
    });
    return branch;
  }

  field(part, field) {
    const path = part ? `${part}.${field.name}` : field.name;
    const leaf = (text, kind) => {
      const row = make("div", "leaf");
      row.append(make("span", "", `${field.name} `), make("span", kind, text));
      return row;
    };
    if (field.text !== undefined) return leaf(field.text, "");
    if (field.note !== undefined) return leaf(field.note, "type");
    if (!field.axes.length) {
      const row = leaf(short(field.values[0]), "");
      row.append(make("span", "type", `  ${field.dtype}`));
      return row;
    }
    const axes = field.axes.map(([name, length]) => `${name} ${length}`).join(" × ");
    const labels = field.labels || [];
    const words = wordsOf(field);
    if (words) {
      return this.branch(path, (summary) => {
        summary.append(make("span", "", `${field.name} `));
        summary.append(make("span", "type", `[${axes}] ${field.dtype}  `));
        summary.append(make("span", "", words));
      }, () => [this.table(field)]);
    }
    const few = field.values.length <= 8;
    const begin = field.values.slice(0, few ? 8 : 4).map((value, i) =>
      few && labels.length === field.values.length ? `${labels[i]} ${short(value)}` : short(value));
    return this.branch(path, (summary) => {
      summary.append(make("span", "", `${field.name} `));
      summary.append(make("span", "type", `[${axes}] ${field.dtype}  `));
      summary.append(make("span", "", begin.join(few ? ", " : " ") + (few ? "" : " … ")));
      summary.append(make("span", "spark", few ? "" : spark(field.values)));
    }, () => [this.table(field)]);
  }

  /** All numbers of a field, the last axis across. */
  table(field) {
    const table = document.createElement("table");
    const { axes, values, labels } = field;
    const across = axes.length > 1 ? axes[axes.length - 1][1] : Math.min(axes[0][1], 16);
    if (labels && labels.length === across) {
      const head = document.createElement("tr");
      head.append(make("th"), ...labels.map((text) => make("th", "", text)));
      table.append(head);
    }
    const outer = axes.slice(0, -1).map(([, length]) => length);
    for (let at = 0, row = 0; at < values.length; at += across, row += 1) {
      const line = document.createElement("tr");
      let rest = row;
      const place = [];
      for (const length of [...outer].reverse()) {
        place.unshift(rest % length);
        rest = Math.floor(rest / length);
      }
      line.append(make("th", "", axes.length > 1 ? place.join(" ") : String(at)));
      for (const value of values.slice(at, at + across)) line.append(make("td", "", short(value)));
      table.append(line);
    }
    if (field.more) {
      const line = document.createElement("tr");
      line.append(make("th", "", "…"), make("td", "", `${counted(field.more)} more`));
      table.append(line);
    }
    return table;
  }
}

/** Forks a run at the cursor with one field changed, and compares the two. */
class ForkPanel {
  constructor(page) {
    this.page = page;
    this.body = document.getElementById("fork-body");
    this.built = null;
  }

  /** The form for a run; `possible` has the fields that can be changed, or a reason why none. */
  show(run, possible) {
    if (this.built === run) return;
    this.built = run;
    this.body.replaceChildren();
    if (possible.reason) {
      this.body.append(make("p", "dim", possible.reason));
      return;
    }
    const form = make("form", "forkform");
    form.autocomplete = "off";
    const field = document.createElement("select");
    field.id = "fork-field";
    field.append(new Option("nothing (the control)", ""));
    let group = null;
    for (const path of possible.fields) {
      const part = path.split(".")[0];
      if (!group || group.label !== part) {
        group = document.createElement("optgroup");
        group.label = part;
        field.append(group);
      }
      group.append(new Option(path, path));
    }
    this.field = field;
    this.value = document.createElement("input");
    this.value.id = "fork-value";
    this.value.disabled = true;
    const hold = document.createElement("select");
    hold.id = "fork-hold";
    hold.append(new Option("this step", "1"), new Option("every step", "0"));
    hold.disabled = true;
    const steps = document.createElement("input");
    steps.id = "fork-steps";
    steps.type = "number";
    steps.min = 1;
    steps.max = possible.most;
    steps.value = 60;
    const labelled = (text, input) => {
      const label = make("label", "dim", text);
      label.htmlFor = input.id;
      form.append(label, input);
    };
    labelled("change", field);
    labelled("to", this.value);
    labelled("during", hold);
    labelled("steps", steps);
    const button = make("button", "", "fork");
    button.id = "fork-go";
    form.append(button);
    field.addEventListener("change", () => {
      this.value.disabled = hold.disabled = field.value === "";
      this.value.value = "";
      this.now(this.moment);
    });
    this.result = make("div", "result");
    this.result.hidden = true;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (button.disabled) return;
      const changes = field.value ? { [field.value]: this.value.value.trim() } : {};
      const request = { at: this.page.cursor, changes, steps: Number(steps.value), hold: Number(hold.value) };
      this.go(run, request, button);
    });
    this.body.append(form, this.result);
  }

  /** Shows the value of the chosen field at the cursor. */
  now(moment) {
    this.moment = moment;
    if (!this.field || !moment) return;
    const [part, name, place] = this.field.value.split(".");
    const message = moment.parts.find((p) => p.name === part);
    const stored = message && message.fields.find((f) => f.name === (name === "action" ? "actions" : name));
    let text = "";
    if (stored && stored.values) {
      const at = place ? (stored.labels || []).indexOf(place) : 0;
      text = name === "action" ? wordsOf(stored).split(/[ ×]/)[0] : short(stored.values[Math.max(at, 0)]);
    }
    this.value.placeholder = text ? `is ${text}` : "";
  }

  async go(run, request, button) {
    button.disabled = true;
    button.textContent = "running …";
    this.page.notify(`forking at step ${request.at} …`, true);
    try {
      const answer = await this.page.forked(run, request);
      this.report(answer);
      this.page.notify(answer.identical ? "fork: identical" : "fork: different");
    } catch (error) {
      this.result.hidden = false;
      this.result.replaceChildren(make("p", "differs", String(error.message || error)));
      this.page.notify("the fork failed");
    } finally {
      button.disabled = false;
      button.textContent = "fork";
    }
  }

  report(answer) {
    const difference = answer.diverged === null ? "same observations and actions, other messages" : `different from step ${answer.diverged} on`;
    const verdict = make("p", `verdict ${answer.identical ? "identical" : "differs"}`,
      answer.identical ? "identical" : difference);
    const table = document.createElement("table");
    const row = (name, a, b) => {
      const line = document.createElement("tr");
      line.append(make("th", "", name));
      for (const cell of [a, b]) {
        if (cell instanceof Node) {
          const holder = make("td");
          holder.append(cell);
          line.append(holder);
        } else line.append(make("td", "", cell));
      }
      table.append(line);
    };
    row("", "recorded", "fork");
    for (const [name, a, b] of answer.figures) row(name, short(a), short(b));
    const [was, is] = [answer.original_digest, answer.fork_digest].map((digest) => {
      const code = make("code", "", digest.slice(0, 8));
      code.title = digest;
      return code;
    });
    row("digest", was, is);
    const hold = answer.changes.length && answer.hold !== 1 ? ", at every step" : "";
    const what = answer.changes.join(", ") || "nothing changed";
    const over = answer.compared < answer.steps ? `${answer.compared} of ${answer.steps} steps compared` : `${answer.steps} steps`;
    this.result.hidden = false;
    this.result.replaceChildren(verdict, make("p", "dim", `from step ${answer.at}: ${what}${hold}; ${over}`), table);
    const clear = make("button", "", "clear");
    clear.type = "button";
    clear.addEventListener("click", () => {
      this.page.unfork();
      this.result.hidden = true;
    });
    this.result.append(clear);
  }
}
