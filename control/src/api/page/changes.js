// Changes: revisions with what is different in them, and whatever else has happened to the fleet, newest first.

import { ago, badge, card, clock, el, lineList, setAttribute, setText } from './dom.js';
import { Table } from './table.js';
import { differenceOf } from './difference.js';

const KINDS = { revision: 'Revisions', rollout: 'Rollouts', proxy: 'Proxies', leader: 'Leaders' };
const BAD = new Set(['offline', 'drifted', 'stuck', 'aborted', 'loads_refused']);
const GOOD = new Set(['synced', 'came', 'committed']);
const WORDS = { synced: 'agrees', drifted: 'disagrees', offline: 'gone' };

export function eventRows(frame) {
  return Object.entries(frame.events ?? {}).map(([id, event]) => ({ ...event, id, now: frame.at }))
    .sort((a, b) => b.at - a.at || b.id.localeCompare(a.id, undefined, { numeric: true }));
}

function drawWhat(cell, event) {
  const lines = [event.by ? `by ${event.by}` : '', ...(event.changes ?? [])].filter(Boolean);
  const key = JSON.stringify([event.text, event.note, lines]);
  if (cell.dataset.drawn === key) return;
  cell.dataset.drawn = key;
  cell.replaceChildren(el('span', null, [event.text, event.note].filter(Boolean).join(' · ')), ...lineList(lines));
}

export function eventsTable(extra = []) {
  return new Table({
    caption: 'Events', key: (row) => row.id, empty: 'Nothing has happened yet.',
    columns: [
      { id: 'at', label: 'When', draw: (cell, row) => { setText(cell, ago(row.at, row.now)); setAttribute(cell, 'title', clock(row.at)); } },
      { id: 'to', label: 'What', draw: (cell, row) => badge(cell, WORDS[row.to] ?? row.to, BAD.has(row.to) ? 'bad' : GOOD.has(row.to) ? 'good' : 'calm') },
      { id: 'where', label: 'Where', draw: (cell, row) => setText(cell, row.proxy ?? row.member ?? (row.rollout === undefined ? 'topology' : `rollout ${row.rollout}`)) },
      { id: 'text', label: 'Why', wide: true, draw: drawWhat },
      ...extra,
    ],
  });
}

export class Changes {
  constructor(actions, api) {
    Object.assign(this, { api, title: 'Changes', rows: [], revision: 0 });
    this.kind = el('select', { id: 'kind', onchange: () => this.draw() },
      el('option', { value: '' }, 'Everything'), Object.entries(KINDS).map(([kind, label]) => el('option', { value: kind }, label)));
    this.table = eventsTable([{ id: 'more', label: 'Action', draw: (cell, row) => this.more(cell, row, actions) }]);
    this.shown = el('div', { hidden: true, id: 'difference', tabindex: '-1' });
    this.node = el('div', { class: 'view' }, this.shown, card('Changes',
      el('div', { class: 'toolbar' }, el('label', { for: 'kind' }, 'Show'), this.kind), this.table.node,
      el('p', { class: 'muted' }, 'The last 64 revisions, and what has happened since the present leader began.')));
  }

  more(cell, row, actions) {
    const key = `${row.revision} ${actions.allowed} ${row.revision < this.revision}`;
    if (cell.dataset.drawn === key) return;
    cell.dataset.drawn = key;
    const button = (label, act) => el('button', { type: 'button', class: 'small', onclick: act }, label);
    const list = row.revision === undefined ? [] : [button('Difference', () => this.difference(row.revision)),
      ...(actions.allowed && row.revision < this.revision ? [button('Roll back', () => actions.rollback(row.revision))] : [])];
    cell.classList.toggle('acts', list.length > 0);
    cell.replaceChildren(...list);
  }

  async difference(revision) {
    const close = el('button', { type: 'button', class: 'quiet small', onclick: () => { this.shown.hidden = true; } }, 'Close');
    this.shown.hidden = false;
    try {
      const { changes, author, at_ms: at, note } = await this.api('GET', `/v1/history/${revision}?consistency=stale`);
      this.shown.replaceChildren(card(`Revision ${revision}`, el('p', { class: 'muted' }, [`by ${author}, ${clock(at / 1000)}`, note].filter(Boolean).join(' · ')),
        (changes ?? []).slice(0, 50).map((change) => el('div', { class: 'difference' }, el('h3', null, change.key), el('pre', null, differenceOf(change)))),
        (changes ?? []).length > 50 ? el('p', { class: 'muted' }, `and ${changes.length - 50} objects more`) : null, close));
    } catch (error) {
      this.shown.replaceChildren(el('p', { class: 'notice bad', role: 'alert' }, error.message, ' ', close));
    }
    this.shown.focus();
  }

  update({ frame }) {
    this.revision = frame.fleet.revision;
    this.rows = eventRows(frame);
    this.draw();
  }

  draw() {
    this.table.update(this.rows.filter((row) => !this.kind.value || row.kind === this.kind.value));
  }
}
