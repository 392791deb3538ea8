// One service: its ring, and a row for each backend.

import { ago, badge, bar, card, el, facts, number, percent, seconds, setAttribute, setText, share, span, tone } from './dom.js';
import { Ring, Tile } from './charts.js';
import { Rates, isFailing, isSlow, serviceState } from './overview.js';
import { Table } from './table.js';

// What needs a look stands first.
const WORRY = { down: 0, ejected: 0, degraded: 2, unknown: 4, draining: 5, drained: 5, up: 6 };
const worry = (row) => Math.min(WORRY[row.state] ?? 4, isFailing(row) ? 1 : isSlow(row) ? 3 : Infinity);
const STATES = ['up', 'degraded', 'down', 'ejected', 'draining', 'drained', 'unknown'];

function classesText(classes) {
  const parts = Object.entries(classes ?? {}).filter(([, part]) => part > 0).sort(([a], [b]) => a.localeCompare(b));
  return parts.map(([name, part]) => `${name} ${number(part)} %`).join(', ') || '–';
}

function drawState(cell, row) {
  if (!cell.firstElementChild) cell.replaceChildren(el('span'), el('span', { class: 'reason muted' }));
  const words = [isFailing(row) && 'failing', isSlow(row) && 'slow'].filter(Boolean);
  const kind = tone(row.state);
  badge(cell.firstElementChild, [row.state, ...words].join(', '), isFailing(row) ? 'bad' : words.length && kind === 'good' ? 'warn' : kind);
  const left = row.ejected_until > row.now ? `, ${span(row.ejected_until - row.now)} left` : '';
  const since = row.since ? ` (${ago(row.since, row.now)}${left})` : left;
  const told = Object.values(row.stands_out ?? {}).map((one) => `${one.text} (for ${span(row.now - one.since)})`);
  const state = row.reason && row.state !== 'up' ? `${row.reason}${since}` : row.since && !told.length ? `for ${span(row.now - row.since)}` : '';
  const why = [state, ...told].filter(Boolean).join(' · ');
  setText(cell.lastElementChild, row.override ? `${why} · set at run time: ${row.override}` : why);
}

function columns(actions, service) {
  const text = (read) => (cell, row) => setText(cell, read(row));
  return [
    { id: 'id', label: 'Backend', wide: true, sort: (row) => row.id, draw: (cell, row) => {
      if (!cell.firstElementChild) cell.replaceChildren(el('span', { class: 'name' }), el('span', { class: 'muted mono address' }));
      setText(cell.firstElementChild, row.id);
      setText(cell.lastElementChild, row.address);
    } },
    { id: 'state', label: 'State', wide: true, sort: worry, draw: drawState },
    { id: 'share', label: 'Share', sort: (row) => row.share ?? 0, title: 'Share of the keys that it owns when all are up', draw: (cell, row) => bar(cell, (row.share ?? 0) / row.largest, share(row.share ?? 0)) },
    { id: 'accept', label: 'Accepts', sort: (row) => row.accept ?? 1, title: 'What it accepts of its own keys now', draw: (cell, row) => bar(cell, row.accept ?? 1, share(row.accept ?? 1), tone(row.state)) },
    { id: 'flight', label: 'In flight', number: true, sort: (row) => row.in_flight ?? 0, draw: text((row) => (row.cap === undefined ? number(row.in_flight ?? 0) : `${number(row.in_flight ?? 0)} / ${number(row.cap)}`)) },
    { id: 'rate', label: 'Req / s', number: true, sort: (row) => row.requests_per_second ?? 0, draw: text((row) => number(row.requests_per_second ?? 0)) },
    { id: 'errors', label: '5xx', number: true, sort: (row) => row.classes?.['5xx'] ?? 0, draw: (cell, row) => {
      setText(cell, row.requests_per_second > 0 ? percent(row.classes?.['5xx'] ?? 0) : '–');
      setAttribute(cell, 'title', classesText(row.classes));
    } },
    { id: 'p50', label: 'p50', number: true, sort: (row) => row.p50_seconds, draw: text((row) => seconds(row.p50_seconds)) },
    { id: 'p99', label: 'p99', number: true, sort: (row) => row.p99_seconds, draw: text((row) => seconds(row.p99_seconds)) },
    { id: 'failures', label: 'Fails / s', title: 'Tries that failed', number: true, sort: (row) => row.failures_per_second ?? 0, draw: text((row) => number(row.failures_per_second ?? 0)) },
    { id: 'spills', label: 'Spills / s', title: 'What it took because another was at its bound', number: true, sort: (row) => row.spills_per_second ?? 0, draw: text((row) => number(row.spills_per_second ?? 0)) },
    { id: 'ejections', label: 'Ejections', number: true, sort: (row) => row.ejections ?? 0, draw: text((row) => number(row.ejections ?? 0)) },
    { id: 'action', label: 'Action', draw: (cell, row) => actions.cell(cell, `${row.state} ${row.weight}`, () => actions.ofBackend(service, row)) },
  ];
}

