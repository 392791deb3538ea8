"""Drives a member by a client that was generated from its /openapi.json, in `client` beside the working directory's other files.
Argument: the member's URL."""

import json
import sys

from client import AuthenticatedClient, Client
from client.api.leases import grant_lease, keep_lease_alive, revoke_lease
from client.api.locks import acquire_lock, list_locks, release_lock
from client.api.member import get_status
from client.api.objects import delete_object, get_object, list_objects, patch_object, put_object, transact
from client.api.tokens import put_token
from client.api.topology import get_topology, watch
from client.models import (
    Backend,
    BackendObject,
    BackendOp,
    BackendOpBackend,
    BackendPatch,
    BackendState,
    Code,
    DeltaLine,
    Done,
    LeaseBody,
    LockBody,
    Nothing,
    Problem,
    Role,
    SnapshotLine,
    Stored,
    Text,
    TokenBody,
    TransactionBody,
)

url = sys.argv[1]
client = Client(url, raise_on_unexpected_status=True)


def is_problem(answer, code, status):
    assert isinstance(answer, Problem) and (answer.code, answer.status) == (code, status) and answer.detail, answer


status = get_status.sync(client=client)
assert status.member.role == "leader" and status.identity and status.leader.name == status.member.name, status

# A key with slashes.
key = "backend/s/one"
stored = put_object.sync(key, client=client, body=Backend(address="10.0.0.1:80"), if_none_match="*", note="by a client")
assert isinstance(stored, Stored) and stored.changed == 1, stored
entry = get_object.sync(key, client=client)
assert entry.key == key and entry.modified == stored.revision, entry
assert isinstance(entry.object_, BackendObject) and entry.object_.backend.weight == 100, entry
is_problem(put_object.sync(key, client=client, body=Backend(address="10.0.0.2:80"), if_match='"0"'), Code.STALE, 412)
is_problem(put_object.sync(key, client=client, body=Backend(address="nowhere")), Code.BAD_ADDRESS, 422)
is_problem(put_object.sync("document/other", client=client, body=Text(text="listener: 1")), Code.INVALID, 422)
drained = patch_object.sync(key, client=client, body=BackendPatch(state=BackendState.DRAIN), force=True, if_match=f'"{entry.modified}"')
assert isinstance(drained, Done), drained
op = BackendOp(BackendOpBackend(key, weight=50))
once = transact.sync(client=client, body=TransactionBody([op]), idempotency_key="by a client")
assert transact.sync(client=client, body=TransactionBody([op]), idempotency_key="by a client") == once
[listed] = list_objects.sync(client=client, prefix="backend/").objects
assert (listed.object_.backend.weight, listed.object_.backend.state) == (50, "drain"), listed
is_problem(get_object.sync("backend/s/of-nobody", client=client), Code.NOT_FOUND, 404)

# Leases, locks.
lease = grant_lease.sync(client=client, body=LeaseBody(ttl="60s", owner="a client")).id
taken = acquire_lock.sync("job", client=client, body=LockBody(lease=lease))
assert isinstance(keep_lease_alive.sync(lease, client=client), Nothing)
[lock] = list_locks.sync(client=client).locks
assert (lock.name, lock.token, lock.lease) == ("job", taken.token, lease), lock
is_problem(release_lock.sync("job", client=client, token=taken.token + 1), Code.WRONG_TOKEN, 409)
assert isinstance(release_lock.sync("job", client=client, token=taken.token), Done)
assert isinstance(revoke_lease.sync(lease, client=client), Done)

# What proxies read: by asking again, and as a stream.
topology = get_topology.sync(client=client)
assert topology.objects[key].backend.weight == 50, topology
after = f"{topology.epoch}.{topology.revision}"
assert get_topology.sync_detailed(client=client, after=after, wait="100ms").status_code == 304
gone = delete_object.sync(key, client=client)
later = get_topology.sync(client=client, after=after, wait="30s")
assert later.revision == gone.revision and key not in later.objects.additional_properties, later


def lines(**where):
    """A generated client reads answers to their end, and this one has none: its request, and its models."""
    with client.get_httpx_client().stream(**watch._get_kwargs(**where)) as answer:
        for line in answer.iter_lines():
            yield json.loads(line)


delta = next(line for line in lines(from_=after) if "delta" in line)
[replaced] = DeltaLine.from_dict(delta).delta.changes
assert (replaced.key, replaced.object_) == (key, None), replaced
assert SnapshotLine.from_dict(next(lines())).snapshot == later

# Who may what.
reader = put_token.sync("reader", client=client, body=TokenBody(role=Role.READ, ttl="1h"))
reading = AuthenticatedClient(url, token=reader.token, raise_on_unexpected_status=True)
assert get_status.sync(client=reading).revision == later.revision
is_problem(put_object.sync(key, client=reading, body=Backend(address="10.0.0.1:80")), Code.WRONG_ROLE, 403)
is_problem(get_status.sync(client=AuthenticatedClient(url, token="of-nobody")), Code.BAD_TOKEN, 401)
print("done")
