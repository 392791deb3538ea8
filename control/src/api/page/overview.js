// Overview: members, proxies, rollouts, services, and what has happened lately.

import { ago, badge, card, clock, el, facts, link, number, percent, serviceHref, setAttribute, setText, span } from './dom.js';
import { Tile } from './charts.js';
import { eventRows, eventsTable } from './changes.js';
import { Table } from './table.js';

const PROXY = { synced: ['agrees', 'good'], behind: ['behind', 'warn'], ahead: ['ahead', 'warn'], drifted: ['disagrees', 'bad'], stuck: ['stuck', 'bad'], offline: ['gone', 'bad'] };
const PHASE = { preparing: 'calm', stage: 'warn', committed: 'good', aborted: 'bad' };

// What needs a look stands first.
const WORRY = { drifted: 0, stuck: 1, offline: 2, ahead: 3, behind: 4, synced: 5 };

export function bytes(value) {
  if (typeof value !== 'number') return '–';
  if (value < 1024) return `${value} B`;
  return value < 1048576 ? `${number(value / 1024)} KiB` : value < 1073741824 ? `${number(value / 1048576)} MiB` : `${number(value / 1073741824)} GiB`;
}

const text = (read) => (cell, row) => setText(cell, read(row));
const mono = (read) => (cell, row) => { setText(cell, read(row)); cell.classList.add('mono'); };
const named = (entries) => Object.entries(entries ?? {}).map(([id, row]) => ({ ...row, id }));

// The first of a list, and how many there are besides.
function some(list, most, all = list.length, said = (one) => one) {
  const shown = list.slice(0, most);
  return [...shown.map(said), ...(all > shown.length ? [`and ${number(all - shown.length)} more`] : [])];
}

function two(cell, first, second) {
  if (!cell.firstElementChild) cell.replaceChildren(el('span', { class: 'name' }), el('span', { class: 'muted address' }));
  setText(cell.firstElementChild, first);
  setText(cell.lastElementChild, second);
}

function memberRole(row) {
  if (!row.reachable) return ['does not answer', 'bad'];
  if (row.leader) return ['leader', 'good'];
  return [row.role === 'follower' || row.role === 'learner' ? row.role : (row.role ?? 'unknown').replaceAll('_', ' '), row.role === 'follower' || row.role === 'learner' ? 'calm' : 'warn'];
}

function membersTable() {
  return new Table({
    caption: 'Members', key: (row) => row.id, order: 'name', empty: 'No members.',
    columns: [
      { id: 'name', label: 'Member', wide: true, sort: (row) => row.name, draw: (cell, row) => two(cell, row.here ? `${row.name} (this one)` : row.name, row.api_address) },
      { id: 'role', label: 'Role', draw: (cell, row) => { badge(cell, ...memberRole(row)); setAttribute(cell, 'title', row.why); } },
      { id: 'term', label: 'Term', number: true, draw: text((row) => row.term ?? '–') },
      { id: 'applied', label: 'Applied', number: true, title: 'Index of the last entry of the log that holds there', draw: text((row) => number(row.applied)) },
      { id: 'lag', label: 'Lag', number: true, title: 'Entries that it lacks', draw: text((row) => number(row.lag)) },
      { id: 'disk', label: 'Disk', number: true, title: 'What its log and snapshots take', draw: text((row) => bytes(row.disk_bytes)) },
      { id: 'heard', label: 'Heard', draw: text((row) => (row.heard_at === undefined ? (row.reachable ? 'now' : 'never') : ago(row.heard_at, row.now))) },
      { id: 'version', label: 'Version', draw: text((row) => row.version ?? '–') },
    ],
  });
}

function drawStanding(cell, row) {
  if (!cell.firstElementChild) cell.replaceChildren(el('span'), el('span', { class: 'reason muted' }));
  badge(cell.firstElementChild, ...(PROXY[row.state] ?? [row.state, 'calm']));
  const since = row.since === undefined ? '' : `for ${span(row.now - row.since)}`;
  const loads = row.loads_refused ? `its loads are refused: ${row.loads_refused}` : '';
  const why = row.stuck ?? (row.state === 'drifted' ? (row.same_digest ? 'its rings differ from those of most' : 'its objects differ from the fleet’s') : loads);
  setText(cell.lastElementChild, [why, row.state === 'synced' ? '' : since].filter(Boolean).join(', '));
  setAttribute(cell, 'title', row.state === 'synced' ? since || null : null);
}

