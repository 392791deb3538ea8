// The request that a curl command sends, as far as the command says it.

import { options } from './curl_options.js';
import { words } from './shell_words.js';

const BEFORE = /^(?:[$#%]\s+)?(?:(?:sudo(?:\s+-u\s+\S+)?|time|env|command|exec|nohup)\s+|[A-Za-z_]\w*=\S*\s+|-[A-Za-z]\s+)*(?:\S*\/)?curl(?:\.exe)?(?=\s|$)/;
const DEFAULT_PORTS = { http: '80', https: '443' };

export const isCurl = (text) => BEFORE.test(text);

const base64 = (plain) => btoa(String.fromCharCode(...new TextEncoder().encode(plain)));
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
    Object.assign(this, { method: null, urls: [], headers: [], set: {}, cookies: [], data: null, query: [], target: null, upload: false, multipart: false, head: false, get: false, asIs: false, glob: true, user: null, notes: [] });
  }

  // What is in a file is not known here.
  unknown(what) {
    const note = `${what} is not known here: this is explained without it.`;
    if (!this.notes.includes(note)) this.notes.push(note);
    return '';
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
  'upload-file'(value) { this.upload = true; this.unknown(value === '-' || value === '.' ? 'What comes from standard input' : `What is in the file ${value}`); },
  'user-agent'(value) { this.set['user-agent'] = value || null; },
  referer(value) { const sent = value.replace(/;auto$/, ''); if (sent) this.set.referer = sent; },
  cookie(value) { value.includes('=') ? this.cookies.push(value) : this.unknown(`The cookies of the file ${value}`); },
  user(value) { this.user = value; },
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
  return { user, host: authority.endsWith(`:${port}`) ? authority.slice(0, -port.length - 1) : authority, path: path || '/', query };
}

function ungrouped(command, url) {
  if (!command.glob) return url;
  const [, before, rest] = /^((?:[a-z][a-z0-9+.-]*:\/\/)?(?:[^/?#@]*@)?(?:\[[0-9a-fA-F:.%]+\])?)(.*)$/is.exec(url);
  if (/(?<!\\)[[\]{}]/.test(rest)) throw new Error('curl makes several requests of [...] and {...} in a URL: paste one of them, or say --globoff');
  return before + rest.replace(/\\([[\]{}])/g, '$1');
}

function headersOf(command, { user, host }) {
  const isForm = command.data !== null && !command.get;
  const credentials = command.user ?? (user === undefined ? null : unescape(user));
  const own = {
    host, 'user-agent': 'curl', accept: '*/*',
    ...(isForm ? { 'content-type': command.multipart ? 'multipart/form-data' : 'application/x-www-form-urlencoded' } : {}),
    ...(credentials === null ? {} : { authorization: `Basic ${base64(credentials.includes(':') ? credentials : `${credentials}:`)}` }),
    ...(command.cookies.length ? { cookie: command.cookies.join(';') } : {}),
    ...command.set,
  };
  if (isForm && command.data === '' && !command.notes.length && !command.multipart) own['content-length'] = '0';
  const said = new Set(command.headers.map(([name]) => name.toLowerCase()));
  const sent = [...Object.entries(own).filter(([name]) => !said.has(name)), ...command.headers];
  return sent.filter(([, value]) => value !== null);
}

// { request, notes } of a command.
export function curl(text) {
  const command = new Command();
  for (const [option, value] of options(words(text.replace(BEFORE, '')))) {
    if (option === null) command.urls.push(value);
    else command.take(option, value);
  }
  if (!command.urls.length) throw new Error('there is no URL in this command');
  if (command.urls.length > 1) throw new Error('this command sends several requests: paste one of them');
  if (command.multipart) command.unknown('The body (multipart)');
  const parts = urlParts(ungrouped(command, command.urls[0]));
  const inQuery = [...command.query, ...(command.get && command.data ? [command.data] : [])].join('&');
  const query = inQuery ? `${parts.query || '?'}${parts.query.length > 1 ? '&' : ''}${inQuery}` : parts.query;
  const path = command.asIs ? parts.path : withoutDots(parts.path);
  const body = command.get || command.multipart ? '' : command.data ?? '';
  const method = command.method || (command.head ? 'HEAD' : command.upload ? 'PUT' : command.data !== null && !command.get ? 'POST' : 'GET');
  return { request: { method, target: command.target ?? path + query, headers: headersOf(command, parts), ...(body ? { body } : {}) }, notes: command.notes };
}
