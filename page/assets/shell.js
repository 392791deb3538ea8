// What surrounds a page's views: who looks, which view is shown, and whether what is shown is alive.

import { ask } from './dialog.js';
import { el, setAttribute, setText } from './dom.js';
import { Live, problem } from './live.js';

const TOKEN = 'ringway-token';
// Refusals that `force` is for: of a proxy, of a member.
const FORCEABLE = new Set(['nothing_left', 'guard_empty', 'guard_loss']);
export const find = (id) => document.getElementById(id);

export class Refusal extends Error {
  constructor(message, status, answer) {
    super(message);
    Object.assign(this, { status, code: answer?.code });
  }
}

const headers = () => {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
};

export async function api(method, path, body) {
  const response = await fetch(path, {
    method, cache: 'no-store', headers: { ...headers(), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  let answer = null;
  try { answer = JSON.parse(text); } catch { /* Not JSON: the status says it. */ }
  if (!response.ok) throw new Refusal(problem(answer) ?? `the answer is ${response.status}`, response.status, answer);
  return answer;
}

export function tell(text, bad = false) {
  const notice = find('notice');
  notice.hidden = !text;
  notice.classList.toggle('bad', bad);
  notice.replaceChildren(text, el('button', { type: 'button', class: 'quiet small', onclick: () => tell('') }, 'Close'));
}

// Asks, does it, and says what came of it. What is refused only because too little would be left is asked again: `force` says in plain
// words what that means.
export async function perform({ question, force, act, said }) {
  const answer = await ask(question);
  if (answer === null) return;
  const done = async (isForced) => tell(said(await act(answer, isForced)) || `${question.confirm}: done`);
  const failed = (error) => tell(`${question.confirm}: ${error.message}`, true);
  try {
    await done(false);
  } catch (error) {
    if (!force || !FORCEABLE.has(error.code)) return failed(error);
    const confirm = `${question.confirm} all the same`;
    const lines = [...force, 'Nothing has changed so far.'];
    if (await ask({ title: 'Take out what is left?', confirm, lines, danger: true }) === null) return tell('Nothing has changed.');
    await done(true).catch(failed);
  }
}

export const askToken = (why) => ask({
  title: 'Sign in', confirm: 'Sign in', lines: [why, 'The token is kept in this tab alone, until it is closed.'],
  field: { label: 'Token', attributes: { type: 'password', autocomplete: 'off', spellcheck: 'false' }, check: (text) => (/^[\x21-\x7e]+$/.test(text) ? '' : 'a token has no spaces, and is not empty') },
});

// paths: { live, whoami }; `whole`: the frame's field of numbers; `views`: name => view; `tabs`: frame, last service => [name, label, href];
// `who`: what stands beside the name; `asks`, `offers`: why somebody should sign in; `roles`: those that may change something.
export class Shell {
  constructor(options) {
    Object.assign(this, options);
    this.me = { name: null, role: 'none', via: 'anonymous' };
    this.view = null;
    this.lastService = null;
    this.asking = false;
    this.live = new Live({ path: this.paths.live, whole: this.whole, headers, onFrame: () => this.draw(), onState: (state, more) => this.showState(state, more) });
  }

  get allowed() {
    return this.roles.includes(this.me.role) && this.me.via !== 'anonymous';
  }

  start(...buttons) {
    this.buttons = buttons;
    find('sign-in').addEventListener('click', () => (sessionStorage.getItem(TOKEN) ? this.signOut() : this.signIn(this.offers)));
    find('sign-in').before(el('span', { id: 'role', class: 'muted' }), ...buttons);
    document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); find('main').focus(); });
    addEventListener('hashchange', () => { this.show(); find('main').focus(); scrollTo(0, 0); });
    this.show();
    this.whoAmI();
  }

  draw() {
    const { frame, history } = this.live;
    if (!frame) return;
    setText(find('who-runs'), this.who(frame));
    this.lastService ??= Object.keys(frame.services ?? {}).sort()[0] ?? null;
    this.drawTabs();
    this.view?.update({ frame, history });
  }

  showState(state, { since, error, status } = {}) {
    const pill = find('connection');
    const wasLost = ['broken', 'denied'].includes(pill.dataset.state);
    const old = `not live since ${new Date(since).toLocaleTimeString()}`;
    const texts = { live: 'live', denied: 'sign in to look', quiet: old, broken: `${old}: trying again` };
    setText(pill, texts[state]);
    setAttribute(pill, 'data-state', state);
    setAttribute(pill, 'title', error ?? null);
    setAttribute(find('main'), 'data-stale', state === 'live' ? null : state);
    // Who may do what may be another meanwhile.
    if (state === 'live' && wasLost) this.whoAmI();
    if (state !== 'denied') return;
    if (status === 401 && sessionStorage.getItem(TOKEN) !== null) this.dropToken();
    else this.signIn(this.asks);
  }

  // Who has a token that is not known is less than nobody: without it, there is what everybody may see.
  async dropToken() {
    sessionStorage.removeItem(TOKEN);
    tell('This token is not known here, or not any more: it was dropped.', true);
    await this.whoAmI();
    this.live.start();
  }

  async whoAmI() {
    this.me = await api('GET', this.paths.whoami).catch((error) => ({ name: null, role: error.status === 401 ? 'none' : 'read', via: 'anonymous' }));
    const { name, role, via } = this.me;
    setText(find('sign-in'), sessionStorage.getItem(TOKEN) !== null ? 'Sign out' : 'Sign in');
    const why = via === 'anonymous' ? 'read-only: nobody has signed in' : `${name ?? via}: ${role}`;
    setAttribute(find('sign-in'), 'title', this.allowed ? `${name ?? via} may change things` : why);
    setText(find('role'), this.allowed ? `${name ?? via} · ${role}` : role === 'none' ? 'signed out' : 'read-only');
    setAttribute(find('role'), 'title', this.allowed ? null : `${why}. ${this.needs}`);
    for (const button of this.buttons) button.hidden = !this.allowed;
    this.draw();
  }

  async signIn(why) {
    if (this.asking) return;
    this.asking = true;
    const token = await askToken(why);
    this.asking = false;
    if (token === null) return;
    // What was asked with another token says nothing of this one.
    this.live.stop();
    sessionStorage.setItem(TOKEN, token);
    await this.whoAmI();
    if (this.me.role === 'none') await this.dropToken();
    else this.live.start();
  }

  async signOut() {
    sessionStorage.removeItem(TOKEN);
    await this.whoAmI();
    this.live.start();
  }

  route() {
    const [, name = '', rest = ''] = location.hash.split('/');
    let argument;
    try { argument = decodeURIComponent(rest); } catch { argument = rest; }
    return { name: Object.hasOwn(this.views, name) ? name : 'overview', argument };
  }

  show() {
    if (location.hash && !location.hash.startsWith('#/')) return;
    const { name, argument } = this.route();
    if (name === 'service') this.lastService = argument;
    this.view = this.views[name](argument);
    document.title = `${this.view.title} · Ringway`;
    find('main').replaceChildren(this.view.node);
    this.drawTabs();
    this.live.follow(name === 'service' ? argument : null);
    this.draw();
  }

  drawTabs() {
    const tabs = find('tabs');
    const list = this.tabs(this.lastService);
    const here = this.route().name;
    if (tabs.children.length !== list.length) tabs.replaceChildren(...list.map(() => el('a')));
    list.forEach(([name, label, href], index) => {
      const tab = tabs.children[index];
      setText(tab, label);
      setAttribute(tab, 'href', href);
      setAttribute(tab, 'aria-current', name === here ? 'page' : null);
    });
  }
}
