// The ring and the sparklines.

import { el, setAttribute, setText, share, svg, tone } from './dom.js';

const ARCS_MAX = 72;
const WORST = ['good', 'calm', 'warn', 'bad'];
const [INNER, OUTER, GAP] = [74, 100, 0.008];

// Backends in the order of their names, joined where there are more than can be told apart. An arc has the state of its worst backend.
export function arcs(backends) {
  const all = Object.entries(backends).filter(([, backend]) => (backend.share ?? 0) > 0)
    .sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
  const one = ([id, backend]) => ({ ids: [id], share: backend.share, accepted: backend.share * (backend.accept ?? 1), state: backend.state });
  if (all.length <= ARCS_MAX) return all.map(one);
  const size = Math.ceil(all.length / ARCS_MAX);
  const joined = [];
  for (const [index, entry] of all.entries()) {
    const next = one(entry);
    if (index % size === 0) {
      joined.push(next);
      continue;
    }
    const last = joined.at(-1);
    last.ids.push(...next.ids);
    last.share += next.share;
    last.accepted += next.accepted;
    if (WORST.indexOf(tone(next.state)) > WORST.indexOf(tone(last.state))) last.state = next.state;
  }
  return joined;
}

function point(radius, turn) {
  const angle = turn * 2 * Math.PI - Math.PI / 2;
  return `${(Math.cos(angle) * radius).toFixed(2)} ${(Math.sin(angle) * radius).toFixed(2)}`;
}

function sector(from, to, inner, outer) {
  if (to - from >= 0.9999) {
    const circle = (radius, sweep) => `M ${point(radius, 0)} A ${radius} ${radius} 0 1 ${sweep} ${point(radius, 0.5)} A ${radius} ${radius} 0 1 ${sweep} ${point(radius, 1)} Z`;
    return `${circle(outer, 1)} ${circle(inner, 0)}`;
  }
  const large = to - from > 0.5 ? 1 : 0;
  return `M ${point(outer, from)} A ${outer} ${outer} 0 ${large} 1 ${point(outer, to)} L ${point(inner, to)} A ${inner} ${inner} 0 ${large} 0 ${point(inner, from)} Z`;
}

export class Ring {
  constructor(onPick) {
    this.onPick = onPick;
    this.arcs = svg('g');
    this.count = svg('text', { class: 'ring-count', y: 2, 'text-anchor': 'middle' });
    this.label = svg('text', { class: 'ring-label', y: 22, 'text-anchor': 'middle' });
    this.node = svg('svg', { class: 'ring', viewBox: '-112 -112 224 224', role: 'img' }, this.arcs, this.count, this.label);
    this.drawn = '';
  }

  update(backends) {
    const list = arcs(backends);
    const states = Object.values(backends).map((backend) => backend.state);
    const up = states.filter((state) => tone(state) === 'good' || state === 'degraded').length;
    setText(this.count, states.length);
    setText(this.label, `${up} up`);
    setAttribute(this.node, 'aria-label', `The ring: ${states.length} backends, ${up} up; each arc is a share of the keys, its fill what is accepted of it. The table has the numbers.`);
    const drawn = JSON.stringify(list);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    const all = list.reduce((sum, arc) => sum + arc.share, 0) || 1;
    let at = 0;
    this.arcs.replaceChildren(...list.map((arc, index) => {
      const [from, to] = [at, at + arc.share / all];
      at = to;
      const gap = list.length === 1 ? 0 : Math.min(GAP / 2, (to - from) / 8);
      const accepted = Math.min(1, arc.accepted / arc.share);
      const shape = (inner, outer, part) => svg('path', { d: sector(from + gap, to - gap, inner, outer), class: part });
      const names = arc.ids.length === 1 ? arc.ids[0] : `${arc.ids[0]} to ${arc.ids.at(-1)} (${arc.ids.length} backends)`;
      const kind = ['arc', index % 2 ? 'odd' : '', arc.ids.length > 1 ? 'joined' : ''].join(' ').trim();
      const [x, y] = point(OUTER + 6, (from + to) / 2).split(' ');
      return svg('g', { class: kind, 'data-tone': tone(arc.state), onclick: () => this.onPick(arc.ids) },
        svg('title', null, `${names}: ${share(arc.share)} of the keys, ${share(accepted)} of them accepted, ${arc.ids.length > 1 ? `at worst ${arc.state}` : arc.state}`),
        shape(INNER, OUTER, 'arc-back'),
        accepted > 0.005 ? shape(INNER, INNER + (OUTER - INNER) * accepted, 'arc-fill') : null,
        tone(arc.state) === 'good' ? null : svg('circle', { class: 'arc-mark', cx: x, cy: y, r: 3 }));
    }));
  }
}

export class Spark {
  constructor() {
    this.area = svg('path', { class: 'spark-area' });
    this.line = svg('path', { class: 'spark-line' });
    this.node = svg('svg', { class: 'spark', viewBox: '0 0 120 28', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, this.area, this.line);
  }

  update(values) {
    if (values.length < 2) return;
    const top = Math.max(...values, 1e-9);
    const points = values.map((value, index) => `${(120 - (values.length - 1 - index)).toFixed(1)} ${(26 - (value / top) * 23).toFixed(1)}`);
    const start = 120 - (values.length - 1);
    setAttribute(this.line, 'd', `M ${points.join(' L ')}`);
    setAttribute(this.area, 'd', `M ${start} 28 L ${points.join(' L ')} L 120 28 Z`);
  }
}

// A number with its name, and how it went.
export class Tile {
  constructor(label, { spark = false } = {}) {
    this.value = el('span', { class: 'tile-value' });
    this.more = el('span', { class: 'tile-more muted' });
    this.spark = spark ? new Spark() : null;
    this.node = el('div', { class: 'tile' }, el('span', { class: 'tile-label' }, label), this.value, this.more, this.spark?.node);
  }

  update(value, { more = '', kind = null, history = [] } = {}) {
    setText(this.value, value);
    setText(this.more, more);
    setAttribute(this.node, 'data-tone', kind);
    this.spark?.update(history);
  }
}
