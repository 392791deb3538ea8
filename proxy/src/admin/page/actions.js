// What changes something: only for those who have said who they are, and only after it has been said what will happen.

import { whole } from './dialog.js';
import { buttons, share } from './dom.js';
import { api, perform } from './shell.js';

const OWNERS_MAX = 32;
const LASTS = 'It lasts until this process ends, or until it is taken back.';

// What is said before the last backend is taken out.
const nobodyLeft = (service, id) => [`${id} is the last backend of ${service} that takes traffic.`, `Without it every request of ${service} fails, until another is ready or this one is again.`];

export class Actions {
  constructor(allowed) {
    this.mayAct = allowed;
  }

  get allowed() {
    return this.mayAct();
  }

  cell(cell, key, list) {
    buttons(cell, this.allowed ? key : null, list);
  }

  ofBackend(service, row) {
    const drains = ['draining', 'drained', 'maintenance'].includes(row.state);
    return [drains ? ['Ready', () => this.ready(service, row)] : ['Drain', () => this.drain(service, row)], ['Weight', () => this.weight(service, row)]];
  }

  perform(question, method, path, body, force) {
    return perform({
      question, force,
      act: (answer, isForced) => {
        const asked = typeof body === 'function' ? body(answer) : body;
        return api(method, path, isForced ? { ...asked, force: true } : asked);
      },
      said: (result) => {
        const moved = (result?.moved ?? []).map(({ service, percent }) => `${Number(percent.toPrecision(3))} % of the keys of ${service} move`);
        const told = [...(result?.changes ?? []), ...(result?.needs_restart ?? []).map((one) => `${one} (needs a restart)`), ...moved];
        if (!told.length) return ['Nothing has changed.', ...(result?.overridden ?? []).map((line) => `Stands: ${line}.`)].join(' ');
        return [...told, ...(result?.warnings ?? []), result?.note].filter(Boolean).join('; ');
      },
    });
  }

  path = (service, id) => `/services/${encodeURIComponent(service)}/backends/${encodeURIComponent(id)}`;

  drain(service, row) {
    return this.perform({ title: `Drain ${row.id}?`, confirm: 'Drain', lines: [
      `It takes no new requests: its ${share(row.share ?? 0)} of the keys of ${service} go to the next backends of the ring.`,
      `What is in flight (${row.in_flight ?? 0}) ends in its own time.`, LASTS] }, 'POST', this.path(service, row.id), { drain: true, maintenance: null }, nobodyLeft(service, row.id));
  }

  ready(service, row) {
    return this.perform({ title: `Make ${row.id} ready?`, confirm: 'Ready', lines: [
      `It takes its keys of ${service} again (${share(row.share ?? 0)}), if its checks agree.`, LASTS] }, 'POST', this.path(service, row.id), { drain: false, maintenance: false });
  }

  weight(service, row) {
    return this.perform({ title: `Change the weight of ${row.id}?`, confirm: 'Change', lines: [
      `It is ${row.weight} now. Keys move to or from ${row.id} alone; those of other backends of ${service} stay.`, LASTS],
      field: { label: 'Weight', value: row.weight, attributes: { inputmode: 'numeric', autocomplete: 'off' }, check: whole(0, 1600) } },
      'POST', this.path(service, row.id), (answer) => ({ weight: Number(answer) }), nobodyLeft(service, row.id));
  }

  reload() {
    return this.perform({ title: 'Reload?', confirm: 'Reload', lines: [
      'The configuration file is read again, and put into force if it is valid.', 'No request fails; keys move as the file says. If it is not valid, nothing changes.'] }, 'POST', '/reload');
  }

  // Never to fewer than serve it already.
  spread(service, { hash, owners, backends }) {
    const most = Math.min(backends, OWNERS_MAX);
    const has = (owners ?? []).length;
    return this.perform({ title: `Spread the key ${hash}?`, confirm: 'Spread', lines: [
      `${has} of the ${backends} backends of ${service} serve it now. For ten minutes as many as you say do, the less loaded of two each time. Their caches each fill with it.`],
      field: { label: 'Backends that share it', value: String(Math.min(Math.max(has, 1) + 1, most)), attributes: { inputmode: 'numeric', autocomplete: 'off' }, check: whole(2, most) } },
      'POST', this.keys(service), (answer) => ({ hash, owners: Number(answer), for_seconds: 600 }));
  }

  keys = (service) => `/services/${encodeURIComponent(service)}/hot-keys`;

  endSpread(service, hash) {
    return this.perform({ title: `Spread ${hash} no longer?`, confirm: 'End', lines: [
      `What was set by hand ends now: the key of ${service} goes back to as many backends as it needs by itself.`] },
      'POST', this.keys(service), { hash, end: true });
  }
}
