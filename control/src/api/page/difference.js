// What is different between two objects, line by line: lines that stay are left out but for those beside a change.

import { el } from './dom.js';

const CELLS_MAX = 1_000_000;
const AROUND = 2;
const LINES_MAX = 400;

// What an object says, as lines: a text's own, or its fields.
function linesOf(object) {
  if (!object) return [];
  const [content] = Object.values(object);
  if (typeof content?.text === 'string') return content.text.replace(/\n$/, '').split('\n');
  return Object.entries(content ?? {}).filter(([, value]) => value !== null)
    .flatMap(([name, value]) => (typeof value === 'string' && value.includes('\n') ? [`${name}:`, ...value.trimEnd().split('\n')] : [`${name}: ${typeof value === 'string' ? value : JSON.stringify(value)}`]));
}

// [mark, line], by the longest common subsequence; what is too long for its table is shown as replaced.
export function difference(before, after) {
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < before.length - head && tail < after.length - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const [old, now] = [before.slice(head, before.length - tail), after.slice(head, after.length - tail)];
  const same = (lines) => lines.map((line) => [' ', line]);
  return [...same(before.slice(0, head)), ...middle(old, now), ...same(before.slice(before.length - tail))];
}

function middle(old, now) {
  if (old.length * now.length > CELLS_MAX) return [...old.map((line) => ['−', line]), ...now.map((line) => ['+', line])];
  const width = now.length + 1;
  const common = new Uint32Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = now.length - 1; j >= 0; j -= 1) {
      common[i * width + j] = old[i] === now[j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  const lines = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      lines.push([' ', old[i]]);
      [i, j] = [i + 1, j + 1];
    } else if (j >= now.length || (i < old.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      lines.push(['−', old[i]]);
      i += 1;
    } else {
      lines.push(['+', now[j]]);
      j += 1;
    }
  }
  return lines;
}

// As elements: nothing of it is markup.
export function differenceOf({ before, after }) {
  const lines = difference(linesOf(before), linesOf(after));
  const near = lines.map((_, index) => lines.slice(Math.max(0, index - AROUND), index + AROUND + 1).some(([mark]) => mark !== ' '));
  const shown = [];
  lines.forEach(([mark, line], index) => {
    if (near[index]) shown.push(el('span', { class: mark === '+' ? 'added' : mark === '−' ? 'removed' : null }, `${mark} ${line}\n`));
    else if (near[index - 1] || index === 0) shown.push(el('span', { class: 'muted' }, '…\n'));
  });
  const rest = shown.length - LINES_MAX;
  return rest > 0 ? [...shown.slice(0, LINES_MAX), el('span', { class: 'muted' }, `and ${rest} lines more\n`)] : shown;
}
