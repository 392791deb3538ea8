// A command line, as a shell splits it: quotes, $'...', backslashes, lines that go on, and where the command ends.

const ESCAPES = { a: 7, b: 8, e: 27, E: 27, f: 12, n: 10, r: 13, t: 9, v: 11 };
const NUMBER = /^(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{1,4})|U([0-9a-fA-F]{1,8})|([0-7]{1,3}))/;

// The text of a $'...' that begins at `from`, and where it is over.
function dollarQuoted(text, from) {
  const bytes = [];
  const put = (part) => bytes.push(...new TextEncoder().encode(part));
  let i = from;
  while (i < text.length && text[i] !== "'") {
    if (text[i] !== '\\' || i + 1 >= text.length) {
      const c = String.fromCodePoint(text.codePointAt(i));
      put(c);
      i += c.length;
      continue;
    }
    const rest = text.slice(i + 1, i + 10);
    const [whole, hex, u, U, octal] = NUMBER.exec(rest) ?? [];
    if (hex || octal) bytes.push(parseInt(hex ?? octal, hex ? 16 : 8) & 255);
    else if (u || U) put(String.fromCodePoint(Math.min(parseInt(u ?? U, 16), 0x10ffff)));
    else if (Object.hasOwn(ESCAPES, rest[0])) bytes.push(ESCAPES[rest[0]]);
    else put(`\\'"?`.includes(rest[0]) ? rest[0] : `\\${rest[0]}`);
    i += 1 + (whole ?? rest[0]).length;
  }
  if (i >= text.length) throw new Error("a quote ($') is not closed");
  return [new TextDecoder().decode(new Uint8Array(bytes)), i + 1];
}

// Where what stands between `open` and `close`, which is at `from`, is over.
function closed(text, from, open, close) {
  let [depth, i] = [0, from];
  for (; i < text.length; i += 1) {
    if (text[i] === '\\') i += 1;
    else if (text[i] === open) depth += 1;
    else if (text[i] === close && (depth -= 1) === 0) return i + 1;
  }
  throw new Error(`a ${open} is not closed`);
}

// What a shell puts something else for, if that begins at `from`: `$name`, `${...}`, `$(...)`, `...` between backticks.
function expansion(text, from) {
  if (text[from] === '`') {
    let i = from + 1;
    while (i < text.length && text[i] !== '`') i += text[i] === '\\' ? 2 : 1;
    if (i >= text.length) throw new Error('a ` is not closed');
    return text.slice(from, i + 1);
  }
  if (text[from] !== '$') return null;
  if (text[from + 1] === '(') return text.slice(from, closed(text, from + 1, '(', ')'));
  if (text[from + 1] === '{') return text.slice(from, closed(text, from + 1, '{', '}'));
  return /^\$(?:[A-Za-z_]\w*|[\d@*#?$!-])/.exec(text.slice(from, from + 256))?.[0] ?? null;
}

// It stands for itself then, in one piece, and that is told.
function expanded(text, from, tell) {
  const found = expansion(text, from);
  if (found === null) return null;
  tell(found);
  return [found.replace(/\s+/g, ''), from + found.length];
}

// What stands between double quotes from `from` on, and where it is over.
function doubleQuoted(text, from, tell) {
  let [word, i] = ['', from];
  while (i < text.length && text[i] !== '"') {
    const put = expanded(text, i, tell);
    if (put) [word, i] = [word + put[0], put[1]];
    else if (text[i] === '\\' && text[i + 1] === '\n') i += 2;
    else if (text[i] === '\\' && i + 1 < text.length && '"\\$`'.includes(text[i + 1])) [word, i] = [word + text[i + 1], i + 2];
    else [word, i] = [word + text[i], i + 1];
  }
  if (i >= text.length) throw new Error('a quote (") is not closed');
  return [word, i + 1];
}

function singleQuoted(text, from) {
  const end = text.indexOf("'", from);
  if (end < 0) throw new Error("a quote (') is not closed");
  return [text.slice(from, end), end + 1];
}

// `tell` hears of each text that a shell puts something else for.
export function words(given, tell) {
  const text = given.replace(/\r\n/g, '\n');
  const found = [];
  // Words that are where something is written to or read from, and none of the command's.
  let [word, skipNext, i] = [null, false, 0];
  const end = () => {
    if (word !== null && !skipNext) found.push(word);
    if (word !== null) skipNext = false;
    word = null;
  };
  const take = ([part, next]) => { word = (word ?? '') + part; i = next; };
  while (i < text.length) {
    const c = text[i];
    const put = text.startsWith("$'", i) || text.startsWith('$"', i) ? null : expanded(text, i, tell);
    if (put) take(put);
    else if (c === '\\') {
      if (text[i + 1] !== '\n') take([text[i + 1] ?? '', i + 2]);
      else i += 2;
    } else if (text.startsWith("$'", i)) take(dollarQuoted(text, i + 2));
    else if (text.startsWith('$"', i)) take(doubleQuoted(text, i + 2, tell));
    else if (c === "'") take(singleQuoted(text, i + 1));
    else if (c === '"') take(doubleQuoted(text, i + 1, tell));
    else if (c === '\n' && (found.length || word !== null)) break;
    else if (/\s/.test(c)) { end(); i += 1; }
    else if (c === '>' || c === '<') {
      // `2>` is one too.
      if (word !== null && /^\d+$/.test(word)) word = null;
      end();
      const [whole] = /^[<>]{1,3}(?:&(?:\d+|-))?\|?/.exec(text.slice(i, i + 16));
      skipNext = !/&/.test(whole);
      i += whole.length;
    } else if (c === '&' && text[i + 1] === '>') { end(); i += 1; }
    else if (c === '&' && word !== null && /[^\s&]/.test(text[i + 1] ?? ' ')) throw new Error(`an & outside of quotes ends the command: write '${word}&...' in quotes`);
    else if ('|;&()'.includes(c) || (c === '#' && word === null)) break;
    else take([c, i + 1]);
  }
  end();
  return found;
}
