// The request that a curl command sends, as far as the command says it.

import { options } from './curl_options.js';
import { words } from './shell_words.js';

const BEFORE = /^(?:[$#%]\s+)?(?:(?:sudo(?:\s+-u\s+\S+)?|time|env|command|exec|nohup)\s+|[A-Za-z_]\w*=\S*\s+|-[A-Za-z]\s+)*(?:\S*\/)?curl(?:\.exe)?(?=\s|$)/;
const DEFAULT_PORTS = { http: '80', https: '443' };

export const isCurl = (text) => BEFORE.test(text);

const base64 = (plain) => btoa(String.fromCharCode(...new TextEncoder().encode(plain)));
// Bytes that are no ASCII, as curl writes them in a path.
const ascii = (text) => text.replace(/[^\x00-\x7f]+/g, (part) => encodeURIComponent(part).toLowerCase());
const lowered = (text) => text.replace(/%[0-9A-F]{2}/gi, (one) => one.toLowerCase());
const LOWER_ESCAPE = /%(?:[a-f][0-9a-f]|[0-9a-f][a-f])/;
// As a form has it.
const escape = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`).replaceAll('%20', '+');
const unescape = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

// `name: value`; `name;` has an empty value, and `name:` is not sent at all.
function header(line) {
  const colon = line.indexOf(':', 1);
  if (colon > 0) return [line.slice(0, colon).trim(), line.slice(colon + 1).trim() || null];
  if (/^[^;]+;\s*$/.test(line)) return [line.slice(0, line.indexOf(';')).trim(), ''];
  throw new Error(`"${line}" is no header: it has no colon`);
}

class Command {
  constructor() {
    Object.assign(this, { method: null, urls: [], headers: [], set: {}, cookies: [], data: null, query: [], target: null, upload: null, multipart: false, head: false, get: false, asIs: false, glob: true, user: null, schemes: new Set(), proxy: null, tunnel: false, notes: [] });
  }

  // What is in a file is not known here.
  unknown(what) {
    this.note(`${what} is not known here: this is explained without it.`);
    return '';
  }

  note(text) {
    if (!this.notes.includes(text)) this.notes.push(text);
  }

  addData(part, joint = '&') {
    this.data = this.data === null ? part : this.data + joint + part;
  }

  // `content`, `=content`, `name=content`, `@file`, `name@file`.
  urlencoded(value) {
    const at = value.search(/[=@]/);
    const name = at > 0 ? `${value.slice(0, at)}=` : '';
    if (at >= 0 && value[at] === '@') return name + this.unknown(`What is in the file ${value.slice(at + 1)}`);
    return name + escape(at >= 0 ? value.slice(at + 1) : value);
  }

  plainData = (value) => (value.startsWith('@') ? this.unknown(`What is in the file ${value.slice(1)}`) : value);

  take(option, value) {
    const take = Object.hasOwn(TAKES, option) ? TAKES[option] : null;
    take?.call(this, value);
  }
}

const data = function (value) { this.addData(this.plainData(value)); };
const form = function () { [this.data, this.multipart] = [this.data ?? '', true]; };

// What an option does to the request; those that are not here change nothing in it.
const TAKES = {
  request(value) { this.method = value; },
  url(value) { this.urls.push(value); },
  header(value) { value.startsWith('@') ? this.unknown(`What is in the file ${value.slice(1)}`) : this.headers.push(header(value)); },
  data, 'data-ascii': data, 'data-binary': data,
  'data-raw'(value) { this.addData(value); },
  'data-urlencode'(value) { this.addData(this.urlencoded(value)); },
  json(value) { Object.assign(this.set, { 'content-type': 'application/json', accept: 'application/json' }); this.addData(this.plainData(value), ''); },
  'url-query'(value) { this.query.push(value.startsWith('+') ? value.slice(1) : this.urlencoded(value)); },
  form, 'form-string': form,
  'upload-file'(value) { this.upload = value; this.unknown(value === '-' || value === '.' ? 'What comes from standard input' : `What is in the file ${value}`); },
  'user-agent'(value) { this.set['user-agent'] = value || null; },
  referer(value) { const sent = value.replace(/;auto$/, ''); if (sent) this.set.referer = sent; },
  cookie(value) { value.includes('=') ? this.cookies.push(value) : this.unknown(`The cookies of the file ${value}`); },
  user(value) { this.user = value; },
  ...Object.fromEntries(['basic', 'digest', 'anyauth', 'ntlm', 'negotiate', 'aws-sigv4'].map((scheme) => [scheme, function () { this.schemes.add(scheme); }])),
  proxy(value) { this.proxy = value; },
  'proxy1.0'(value) { this.proxy = value; },
  proxytunnel() { this.tunnel = true; },
  'oauth2-bearer'(value) { this.set.authorization = `Bearer ${value}`; },
  range(value) { this.set.range = `bytes=${value}`; },
  'continue-at'(value) { value === '-' ? this.unknown('How much there is already') : (this.set.range = `bytes=${value}-`); },
  'time-cond'(value) {
    const [, sign, date] = /^([-+=]?)(.*)$/s.exec(value);
    if (Number.isNaN(Date.parse(date))) this.unknown(`The time of ${date}`);
    else this.set[sign === '-' ? 'if-unmodified-since' : 'if-modified-since'] = new Date(date).toUTCString();
  },
  compressed() { this.set['accept-encoding'] = 'deflate, gzip, br, zstd'; },
  config(value) { this.unknown(`What is in the file ${value}`); },
  head() { this.head = true; },
  get() { this.get = true; },
  globoff() { this.glob = false; },
  'path-as-is'() { this.asIs = true; },
  'request-target'(value) { this.target = value; },
  next() { throw new Error('this command sends several requests: paste one of them'); },
};

// `a/./b/../c` is `a/c`, as curl has it.
function withoutDots(path) {
  const kept = [];
  const segments = path.split('/').slice(1);
  segments.forEach((segment, index) => {
    const isLast = index === segments.length - 1;
    if (segment === '..') kept.pop();
    if (segment !== '.' && segment !== '..') kept.push(segment);
    else if (isLast) kept.push('');
  });
  return `/${kept.join('/')}`;
}

// { user, host, path, query } of a URL; a scheme may be left out.
export function urlParts(url) {
  const [, scheme = 'http', user, authority, path, query = ''] = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(?:([^/?#@]*)@)?([^/?#]*)([^?#]*)(\?[^#]*)?/i.exec(url);
  const port = DEFAULT_PORTS[scheme.toLowerCase()];
  if (!port) throw new Error(`${scheme}: is not HTTP`);
  if (/[\s]/.test(url)) throw new Error(`there is a space in the URL ${url}: write %20`);
  if (!authority) throw new Error(`there is no host in the URL ${url}`);
  return { scheme: scheme.toLowerCase(), user, host: authority.endsWith(`:${port}`) ? authority.slice(0, -port.length - 1) : authority, path: path || '/', query };
}

function ungrouped(command, url) {
  if (!command.glob) return url;
  const [, before, rest] = /^((?:[a-z][a-z0-9+.-]*:\/\/)?(?:[^/?#@]*@)?(?:\[[0-9a-fA-F:.%]+\])?)(.*)$/is.exec(url);
  if (/(?<!\\)[[\]{}]/.test(rest)) throw new Error('curl makes several requests of [...] and {...} in a URL: paste one of them, or say --globoff');
  return before + rest.replace(/\\([[\]{}])/g, '$1');
}

// What is sent of a name and a password. Which of several ways it is, and how one that asks for a nonce goes on, curl knows only after a 401.
function authorization(command, credentials) {
  const [scheme = 'basic', ...others] = command.schemes;
  if (credentials === null && scheme !== 'negotiate') return null;
  if (others.length || scheme === 'digest' || scheme === 'anyauth') {
    command.note(`curl asks without credentials first, because of --${others[0] ?? scheme}: this is that request.`);
    return null;
  }
  if (scheme === 'basic') return `Basic ${base64(credentials.includes(':') ? credentials : `${credentials}:`)}`;
  command.unknown(`What --${scheme} signs the request with`);
  return null;
}

function headersOf(command, { user, host }) {
  const isForm = command.data !== null && !command.get;
  const shown = authorization(command, command.user ?? (user === undefined ? null : unescape(user)));
  const own = {
    host, 'user-agent': 'curl', accept: '*/*',
    ...(isForm ? { 'content-type': command.multipart ? 'multipart/form-data' : 'application/x-www-form-urlencoded' } : {}),
    ...(shown === null ? {} : { authorization: shown }),
    ...(command.cookies.length ? { cookie: command.cookies.join(';') } : {}),
    ...command.set,
  };
  if (isForm && command.data === '' && !command.notes.length && !command.multipart) own['content-length'] = '0';
  const said = new Set(command.headers.map(([name]) => name.toLowerCase()));
  const sent = [...Object.entries(own).filter(([name]) => !said.has(name)), ...command.headers].filter(([, value]) => value !== null);
  // Of several, curl sends the first.
  const hosts = sent.filter(([name]) => name.toLowerCase() === 'host');
  if (!hosts.length) throw new Error('this command sends no Host: HTTP/1.1 without one is answered 400 (host_missing), and goes to nobody');
  return sent.filter((one) => one === hosts[0] || one[0].toLowerCase() !== 'host');
}

// A directory that a file is sent to: its name there is its own.
function withFileName(command, path, query) {
  const { upload } = command;
  if (upload === null || !path.endsWith('/') || upload === '-' || upload === '.') return path;
  if (query) command.note('A newer curl adds no file name where there is a query.');
  return path + encodeURIComponent(upload.split('/').at(-1)).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

// What follows the method. A proxy of HTTP is told the whole URL.
function targetOf(command, parts) {
  const added = [...command.query, ...(command.get && command.data ? [command.data] : [])].map(lowered).join('&');
  const query = added ? `${parts.query || '?'}${parts.query.length > 1 ? '&' : ''}${added}` : parts.query;
  const path = withFileName(command, command.asIs ? parts.path : withoutDots(parts.path), query);
  const origin = ascii(path) + query;
  if (LOWER_ESCAPE.test(origin)) command.note('curl from 8.20 on writes %2F where others write %2f: by a key of the path or the query, that is another key.');
  if (command.target !== null) return command.target;
  if (!command.proxy || /^socks/i.test(command.proxy)) return origin;
  if (command.tunnel || parts.scheme === 'https') {
    command.note(`curl asks ${command.proxy} for a tunnel first (CONNECT): this is the request inside of it.`);
    return origin;
  }
  return [`${parts.scheme}:`, '', parts.host + origin].join('/');
}

// { request, notes } of a command.
export function curl(text) {
  const command = new Command();
  for (const [option, value] of options(words(text.replace(BEFORE, ''), (what) => command.note(`What a shell puts for ${what} is not known here: it is taken for its own value.`)))) {
    if (option === null) command.urls.push(value);
    else command.take(option, value);
  }
  if (!command.urls.length) throw new Error('there is no URL in this command');
  if (command.urls.length > 1) throw new Error('this command sends several requests: paste one of them');
  if (command.head && command.data !== null && !command.get) throw new Error('curl sends no body with -I: leave one of them out');
  if (command.multipart) command.unknown('The body (multipart)');
  const parts = urlParts(ungrouped(command, command.urls[0]));
  const body = command.get || command.multipart ? '' : command.data ?? '';
  const method = command.method || (command.head ? 'HEAD' : command.upload !== null ? 'PUT' : command.data !== null && !command.get ? 'POST' : 'GET');
  return { request: { method, target: targetOf(command, parts), headers: headersOf(command, parts), ...(body ? { body } : {}) }, notes: command.notes };
}
