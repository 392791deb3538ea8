"""Asks a member for everything that its /openapi.json describes, and holds each answer to what is described: its status, its type,
its headers, and its fields, of which none may be missing and none may be more. Arguments: the member's URL, the URL of a learner.

The fleet has a proxy called `real`, and a service `s` with backends `a` and `b` in `document/main`."""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import jsonschema
import openapi_spec_validator

MEMBER, LEARNER = sys.argv[1:]
PATIENCE_SECONDS = 120
document = json.load(urllib.request.urlopen(MEMBER + "/openapi.json", timeout=30))
openapi_spec_validator.validate(document)
asked = {}


def closed(schema):
    """The same, where no field may be that is not described."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(part) for name, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


strict = {"components": {"schemas": {name: closed(schema) for name, schema in document["components"]["schemas"].items()}}}


def is_as(schema, value, where):
    try:
        jsonschema.Draft202012Validator({**closed(schema), **strict}).validate(value)
    except jsonschema.ValidationError as error:
        raise AssertionError(f"{where}: {value}") from error


def resolved(part):
    while "$ref" in part:
        found = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def send(method, path, query, headers, body, base):
    """What curl would send: nothing here knows the document."""
    url = base + path + ("?" + urllib.parse.urlencode(query) if query else "")
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if data is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers={**kind, **headers}, method=method.upper())
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    return answer


def ask(method, template, path=None, query=None, headers=None, body=None, status=200, base=MEMBER, lines=None, undescribed=False):
    """Asks, and holds the answer to the document; the answer's body. `undescribed`: what is sent is meant to be wrong."""
    where = f"{method} {template}"
    operation = document["paths"][template][method]
    parameters = {(p["in"], p["name"]): p for p in map(resolved, operation["parameters"])}
    if not undescribed:
        sent = {("query", name): value for name, value in (query or {}).items()}
        sent |= {("header", name): value for name, value in (headers or {}).items() if name not in ("Accept", "Authorization", "Content-Type")}
        sent |= {("path", name): value for name, value in (path or {}).items()}
        for name, value in sent.items():
            is_as(parameters[name]["schema"], value, f"{where}: {name}")
        missing = [name for name, p in parameters.items() if p["required"] and name not in sent]
        assert not missing, f"{where}: {missing}"
        if isinstance(body, dict):
            is_as(operation["requestBody"]["content"]["application/json"]["schema"], body, f"{where}: its body")
    url = template.format(**{name: urllib.parse.quote(str(value), safe="") for name, value in (path or {}).items()})
    # Python's `True` is not JSON's.
    query = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in (query or {}).items()}
    with send(method, url, query, headers or {}, body, base) as answer:
        assert answer.status == status, f"{where}: {answer.status}: {answer.read(2000)}"
        described = operation["responses"].get(str(status))
        assert described, f"{where}: {status} is not described"
        asked.setdefault(operation["operationId"], set()).add(status)
        described = resolved(described)
        if status == 200:
            for name in described.get("headers", {}):
                assert answer.headers[name] is not None, f"{where}: no {name}"
                value = resolved(described["headers"][name])["schema"]
                is_as(value, int(answer.headers[name]) if value["type"] == "integer" else answer.headers[name], f"{where}: {name}")
        for name in answer.headers:
            own = name.lower().startswith("ringway-") or name.lower() in ("etag", "retry-after", "www-authenticate")
            assert not own or name.lower() in [known.lower() for known in described.get("headers", {})], f"{where}: {name}"
        if "content" not in described:
            assert answer.read() == b"", where
            return None
        kind = answer.headers["Content-Type"].split(";")[0]
        assert kind in described["content"], f"{where}: {kind}"
        if lines is not None:
            return lines(answer)
        content = answer.read()
        if kind.endswith("json"):
            value = json.loads(content)
            is_as(described["content"][kind]["schema"], value, where)
            return value
        return content


