// A table whose rows have keys: rows are kept, cells are written where they differ, and only one page of them exists.

import { el, setAttribute, setText } from './dom.js';

const PAGE = 50;

export class Table {
  // columns: { id, label, number?, sort?: row => value, draw: (cell, row) => void }; `key: row => string`.
  constructor({ caption, columns, key, empty = 'None.', order = null, descending = false, filtered = null }) {
    Object.assign(this, { columns, key, order, descending, page: 0, rows: new Map(), all: [], filtered });
    this.heads = columns.map((column) => this.head(column));
    this.body = el('tbody', { role: 'rowgroup' });
    this.empty = el('p', { class: 'muted empty' }, empty);
    this.table = el('table', { role: 'table' }, el('caption', { class: 'hidden-text' }, caption),
      el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, this.heads)), this.body);
    const turn = (label, step) => el('button', { type: 'button', class: 'quiet', onclick: () => this.turn(step) }, label);
    this.back = turn('Previous', -1);
    this.next = turn('Next', 1);
    this.place = el('span', { class: 'muted' });
    this.pager = el('div', { class: 'pager', hidden: true, role: 'group', 'aria-label': `Pages of ${caption}` }, this.back, this.place, this.next);
    this.node = el('div', { class: 'table' }, this.table, this.empty, this.pager);
  }

  head(column) {
    const inner = column.sort
      ? el('button', { type: 'button', class: 'sort', onclick: () => this.sortBy(column.id) }, column.label)
      : column.label;
    return el('th', { scope: 'col', role: 'columnheader', class: column.number ? 'number' : null, title: column.title }, inner);
  }

  sortBy(id, descending) {
    const column = this.columns.find((one) => one.id === id);
    this.descending = descending ?? (this.order === id ? !this.descending : Boolean(column.number));
    this.order = id;
    this.page = 0;
    this.draw();
  }

  turn(step) {
    this.page += step;
    this.draw();
    this.table.scrollIntoView({ block: 'nearest' });
  }

  update(rows) {
    this.all = rows;
    this.draw();
  }

  sorted() {
    const column = this.columns.find((one) => one.id === this.order);
    if (!column?.sort) return this.all;
    const sign = this.descending ? -1 : 1;
    const value = new Map(this.all.map((row) => [row, column.sort(row)]));
    return [...this.all].sort((a, b) => sign * compare(value.get(a), value.get(b)) || compare(this.key(a), this.key(b)));
  }

  draw() {
    const rows = this.sorted();
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const shown = rows.slice(this.page * PAGE, (this.page + 1) * PAGE);
    const kept = new Set(shown.map(this.key));
    for (const [key, row] of this.rows) {
      if (kept.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    shown.forEach((data, index) => {
      const row = this.row(this.key(data));
      if (this.body.children[index] !== row) this.body.insertBefore(row, this.body.children[index] ?? null);
      this.columns.forEach((column, place) => column.draw(row.children[place], data));
    });
    this.columns.forEach((column, place) => {
      const sort = column.id === this.order ? (this.descending ? 'descending' : 'ascending') : null;
      setAttribute(this.heads[place], 'aria-sort', sort);
    });
    this.empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
    this.pager.hidden = pages === 1;
    this.back.disabled = this.page === 0;
    this.next.disabled = this.page === pages - 1;
    setText(this.place, `${this.page * PAGE + 1} to ${this.page * PAGE + shown.length} of ${rows.length}`);
  }

  row(key) {
    let row = this.rows.get(key);
    if (!row) {
      row = el('tr', { role: 'row' }, this.columns.map((column) =>
        el('td', { role: 'cell', 'data-label': column.label, class: [column.number ? 'number' : '', column.wide ? 'wide' : ''].join(' ').trim() || null })));
      this.rows.set(key, row);
    }
    return row;
  }
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === undefined || a === null) return 1;
  if (b === undefined || b === null) return -1;
  return typeof a === 'string' ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
}
