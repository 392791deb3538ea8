// The page of a fleet, as a member of its control plane shows it.

import { serviceHref } from './dom.js';
import { Actions } from './actions.js';
import { Changes } from './changes.js';
import { Overview } from './overview.js';
import { Service } from './service.js';
import { Shell, api } from './shell.js';

const shell = new Shell({
  paths: { live: '/v1/live', whoami: '/v1/whoami' },
  whole: 'fleet',
  roles: ['operate', 'admin'],
  asks: 'The control plane asks who you are before it shows anything.',
  offers: 'A token with the role operate can change things; one with read can look.',
  needs: 'Changes need a token or a client certificate with the role operate.',
  who: ({ fleet }) => [fleet.cluster, fleet.answered_by, fleet.version].filter(Boolean).join(' · '),
  views: {
    overview: () => new Overview(actions),
    service: (name) => new Service(name, actions),
    changes: () => new Changes(actions, api),
  },
  tabs: (service) => [['overview', 'Overview', '#/'], ...(service ? [['service', 'Service', serviceHref(service)]] : []), ['changes', 'Changes', '#/changes']],
});
const actions = new Actions(() => shell.allowed);
shell.start();
