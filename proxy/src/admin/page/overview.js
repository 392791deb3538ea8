// Overview: how this proxy does, at a glance.

import { ago, badge, bar, card, el, facts, link, number, percent, seconds, serviceHref, setAttribute, setText, share, span } from './dom.js';
import { Tile } from './charts.js';
import { Table } from './table.js';
import { eventsTable, eventRows } from './changes.js';

const DAY = 86400;

export const rateTone = (percentage) => (percentage >= 5 ? 'bad' : percentage >= 1 ? 'warn' : null);

export class Rates {
  constructor() {
    this.rate = new Tile('Requests / s', { spark: true });
    this.errors = new Tile('5xx', { spark: true });
    this.p50 = new Tile('p50', { spark: true });
    this.p99 = new Tile('p99', { spark: true });
    this.nodes = [this.rate, this.errors, this.p50, this.p99].map((tile) => tile.node);
  }

  update(numbers, history) {
    const classes = numbers.classes ?? {};
    const idle = !(numbers.requests_per_second > 0);
    const of = (name) => history.map((one) => one[name]);
    this.rate.update(number(numbers.requests_per_second ?? 0), { history: of('rate') });
    this.errors.update(idle ? '–' : percent(classes['5xx'] ?? 0), { kind: rateTone(classes['5xx'] ?? 0), history: of('errors') });
    this.p50.update(seconds(numbers.p50_seconds), { history: of('p50') });
    this.p99.update(seconds(numbers.p99_seconds), { history: of('p99') });
  }
}

export function certificateState(certificate, now) {
  const days = Math.floor((certificate.not_after - now) / DAY);
  if (certificate.state === 'not_yet_valid') return { days, text: 'not yet valid', kind: 'warn' };
  if (days < 0) return { days, text: `expired ${-days} days ago`, kind: 'bad' };
  return { days, text: `${days} days left`, kind: days < 7 ? 'bad' : days < 30 ? 'warn' : 'good' };
}

function servicesTable() {
  const text = (read) => (cell, row) => setText(cell, read(row));
  return new Table({
    caption: 'Services', key: (row) => row.name, order: 'state', empty: 'No services.',
    columns: [
      { id: 'name', label: 'Service', sort: (row) => row.name, wide: true, draw: (cell, row) => link(cell, row.name, serviceHref(row.name)) },
      { id: 'backends', label: 'Backends up', sort: (row) => row.up / row.backends,
        draw: (cell, row) => bar(cell, row.up / row.backends, `${row.up} of ${row.backends}`, row.up === row.backends ? 'good' : row.up * 2 > row.backends ? 'warn' : 'bad') },
      { id: 'state', label: 'State', wide: true, sort: serviceWorry, draw: drawServiceState },
      { id: 'rate', label: 'Req / s', number: true, sort: (row) => row.requests_per_second ?? 0, draw: text((row) => number(row.requests_per_second ?? 0)) },
      { id: 'errors', label: '5xx', number: true, sort: (row) => row.classes?.['5xx'] ?? 0, draw: text((row) => (row.requests_per_second > 0 ? percent(row.classes?.['5xx'] ?? 0) : '–')) },
      { id: 'p50', label: 'p50', number: true, sort: (row) => row.p50_seconds, draw: text((row) => seconds(row.p50_seconds)) },
      { id: 'p99', label: 'p99', number: true, sort: (row) => row.p99_seconds, draw: text((row) => seconds(row.p99_seconds)) },
      { id: 'flight', label: 'In flight', number: true, sort: (row) => row.in_flight ?? 0, draw: text((row) => (row.waiting > 0 ? `${number(row.in_flight)} + ${number(row.waiting)} waiting` : number(row.in_flight ?? 0))) },
      { id: 'digest', label: 'Ring', title: 'Digest of the ring: proxies that place alike have the same',
        draw: (cell, row) => { setText(cell, row.ring_digest ?? row.policy); cell.classList.add('mono'); } },
    ],
  });
}

// Whether it answers with 5xx as no healthy one does: against its peers, or in the last seconds. Of a service, or of a backend.
export const isFailing = (row) => Boolean(row.stands_out?.failing || row.stands_out?.whole) || rateTone(row.classes?.['5xx'] ?? 0) === 'bad';
export const isSlow = (row) => Boolean(row.stands_out?.slow);

export function serviceState(row) {
  if (row.panic) return ['panic', 'bad'];
  if (row.waiting > 0) return ['full', 'warn'];
  if (row.up === 0 && row.backends > 0) return ['none up', 'bad'];
  if (isFailing(row)) return ['failing', 'bad'];
  if (row.up < row.backends) return ['degraded', 'warn'];
  return isSlow(row) ? ['slow', 'warn'] : ['fine', 'good'];
}

// What needs a look stands first.
function serviceWorry(row) {
  const [state] = serviceState(row);
  return ['panic', 'none up', 'full', 'failing', 'degraded', 'slow', 'fine'].indexOf(state);
}

function drawServiceState(cell, row) {
  if (!cell.firstElementChild) cell.replaceChildren(el('span'), el('span', { class: 'reason muted' }));
  badge(cell.firstElementChild, ...serviceState(row));
  setText(cell.lastElementChild, row.stands_out?.text);
}

