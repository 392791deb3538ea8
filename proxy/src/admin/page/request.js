// A request out of what people have at hand: a curl command, a request line, or a request with its head.

const WITH_VALUE = new Set(['-o', '--output', '-m', '--max-time', '--connect-timeout', '--resolve', '--connect-to', '-w', '--write-out', '-x', '--proxy',
  '--cacert', '--cert', '-E', '--key', '--retry', '--limit-rate', '-T', '--upload-file', '-F', '--form', '-K', '--config', '--interface', '-c', '--cookie-jar', '-e', '--referer']);
const SHORT_WITH_VALUE = 'XHdoAbumwxETFKce';

// As a shell splits it: quotes, $'...', backslashes, lines that go on.
export function words(text) {
  const found = [];
  let [word, quote, started] = ['', '', false];
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (quote === "'") c === "'" ? (quote = '') : (word += c);
    else if (c === '\\' && text[i + 1] === '\r' && text[i + 2] === '\n') i += 2;
    else if (c === '\\' && i + 1 < text.length && (quote !== '"' || '"\\$`\n'.includes(text[i + 1]))) {
      i += 1;
      if (text[i] !== '\n') [word, started] = [word + text[i], true];
    } else if (quote === '"') c === '"' ? (quote = '') : (word += c);
    else if (c === '"' || c === "'") {
      if (c === "'" && word.endsWith('$')) word = word.slice(0, -1);
      [quote, started] = [c, true];
    } else if (/\s/.test(c)) {
      if (started || word) found.push(word);
      [word, started] = ['', false];
    } else word += c;
  }
  if (quote) throw new Error(`a quote (${quote}) is not closed`);
  if (started || word) found.push(word);
  return found;
}

function header(line) {
  const colon = line.indexOf(':', 1);
  if (colon < 0) throw new Error(`"${line}" is no header: it has no colon`);
  return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
}

// `-sXPOST` is `-s -X POST`.
function spread(word) {
  if (!/^-[A-Za-z]{1}./.test(word)) return [word];
  const letter = [...word.slice(1)].findIndex((c) => SHORT_WITH_VALUE.includes(c));
  if (letter < 0) return [...word.slice(1)].map((c) => `-${c}`);
  const flags = [...word.slice(1, letter + 1)].map((c) => `-${c}`);
  const rest = word.slice(letter + 2);
  return [...flags, `-${word[letter + 1]}`, ...(rest ? [rest] : [])];
}

function curl(text) {
  const list = words(text).slice(1).flatMap(spread);
  const found = { method: null, url: null, headers: [], data: [], get: false };
  const base64 = (plain) => btoa(String.fromCharCode(...new TextEncoder().encode(plain)));
  for (let i = 0; i < list.length; i += 1) {
    let [option, value] = [list[i], undefined];
    if (/^--[a-z0-9-]+=/.test(option)) [option, value] = [option.slice(0, option.indexOf('=')), option.slice(option.indexOf('=') + 1)];
    const next = () => {
      if (value !== undefined) return value;
      i += 1;
      if (list[i] === undefined) throw new Error(`${option} needs a value`);
      return list[i];
    };
    if (option === '-X' || option === '--request') found.method = next();
    else if (option === '-H' || option === '--header') found.headers.push(header(next()));
    else if (['-d', '--data', '--data-raw', '--data-binary', '--data-ascii', '--data-urlencode', '--json'].includes(option)) {
      if (option === '--json') found.headers.push(['content-type', 'application/json']);
      found.data.push(next());
    } else if (option === '-A' || option === '--user-agent') found.headers.push(['user-agent', next()]);
    else if (option === '-b' || option === '--cookie') found.headers.push(['cookie', next()]);
    else if (option === '-u' || option === '--user') found.headers.push(['authorization', `Basic ${base64(next())}`]);
    else if (option === '--url') found.url = next();
    else if (option === '-I' || option === '--head') found.method ??= 'HEAD';
    else if (option === '-G' || option === '--get') found.get = true;
    else if (WITH_VALUE.has(option)) next();
    else if (!option.startsWith('-') || option === '-') found.url ??= option;
  }
  if (!found.url) throw new Error('there is no URL in this command');
  return ofUrl(found);
}

function ofUrl({ method, url, headers, data, get }) {
  const parts = /^(?:[a-z][a-z0-9+.-]*:\/\/)?(?:[^/?#@]*@)?([^/?#]*)([^#]*)/i.exec(url);
  let target = parts[2] || '/';
  if (target.startsWith('?')) target = `/${target}`;
  let body = data.join('&');
  if (get && body) [target, body] = [`${target}${target.includes('?') ? '&' : '?'}${body}`, ''];
  const has = (name) => headers.some(([known]) => known.toLowerCase() === name);
  const all = has('host') ? [...headers] : [['host', parts[1]], ...headers];
  if (body && !has('content-type')) all.push(['content-type', 'application/x-www-form-urlencoded']);
  return { method: method ?? (body ? 'POST' : 'GET'), target, headers: all, ...(body ? { body } : {}) };
}

export function parseRequest(text) {
  const trimmed = text.trim();
  if (!trimmed) throw new Error('paste a request line, a request with its headers, or a curl command');
  if (/^(\$\s+)?curl(\s|$)/.test(trimmed)) return curl(trimmed.replace(/^\$\s+/, ''));
  const [head, ...rest] = trimmed.split(/\r?\n\r?\n/);
  const [line, ...fields] = head.split(/\r?\n/);
  const [, method, target] = /^(?:([A-Za-z-]+)\s+)?(\S+)(?:\s+HTTP\/[\d.]+)?$/i.exec(line.trim()) ?? [];
  if (!target) throw new Error(`"${line}" is no request line: write GET /path`);
  const headers = fields.filter((field) => field.trim()).map(header);
  const body = rest.join('\n\n');
  if (/^https?:\/\//i.test(target)) return ofUrl({ method: method ?? null, url: target, headers, data: body ? [body] : [], get: false });
  return { method: (method ?? 'GET'), target: target.startsWith('/') || target === '*' ? target : `/${target}`, headers, ...(body ? { body } : {}) };
}