def problem(code, status, *args, **kwargs):
    said = ask(*args, status=status, **kwargs)
    assert (said["code"], said["status"]) == (code, status), said
    return said


def until(what, condition):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)  # Between two looks.
    raise AssertionError(f"waited in vain for {what}")


def live(answer):
    """The first event of the page's stream: the whole of what it shows."""
    assert answer.readline() == b"event: frame\n"
    return json.loads(answer.readline().removeprefix(b"data: "))


def watched(count):
    """The first lines of a stream, each held to its description."""

    def read(answer):
        found = []
        while len(found) < count:
            line = answer.readline()
            assert line, "the stream has ended"
            line = line.removeprefix(b"data:").strip()
            if line and not line.startswith((b"id:", b"event:")):
                found.append(json.loads(line))
                is_as({"$ref": "#/components/schemas/WatchLine"}, found[-1], "a line of the stream")
        return found

    return read


# What a member is.
assert ask("get", "/healthz") == b"ok\n"
ask("get", "/readyz")
ask("get", "/openapi.json")
assert b"# TYPE" in ask("get", "/metrics")
assert ask("get", "/v1/status")["identity"]
assert ask("get", "/v1/whoami")["via"] == "anonymous"
problem("bad_token", 401, "get", "/v1/status", headers={"Authorization": "Bearer of-nobody"})

# Objects.
backend = {"address": "10.0.0.1:80", "zone": "z"}
key = {"key": "backend/s/c"}
made = ask("put", "/v1/objects/{key}", key, {"note": "first"}, {"If-None-Match": "*", "Idempotency-Key": "one"}, backend)
assert made["changed"] == 1
problem("stale", 412, "put", "/v1/objects/{key}", key, headers={"If-Match": '"1"'}, body={**backend, "weight": 50})
problem("bad_condition", 400, "put", "/v1/objects/{key}", key, headers={"If-Match": "new"}, body=backend)
problem("idempotency_mismatch", 422, "put", "/v1/objects/{key}", key, headers={"Idempotency-Key": "one"}, body={**backend, "weight": 50})
problem("bad_body", 400, "put", "/v1/objects/{key}", key, body={"weight": 1}, undescribed=True)
problem("bad_address", 422, "put", "/v1/objects/{key}", key, body={"address": "nowhere"})
problem("too_large", 413, "put", "/v1/objects/{key}", key, {"note": "n" * 5000}, body=backend)
problem("bad_flag", 400, "put", "/v1/objects/{key}", key, {"force": "yes"}, body=backend, undescribed=True)
problem("bad_name", 400, "get", "/v1/objects/{key}", {"key": "backend/s"}, undescribed=True)
problem("not_found", 404, "get", "/v1/objects/{key}", {"key": "backend/s/of-nobody"})
entry = ask("get", "/v1/objects/{key}", key, {"consistency": "stale"})
assert entry["object"]["backend"]["address"] == backend["address"]
# Its slashes as they are.
with send("get", "/v1/objects/backend/s/c", {}, {}, None, MEMBER) as answer:
    assert json.load(answer) == entry
ask("patch", "/v1/objects/{key}", key, headers={"If-Match": f'"{entry["modified"]}"'}, body={"weight": 10, "state": "drain"})
leased = {"key": "backend/s/d"}
lease = ask("put", "/v1/objects/{key}", leased, {"ttl": "60s"}, body=backend)["lease"]
again = ask("put", "/v1/objects/{key}", leased, {"ttl": "60s"}, body=backend)
assert (again["lease"], again["changed"]) == (lease, 0), again
problem("bad_ttl", 400, "put", "/v1/objects/{key}", leased, {"ttl": "soon"}, body=backend, undescribed=True)
service = {"text": "name: t\nbackends: [ { id: a, address: \"10.0.0.9:80\" } ]\n"}
ask("put", "/v1/objects/{key}", {"key": "service/t"}, body=service)
as_yaml = {"Content-Type": "application/yaml"}
ask("put", "/v1/objects/{key}", {"key": "service/t"}, headers=as_yaml, body=service["text"].replace("0.9", "0.8").encode())
ask("put", "/v1/objects/{key}", {"key": "service/t"}, headers=as_yaml, body=service["text"].encode())
problem("invalid", 422, "put", "/v1/objects/{key}", {"key": "service/t"}, body={"text": "name: t\nbackend: 1\n"})
assert ask("get", "/v1/objects", query={"prefix": "service/"})["objects"][0]["object"]["service"] == service
problem("bad_consistency", 400, "get", "/v1/objects", query={"consistency": "none"}, undescribed=True)
ask("get", "/v1/objects")
ask("delete", "/v1/objects/{key}", {"key": "service/t"}, {"note": "gone", "force": True}, {"Idempotency-Key": "two"})
problem("not_found", 404, "delete", "/v1/objects/{key}", {"key": "service/t"})