function proxiesTable() {
  return new Table({
    caption: 'Proxies', key: (row) => row.id, order: 'state', empty: 'No proxy has been heard of.',
    columns: [
      { id: 'name', label: 'Proxy', wide: true, sort: (row) => row.id, draw: (cell, row) => two(cell, row.id, row.version) },
      { id: 'state', label: 'State', wide: true, sort: (row) => WORRY[row.state] ?? 2, draw: drawStanding },
      { id: 'revision', label: 'Revision', number: true, sort: (row) => row.revision, draw: text((row) => (row.canary === undefined ? number(row.revision) : `${number(row.revision)} + rollout ${row.canary}`)) },
      { id: 'digest', label: 'Digest', draw: (cell, row) => { setText(cell, row.digest); cell.classList.add('mono'); setAttribute(cell, 'data-same', row.same_digest ? 'yes' : 'no'); } },
      { id: 'generation', label: 'Generation', number: true, draw: text((row) => number(row.generation)) },
      { id: 'heard', label: 'Heard', sort: (row) => row.heard_at ?? Infinity, draw: text((row) => (row.heard_at === undefined ? 'now' : ago(row.heard_at, row.now))) },
      { id: 'rate', label: 'Req / s', number: true, sort: (row) => row.requests_per_second ?? 0, draw: text((row) => number(row.requests_per_second ?? 0)) },
      { id: 'failed', label: 'Failed', number: true, sort: (row) => row.failed_percent ?? 0, draw: text((row) => (row.requests_per_second ? percent(row.failed_percent ?? 0) : '–')) },
    ],
  });
}

function rolloutsTable(actions) {
  return new Table({
    caption: 'Rollouts', key: (row) => row.id, empty: 'There has been no rollout.',
    columns: [
      { id: 'id', label: 'Rollout', draw: text((row) => row.id) },
      { id: 'phase', label: 'State', draw: (cell, row) => badge(cell, row.phase === 'stage' ? `in force for ${row.percent} %` : row.phase, PHASE[row.phase]) },
      { id: 'votes', label: 'Prepared', number: true, draw: text((row) => `${number(row.votes)} of ${number(row.participants)}`) },
      { id: 'moved', label: 'Keys that move', number: true, draw: text((row) => percent(row.moved_percent ?? 0)) },
      { id: 'by', label: 'By', draw: (cell, row) => { setText(cell, `${row.author}, ${ago(row.at_ms / 1000, row.now)}`); setAttribute(cell, 'title', clock(row.at_ms / 1000)); } },
      { id: 'what', label: 'What', wide: true, draw: text((row) => {
        const refused = some(row.refused ?? [], 5, row.refusals, ({ proxy, reason }) => `${proxy} refuses: ${reason}`);
        return [row.note, some(row.keys ?? [], 6, row.changes).join(', '), row.why, ...refused].filter(Boolean).join(' · ');
      }) },
      { id: 'action', label: 'Action', draw: (cell, row) => actions.cell(cell, row.phase, () => (row.phase === 'preparing' || row.phase === 'stage' ? [['Abort', () => actions.abort(row.id)]] : [])) },
    ],
  });
}

function servicesTable() {
  return new Table({
    caption: 'Services', key: (row) => row.id, order: 'name', empty: 'The topology has no services.',
    columns: [
      { id: 'name', label: 'Service', wide: true, sort: (row) => row.id, draw: (cell, row) => link(cell, row.id, serviceHref(row.id)) },
      { id: 'policy', label: 'Policy', draw: text((row) => row.policy) },
      { id: 'backends', label: 'Backends', number: true, sort: (row) => row.backends, draw: text((row) => number(row.backends)) },
      { id: 'registered', label: 'Registered', number: true, draw: text((row) => number(row.registered)) },
      { id: 'drained', label: 'Drained', number: true, sort: (row) => row.drained, draw: text((row) => number(row.drained)) },
      { id: 'ejected', label: 'Health', title: 'What a quorum of proxies agrees on', sort: (row) => row.ejected, draw: (cell, row) => badge(cell, row.frozen ? `${row.frozen} overdue, kept` : row.ejected ? `${row.ejected} agreed down` : 'fine', row.frozen || row.ejected ? 'warn' : 'good') },
      { id: 'rings', label: 'Ring', title: 'Digest of the ring, where proxies place keys alike', draw: (cell, row) => {
        if (!cell.firstElementChild) cell.replaceChildren(el('span'), ' ', el('span', { class: 'mono' }));
        badge(cell.firstElementChild, row.rings > 1 ? `${row.rings} different` : row.rings ? 'the same' : 'none yet', row.rings > 1 ? 'bad' : row.rings ? 'good' : 'calm');
        setText(cell.lastElementChild, row.ring ?? '');
      } },
    ],
  });
}

