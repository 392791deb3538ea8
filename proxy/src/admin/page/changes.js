// Changes: what has happened to this proxy, newest first.

import { ago, badge, card, clock, el, lineList, link, percent, serviceHref, setAttribute, setText } from './dom.js';
import { Table } from './table.js';

const KINDS = { reload: 'Reloads', health: 'Health', outlier: 'Backends that stand out', handoff: 'Hand-offs', overload: 'Overload', change: 'Runtime changes', rollout: 'Rollouts' };
const BAD = new Set(['down', 'ejected', 'panic_began', 'refused', 'aborted', 'stands_out', 'failing', 'ejection_withheld']);
const GOOD = new Set(['up', 'returned', 'undrained', 'panic_ended', 'applied', 'normal', 'prepared', 'committed']);

export function eventRows(frame) {
  return Object.entries(frame.events ?? {}).map(([number, event]) => ({ ...event, number: Number(number), now: frame.at }))
    .sort((a, b) => b.number - a.number);
}

function details(event) {
  const moved = (event.moved ?? []).map(({ service, percent: part }) => `${percent(part)} of the keys of ${service} moved`);
  return [event.by ? `by ${event.by}` : '', ...moved, ...(event.changes ?? [])].filter(Boolean);
}

function drawWhat(cell, event) {
  const lines = details(event);
  const key = JSON.stringify([event.text, lines]);
  if (cell.dataset.drawn === key) return;
  cell.dataset.drawn = key;
  cell.replaceChildren(el('span', null, event.text ?? ''), ...lineList(lines));
}

export function eventsTable() {
  return new Table({
    caption: 'Events', key: (row) => String(row.number), empty: 'Nothing has happened yet.',
    columns: [
      { id: 'at', label: 'When', draw: (cell, row) => { setText(cell, ago(row.at, row.now)); setAttribute(cell, 'title', clock(row.at)); } },
      { id: 'to', label: 'What', draw: (cell, row) => badge(cell, (row.to ?? row.kind).replaceAll('_', ' '), BAD.has(row.to) ? 'bad' : GOOD.has(row.to) ? 'good' : 'calm') },
      { id: 'where', label: 'Where', draw: (cell, row) => (row.service
        ? link(cell, row.backend ? `${row.service} / ${row.backend}` : row.service, serviceHref(row.service))
        : setText(cell, 'proxy')) },
      { id: 'text', label: 'Why', wide: true, draw: drawWhat },
    ],
  });
}

export class Changes {
  constructor() {
    this.kind = el('select', { id: 'kind', onchange: () => this.draw() },
      el('option', { value: '' }, 'Everything'), Object.entries(KINDS).map(([kind, label]) => el('option', { value: kind }, label)));
    this.table = eventsTable();
    this.note = el('p', { class: 'muted' }, 'Since this process began; of more than 256 events the last.');
    this.node = el('div', { class: 'view' }, card('Changes',
      el('div', { class: 'toolbar' }, el('label', { for: 'kind' }, 'Show'), this.kind), this.table.node, this.note));
    this.title = 'Changes';
    this.rows = [];
  }

  update({ frame }) {
    this.rows = eventRows(frame);
    this.draw();
  }

  draw() {
    this.table.update(this.rows.filter((row) => !this.kind.value || row.kind === this.kind.value));
  }
}