function listenersTable() {
  return new Table({
    caption: 'Listeners', key: (row) => row.name, empty: 'No listeners.',
    columns: [
      { id: 'name', label: 'Listener', wide: true, draw: (cell, row) => setText(cell, row.name) },
      { id: 'address', label: 'Address', draw: (cell, row) => { setText(cell, row.address); cell.classList.add('mono'); } },
      { id: 'protocol', label: 'Speaks', draw: (cell, row) => setText(cell, row.protocol) },
      { id: 'connections', label: 'Connections', number: true, draw: (cell, row) => setText(cell, number(row.connections ?? 0)) },
      { id: 'full', label: 'State', draw: (cell, row) => badge(cell, row.full ? 'full' : 'open', row.full ? 'bad' : 'good') },
    ],
  });
}

function certificatesTable() {
  return new Table({
    caption: 'Certificates', key: (row) => row.key, empty: 'No certificates.', order: 'days',
    columns: [
      { id: 'name', label: 'Certificate', wide: true, draw: (cell, row) => {
        setText(cell, row.file?.split('/').at(-1) ?? row.name);
        setAttribute(cell, 'title', row.file);
      } },
      { id: 'used', label: 'Used by', draw: (cell, row) => setText(cell, [row.used_by, row.name].filter(Boolean).join(' ')) },
      { id: 'days', label: 'Valid', sort: (row) => row.not_after, draw: (cell, row) => badge(cell, row.text, row.kind) },
    ],
  });
}

const DISAGREES = 'no: another digest';

// Whether what is in force is what the control plane has published.
export function agreement({ epoch, revision, digest, canary, published }) {
  if (!published) return 'nothing has been published yet';
  if (epoch !== published.epoch || revision !== published.revision) return `not yet: revision ${revision} is in force`;
  if (digest === published.digest) return 'yes: the same digest';
  return canary === undefined ? DISAGREES : `but for rollout ${canary}`;
}

export class Overview {
  constructor() {
    this.rates = new Rates();
    this.connections = new Tile('Connections');
    this.overload = new Tile('Overload');
    this.facts = el('dl', { class: 'facts' });
    this.warning = el('p', { class: 'notice', hidden: true });
    [this.services, this.listeners, this.certificates, this.events] = [servicesTable(), listenersTable(), certificatesTable(), eventsTable()];
    this.node = el('div', { class: 'view' }, this.warning,
      el('div', { class: 'tiles' }, this.rates.nodes, this.connections.node, this.overload.node),
      card('Services', this.services.node),
      el('div', { class: 'columns' },
        card('Recent events', this.events.node, el('p', { class: 'more' }, el('a', { href: '#/changes' }, 'All changes'))),
        el('div', { class: 'stack' }, card('Proxy', this.facts), card('Certificates', this.certificates.node))),
      card('Listeners', this.listeners.node));
    this.title = 'Overview';
  }

  update({ frame, history }) {
    const proxy = frame.proxy;
    this.rates.update(proxy, history.whole);
    this.connections.update(number(proxy.connections ?? 0), { more: proxy.workers === 1 ? '1 worker' : `${proxy.workers} workers` });
    const refused = Object.entries(proxy.overload_refused ?? {}).map(([name, part]) => `${number(part * 100)} % of ${name} refused`).join(', ');
    const calm = proxy.overload === 'normal' || proxy.overload === 'none';
    this.overload.update(calm ? 'none' : proxy.overload.replaceAll('_', ' '), { more: refused || (calm ? 'nothing is refused' : ''), kind: calm ? null : 'warn' });
    const named = (entries) => Object.entries(entries ?? {}).map(([name, row]) => ({ ...row, name }));
    this.services.update(named(frame.services));
    this.listeners.update(named(frame.listeners));
    this.certificates.update(Object.entries(frame.certificates ?? {}).map(([key, row]) => ({ ...row, key, ...certificateState(row, frame.at) })));
    this.events.update(eventRows(frame).slice(0, 8));
    this.drawProxy(frame);
  }

  drawProxy({ proxy, listeners, at: now }) {
    const topology = proxy.topology;
    const published = topology?.published;
    const reload = proxy.last_reload;
    facts(this.facts, [
      ['Version', proxy.version],
      ['Generation', proxy.generation],
      ['Up for', span(now - proxy.started)],
      ['Last reload', reload?.result ? `${reload.result}, ${ago(reload.unix_seconds, now)}` : null],
      ['Cluster', topology && `${topology.cluster}, as ${topology.proxy}`],
      ['Topology', topology && `revision ${topology.revision} of epoch ${topology.epoch}, from ${topology.source}`],
      ['Own digest', topology?.digest],
      ['Published', published && `revision ${published.revision}${published.epoch === topology.epoch ? '' : ` of epoch ${published.epoch}`}, digest ${published.digest}`],
      ['Agreement', topology && agreement(topology)],
      ['Heard of it', topology && ago(topology.heard_at, now)],
      ['Follows', topology?.member],
      ['Canary', topology?.canary && `rollout ${topology.canary}`],
    ]);
    const wrong = [
      proxy.draining && 'This proxy is draining: it takes no new connections.',
      ...Object.entries(proxy.used_up ?? {}).map(([name, part]) => `At its limit: ${name}, ${share(part)} of it is used.`),
      ...Object.entries(listeners ?? {}).filter(([, one]) => one.full).map(([name]) => `The listener ${name} is full: new connections wait.`),
      reload?.result === 'refused' && `The last reload was refused: ${reload.error}`,
      topology && agreement(topology) === DISAGREES && `What is in force here is not what the control plane has published: own digest ${topology.digest || 'none'}, published ${published.digest}.`,
      topology?.stuck && `The topology cannot be put into force: ${topology.stuck}`,
      topology && !topology.member && `No member of the control plane is followed: ${topology.error ?? 'none answers'}. What was in force stays.`,
    ].filter(Boolean);
    this.warning.hidden = wrong.length === 0;
    setText(this.warning, wrong.join(' '));
  }
}