# Several at once.
change = {
    "conditions": [{"key": "backend/s/e", "modified": 0}],
    "ops": [{"put": {"key": "backend/s/e", "object": {"backend": backend}}}, {"backend": {"key": "backend/s/c", "state": "ready"}}],
    "note": "both",
}
checked = ask("post", "/v1/check", body=change)
assert [changed["key"] for changed in checked["changes"]] == ["backend/s/c", "backend/s/e"]
ask("post", "/v1/txn", headers={"Idempotency-Key": "three"}, body=change)
problem("stale", 412, "post", "/v1/txn", body=change)
problem("stale", 412, "post", "/v1/check", body=change)
ask("post", "/v1/txn", body={"ops": [{"delete": {"key": "backend/s/e"}}], "force": True})
main = ask("get", "/v1/objects/{key}", {"key": "document/main"})
emptied = {"text": main["object"]["document"]["text"].split("services:")[0]}
assert problem("guard_empty", 409, "put", "/v1/objects/{key}", {"key": "document/main"}, body=emptied)["detail"]

# What has been.
revisions = ask("get", "/v1/history", query={"limit": 5})["revisions"]
assert len(revisions) == 5
ask("get", "/v1/history/{revision}", {"revision": made["revision"]})
problem("unknown_revision", 404, "get", "/v1/history/{revision}", {"revision": 10**9})
problem("bad_number", 400, "get", "/v1/history/{revision}", {"revision": "last"}, undescribed=True)
problem("unknown_revision", 404, "post", "/v1/rollback", body={"to": 10**9})
ask("post", "/v1/rollback", body={"to": revisions[0]["revision"] - 1, "note": "as it was"})

# Leases and locks.
mine = ask("post", "/v1/leases", body={"ttl": "60s", "owner": "me"})["id"]
problem("bad_ttl", 422, "post", "/v1/leases", body={"ttl": "1ms"})
assert ask("post", "/v1/leases/keepalive", body={"ids": [mine, 10**9]}) == {"missing": [10**9]}
ask("put", "/v1/leases/{lease}", {"lease": mine})
problem("not_found", 404, "put", "/v1/leases/{lease}", {"lease": 10**9})
assert mine in [lease["id"] for lease in ask("get", "/v1/leases")["leases"]]
token = ask("put", "/v1/locks/{name}", {"name": "job"}, body={"lease": mine, "owner": "me"})["token"]
problem("not_found", 404, "put", "/v1/locks/{name}", {"name": "job"}, body={"lease": 10**9})
other = ask("post", "/v1/leases", body={"ttl": "60s"})["id"]
problem("locked", 409, "put", "/v1/locks/{name}", {"name": "job"}, body={"lease": other})
problem("bad_name", 422, "put", "/v1/locks/{name}", {"name": "a job"}, body={"lease": other}, undescribed=True)
assert ask("get", "/v1/locks")["locks"][0]["token"] == token
problem("no_token", 400, "delete", "/v1/locks/{name}", {"name": "job"}, undescribed=True)
problem("wrong_token", 409, "delete", "/v1/locks/{name}", {"name": "job"}, {"token": token + 1})
ask("delete", "/v1/locks/{name}", {"name": "job"}, {"token": token})
problem("not_found", 404, "delete", "/v1/locks/{name}", {"name": "job"}, {"token": token})
ask("delete", "/v1/leases/{lease}", {"lease": other}, {"note": "not needed"})
problem("not_found", 404, "delete", "/v1/leases/{lease}", {"lease": other})

