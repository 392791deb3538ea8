// Elements and texts. Ids, paths and header values are written by strangers: they only ever become text nodes and attributes.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'value') node.value = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const el = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
export const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

// What has not changed is not touched: no layout, no selection lost.
export function setText(node, text) {
  const next = text === undefined || text === null ? '' : String(text);
  if (node.textContent !== next) node.textContent = next;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export const NONE = '–';
const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const known = (value) => typeof value === 'number' && Number.isFinite(value);

export function number(value) {
  if (!known(value)) return NONE;
  if (value === 0) return '0';
  if (Math.abs(value) >= 100) return grouped.format(value);
  return String(Number(value.toPrecision(3)));
}

export const percent = (value) => (known(value) ? `${number(value)} %` : NONE);
export const share = (value) => (known(value) ? percent(value * 100) : NONE);

export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 0.001) return `${number(value * 1e6)} µs`;
  return value < 1 ? `${number(value * 1e3)} ms` : `${number(value)} s`;
}

export function span(value) {
  if (!known(value)) return NONE;
  const whole = Math.max(0, Math.round(value));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} days`;
}

export const ago = (at, now) => (known(at) ? `${span(now - at)} ago` : NONE);

export function clock(at) {
  if (!known(at)) return NONE;
  return new Date(at * 1000).toLocaleString(undefined, { dateStyle: 'short', timeStyle: 'medium' });
}

// A state is a word with a colour beside it, never a colour alone.
export const TONES = {
  up: 'good', degraded: 'warn', unknown: 'calm', draining: 'calm', drained: 'calm', maintenance: 'calm', ejected: 'bad', down: 'bad',
};
export const tone = (state) => TONES[state] ?? 'calm';

export function badge(node, text, kind) {
  if (!node.firstElementChild) node.replaceChildren(el('span', { class: 'badge' }));
  setText(node.firstElementChild, text);
  setAttribute(node.firstElementChild, 'data-tone', kind);
}

// A bar with its number beside it.
export function bar(node, fraction, text, kind = 'accent') {
  if (!node.firstElementChild) {
    const inner = svg('rect', { height: 6, rx: 3, width: 0, class: 'bar-fill' });
    const outer = svg('svg', { class: 'bar', viewBox: '0 0 64 6', preserveAspectRatio: 'none', width: 48, height: 6, 'aria-hidden': 'true' },
      svg('rect', { height: 6, width: 64, rx: 3, class: 'bar-back' }), inner);
    node.replaceChildren(el('span', { class: 'with-bar' }, outer, el('span')));
  }
  const [drawing, label] = node.firstElementChild.children;
  const width = 64 * Math.min(1, Math.max(0, known(fraction) ? fraction : 0));
  setAttribute(drawing.lastElementChild, 'width', Math.round(width * 10) / 10);
  setAttribute(drawing.lastElementChild, 'data-tone', kind);
  setText(label, text);
}

export function link(node, text, href) {
  if (!node.firstElementChild) node.replaceChildren(el('a'));
  setText(node.firstElementChild, text);
  setAttribute(node.firstElementChild, 'href', href);
}

// Buttons in a table's cell; none where `key` is null. `key` says when what they do has changed.
export function buttons(cell, key, list) {
  const drawn = key ?? '';
  if (cell.dataset.drawn === drawn) return;
  cell.dataset.drawn = drawn;
  cell.classList.toggle('acts', key !== null);
  cell.replaceChildren(...(key === null ? [NONE] : list().map(([label, act]) => el('button', { type: 'button', class: 'small', onclick: act }, label))));
}

export const card = (title, ...children) =>
  el('section', { class: 'card' }, el('h2', null, title), ...children);

// Lines below one another; many are folded.
const LINES_SHOWN = 6;
export function lineList(lines) {
  const list = (some) => el('ul', { class: 'details' }, some.map((line) => el('li', { class: 'lines' }, line)));
  if (lines.length <= LINES_SHOWN + 1) return lines.length ? [list(lines)] : [];
  return [list(lines.slice(0, LINES_SHOWN)), el('details', null, el('summary', null, `${lines.length - LINES_SHOWN} lines more`), list(lines.slice(LINES_SHOWN)))];
}

// Whatever a server says beside what is known here: names and values.
export function facts(list, entries) {
  const rows = entries.filter(([, value]) => value !== undefined && value !== null && value !== '');
  const same = list.children.length === rows.length * 2 && rows.every(([name], index) => list.children[index * 2].textContent === name);
  if (!same) list.replaceChildren(...rows.flatMap(([name]) => [el('dt', null, name), el('dd')]));
  rows.forEach(([, value], index) => setText(list.children[index * 2 + 1], typeof value === 'object' ? JSON.stringify(value) : value));
}

export const serviceHref = (name) => `#/service/${encodeURIComponent(name)}`;
