"use strict";
/* Where the numbers come from: a server on this machine, or this very file where it was exported. */

/** Facts and typed arrays of one packed answer. */
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const kinds = { float32: Float32Array, uint32: Uint32Array, uint8: Uint8Array };
  const arrays = {};
  for (const [name, dtype, shape, at] of facts.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new kinds[dtype](buffer, 4 + length + at, size);
    arrays[name].shape = shape;
  }
  return { facts, arrays };
}

const JUMPS = {
  switch: { name: "mode switch", key: "m" },
  surprise: { name: "surprise peak", key: "s" },
  life: { name: "lost life", key: "l" },
  reward: { name: "reward", key: "r" },
  episode: { name: "episode", key: "e" },
};

/** One run, or one fork of it: series in full, frames, moments and futures on demand. */
class Run {
  constructor(number, about, row) {
    this.number = number;
    this.about = about;
    this.row = row;
    this.first = about.first;
    this.length = 0;
    this.series = {};
    this.reasons = [];
    this.known = new Map();
    this.kinds = [];
    this.kindOf = [];
    this.events = {};
    this.onFrame = () => {};
  }

  get last() {
    return this.first + Math.max(this.length - 1, 0);
  }

  /** The place of a step in the series; -1 where the run does not reach. */
  at(step) {
    const i = step - this.first;
    return i >= 0 && i < this.length ? i : -1;
  }

  value(name, step) {
    const i = this.at(step);
    return i < 0 || !this.series[name] ? NaN : this.series[name][i];
  }

  reason(step) {
    const i = this.at(step);
    return i < 0 ? "" : this.reasons[this.series.reason[i]];
  }

  async load() {
    this.take(await this.fetchSeries(this.length));
  }

  /** Adds what a packed answer holds behind what is here. */
  take({ facts, arrays }) {
    const codes = facts.reasons.map((text) => {
      if (!this.known.has(text)) {
        this.known.set(text, this.reasons.length);
        this.reasons.push(text);
        const kind = text.replace(/[-+−]?\d+(\.\d+)?(e[-+]?\d+)?/g, "#");
        let place = this.kinds.indexOf(kind);
        if (place < 0) place = this.kinds.push(kind) - 1;
        this.kindOf.push(place);
      }
      return this.known.get(text);
    });
    const length = facts.start + arrays.mode.length;
    for (const [name, added] of Object.entries(arrays)) {
      const values = name === "reason" ? added.map((code) => codes[code]) : added;
      let kept = this.series[name];
      if (!kept || kept.length < length) {
        const wider = new values.constructor(Math.max(length, kept ? 2 * kept.length : 0));
        if (kept) wider.set(kept.subarray(0, this.length));
        kept = this.series[name] = wider;
      }
      kept.set(values, facts.start);
    }
    this.length = length;
    this.series.kind = this.series.reason.map((code) => this.kindOf[code]);
    this.find();
  }

  /** Where things happen: sorted steps for each jump. */
  find() {
    const { mode, surprise, lost, score, first } = this.series;
    const found = { switch: [], surprise: [], life: [], reward: [], episode: [] };
    let sum = 0;
    let squares = 0;
    let seen = 0;
    for (let i = 0; i < this.length; i += 1) {
      if (i && mode[i] > 0 && mode[i - 1] > 0 && mode[i] !== mode[i - 1]) found.switch.push(i);
      if (lost[i] > 0) found.life.push(i);
      if (score[i] !== 0 && !Number.isNaN(score[i])) found.reward.push(i);
      if (first[i] > 0) found.episode.push(i);
      if (!Number.isNaN(surprise[i])) {
        sum += surprise[i];
        squares += surprise[i] * surprise[i];
        seen += 1;
      }
    }
    const mean = seen ? sum / seen : 0;
    this.usual = mean + 2 * Math.sqrt(Math.max(seen ? squares / seen - mean * mean : 0, 0));
    for (let i = 0; i < this.length; i += 1) {
      if (!(surprise[i] > this.usual)) continue;
      const near = found.surprise[found.surprise.length - 1];
      if (near === undefined || i - near > 5) found.surprise.push(i);
      else if (surprise[i] > surprise[near]) found.surprise[found.surprise.length - 1] = i;
    }
    for (const name of Object.keys(found)) {
      this.events[name] = found[name].map((i) => i + this.first);
    }
  }

  /** The step of the next (or previous) event of a kind; undefined where there is none. */
  jump(kind, step, back) {
    const steps = this.events[kind] || [];
    return back ? steps[above(steps, step - 1) - 1] : steps[above(steps, step)];
  }

  /** A fork does not know what was scored before it: its return goes on from that of the run. */
  goOnFrom(run) {
    const { first } = this.series;
    const returned = this.series.return;
    const before = (run.value("return", this.first) || 0) - returned[0];
    for (let i = 0; i < this.length && !(i && first[i] > 0); i += 1) returned[i] += before;
  }

  episodeAt(step) {
    return above(this.events.episode || [], step);
  }
}

/** Frames come in chunks, one request at a time, the newest wish first; a bounded many are kept. */
const CHUNK = 32;
const FRAME_BYTES = 96 * 1024 * 1024;

class ServedRun extends Run {
  constructor(number, about, row) {
    super(number, about, row);
    this.chunks = new Map();
    this.wanted = null;
    this.busy = false;
    this.moments = new Map();
    this.seen = new Map();
  }

