// One service of the topology: its backends, what is agreed of them, and whether proxies place alike.

import { badge, card, el, facts, number, setText } from './dom.js';
import { Table } from './table.js';

const WORRY = { ejected: 0, maintenance: 1, drained: 2, 'no weight': 3, up: 4 };
const TONE = { ejected: 'bad', maintenance: 'calm', drained: 'calm', up: 'good' };
const WORDS = { ejected: 'agreed down', up: 'ready' };
const STATES = ['up', 'ejected', 'drained', 'no weight', 'maintenance'];

function columns(actions, service) {
  const text = (read) => (cell, row) => setText(cell, read(row));
  return [
    { id: 'id', label: 'Backend', wide: true, sort: (row) => row.id, draw: (cell, row) => {
      if (!cell.firstElementChild) cell.replaceChildren(el('span', { class: 'name' }), el('span', { class: 'muted mono address' }));
      setText(cell.firstElementChild, row.id);
      setText(cell.lastElementChild, row.address);
    } },
    { id: 'state', label: 'Agreed', sort: (row) => WORRY[row.state] ?? 1, draw: (cell, row) => badge(cell, WORDS[row.state] ?? row.state, TONE[row.state] ?? 'calm') },
    { id: 'down', label: 'Down at', number: true, title: 'Proxies that see it down', sort: (row) => row.down_at ?? 0, draw: text((row) => (row.registered ? `${number(row.down_at ?? 0)} of ${number(row.proxies)}` : '–')) },
    { id: 'weight', label: 'Weight', number: true, sort: (row) => row.weight, draw: text((row) => number(row.weight)) },
    { id: 'tier', label: 'Tier', number: true, draw: text((row) => row.tier) },
    { id: 'zone', label: 'Zone', draw: text((row) => row.zone ?? '–') },
    { id: 'from', label: 'From', draw: text((row) => (row.registered ? row.source ?? (row.lease ? `registered, lease ${row.lease}` : 'registered') : 'text')) },
    { id: 'action', label: 'Action', draw: (cell, row) => actions.cell(cell, row.registered ? `${row.state} ${row.weight}` : 'text', () => (row.registered ? actions.ofBackend(service, row) : [])) },
  ];
}

function ringsTable() {
  return new Table({
    caption: 'Rings', key: (row) => row.digest, empty: 'No proxy of this revision has told of it.',
    columns: [
      { id: 'digest', label: 'Digest', draw: (cell, row) => { setText(cell, row.digest); cell.classList.add('mono'); } },
      { id: 'count', label: 'Proxies', number: true, draw: (cell, row) => setText(cell, number(row.count)) },
      { id: 'names', label: 'Which', wide: true, draw: (cell, row) => setText(cell, `${row.names.join(', ')}${row.count > row.names.length ? ', …' : ''}`) },
    ],
  });
}

export class Service {
  constructor(name, actions) {
    Object.assign(this, { name, title: name, rows: [] });
    this.state = el('span');
    this.policy = el('span', { class: 'muted' });
    this.missing = el('p', { class: 'notice', hidden: true }, 'There is no service of this name in the topology.');
    this.facts = el('dl', { class: 'facts' });
    this.rings = ringsTable();
    this.find = el('input', { id: 'find', type: 'search', placeholder: 'id, address or zone', spellcheck: 'false', autocomplete: 'off', oninput: () => this.filter() });
    this.only = el('select', { id: 'only', onchange: () => this.filter() }, el('option', { value: '' }, 'all states'), STATES.map((state) => el('option', { value: state }, WORDS[state] ?? state)));
    this.found = el('span', { class: 'muted' });
    this.backends = new Table({ caption: `Backends of ${name}`, key: (row) => row.id, columns: columns(actions, name), order: 'state', empty: 'No backend matches.' });
    const pair = (of, words, control) => el('span', { class: 'pair' }, el('label', { for: of }, words), control);
    // What there is of a service that is there.
    this.parts = [this.state, this.policy,
      el('div', { class: 'columns' }, card('Rings of proxies', this.rings.node), card('Service', this.facts)),
      card('Backends', el('div', { class: 'toolbar' }, pair('find', 'Find', this.find), pair('only', 'Show', this.only), this.found), this.backends.node)];
    this.node = el('div', { class: 'view' },
      el('div', { class: 'view-head' }, el('h2', { class: 'view-title' }, name), this.state, this.policy), this.missing, this.parts.slice(2));
  }

  update({ frame }) {
    const service = frame.service?.name === this.name ? frame.service : null;
    // Of many services, only some are shown to all.
    const sums = service?.sums ?? (Object.hasOwn(frame.services ?? {}, this.name) ? frame.services[this.name] : null);
    this.missing.hidden = Boolean(sums);
    for (const part of this.parts) part.hidden = !sums;
    if (!sums) return;
    badge(this.state, sums.ejected ? `${sums.ejected} agreed down` : 'fine', sums.ejected ? 'warn' : 'good');
    setText(this.policy, `${sums.policy}, ${number(sums.backends)} backends`);
    facts(this.facts, [
      ['Registered', number(sums.registered)], ['Drained', number(sums.drained)], ['Agreed down', number(sums.ejected)],
      ['Overdue, kept', sums.frozen], ['Proxies', service ? number(service.proxies) : null], ['Digest', sums.ring],
    ]);
    if (!service) return;
    this.all = sums.backends;
    this.rings.update(Object.entries(service.rings ?? {}).map(([digest, { count, proxies }]) => ({ digest, count, names: proxies })).sort((a, b) => b.count - a.count));
    this.rows = Object.entries(service.backends ?? {}).map(([id, backend]) => ({ ...backend, id, proxies: service.proxies }));
    this.filter();
  }

  filter() {
    const wanted = this.find.value.trim().toLowerCase();
    const matches = (row) => !wanted || [row.id, row.address, row.zone].some((one) => String(one ?? '').toLowerCase().includes(wanted));
    const rows = this.rows.filter((row) => matches(row) && (!this.only.value || row.state === this.only.value));
    const all = Math.max(this.all ?? 0, this.rows.length);
    setText(this.found, rows.length === all ? '' : `${number(rows.length)} of ${number(all)}${all > this.rows.length ? `, of which ${number(this.rows.length)} are shown` : ''}`);
    this.backends.update(rows);
  }
}
