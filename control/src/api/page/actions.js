// What changes the topology: only for those who have said who they are, and only after it has been said what will happen.

import { whole } from './dialog.js';
import { buttons } from './dom.js';
import { api, perform } from './shell.js';

const HOLDS = 'It holds for every proxy of the fleet, and until it is changed again.';
const KEEP = 'Guards keep what is left of the service from going at once: too few backends would take traffic after this.';
const FORCED = [KEEP, 'Without them, requests may fail on every proxy.'];

const revision = (result) => (result?.revision === undefined ? '' : `done, as revision ${result.revision}`);

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

  // Of backends that have registered; what stands in a text is changed there.
  ofBackend(service, row) {
    const drains = row.state === 'drained' || row.state === 'maintenance';
    return [drains ? ['Ready', () => this.state(service, row, 'ready')] : ['Drain', () => this.state(service, row, 'drain')], ['Weight', () => this.weight(service, row)]];
  }

  patch(service, id, question, body) {
    const path = `/v1/objects/backend/${encodeURIComponent(service)}/${encodeURIComponent(id)}`;
    return perform({ question, force: FORCED, said: revision, act: (answer, forced) => api('PATCH', `${path}?note=page${forced ? '&force=true' : ''}`, body(answer)) });
  }

  state(service, row, state) {
    const lines = state === 'drain'
      ? [`It takes no new requests of ${service} on any proxy; what is in flight ends in its own time.`, HOLDS]
      : [`It takes its keys of ${service} again on every proxy, where checks agree.`, HOLDS];
    return this.patch(service, row.id, { title: `${state === 'drain' ? 'Drain' : 'Make ready'} ${row.id}?`, confirm: state === 'drain' ? 'Drain' : 'Ready', lines }, () => ({ state }));
  }

  weight(service, row) {
    return this.patch(service, row.id, { title: `Change the weight of ${row.id}?`, confirm: 'Change', lines: [
      `It is ${row.weight} now. Keys move to or from ${row.id} alone; those of other backends of ${service} stay.`, HOLDS],
      field: { label: 'Weight', value: row.weight, attributes: { inputmode: 'numeric', autocomplete: 'off' }, check: whole(0, 1600) } }, (answer) => ({ weight: Number(answer) }));
  }

  rollback(to) {
    return perform({ said: revision, question: { title: `Roll back to revision ${to}?`, confirm: 'Roll back', lines: [
      `All objects become what they were at revision ${to}, as a new revision; what registers with a lease stays.`, HOLDS],
      field: { label: 'Why', value: '', attributes: { autocomplete: 'off', maxlength: 200 } } },
      act: (note) => api('POST', '/v1/rollback', { to, note }) });
  }

  abort(id) {
    return perform({ said: () => `rollout ${id} is aborted`, question: { title: `Abort rollout ${id}?`, confirm: 'Abort', lines: [
      'Proxies that have the change already go back to what holds for the others. Nothing of it becomes a revision.'] },
      act: () => api('POST', `/v1/rollouts/${id}/abort`, { reason: 'from the page' }) });
  }
}