  async ask(verb, query) {
    const words = new URLSearchParams({ run: this.number, row: this.row, ...query });
    const answer = await fetch(`${verb}?${words}`);
    if (!answer.ok) throw new Error((await answer.json()).error || answer.statusText);
    return answer;
  }

  async fetchSeries(from) {
    return unpack(await (await this.ask("series", { from })).arrayBuffer());
  }

  /** Looks for what was written since; true where there is more. */
  async grow() {
    const told = await (await this.ask("grown", {})).json();
    this.about.missing = told.missing;
    if (told.steps <= this.length) return false;
    // What was read of the last chunk before its steps were all written is read again.
    const tail = Math.floor(this.last / CHUNK);
    await this.load();
    this.chunks.delete(tail);
    return true;
  }

  /** {shape, pixels, step} of a step, or null; what is not here yet is asked for. */
  frame(step) {
    if (!this.about.pixels || this.at(step) < 0) return null;
    this.wanted = step;
    const chunk = this.chunks.get(Math.floor(step / CHUNK));
    this.pump();
    return (chunk && chunk.get(step)) || null;
  }

  /** Whether a frame may still come. */
  pending(step) {
    return Boolean(this.about.pixels) && !this.chunks.has(Math.floor(step / CHUNK));
  }

  pump() {
    if (this.busy || this.wanted === null) return;
    const here = Math.floor(this.wanted / CHUNK);
    const least = Math.floor(this.first / CHUNK);
    const most = Math.floor(this.last / CHUNK);
    const next = [here, here + 1, here - 1, here + 2].find(
      (n) => n >= least && n <= most && !this.chunks.has(n));
    if (next === undefined) return;
    this.busy = true;
    const last = this.last;
    this.fetchChunk(next).catch(() => new Map()).then((chunk) => {
      this.busy = false;
      // Asked for before the run grew, the last chunk then may be short: it is asked for anew.
      if (this.last === last || next < Math.floor(last / CHUNK)) this.chunks.set(next, chunk);
      const size = this.about.pixels.reduce((a, b) => a * b, 1) * CHUNK;
      while (this.chunks.size > Math.max(4, FRAME_BYTES / size)) {
        this.chunks.delete(this.chunks.keys().next().value);
      }
      this.onFrame();
      this.pump();
    });
  }

  async fetchChunk(n) {
    const query = { from: n * CHUNK, count: CHUNK };
    return framesOf(unpack(await (await this.ask("frames", query)).arrayBuffer()));
  }

  async moment(step) {
    if (!this.moments.has(step)) {
      if (this.moments.size > 200) this.moments.clear();
      this.moments.set(step, (await this.ask("moment", { step })).json());
    }
    return this.moments.get(step);
  }

  async futures(step) {
    if (!this.seen.has(step)) {
      if (this.seen.size > 40) this.seen.clear();
      const answer = this.ask("futures", { step }).then((a) => a.arrayBuffer()).then(unpack);
      this.seen.set(step, answer);
    }
    return this.seen.get(step);
  }
}

/** Frames by step, of one packed answer. */
function framesOf({ facts, arrays }) {
  const found = new Map();
  const [, height, width, channels] = arrays.frames.shape;
  const size = height * width * channels;
  facts.steps.forEach((step, i) => {
    const pixels = arrays.frames.subarray(i * size, (i + 1) * size);
    found.set(step, { step, width, height, channels, pixels });
  });
  return found;
}

/** Bytes of a base64 text that was deflated. */
async function inflate(text) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** A run inside an exported file. Not every frame, moment and future was taken along. */
class EmbeddedRun extends Run {
  constructor(number, kept) {
    super(number, kept.about, kept.row);
    this.kept = kept;
    this.frames = new Map();
    this.steps = kept.frames.pieces.flat();
    this.pieceOf = kept.frames.pieces.flatMap((steps, n) => steps.map(() => n));
    this.loading = new Set();
  }

  async fetchSeries() {
    const series = unpack(await inflate(this.kept.series));
    this.moments = JSON.parse(new TextDecoder().decode(await inflate(this.kept.moments)));
    this.momentSteps = Object.keys(this.moments).map(Number).sort((a, b) => a - b);
    return series;
  }

  async grow() {
    return false;
  }

  /** The nearest kept frame at or before a step. */
  frame(step) {
    const place = above(this.steps, step) - 1;
    if (place < 0) return null;
    const near = this.steps[place];
    if (!this.frames.has(near)) this.open(this.pieceOf[place]);
    return this.frames.get(near) || null;
  }

  pending() {
    return this.loading.size > 0;
  }

  open(n) {
    if (this.loading.has(n)) return;
    this.loading.add(n);
    inflate(this.kept.frames.packs[n]).then((bytes) => {
      for (const [step, frame] of framesOf(unpack(bytes))) this.frames.set(step, frame);
      this.loading.delete(n);
      this.onFrame();
    });
  }

  async moment(step) {
    const near = this.momentSteps[above(this.momentSteps, step) - 1];
    return near === undefined ? { step, readable: false, own: [], parts: [] } : this.moments[near];
  }

  async futures(step) {
    const kept = this.kept.futures[step];
    if (kept === undefined) {
      const note = this.value("mode", step) === 2
        ? "The futures of this moment were not taken along in this file."
        : "Mode-1: it acted without imagining anything.";
      return { facts: { step, note, how: "", futures: [], came: { at: [], frames: [] } }, arrays: {} };
    }
    return unpack(await inflate(kept));
  }
}
