// What changes something: only for those who have said who they are, and only after it has been said what will happen.

import { whole } from './dialog.js';
import { buttons, share } from './dom.js';
import { api, perform } from './shell.js';

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
        return [...(result?.changes ?? []), ...moved, result?.note].filter(Boolean).join('; ');
      },
    });
  }

  path = (service, id) => `/services/${encodeURIComponent(service)}/backends/${encodeURIComponent(id)}`;

  drain(service, row) {
    return this.perform({ title: `Drain ${row.id}?`, confirm: 'Drain', lines: [
      `It takes no new requests: its ${share(row.share ?? 0)} of the keys of ${service} go to the next backends of the ring.`,
      `What is in flight (${row.in_flight ?? 0}) ends in its own time.`, LASTS] }, 'POST', this.path(service, row.id), { drain: true }, nobodyLeft(service, row.id));
  }

  ready(service, row) {
    return this.perform({ title: `Make ${row.id} ready?`, confirm: 'Ready', lines: [
      `It takes its keys of ${service} again (${share(row.share ?? 0)}), if its checks agree.`, LASTS] }, 'POST', this.path(service, row.id), { drain: false });
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

  spread(service, hash) {
    return this.perform({ title: `Spread the key ${hash}?`, confirm: 'Spread', lines: [
      `Its requests of ${service} go to several backends for ten minutes, the less loaded of two each time. Their caches each fill with it.`],
      field: { label: 'Backends that share it', value: '2', attributes: { inputmode: 'numeric', autocomplete: 'off' }, check: whole(2, 64) } },
      'POST', `/services/${encodeURIComponent(service)}/hot-keys`, (answer) => ({ hash, owners: Number(answer), for_seconds: 600 }));
  }
}