# Tokens.
reader = ask("put", "/v1/tokens/{name}", {"name": "reader"}, body={"role": "read", "ttl": "1h"})
ask("put", "/v1/tokens/{name}", {"name": "for-ever"}, body={"role": "register"})
problem("bad_name", 422, "put", "/v1/tokens/{name}", {"name": "a b"}, body={"role": "read"}, undescribed=True)
assert len(ask("get", "/v1/tokens")["tokens"]) == 2
as_reader = {"Authorization": "Bearer " + reader["token"]}
ask("get", "/v1/status", headers=as_reader)
problem("wrong_role", 403, "delete", "/v1/objects/{key}", key, headers=as_reader)
ask("delete", "/v1/tokens/{name}", {"name": "for-ever"})
problem("not_found", 404, "delete", "/v1/tokens/{name}", {"name": "for-ever"})

# What proxies read.
topology = ask("get", "/v1/topology")
here = f'{topology["epoch"]}.{topology["revision"]}'
ask("get", "/v1/topology", query={"after": here, "wait": "100ms"}, status=304)
problem("bad_position", 400, "get", "/v1/topology", query={"after": "here"}, undescribed=True)
assert "snapshot" in ask("get", "/v1/watch", lines=watched(1))[0]
problem("bad_position", 400, "get", "/v1/watch", query={"from": "here"}, undescribed=True)
ask("patch", "/v1/objects/{key}", key, body={"weight": 11})
shown = ask("get", "/v1/live", query={"service": "s"}, lines=live)
assert shown["fleet"]["cluster"] == topology["cluster"] and "proxies" in shown, shown
stream = ask("get", "/v1/watch", query={"from": here}, headers={"Accept": "text/event-stream"}, lines=watched(3))
assert sorted(name for line in stream for name in line) == ["delta", "ping", "rollout"], stream
ask("get", "/v1/watch", headers={"Accept": "text/event-stream", "Last-Event-ID": here}, lines=watched(1))


# Proxies, and rollouts: of a proxy that is one, and of one that says no to everything.
def heartbeat(**other):
    none = {"stuck": None, "vote": None, "down": [], "requests": 0, "failed": 0, "canary": None, "instance": 7}
    now = ask("get", "/v1/topology")
    at = {"epoch": now["epoch"], "revision": now["revision"], "digest": now["digest"], "cluster": now["cluster"]}
    ask("put", "/v1/proxies/{name}", {"name": "fake"}, body={"version": "0", "rings": {}, "generation": 1, **none, **at, **other})


problem("bad_name", 400, "put", "/v1/proxies/{name}", {"name": "a b"}, body={}, undescribed=True)
until("the leader to know the fleet", lambda: ask("get", "/v1/proxies")["settled"])
assert [proxy["name"] for proxy in ask("get", "/v1/proxies")["proxies"]] == ["real"]


def rollout(weight, policy=None):
    op = {"backend": {"key": "backend/s/c", "weight": weight}}
    started = ask("post", "/v1/rollouts", body={"ops": [op], "note": "weight", **({"policy": policy} if policy else {})})
    return started["id"]


def phase(number):
    return ask("get", "/v1/rollouts/{rollout}", {"rollout": number})["phase"]


