// Keys: the heaviest keys of each service, by hash. The keys themselves are not known to the page, nor to a log.

import { bar, card, el, link, serviceHref, setText, share, span } from './dom.js';
import { Table } from './table.js';

export class Keys {
  constructor(actions) {
    this.title = 'Keys';
    this.table = new Table({
      caption: 'Hot keys', key: (row) => `${row.service} ${row.hash}`, order: 'share', descending: true,
      empty: 'No key is hot now: none has more than its service allows one backend.',
      columns: [
        { id: 'hash', label: 'Hash', draw: (cell, row) => { setText(cell, row.hash); cell.classList.add('mono'); } },
        { id: 'service', label: 'Service', sort: (row) => row.service, draw: (cell, row) => link(cell, row.service, serviceHref(row.service)) },
        { id: 'share', label: 'Share of requests', sort: (row) => row.share ?? 0, draw: (cell, row) => bar(cell, row.share, share(row.share)) },
        { id: 'owners', label: 'Owners', wide: true, draw: (cell, row) => setText(cell, (row.owners ?? []).join(', ')) },
        { id: 'why', label: 'Spread', draw: (cell, row) => setText(cell, row.by_hand_until === undefined ? 'by itself' : `by hand, ${span(row.by_hand_until - row.now)} left`) },
        { id: 'action', label: 'Action', draw: (cell, row) => actions.cell(cell, `${row.owners?.length} of ${row.backends} ${row.by_hand_until}`, () => [
          ['Spread', () => actions.spread(row.service, row)], ...(row.by_hand_until === undefined ? [] : [['End', () => actions.endSpread(row.service, row.hash)]])]) },
      ],
    });
    this.without = el('p', { class: 'muted' });
    this.node = el('div', { class: 'view' }, card('Heaviest keys', this.table.node, this.without));
  }

  update({ frame }) {
    const services = Object.entries(frame.services ?? {});
    this.table.update(services.flatMap(([service, one]) => Object.entries(one.hot_keys ?? {}).map(([hash, key]) => ({ ...key, hash, service, backends: one.backends, now: frame.at }))));
    const silent = services.filter(([, one]) => !one.counts_keys).map(([name]) => name);
    setText(this.without, silent.length ? `Without hot_keys in the file, and so not counted: ${silent.slice(0, 12).join(', ')}${silent.length > 12 ? ` and ${silent.length - 12} more` : ''}.` : '');
  }
}
