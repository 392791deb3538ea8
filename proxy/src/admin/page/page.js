// The page: which view is shown, who looks, and whether what is shown is alive.

import { el, setAttribute, setText, serviceHref } from './dom.js';
import { Actions, askToken } from './actions.js';
import { Changes } from './changes.js';
import { Explain } from './explain.js';
import { Keys } from './keys.js';
import { Live } from './live.js';
import { Overview } from './overview.js';
import { Service } from './service.js';

const TOKEN = 'ringway-token';
const find = (id) => document.getElementById(id);
let me = { name: null, role: 'none', via: 'anonymous' };
let view = null;
let lastService = null;

const headers = () => {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
};

async function api(method, path, body) {
  const response = await fetch(path, {
    method, cache: 'no-store', headers: { ...headers(), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  let answer = null;
  try { answer = JSON.parse(text); } catch { /* Not JSON: the status says it. */ }
  if (!response.ok) throw new Error(answer?.error ?? `the proxy answers ${response.status}`);
  return answer;
}

function tell(text, bad = false) {
  const notice = find('notice');
  notice.hidden = !text;
  notice.classList.toggle('bad', bad);
  notice.replaceChildren(text, el('button', { type: 'button', class: 'quiet small', onclick: () => tell('') }, 'Close'));
}

const actions = new Actions(api, () => me, tell);
const live = new Live({ headers, onFrame: draw, onState: showState });

function draw() {
  if (!live.frame) return;
  const { proxy } = live.frame;
  setText(find('who-runs'), [proxy.topology?.proxy, proxy.version].filter(Boolean).join(' · '));
  lastService ??= Object.keys(live.frame.services ?? {}).sort()[0] ?? null;
  drawTabs();
  view?.update({ frame: live.frame, history: live.history });
}

function showState(state, { wait, error } = {}) {
  const pill = find('connection');
  const texts = { live: 'live', denied: 'sign in to look', broken: `not live: tries again in ${Math.ceil((wait ?? 0) / 1000)} s` };
  setText(pill, texts[state]);
  setAttribute(pill, 'data-state', state);
  setAttribute(pill, 'title', error ?? null);
  setAttribute(find('main'), 'data-stale', state === 'live' ? null : state);
  if (state === 'denied') signIn('This proxy asks who you are before it shows anything.');
}

async function whoAmI() {
  me = await api('GET', '/whoami').catch(() => ({ name: null, role: 'read', via: 'anonymous' }));
  const button = find('sign-in');
  const signed = sessionStorage.getItem(TOKEN) !== null;
  setText(button, signed ? 'Sign out' : 'Sign in');
  const why = me.via === 'anonymous' ? 'read-only: nobody has signed in' : `${me.name ?? me.via}: ${me.role}`;
  setAttribute(button, 'title', actions.allowed ? `${me.name ?? me.via} may change things` : why);
  setText(find('role'), actions.allowed ? `${me.name ?? me.via} · operate` : me.role === 'none' ? 'signed out' : `read-only`);
  setAttribute(find('role'), 'title', actions.allowed ? null : `${why}. Changes need a token, a client certificate or the Unix socket with the role operate.`);
  find('reload').hidden = !actions.allowed;
  draw();
}

let asking = false;
async function signIn(why) {
  if (asking) return;
  asking = true;
  const token = await askToken(why);
  asking = false;
  if (token === null) return;
  sessionStorage.setItem(TOKEN, token);
  await whoAmI();
  if (me.role === 'none') tell('This token is not known here.', true);
  live.start();
}

async function signOut() {
  sessionStorage.removeItem(TOKEN);
  await whoAmI();
  live.start();
}

function route() {
  const [, name = '', rest = ''] = location.hash.split('/');
  let argument;
  try { argument = decodeURIComponent(rest); } catch { argument = rest; }
  return { name: name || 'overview', argument };
}

const VIEWS = {
  overview: () => new Overview(),
  service: (name) => new Service(name, actions),
  explain: () => new Explain(api),
  keys: () => new Keys(actions),
  changes: () => new Changes(),
};

function show() {
  if (location.hash && !location.hash.startsWith('#/')) return;
  const { name, argument } = route();
  const chosen = Object.hasOwn(VIEWS, name) ? name : 'overview';
  if (chosen === 'service') lastService = argument;
  view = VIEWS[chosen](argument);
  document.title = `${view.title} · Ringway`;
  find('main').replaceChildren(view.node);
  drawTabs();
  live.follow(chosen === 'service' ? argument : null);
  draw();
}

function drawTabs() {
  const tabs = find('tabs');
  const list = [['overview', 'Overview', '#/'], ['service', lastService ? `Service` : null, lastService && serviceHref(lastService)],
    ['explain', 'Explain', '#/explain'], ['keys', 'Keys', '#/keys'], ['changes', 'Changes', '#/changes']].filter(([, label]) => label);
  const here = Object.hasOwn(VIEWS, route().name) ? route().name : 'overview';
  if (tabs.children.length !== list.length) tabs.replaceChildren(...list.map(() => el('a')));
  list.forEach(([name, label, href], index) => {
    const tab = tabs.children[index];
    setText(tab, label);
    setAttribute(tab, 'href', href);
    setAttribute(tab, 'aria-current', name === here ? 'page' : null);
  });
}

find('sign-in').addEventListener('click', () => (sessionStorage.getItem(TOKEN) ? signOut() : signIn('A token with the role operate can change things; one with read can look.')));
find('sign-in').before(el('span', { id: 'role', class: 'muted' }), el('button', { id: 'reload', type: 'button', class: 'quiet', hidden: true, onclick: () => actions.reload() }, 'Reload'));
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); find('main').focus(); });
addEventListener('hashchange', () => { show(); find('main').focus(); scrollTo(0, 0); });
show();
whoAmI();
