"use strict";
/* Sources of the data: the server on this machine, or the exported file itself. */

/** Facts and typed arrays of one packed answer, a file of safetensors. */
function unpack(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const { __metadata__: metadata, ...entries } = header;
  const kinds = { F32: Float32Array, U32: Uint32Array, U8: Uint8Array };
  const arrays = {};
  for (const [name, { dtype, shape, data_offsets: [start] }] of Object.entries(entries)) {
    const size = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new kinds[dtype](buffer, 8 + length + start, size);
    arrays[name].shape = shape;
  }
  return { facts: JSON.parse(metadata.facts), arrays };
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

  /** The index of a step in the series; -1 outside of the run. */
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
    this.append(await this.fetchSeries(this.length));
  }

  /** Appends the series of a packed answer. */
  append({ facts, arrays }) {
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
      let stored = this.series[name];
      if (!stored || stored.length < length) {
        const wider = new values.constructor(Math.max(length, stored ? 2 * stored.length : 0));
        if (stored) wider.set(stored.subarray(0, this.length));
        stored = this.series[name] = wider;
      }
      stored.set(values, facts.start);
    }
    this.length = length;
    this.series.kind = this.series.reason.map((code) => this.kindOf[code]);
    this.findEvents();
  }

  /** The events of the run: sorted steps for each kind of jump. */
  findEvents() {
    const { mode, surprise, lost, score, first } = this.series;
    const events = { switch: [], surprise: [], life: [], reward: [], episode: [] };
    let sum = 0;
    let squares = 0;
    let seen = 0;
    for (let i = 0; i < this.length; i += 1) {
      if (i && mode[i] > 0 && mode[i - 1] > 0 && mode[i] !== mode[i - 1]) events.switch.push(i);
      if (lost[i] > 0) events.life.push(i);
      if (score[i] !== 0 && !Number.isNaN(score[i])) events.reward.push(i);
      if (first[i] > 0) events.episode.push(i);
      if (!Number.isNaN(surprise[i])) {
        sum += surprise[i];
        squares += surprise[i] * surprise[i];
        seen += 1;
      }
    }
    const mean = seen ? sum / seen : 0;
    this.threshold = mean + 2 * Math.sqrt(Math.max(seen ? squares / seen - mean * mean : 0, 0));
    for (let i = 0; i < this.length; i += 1) {
      if (!(surprise[i] > this.threshold)) continue;
      const near = events.surprise[events.surprise.length - 1];
      if (near === undefined || i - near > 5) events.surprise.push(i);
      else if (surprise[i] > surprise[near]) events.surprise[events.surprise.length - 1] = i;
    }
    for (const name of Object.keys(events)) {
      this.events[name] = events[name].map((i) => i + this.first);
    }
  }

  /** The step of the next (or previous) event of a kind; undefined where there is none. */
  jump(kind, step, back) {
    const steps = this.events[kind] || [];
    return back ? steps[above(steps, step - 1) - 1] : steps[above(steps, step)];
  }

  /** Adds the return of the run before the fork to that of the fork's first episode. */
  continueReturn(run) {
    const { over } = this.series;
    const returned = this.series.return;
    const before = (run.value("return", this.first) || 0) - returned[0];
    for (let i = 0; i < this.length && !(i && over[i - 1] > 0); i += 1) returned[i] += before;
  }

  episodeAt(step) {
    return above(this.events.episode || [], step);
  }
}

/** Frames come in chunks, one request at a time, the latest step first, in a bounded cache. */
const CHUNK = 32;
const FRAME_BYTES = 96 * 1024 * 1024;

class ServedRun extends Run {
  constructor(number, about, row) {
    super(number, about, row);
    this.chunks = new Map();
    this.requested = null;
    this.busy = false;
    this.moments = new Map();
    this.seen = new Map();
  }

  async ask(verb, query) {
    const words = new URLSearchParams({ run: this.number, row: this.row, ...query });
    const response = await fetch(`${verb}?${words}`);
    if (!response.ok) throw new Error((await response.json()).error || response.statusText);
    return response;
  }

  async fetchSeries(from) {
    return unpack(await (await this.ask("series", { from })).arrayBuffer());
  }

  /** Requests the steps written since; true where there are any. */
  async grow() {
    const answer = await (await this.ask("grown", {})).json();
    this.about.missing = answer.missing;
    if (answer.steps <= this.length) return false;
    // The last chunk may have been requested before all of its steps were written.
    const tail = Math.floor(this.last / CHUNK);
    await this.load();
    this.chunks.delete(tail);
    return true;
  }

  /** The frame of a step, or null until it has been loaded; requests it. */
  frame(step) {
    if (!this.about.pixels || this.at(step) < 0) return null;
    this.requested = step;
    const chunk = this.chunks.get(Math.floor(step / CHUNK));
    this.pump();
    return (chunk && chunk.get(step)) || null;
  }

  /** Whether a frame is still being loaded. */
  pending(step) {
    return Boolean(this.about.pixels) && !this.chunks.has(Math.floor(step / CHUNK));
  }

  pump() {
    if (this.busy || this.requested === null) return;
    const here = Math.floor(this.requested / CHUNK);
    const least = Math.floor(this.first / CHUNK);
    const most = Math.floor(this.last / CHUNK);
    const next = [here, here + 1, here - 1, here + 2].find(
      (n) => n >= least && n <= most && !this.chunks.has(n));
    if (next === undefined) return;
    this.busy = true;
    const last = this.last;
    this.fetchChunk(next).catch(() => new Map()).then((chunk) => {
      this.busy = false;
      // If the run grew meanwhile, the last chunk may be short and is requested again.
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

/** Frames of a packed answer, by step. */
function framesOf({ facts, arrays }) {
  const frames = new Map();
  const [, height, width, channels] = arrays.frames.shape;
  const size = height * width * channels;
  facts.steps.forEach((step, i) => {
    const pixels = arrays.frames.subarray(i * size, (i + 1) * size);
    frames.set(step, { step, width, height, channels, pixels });
  });
  return frames;
}

/** Bytes of a base64 text that was deflated. */
async function inflate(text) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** A run in an exported file, which has a part of its frames, moments and futures. */
class EmbeddedRun extends Run {
  constructor(number, exported) {
    super(number, exported.about, exported.row);
    this.exported = exported;
    this.frames = new Map();
    this.steps = exported.frames.pieces.flat();
    this.pieceOf = exported.frames.pieces.flatMap((steps, n) => steps.map(() => n));
    this.loading = new Set();
  }

  async fetchSeries() {
    const series = unpack(await inflate(this.exported.series));
    this.moments = JSON.parse(new TextDecoder().decode(await inflate(this.exported.moments)));
    this.momentSteps = Object.keys(this.moments).map(Number).sort((a, b) => a - b);
    return series;
  }

  async grow() {
    return false;
  }

  /** The nearest exported frame at or before a step. */
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
    inflate(this.exported.frames.packs[n]).then((bytes) => {
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
    const packed = this.exported.futures[step];
    if (packed === undefined) {
      const note = this.value("mode", step) === 2
        ? "The futures of this moment are not in this file."
        : "Mode-1: the policy acted, nothing was imagined.";
      return { facts: { step, note, how: "", futures: [], recorded: { at: [], frames: [] } }, arrays: {} };
    }
    return unpack(await inflate(packed));
  }
}
