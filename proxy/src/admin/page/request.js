// A request out of what people have at hand: a curl command, a request line, or a request with its head.

import { curl, isCurl, urlParts } from './curl.js';

// A method alone asks for nothing.
const METHODS = new Set(['CONNECT', 'DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT', 'TRACE']);

function header(line) {
  const colon = line.indexOf(':', 1);
  if (colon < 0) throw new Error(`"${line}" is no header: it has no colon`);
  return [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
}

// { request, notes }: what is asked of `/explain`, and what is not known of it.
export function parseRequest(text) {
  const trimmed = text.trim();
  if (!trimmed) throw new Error('paste a request line, a request with its headers, or a curl command');
  if (isCurl(trimmed)) return curl(trimmed);
  const [head, ...rest] = trimmed.split(/\r?\n\r?\n/);
  const [line, ...fields] = head.split(/\r?\n/);
  const [, method = 'GET', target] = /^(?:([A-Za-z-]+)\s+)?(\S+)(?:\s+HTTP\/[\d.]+)?$/i.exec(line.trim()) ?? [];
  if (!target || METHODS.has(target)) throw new Error(`"${line}" is no request line: write GET /path`);
  const headers = fields.filter((field) => field.trim()).map(header);
  const body = rest.join('\n\n');
  const request = (path, more) => ({ request: { method, target: path, headers: [...more, ...headers], ...(body ? { body } : {}) }, notes: [] });
  if (!/^https?:\/\//i.test(target)) return request(target.startsWith('/') || target === '*' ? target : `/${target}`, []);
  const { host, path, query } = urlParts(target);
  return request(path + query, headers.some(([name]) => name.toLowerCase() === 'host') ? [] : [['host', host]]);
}
