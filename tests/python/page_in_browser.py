"""The page of a proxy in a real browser. One browser for all; each step says what it has seen.

Arguments: the browser, the admin listener's address, an HTTP listener's address, a token that may operate, the file that has it, the
proxy's own file, and its process.
"""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request

from browser import PATIENCE, fits, run
from curl_commands import COMMANDS, NOTED, PLAIN, REFUSED

BROWSER, ADMIN, WEB, TOKEN, TOKEN_FILE, FILE, PROCESS = sys.argv[1:8]
ORIGIN = f"http://{ADMIN}"
HOSTILE = "<img/src=x/onerror=window.hit=1>"

TEXT = "document.querySelector('main').innerText"
ROWS = "[...document.querySelectorAll('main table')].at(-1).tBodies[0].rows"


async def overview(page):
    await page.call("Page.navigate", url=ORIGIN)
    await page.wait("the stream", "document.getElementById('connection')?.dataset.state === 'live'")
    await page.wait("both services", f"{TEXT}.includes('few') && {TEXT}.includes('many')")
    await page.wait("the role", "document.getElementById('role').innerText === 'read-only'")
    said = await page.see("document.getElementById('role').title")
    assert "token" in said, said
    assert await page.see("[...document.querySelectorAll('th')].every(head => head.scope === 'col')")
    assert await page.see("Boolean(document.querySelector('header') && document.querySelector('nav') && document.querySelector('main'))")


async def ejection(page):
    await page.go("#/service/few")
    await page.wait("four backends", f"{ROWS}.length === 4")
    await page.wait("a hostile id as text", f"{TEXT}.includes({json.dumps(HOSTILE)})")
    assert not await page.see(f"{TEXT}.includes('ejected for')")
    assert await page.see("document.querySelectorAll('.ring .arc').length") == 4
    end = asyncio.get_running_loop().time() + PATIENCE
    number = 0
    # One of the backends is nowhere: sooner or later a request is meant for it.
    while not await page.see(f"{TEXT}.includes('ejected for')"):
        assert asyncio.get_running_loop().time() < end, await page.see(TEXT)
        await asyncio.to_thread(ask, f"/{number}/%3Cimg%20src=x%20onerror=window.hit=1%3E")
        number += 1
    await page.wait("requests a second", f"[...document.querySelectorAll('.tile-value')][0].innerText !== '0'")
    first = await page.see(f"{ROWS}[0].innerText")
    assert "ejected" in first, f"what needs a look stands first: {first}"


def ask(path):
    try:
        urllib.request.urlopen(f"http://{WEB}{path}", timeout=10).read()
    except urllib.error.HTTPError as error:
        error.read()


async def thousand(page):
    await page.go("#/service/many")
    await page.wait("the first page of a thousand", f"{ROWS}.length === 50 && {TEXT}.includes('of 1000')")
    arcs = await page.see("document.querySelectorAll('.ring .arc').length")
    assert 20 <= arcs <= 80, arcs
    same = f"(window.first = {ROWS}[0], window.first.dataset.kept = 'yes')"
    await page.see(same)
    at = "document.querySelector('.pager button:last-child').click()"
    await page.see(at)
    await page.wait("the next page", f"{TEXT}.includes('51 to 100 of 1000')")
    await page.see("const find = document.getElementById('find'); find.value = 'node-0777'; find.dispatchEvent(new Event('input'))")
    await page.wait("one that is found", f"{ROWS}.length === 1 && {ROWS}[0].innerText.includes('node-0777')")
    await page.see("const again = document.getElementById('find'); again.value = ''; again.dispatchEvent(new Event('input'))")
    heads = "[...document.querySelectorAll('th button')]"
    await page.see(f"{heads}.find(button => button.innerText.startsWith('Backend')).click()")
    await page.wait("an order", "document.querySelector('th[aria-sort]').getAttribute('aria-sort') === 'ascending'")
    # Patches change cells: rows stay.
    await page.see(f"{ROWS}[0].dataset.kept = 'yes'")
    before = await page.see("performance.now()")
    await page.wait("patches", f"performance.now() > {before} + 2200")
    assert await page.see(f"{ROWS}[0].dataset.kept") == "yes", "the table is built anew"


