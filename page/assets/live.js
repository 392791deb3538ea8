// The live view: a whole frame, then merge patches (RFC 7396), as server-sent events. Read with fetch(): an EventSource cannot send a token.

// There is something new each second: what is older is said to be, and in the end asked for anew.
const QUIET_MS = 3000;
const SILENCE_MS = 8000;
const WAIT_MS = [500, 1000, 2000, 4000, 8000, 15000];
const HISTORY = 120;

export function merge(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else if (typeof value === 'object' && !Array.isArray(value)) {
      // Names are strangers': `__proto__` must be a field like any other.
      const own = Object.hasOwn(target, name) ? target[name] : undefined;
      const nested = own && typeof own === 'object' && !Array.isArray(own) ? own : {};
      define(target, name, merge(nested, value));
    } else define(target, name, value);
  }
  return target;
}

function define(target, name, value) {
  if (name === '__proto__') Object.defineProperty(target, name, { value, writable: true, enumerable: true, configurable: true });
  else target[name] = value;
}

// The parts of an event stream that have come whole; what has not stays.
export function* events(state, text) {
  state.rest += text;
  for (;;) {
    const end = state.rest.indexOf('\n\n');
    if (end < 0) return;
    const lines = state.rest.slice(0, end).split('\n');
    state.rest = state.rest.slice(end + 2);
    const field = (name) => lines.filter((line) => line.startsWith(`${name}: `)).map((line) => line.slice(name.length + 2)).join('\n');
    if (field('data')) yield { event: field('event'), data: field('data') };
  }
}

// What a refusal says, of a proxy or of a member.
export const problem = (answer) => answer?.error ?? answer?.detail;

// `whole`: the frame's field that has the numbers of all services together.
export class Live {
  constructor({ path, whole, headers, onFrame, onState }) {
    Object.assign(this, { path, whole, headers, onFrame, onState, frame: null, service: null, failures: 0, heard: Date.now(), history: { whole: [], service: [] } });
    document.addEventListener('visibilitychange', () => (document.hidden ? this.stop() : this.start()));
  }

  // Follows one service beside the overview, or none.
  follow(service) {
    if (service === this.service && this.abort) return;
    this.service = service;
    this.history.service = [];
    this.failures = 0;
    this.start();
  }

  stop() {
    clearTimeout(this.timer);
    this.stopWaiting();
    this.abort?.abort();
    this.abort = null;
  }

  start() {
    this.stop();
    if (document.hidden) return;
    this.isUnknown = false;
    // By its own controller: a stream that was given up says so when another has begun.
    const abort = this.abort = new AbortController();
    this.read(abort).catch((error) => this.broken(abort, error));
  }

  async read(abort) {
    this.awaitMore(abort);
    const query = this.service === null || this.isUnknown ? '' : `?service=${encodeURIComponent(this.service)}`;
    const response = await fetch(`${this.path}${query}`, { headers: this.headers(), signal: abort.signal, cache: 'no-store' });
    if (this.abort !== abort) return;
    if (response.status === 401 || response.status === 403) {
      this.stopWaiting();
      this.onState('denied', { status: response.status });
      return;
    }
    if (response.status === 404 && query) {
      // There is no such service, or none yet: what all are shown is there all the same.
      this.isUnknown = true;
      return this.read(abort);
    }
    if (!response.ok) throw new Error(problem(await response.json().catch(() => ({}))) ?? `status ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const state = { rest: '' };
    for (;;) {
      this.awaitMore(abort);
      const { done, value } = await reader.read();
      if (done) throw new Error('the stream has ended');
      if (this.abort !== abort) return;
      for (const { event, data } of events(state, value)) this.take(event, JSON.parse(data));
    }
  }

  awaitMore(abort) {
    if (this.abort !== abort) return;
    this.stopWaiting();
    this.quiet = setTimeout(() => this.onState('quiet', { since: this.heard, error: 'nothing comes' }), QUIET_MS);
    this.silence = setTimeout(() => this.broken(abort, new Error('nothing has come for a while')), SILENCE_MS);
  }

  stopWaiting() {
    clearTimeout(this.quiet);
    clearTimeout(this.silence);
  }

  take(event, data) {
    if (event === 'frame') this.frame = data;
    else if (event === 'change' && this.frame) merge(this.frame, data);
    else return;
    [this.failures, this.heard] = [0, Date.now()];
    if (this.isUnknown && Object.hasOwn(this.frame.services ?? {}, this.service)) {
      this.start();
      return;
    }
    this.remember(this.history.whole, this.frame[this.whole]);
    if (this.service !== null) this.remember(this.history.service, this.frame.services?.[this.service]);
    this.onState('live');
    this.onFrame(this.frame);
  }

  remember(history, numbers) {
    if (!numbers) return;
    history.push({ rate: numbers.requests_per_second ?? 0, errors: numbers.classes?.['5xx'] ?? 0, p50: numbers.p50_seconds ?? 0, p99: numbers.p99_seconds ?? 0 });
    if (history.length > HISTORY) history.shift();
  }

  broken(abort, error) {
    if (this.abort !== abort) return;
    this.stop();
    const wait = WAIT_MS[Math.min(this.failures, WAIT_MS.length - 1)];
    this.failures += 1;
    this.onState('broken', { since: this.heard, error: error.message });
    this.timer = setTimeout(() => this.start(), wait);
  }
}