export class Service {
  constructor(name, actions) {
    Object.assign(this, { name, title: name, rates: new Rates(), flight: new Tile('In flight'), moved: new Tile('Keys moved') });
    this.heading = el('h2', { class: 'view-title' }, name);
    this.state = el('span');
    this.policy = el('span', { class: 'muted' });
    this.panic = el('p', { class: 'notice bad', hidden: true, id: 'panic' });
    this.wrong = el('p', { class: 'notice', hidden: true, id: 'stands-out' });
    this.missing = el('p', { class: 'notice', hidden: true }, 'There is no service of this name in the configuration in force.');
    this.ring = new Ring((ids) => this.pick(ids));
    this.facts = el('dl', { class: 'facts' });
    this.find = el('input', { id: 'find', type: 'search', placeholder: 'id, address or reason', spellcheck: 'false', autocomplete: 'off', oninput: () => this.refilter() });
    this.only = el('select', { id: 'only', onchange: () => this.refilter() }, el('option', { value: '' }, 'all states'), STATES.map((state) => el('option', { value: state }, state)));
    this.backends = new Table({ caption: `Backends of ${name}`, key: (row) => row.id, columns: columns(actions, name), order: 'state', empty: 'No backend matches.' });
    this.sort = el('select', { id: 'sort', onchange: () => this.backends.sortBy(this.sort.value) },
      this.backends.columns.filter((column) => column.sort).map((column) => el('option', { value: column.id }, column.label)));
    this.sort.value = 'state';
    this.found = el('span', { class: 'muted' });
    const pair = (of, words, control, extra) => el('span', { class: extra ? `pair ${extra}` : 'pair' }, el('label', { for: of }, words), control);
    // What there is of a service that is there.
    this.parts = [this.state, this.policy,
      el('div', { class: 'service-top' },
        card('Ring', this.ring.node, el('p', { class: 'legend muted' }, 'Each arc is a share of the keys; its fill is what is accepted of it.')),
        el('div', { class: 'stack' }, el('div', { class: 'tiles' }, this.rates.nodes, this.flight.node, this.moved.node), card('Placement', this.facts))),
      card('Backends', el('div', { class: 'toolbar' }, pair('find', 'Find', this.find), pair('only', 'Show', this.only), pair('sort', 'Sort', this.sort, 'narrow-only'), this.found), this.backends.node)];
    this.node = el('div', { class: 'view' },
      el('div', { class: 'view-head' }, this.heading, this.state, this.policy), this.missing, this.panic, this.wrong, this.parts.slice(2));
    this.rows = [];
    this.picked = null;
  }

  pick(ids) {
    this.picked = new Set(ids);
    this.find.value = ids.length === 1 ? ids[0] : `${ids[0]} to ${ids.at(-1)}`;
    this.filter();
  }

  refilter() {
    this.picked = null;
    this.filter();
  }

  update({ frame, history }) {
    // Names are strangers': `constructor` is one like any other.
    const sums = Object.hasOwn(frame.services ?? {}, this.name) ? frame.services[this.name] : null;
    const service = frame.service?.name === this.name ? frame.service : null;
    this.missing.hidden = Boolean(sums);
    for (const part of this.parts) part.hidden = !sums;
    [this.panic.hidden, this.wrong.hidden] = [!sums?.panic, !sums?.stands_out];
    if (!sums) return;
    badge(this.state, ...serviceState(sums));
    setText(this.policy, `${sums.policy}, ${sums.up} of ${sums.backends} up`);
    this.rates.update(sums, history.service);
    this.flight.update(number(sums.in_flight ?? 0), { more: sums.waiting > 0 ? `${number(sums.waiting)} waiting` : 'none waiting', kind: sums.waiting > 0 ? 'warn' : null });
    this.moved.update(percent(sums.moved_percent ?? 0), { more: 'at the last change' });
    setText(this.wrong, sums.stands_out?.text);
    if (!service) return;
    setText(this.panic, service.panic?.text ?? '');
    const backends = service.backends ?? {};
    this.ring.update(backends);
    facts(this.facts, [
      ['Digest', sums.ring_digest],
      ['Largest share', service.peak_share_ratio && `${number(service.peak_share_ratio)} times the fair one`],
      ['Levels', Object.entries(service.levels ?? {}).map(([level, part]) => `${level}: ${share(part)}`).join(', ')],
      ['Spills', sums.spills_per_second !== undefined ? `${number(sums.spills_per_second)} / s` : null],
      ['Retries', sums.retries_per_second !== undefined ? `${number(sums.retries_per_second)} / s` : null],
      ['Responses', classesText(sums.classes)],
      ['Panic below', service.panic_threshold_percent !== undefined ? `${service.panic_threshold_percent} % healthy` : null],
    ]);
    const largest = Math.max(1e-9, ...Object.values(backends).map((backend) => backend.share ?? 0));
    this.rows = Object.entries(backends).map(([id, backend]) => ({ ...backend, id, now: frame.at, largest }));
    this.filter();
  }

  filter() {
    const wanted = this.find.value.trim().toLowerCase();
    const matches = (row) => (this.picked ? this.picked.has(row.id)
      : !wanted || [row.id, row.address, row.reason, row.zone, ...Object.values(row.stands_out ?? {}).map((one) => one.text)].some((text) => String(text ?? '').toLowerCase().includes(wanted)));
    const rows = this.rows.filter((row) => matches(row) && (!this.only.value || row.state === this.only.value));
    setText(this.found, rows.length === this.rows.length ? '' : `${rows.length} of ${this.rows.length}`);
    this.backends.update(rows);
  }
}