async def explain(page):
    await page.go("#/explain")
    await page.wait("the form", "Boolean(document.getElementById('request'))")
    command = f"curl -H 'X-Id: <script>window.hit=1</script>' 'http://{WEB}/javascript:window.hit=1'"
    await page.see(f"document.getElementById('request').value = {json.dumps(command)}; document.querySelector('form button').click()")
    await page.wait("a verdict", "document.getElementById('verdict').innerText.length > 3")
    await page.wait("candidates", f"{TEXT}.includes('takes it')")
    await page.see("document.getElementById('request').value = 'curl'; document.querySelector('form button').click()")
    await page.wait("what is wrong", "document.querySelector('[role=alert]:not([hidden])')?.innerText.length > 3")


async def curl(page):
    """What the form makes of curl commands."""
    parse = """(async () => {
      const { parseRequest } = await import('/page/request.js');
      return %s.map((text) => { try { return parseRequest(text); } catch (error) { return { error: error.message }; } });
    })()"""
    ask = lambda rows: page.see(parse % json.dumps([row[0] for row in rows]))
    for (text, wanted), found in zip(COMMANDS, await ask(COMMANDS)):
        method, target, there, absent = wanted
        assert "request" in found, (text, found)
        request = found["request"]
        headers = {name.lower(): value for name, value in request["headers"]}
        assert (request["method"], request["target"]) == (method, target), (text, request)
        assert {name: headers.get(name) for name in there} == there, (text, request)
        assert not set(absent) & set(headers), (text, request)
    for (text, why), found in zip(REFUSED, await ask(REFUSED)):
        assert why in found.get("error", ""), (text, found)
    for (text, what), found in zip(NOTED, await ask(NOTED)):
        assert any(what in note for note in found["notes"]), (text, found)
    plain = [(text,) for text in PLAIN]
    for (text,), found in zip(plain, await ask(plain)):
        assert found.get("notes") == [], (text, found)
    command = f"curl -F a=b http://{WEB}/x"
    await page.see(f"document.getElementById('request').value = {json.dumps(command)}; document.querySelector('form button').click()")
    await page.wait("what is not known", "document.getElementById('notes').innerText.includes('multipart')")


