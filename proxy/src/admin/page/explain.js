// Explain: where a request would go now, and why.

import { badge, card, el, facts, link, number, serviceHref, setText, share, tone } from './dom.js';
import { parseRequest } from './request.js';
import { Table } from './table.js';

const SHOWN = new Set(['listener', 'route', 'nearest', 'service', 'key', 'hash', 'explanation', 'verdict', 'steps']);

function candidates() {
  return new Table({
    caption: 'Candidates', key: (row) => row.id, empty: 'There are no candidates.',
    columns: [
      { id: 'turn', label: 'Turn', draw: (cell, row) => setText(cell, row.turn ?? '–') },
      { id: 'id', label: 'Backend', wide: true, draw: (cell, row) => setText(cell, row.id) },
      { id: 'state', label: 'State', draw: (cell, row) => badge(cell, row.state, tone(row.state)) },
      { id: 'flight', label: 'In flight', number: true, draw: (cell, row) => setText(cell, row.cap == null ? number(row.in_flight) : `${number(row.in_flight)} / ${number(row.cap)}`) },
      { id: 'accept', label: 'Accepts', number: true, draw: (cell, row) => setText(cell, share(row.accept_share)) },
      { id: 'verdict', label: 'Verdict', wide: true, draw: (cell, row) => setText(cell, row.why && row.state !== 'up' ? `${row.verdict} · ${row.why}` : row.verdict) },
    ],
  });
}

const routeText = (route) => (route === null || route === undefined ? 'none matched' : [`number ${route.number}`, route.name ?? route.conditions].filter(Boolean).join(': '));
const keyText = (key) => (typeof key === 'string' ? JSON.stringify(key).slice(1, -1) : key === null || key === undefined ? undefined : JSON.stringify(key));

export class Explain {
  constructor(api) {
    this.api = api;
    this.title = 'Explain';
    this.input = el('textarea', { id: 'request', rows: 6, spellcheck: 'false', autocomplete: 'off', class: 'mono',
      placeholder: "GET /cart/17 HTTP/1.1\nHost: shop.example\n\nor\n\ncurl -H 'X-User: 17' https://shop.example/cart" });
    this.from = el('input', { id: 'from', placeholder: '127.0.0.1', spellcheck: 'false', autocomplete: 'off' });
    this.listener = el('select', { id: 'listener' }, el('option', { value: '' }, 'any that fits'));
    this.error = el('p', { class: 'notice bad', role: 'alert', hidden: true });
    this.notes = el('p', { class: 'notice', id: 'notes', hidden: true });
    this.verdict = el('p', { class: 'verdict', id: 'verdict' });
    this.facts = el('dl', { class: 'facts' });
    this.service = el('p');
    this.steps = el('ol', { class: 'steps' });
    this.table = candidates();
    this.result = el('div', { hidden: true, 'aria-live': 'polite' }, card('Verdict', this.notes, this.verdict, this.facts, this.service, this.steps), card('Candidates', this.table.node));
    const form = el('form', { class: 'explain', onsubmit: (event) => { event.preventDefault(); this.ask(); } },
      el('label', { for: 'request' }, 'A request line with its headers, or a curl command'), this.input,
      el('div', { class: 'toolbar' }, el('label', { for: 'from' }, 'From'), this.from, el('label', { for: 'listener' }, 'Listener'), this.listener,
        el('button', { type: 'submit', class: 'primary' }, 'Explain')));
    this.node = el('div', { class: 'view' }, card('Explain a request', el('p', { class: 'muted' }, 'Nothing is sent to a backend: this says where it would go, as things stand now.'), form, this.error), this.result);
  }

  update({ frame }) {
    const names = Object.keys(frame.listeners ?? {});
    if ([...this.listener.options].slice(1).map((option) => option.value).join('\n') === names.join('\n')) return;
    const chosen = this.listener.value;
    this.listener.replaceChildren(this.listener.options[0], ...names.map((name) => el('option', { value: name }, name)));
    this.listener.value = names.includes(chosen) ? chosen : '';
  }

  async ask() {
    this.error.hidden = true;
    try {
      const { request, notes } = parseRequest(this.input.value);
      if (this.from.value.trim()) request.from = this.from.value.trim();
      if (this.listener.value) request.listener = this.listener.value;
      this.show(await this.api('POST', '/explain', request));
      this.notes.hidden = !notes.length;
      setText(this.notes, notes.join(' '));
    } catch (error) {
      this.result.hidden = true;
      this.error.hidden = false;
      setText(this.error, error.message);
    }
  }

  show(answer) {
    const explanation = answer.explanation ?? {};
    this.result.hidden = false;
    setText(this.verdict, answer.verdict ?? (explanation.backend ? `goes to ${explanation.backend}` : 'goes to nobody'));
    facts(this.facts, [
      ['Listener', answer.listener], ['Route', routeText(answer.route)], ['Nearest', answer.nearest], ['Key', keyText(answer.key)],
      ['Hash', answer.hash ?? explanation.hash], ['Owner', explanation.owner], ['Panic', explanation.panic ? 'yes: health is ignored' : null],
      ...Object.entries(answer).filter(([name, value]) => !SHOWN.has(name) && !(Array.isArray(value) && value.length === 0)).map(([name, value]) => [name.replaceAll('_', ' '), value]),
    ]);
    this.service.replaceChildren();
    if (answer.service) link(this.service, `Service ${answer.service}`, serviceHref(answer.service));
    this.steps.replaceChildren(...(answer.steps ?? []).map((step) => el('li', null, typeof step === 'string' ? step : JSON.stringify(step))));
    const walk = [...(explanation.walk ?? [])].sort((a, b) => (a.turn ?? Infinity) - (b.turn ?? Infinity) || 0);
    this.table.update(walk);
  }
}
