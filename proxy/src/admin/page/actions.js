// What changes something: only for those who have said who they are, and only after it has been said what will happen.

import { el, setText, share } from './dom.js';

const LASTS = 'It lasts until this process ends, or until it is taken back.';

// A dialog that resolves to what was entered, or to null.
function ask({ title, lines, field, confirm }) {
  return new Promise((resolve) => {
    const input = field && el('input', { id: 'dialog-field', ...field.attributes, value: field.value ?? '' });
    const error = el('p', { class: 'notice bad', role: 'alert', hidden: true });
    const close = (answer) => { dialog.close(); dialog.remove(); resolve(answer); };
    const submit = (event) => {
      event.preventDefault();
      const wrong = field?.check?.(input.value);
      error.hidden = !wrong;
      setText(error, wrong);
      if (!wrong) close(input ? input.value : true);
    };
    const dialog = el('dialog', { 'aria-labelledby': 'dialog-title', oncancel: (event) => { event.preventDefault(); close(null); } },
      el('form', { onsubmit: submit }, el('h2', { id: 'dialog-title' }, title), lines.map((line) => el('p', null, line)),
        input && el('div', { class: 'field' }, el('label', { for: 'dialog-field' }, field.label), input), error,
        el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'quiet', onclick: () => close(null) }, 'Cancel'),
          el('button', { type: 'submit', class: 'primary' }, confirm))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

const whole = (low, high) => (text) => (/^\d+$/.test(text) && Number(text) >= low && Number(text) <= high ? '' : `a whole number from ${low} to ${high}`);

export const askToken = (why) => ask({
  title: 'Sign in', confirm: 'Sign in', lines: [why, 'The token is kept in this tab alone, until it is closed.'],
  field: { label: 'Token', attributes: { type: 'password', autocomplete: 'off', spellcheck: 'false' }, check: (text) => (/^[\x21-\x7e]+$/.test(text) ? '' : 'a token has no spaces, and is not empty') },
});

export class Actions {
  constructor(api, me, tell) {
    Object.assign(this, { api, me, tell });
  }

  get allowed() {
    return this.me().role === 'operate' && this.me().via !== 'anonymous';
  }

  // Buttons in a table's cell; none for those who may only look. `key` says when what they do has changed.
  cell(cell, key, list) {
    const drawn = this.allowed ? key : '';
    if (cell.dataset.drawn === drawn) return;
    cell.dataset.drawn = drawn;
    cell.classList.toggle('acts', this.allowed);
    cell.replaceChildren(...(this.allowed ? list().map(([label, act]) => el('button', { type: 'button', class: 'small', onclick: act }, label)) : ['–']));
  }

  ofBackend(service, row) {
    const drains = ['draining', 'drained', 'maintenance'].includes(row.state);
    return [drains ? ['Ready', () => this.ready(service, row)] : ['Drain', () => this.drain(service, row)], ['Weight', () => this.weight(service, row)]];
  }

  async perform(question, method, path, body) {
    const answer = await ask(question);
    if (answer === null) return;
    try {
      const result = await this.api(method, path, typeof body === 'function' ? body(answer) : body);
      const said = [...(result?.changes ?? []), ...(result?.moved ?? []).map(({ service, percent }) => `${Number(percent.toPrecision(3))} % of the keys of ${service} move`), result?.note];
      this.tell(said.filter(Boolean).join('; ') || `${question.confirm}: done`);
    } catch (error) {
      this.tell(`${question.confirm}: ${error.message}`, true);
    }
  }

  path = (service, id) => `/services/${encodeURIComponent(service)}/backends/${encodeURIComponent(id)}`;

  drain(service, row) {
    return this.perform({ title: `Drain ${row.id}?`, confirm: 'Drain', lines: [
      `It takes no new requests: its ${share(row.share ?? 0)} of the keys of ${service} go to the next backends of the ring.`,
      `What is in flight (${row.in_flight ?? 0}) ends in its own time.`, LASTS] }, 'POST', this.path(service, row.id), { drain: true });
  }

  ready(service, row) {
    return this.perform({ title: `Make ${row.id} ready?`, confirm: 'Ready', lines: [
      `It takes its keys of ${service} again (${share(row.share ?? 0)}), if its checks agree.`, LASTS] }, 'POST', this.path(service, row.id), { drain: false });
  }

  weight(service, row) {
    return this.perform({ title: `Change the weight of ${row.id}?`, confirm: 'Change', lines: [
      `It is ${row.weight} now. Keys move to or from ${row.id} alone; those of other backends of ${service} stay.`, LASTS],
      field: { label: 'Weight', value: row.weight, attributes: { inputmode: 'numeric', autocomplete: 'off' }, check: whole(0, 1600) } },
      'POST', this.path(service, row.id), (answer) => ({ weight: Number(answer) }));
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