async def keyboard(page):
    await page.go("#/")
    await page.wait("the overview", "document.querySelector('nav a[aria-current]').innerText === 'Overview'")
    await page.see("document.activeElement.blur(); document.querySelector('.skip').focus()")
    seen = []
    for _ in range(4):
        await page.key("Tab")
        seen.append(await page.see("document.activeElement.innerText"))
    assert seen == ["Overview", "Service", "Explain", "Keys"], seen
    outline = await page.see("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", outline
    await page.key("Enter")
    await page.wait("the view of the tab", "location.hash === '#/keys' && document.title.startsWith('Keys')")


async def narrow(page):
    views = ("#/", "#/service/few", "#/service/many", "#/explain", "#/keys", "#/changes")
    await fits(page, views, "document.querySelector('main .view')")


async def action(page):
    await page.go("#/service/few")
    await page.wait("no button without a token", f"{ROWS}.length === 4 && !document.querySelector('td button')")
    assert await page.see("document.getElementById('reload').hidden")
    await page.see("document.getElementById('sign-in').click()")
    await page.see(f"document.getElementById('dialog-field').value = {json.dumps(TOKEN)}; document.querySelector('dialog .primary').click()")
    await page.wait("the buttons of one who may", "!document.getElementById('reload').hidden && document.querySelectorAll('td button').length >= 8")
    posts = lambda: [url for method, url in page.requests if method == "POST" and not url.endswith("/explain")]
    await page.see("document.getElementById('reload').click()")
    await page.wait("a question", "document.querySelector('dialog[open]')?.innerText.includes('read again')")
    assert posts() == []
    await page.key("Escape")
    await page.wait("no question", "!document.querySelector('dialog')")
    assert posts() == [], "nothing is done that was not confirmed"
    await page.see("document.getElementById('reload').click(); document.querySelector('dialog .primary').click()")
    await page.wait("the outcome", "!document.getElementById('notice').hidden")
    assert posts() == [f"{ORIGIN}/reload"], posts()
    assert "Nothing has changed" in await page.see("document.getElementById('notice').innerText")


def operate(path, body):
    """What somebody else does meanwhile."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    request = urllib.request.Request(f"{ORIGIN}{path}", json.dumps(body).encode(), headers, method="POST")
    return urllib.request.urlopen(request, timeout=10).read()


async def maintained(page):
    """A backend in maintenance is made ready by the button that says so."""
    await asyncio.to_thread(operate, "/services/few/backends/a", {"maintenance": True})
    await page.go("#/service/few")
    row = f"[...{ROWS}].find(row => row.innerText.startsWith('a\\n'))"
    await page.wait("maintenance", f"{row}?.innerText.includes('drain') && {row}.querySelector('button').innerText === 'Ready'")
    await page.see(f"{row}.querySelector('button').click(); document.querySelector('dialog .primary').click()")
    await page.wait("that it takes traffic", f"{row}?.querySelector('button').innerText === 'Drain'")


async def weight(page):
    """A weight is changed by who says which and confirms it; what is none is said so, and nothing is sent."""
    await page.go("#/service/few")
    posts = lambda: [url for method, url in page.requests if method == "POST" and url.endswith("/few/backends/a")]
    before = len(posts())
    row = f"[...{ROWS}].find(row => row.innerText.startsWith('a\\n'))"
    await page.wait("the backend", f"Boolean({row}?.querySelectorAll('button')[1])")
    ask = f"{row}.querySelectorAll('button')[1].click()"
    assert await page.see(f"{row}.querySelectorAll('button')[1].innerText") == "Weight"
    await page.see(ask)
    assert await page.see("document.getElementById('dialog-field').value") == "100"
    confirm = "document.querySelector('dialog .primary').click()"
    await page.see(f"document.getElementById('dialog-field').value = '-1'; {confirm}")
    assert await page.see("Boolean(document.querySelector('dialog[open]'))") and len(posts()) == before, posts()
    await page.see(f"document.getElementById('dialog-field').value = '40'; {confirm}")
    share = f"parseFloat({row}.innerText.match(/([0-9.]+) %/)[1])"
    await page.wait("less of the keys", f"!document.querySelector('dialog[open]') && {share} < 20")
    assert len(posts()) == before + 1, posts()
    await page.see(ask)
    assert await page.see("document.getElementById('dialog-field').value") == "40"
    await page.key("Escape")


async def changes(page):
    """Who has changed what is there, newest first, and so is what befell backends; each kind can be shown alone."""
    await page.go("#/changes")
    await page.wait("the change", f"{ROWS}?.length > 1 && {TEXT}.includes('weight')")
    changed = f"[...{ROWS}].find(row => row.innerText.includes('weight'))"
    assert await page.see(f"{changed}.innerText.includes('by ops')"), await page.see(f"{changed}.innerText")
    assert await page.see(f"{ROWS}[0].innerText.includes('weight')"), await page.see(f"{ROWS}[0].innerText")
    show = "const kind = document.getElementById('kind'); kind.value = {}; kind.dispatchEvent(new Event('change'))"
    only = lambda kind: page.see("{ " + show.format(json.dumps(kind)) + " }")
    await only("health")
    await page.wait("ejections alone", f"{ROWS}.length > 0 && {TEXT}.includes('ejected') && !{TEXT}.includes('weight')")
    await only("change")
    await page.wait("changes alone", f"{ROWS}.length > 0 && {TEXT}.includes('weight') && !{TEXT}.includes('ejected for')")
    await only("rollout")
    await page.wait("none of that kind", f"{ROWS}.length === 0 && {TEXT}.includes('Nothing has happened yet')")
    await only("")
    await page.wait("all again", f"{ROWS}.length > 1")


async def spread(page):
    """A key that is spread stays in sight, is never spread over fewer, and can be taken back."""
    text = await asyncio.to_thread(operate, "/services/few/hot-keys", {"key": "/hot", "owners": 3, "for_seconds": 600})
    assert b"spread" in text, text
    await page.go("#/keys")
    await page.wait("the key, and how it came to be", f"{ROWS}?.length === 1 && {ROWS}[0].innerText.includes('by hand, ')")
    buttons = f"[...{ROWS}[0].querySelectorAll('button')]"
    await page.wait("what can be done", f"{buttons}.map(button => button.innerText).join(' ') === 'Spread End'")
    await page.see(f"{buttons}[0].click()")
    assert await page.see("document.getElementById('dialog-field').value") == "4", "one more than it has"
    await page.see("document.querySelector('dialog .primary').click()")
    await page.wait("four owners", f"{ROWS}[0].cells[3].innerText.split(', ').length === 4")
    await page.see(f"{buttons}[1].click()")
    await page.see("document.querySelector('dialog .primary').click()")
    await page.wait("no key", f"{ROWS}.length === 0 && {TEXT}.includes('No key is hot')")


async def unknown(page):
    """A service that is not there is not there, whatever its name."""
    for name in ("constructor", "__proto__"):
        await page.go(f"#/service/{name}")
        await page.wait("that there is none", f"{TEXT}.includes('no service of this name') && !{TEXT}.includes('undefined')")


async def last_one(page):
    """The last backend is taken out only by those who say so twice."""
    await page.see("document.querySelector('#notice button').click()")
    await page.go("#/service/one")
    await page.wait("its only backend", f"{ROWS}.length === 1 && {ROWS}[0].innerText.includes('only') && document.querySelectorAll('td button').length === 2")
    posts = lambda: [url for method, url in page.requests if method == "POST" and "/one/backends/" in url]
    drain = f"{ROWS}[0].querySelector('button').click(); document.querySelector('dialog .primary').click()"
    await page.see(drain)
    await page.wait("another question", "document.querySelector('dialog[open] h2')?.innerText === 'Take out what is left?'")
    said = await page.see("document.querySelector('dialog').innerText")
    assert "last backend" in said and "fails" in said and "force" not in said, said
    await page.key("Escape")
    await page.wait("that nothing has changed", "document.getElementById('notice').innerText.includes('Nothing has changed')")
    assert len(posts()) == 1, posts()
    await page.see(drain)
    await page.wait("the question again", "Boolean(document.querySelector('dialog[open] .danger'))")
    await page.see("document.querySelector('dialog .danger').click()")
    await page.wait("that it is drained", f"{ROWS}[0].innerText.includes('drain')")
    assert len(posts()) == 3, posts()


def written(path, text):
    """A file, replaced as a whole, and for nobody else to read."""
    with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


READ_ONLY = """document.getElementById('role').innerText === 'read-only' && document.getElementById('reload').hidden
    && document.getElementById('sign-in').innerText === 'Sign in' && document.getElementById('connection').innerText === 'live'
    && !document.querySelector('dialog[open]')"""


async def rotated(page):
    """A token that is known no more is dropped, and that is said; what everybody may see stays."""
    assert await page.see("document.getElementById('role').innerText") == "ops · operate"
    written(TOKEN_FILE, "another-0123456789abcdef\n")
    with open(FILE) as file:
        text = file.read()
    # It is read with the rest.
    written(FILE, text + "\n")
    await page.wait("that nobody has signed in", READ_ONLY)
    await page.wait("why", "document.getElementById('notice').innerText.includes('not any more')")
    await page.go("#/service/few")
    await page.wait("what everybody may see", f"{ROWS}.length === 4 && !document.querySelector('td button')")


async def wrong_token(page):
    await page.see("document.querySelector('#notice button').click(); document.getElementById('sign-in').click()")
    await page.see("document.getElementById('dialog-field').value = 'none-that-is-known'; document.querySelector('dialog .primary').click()")
    await page.wait("that it is not known", "document.getElementById('notice').innerText.includes('not known here')")
    await page.wait("that nobody has signed in", READ_ONLY)


async def removed(page):
    """Of a service that has gone while it is looked at, nothing is shown that was true before; and it may come back."""
    with open(FILE) as file:
        text = file.read()
    await page.go("#/service/one")
    await page.wait("the service", f"{ROWS}.length === 1 && {TEXT}.includes('1 up') || {TEXT}.includes('of 1 up')")
    written(FILE, text[: text.index("  - name: one\n")])
    await page.wait("that it has gone", f"{TEXT}.includes('no service of this name')")
    assert not await page.see(f"/ up|In flight|Digest/.test({TEXT})"), await page.see(TEXT)
    written(FILE, text)
    await page.wait("that it is there again", f"{TEXT}.includes('of 1 up') && !{TEXT}.includes('no service of this name')")


async def hung(page):
    """What is shown of a proxy that hangs is old, and that is said for as long as it is."""
    connection = "document.getElementById('connection')"
    os.kill(int(PROCESS), signal.SIGSTOP)
    try:
        await page.wait("that it is old", f"{connection}.innerText.startsWith('not live since ') && document.getElementById('main').dataset.stale === 'quiet'")
        since = await page.see(f"{connection}.innerText")
        await page.wait("that it is tried again", f"{connection}.innerText === {json.dumps(since + ': trying again')}")
    finally:
        os.kill(int(PROCESS), signal.SIGCONT)
    await page.wait("that it is live", f"{connection}.innerText === 'live' && !document.getElementById('main').dataset.stale")


asyncio.run(run(BROWSER, ORIGIN, (overview, ejection, thousand, explain, curl, keyboard, narrow, action, maintained, weight, changes, spread, unknown, last_one,
                                  rotated, wrong_token, removed, hung)))
