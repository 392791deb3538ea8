// The page of a proxy.

import { el, serviceHref } from './dom.js';
import { Actions } from './actions.js';
import { Changes } from './changes.js';
import { Explain } from './explain.js';
import { Keys } from './keys.js';
import { Overview } from './overview.js';
import { Service } from './service.js';
import { Shell, api } from './shell.js';

const shell = new Shell({
  paths: { live: '/live', whoami: '/whoami' },
  whole: 'proxy',
  roles: ['operate'],
  asks: 'This proxy asks who you are before it shows anything.',
  offers: 'A token with the role operate can change things; one with read can look.',
  needs: 'Changes need a token, a client certificate or the Unix socket with the role operate.',
  who: ({ proxy }) => [proxy.topology?.proxy, proxy.version].filter(Boolean).join(' · '),
  views: {
    overview: () => new Overview(),
    service: (name) => new Service(name, actions),
    explain: () => new Explain(api),
    keys: () => new Keys(actions),
    changes: () => new Changes(),
  },
  tabs: (service) => [['overview', 'Overview', '#/'], ...(service ? [['service', 'Service', serviceHref(service)]] : []),
    ['explain', 'Explain', '#/explain'], ['keys', 'Keys', '#/keys'], ['changes', 'Changes', '#/changes']],
});
const actions = new Actions(() => shell.allowed);
shell.start(el('button', { id: 'reload', type: 'button', class: 'quiet', hidden: true, onclick: () => actions.reload() }, 'Reload'));