export class Overview {
  constructor(actions) {
    this.title = 'Fleet';
    this.warning = el('p', { class: 'notice', hidden: true, id: 'warning' });
    this.tiles = { rate: new Tile('Requests / s', { spark: true }), agree: new Tile('Proxies that agree'), quorum: new Tile('Members'), revision: new Tile('Revision') };
    this.facts = el('dl', { class: 'facts' });
    [this.members, this.proxies, this.rollouts, this.services, this.events] = [membersTable(), proxiesTable(), rolloutsTable(actions), servicesTable(), eventsTable()];
    [this.more, this.moreServices] = [el('p', { class: 'muted' }), el('p', { class: 'muted' })];
    this.node = el('div', { class: 'view' }, this.warning,
      el('div', { class: 'tiles' }, Object.values(this.tiles).map((tile) => tile.node)),
      card('Proxies', this.proxies.node, this.more),
      card('Services', this.services.node, this.moreServices),
      card('Members', this.members.node),
      card('Rollouts', this.rollouts.node),
      el('div', { class: 'columns' },
        card('Recent events', this.events.node, el('p', { class: 'more' }, el('a', { href: '#/changes' }, 'All changes'))),
        card('Topology', this.facts)));
  }

  update({ frame, history }) {
    const { fleet, at } = frame;
    const rows = (entries) => named(entries).map((row) => ({ ...row, now: at }));
    const proxies = rows(frame.proxies);
    this.drawTiles(fleet, history, at);
    this.members.update(rows(frame.members));
    this.proxies.update(proxies);
    setText(this.more, fleet.proxies > proxies.length ? `${proxies.length} of ${number(fleet.proxies)} proxies are shown, those that do not agree first.` : '');
    const services = named(frame.services);
    this.services.update(services);
    setText(this.moreServices, fleet.services > services.length ? `${number(services.length)} of ${number(fleet.services)} services are shown.` : '');
    this.rollouts.update(rows(frame.rollouts).sort((a, b) => Number(b.id) - Number(a.id)));
    this.events.update(eventRows(frame).slice(0, 8));
    facts(this.facts, [
      ['Cluster', fleet.cluster], ['Revision', `${fleet.revision} of epoch ${fleet.epoch}`], ['Digest', fleet.digest],
      ['Objects', Object.entries(fleet.objects ?? {}).map(([kind, count]) => `${count} ${count === 1 ? kind.slice(0, -1) : kind}`).join(', ')],
      ['Size', bytes(fleet.objects_bytes)], ['Leases', fleet.leases], ['Locks', fleet.locks],
    ]);
    this.warn(frame, proxies);
  }

  drawTiles(fleet, history, at) {
    const { rate, agree, quorum, revision } = this.tiles;
    rate.update(number(fleet.requests_per_second), { history: history.whole.map((one) => one.rate) });
    agree.update(`${number(fleet.agree)} of ${number(fleet.proxies)}`, { kind: fleet.agree < fleet.proxies ? 'bad' : null, more: fleet.settled ? '' : 'not all have been heard of yet' });
    const { voters, reachable, needed } = fleet.quorum;
    quorum.update(`${reachable} of ${voters}`, { kind: reachable < needed ? 'bad' : reachable < voters ? 'warn' : null,
      more: fleet.leader ? `${fleet.leader} leads, term ${fleet.term}${fleet.led_since === undefined ? '' : `, for ${span(at - fleet.led_since)}`}` : 'nobody leads' });
    revision.update(number(fleet.revision), { more: fleet.digest });
  }

  warn({ fleet, at }, proxies) {
    const bad = proxies.filter((row) => row.state === 'drifted' || row.state === 'stuck').map((row) => `${row.id}${row.since === undefined ? '' : ` (for ${span(at - row.since)})`}`);
    const wrong = [
      fleet.silent && `What is shown of proxies is ${fleet.told_at === undefined ? 'unknown' : `of ${ago(fleet.told_at, at)}`}: ${fleet.silent}.`,
      fleet.unreadable && `The topology cannot be read as a configuration: ${fleet.unreadable.slice(0, 400)}`,
      bad.length && `Not in agreement with the fleet: ${bad.slice(0, 8).join(', ')}${bad.length > 8 ? ` and ${bad.length - 8} more` : ''}.`,
    ].filter(Boolean);
    this.warning.hidden = wrong.length === 0;
    setText(this.warning, wrong.join(' '));
  }
}