staged = rollout(20, {"stages_percent": [50], "bake_ms": 3_600_000, "deadline_ms": 600_000})
until("a stage", lambda: phase(staged) == {"stage": 0})
assert ask("get", "/v1/status")["rollout"]["id"] == staged
assert ask("get", "/v1/topology")["rollout"]["id"] == staged
problem("rollout_active", 409, "post", "/v1/rollouts", body={"ops": [{"delete": {"key": "document/main"}}], "force": True})
ask("post", "/v1/rollouts/{rollout}/abort", {"rollout": staged}, body={"reason": "seen enough"})
assert phase(staged) == {"aborted": "seen enough"}
problem("rollout_over", 409, "post", "/v1/rollouts/{rollout}/abort", {"rollout": staged})
problem("not_found", 404, "post", "/v1/rollouts/{rollout}/abort", {"rollout": 10**9})
problem("not_found", 404, "get", "/v1/rollouts/{rollout}", {"rollout": 10**9})
done = rollout(21)
until("the change to hold", lambda: "committed" in phase(done))
assert rollout(21) is None, "nothing is to be changed"
heartbeat()
refused = rollout(22)
heartbeat(vote=[refused, {"refusal": "not here", "digest": "", "moved_ppm": 0}])
until("the refusal", lambda: "aborted" in phase(refused))
assert ask("get", "/v1/rollouts")["rollouts"][0]["refused"] == [{"proxy": "fake", "reason": "not here"}]
# A report of no service: format, name, instance, number of the report.
report = bytes([2, 4]) + b"fake" + bytes([7, 1, 0])
assert ask("post", "/v1/loads", body=report)["refused"] == {}
assert "taken already" in ask("post", "/v1/loads", body=report)["refused"][""]
problem("bad_body", 400, "post", "/v1/loads", body=report[:-1])
assert ask("get", "/v1/loads")["services"] == {}
ask("get", "/v1/proxies")
problem("not_found", 404, "delete", "/v1/proxies/{name}", {"name": "fake"}, {"instance": 8})
ask("delete", "/v1/proxies/{name}", {"name": "fake"}, {"instance": 7})
problem("not_found", 404, "delete", "/v1/proxies/{name}", {"name": "of-nobody"})

# Backups.
backup = ask("get", "/v1/backup", query={"consistency": "linearizable"})
problem("damaged", 422, "post", "/v1/restore", body=backup[:-1])
problem("bad_flag", 400, "post", "/v1/restore", query={"other_cluster": "perhaps"}, body=backup, undescribed=True)
ask("post", "/v1/restore", query={"note": "again", "other_cluster": True}, body=backup)

def transfer(node):
    """On a busy machine a member may not take over in time: that is said, and is asked for again."""
    def taken():
        try:
            ask("post", "/v1/transfer", body={"to": node})
            return True
        except AssertionError as refused:
            assert "did not take over" in str(refused), refused
            return False
    until("it to take over", taken)


# Members.
learner = next(member for member in ask("get", "/v1/members")["members"] if not member["voter"])
who = {name: learner[name] for name in ("node", "name", "peer_address", "api_address")}
ask("post", "/v1/members", body={**who, "voter": False})
problem("members", 409, "post", "/v1/transfer", body={"to": 10**9})
problem("members", 409, "post", "/v1/members/{node}/promote", {"node": 10**9})
problem("members", 409, "delete", "/v1/members/{node}", {"node": 10**9})
ask("post", "/v1/members/{node}/promote", {"node": learner["node"]})
until("the learner to follow", lambda: ask("get", "/v1/status", base=LEARNER)["member"]["role"] == "follower")
ask("get", "/v1/members", base=LEARNER)
transfer(learner["node"])
until("it to lead", lambda: ask("get", "/v1/status", base=LEARNER)["member"]["role"] == "leader")
first = ask("get", "/v1/status")["member"]["node"]
transfer(first)
until("the first to lead", lambda: ask("get", "/v1/status")["member"]["role"] == "leader")
ask("delete", "/v1/members/{node}", {"node": learner["node"]})

answered = {operation for operation, statuses in asked.items() if 200 in statuses}
every = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
assert answered == every, f"not asked: {every - answered}"
print(f"{len(every)} operations, {sum(map(len, asked.values()))} kinds of answers")
