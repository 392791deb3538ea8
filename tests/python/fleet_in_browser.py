"""The fleet's page in a real browser, as a member of the control plane serves it. One browser for all; each step says what it has seen.

Arguments: the browser, the member's address, a token that may operate. The fleet has proxies `p1` and `p2`; in its document is a service
`s` and one with a hostile name; service `t` has one backend, which has registered: `a`.
"""

import asyncio
import json
import sys
import urllib.parse
import urllib.request

from browser import fits, run

BROWSER, MEMBER, TOKEN = sys.argv[1:4]
ORIGIN = f"http://{MEMBER}"
HOSTILE = "<img/src=x/onerror=window.hit=1>"
TEXT = "document.querySelector('main').innerText"


def rows(caption):
    return f"[...[...document.querySelectorAll('main table')].find(table => table.caption.innerText === {json.dumps(caption)}).tBodies[0].rows]"


def ask(method, path, body=None, token=None):
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ORIGIN + path, data=data, headers=headers, method=method)
    return json.load(urllib.request.urlopen(request, timeout=10))


def says(name, **change):
    """A proxy that is none: its heartbeat is written by hand."""
    fleet = ask("GET", "/v1/proxies")
    heartbeat = {"version": f"0.0 {HOSTILE}", "epoch": fleet["epoch"], "revision": fleet["revision"], "digest": fleet["digest"], "rings": {},
                 "stuck": None, "generation": 1, "vote": None, "down": [], "requests": 0, "failed": 0, "canary": None, "instance": 5, **change}
    ask("PUT", f"/v1/proxies/{name}", heartbeat)


async def overview(page):
    await page.call("Page.navigate", url=ORIGIN)
    await page.wait("the stream", "document.getElementById('connection')?.dataset.state === 'live'")
    await page.wait("both proxies, in agreement", f"{rows('Proxies')}.filter(row => row.innerText.includes('agrees')).length === 2")
    await page.wait("a member that leads", f"{rows('Members')}.length === 1 && {rows('Members')}[0].innerText.includes('leader')")
    await page.wait("services", f"{rows('Services')}.length === 3 && {TEXT}.includes({json.dumps(HOSTILE)})")
    assert await page.see("document.getElementById('role').innerText") == "read-only"
    assert await page.see("document.getElementById('warning').hidden")
    assert await page.see("[...document.querySelectorAll('th')].every(head => head.scope === 'col')")


async def disagreement(page):
    says("p3")
    await page.wait("another proxy", f"{rows('Proxies')}.length === 3")
    await page.see(f"{rows('Proxies')}[0].dataset.kept = 'yes'")
    says("p3", digest="not-the-fleets")
    await page.wait("that it disagrees, first", f"{rows('Proxies')}[0].innerText.includes('p3') && {rows('Proxies')}[0].innerText.includes('disagrees')")
    await page.wait("a warning with its name", "/Not in agreement.*p3 [(]for/.test(document.getElementById('warning').innerText)")
    await page.wait("the event", f"{rows('Events')}.some(row => row.innerText.includes('p3') && row.innerText.includes('not-the-fleets'))")
    says("p3", stuck=f"line 1: {HOSTILE}")
    await page.wait("why it is stuck, as text", f"{rows('Proxies')}[0].innerText.includes({json.dumps(HOSTILE)})")
    assert await page.see("document.querySelectorAll('[data-kept]').length") == 1, "rows are kept"
    ask("DELETE", "/v1/proxies/p3?instance=5")
    await page.wait("that it has left", f"{rows('Events')}.some(row => row.innerText.includes('p3') && row.innerText.includes('left'))")
    await page.wait("no warning", "document.getElementById('warning').hidden")


async def changes(page):
    ask("PUT", "/v1/objects/backend/t/a?note=%3Cb%3Eheavier", {"address": "127.0.0.1:9", "weight": 50}, TOKEN)
    await page.wait("who has changed which field", f"{rows('Events')}.some(row => /weight 100 → 50/.test(row.innerText) && row.innerText.includes('by ops') && row.innerText.includes('<b>heavier'))")
    await page.go("#/changes")
    await page.wait("the revision", f"{rows('Events')}.some(row => row.innerText.includes('weight 100 → 50'))")
    await page.see(f"{rows('Events')}.find(row => row.innerText.includes('weight 100 → 50')).querySelector('button').click()")
    await page.wait("what is different", "document.querySelector('#difference .added')?.innerText.includes('weight: 50') && document.querySelector('#difference .removed').innerText.includes('weight: 100')")
    await page.see("document.getElementById('kind').value = 'proxy'; document.getElementById('kind').dispatchEvent(new Event('change'))")
    await page.wait("proxies alone", f"{rows('Events')}.every(row => row.innerText.includes('p3'))")


async def keyboard(page):
    await page.go("#/")
    await page.wait("the overview", "document.querySelector('nav a[aria-current]').innerText === 'Overview'")
    await page.see("document.activeElement.blur(); document.querySelector('.skip').focus()")
    seen = []
    for _ in range(3):
        await page.key("Tab")
        seen.append(await page.see("document.activeElement.innerText"))
    assert seen == ["Overview", "Service", "Changes"], seen
    await page.key("Enter")
    await page.wait("the view of the tab", "location.hash === '#/changes' && document.title.startsWith('Changes')")


async def one_stream(page):
    """A change of view gives one stream up and begins one other: nothing is broken by it."""
    await page.go("#/")
    await page.wait("a stream", "document.getElementById('connection').dataset.state === 'live'")
    await page.see("""window.states = []; new MutationObserver(() => window.states.push(document.getElementById('connection').dataset.state))
        .observe(document.getElementById('connection'), { attributes: true, attributeFilter: ['data-state'] })""")
    streams = lambda: len([url for _, url in page.requests if "/v1/live" in url])
    for where, title in (("#/service/t", "Backends of t"), ("#/", "Members"), ("#/service/s", "Backends of s")):
        before = streams()
        await page.go(where)
        await page.wait("the other view", f"document.querySelector('main table') && {rows(title)}.length === 1")
        assert streams() == before + 1, page.requests[-4:]
    await page.go("#/service/nowhere")
    await page.wait("that it is not there", "document.querySelector('main .notice')?.hidden === false")
    assert await page.see("[...document.querySelectorAll('main .card, main .badge')].every(part => !part.checkVisibility())")
    assert "broken" not in await page.see("window.states"), await page.see("window.states")


async def narrow(page):
    await fits(page, ("#/", "#/service/t", f"#/service/{urllib.parse.quote(HOSTILE, safe='')}", "#/changes"), "document.querySelector('main .view')")


async def actions(page):
    await page.go("#/service/t")
    await page.wait("a backend, and no button", f"{rows('Backends of t')}.length === 1 && !document.querySelector('td button')")
    await page.see("document.getElementById('sign-in').click()")
    await page.see(f"document.getElementById('dialog-field').value = {json.dumps(TOKEN)}; document.querySelector('dialog .primary').click()")
    await page.wait("the buttons of one who may", "document.querySelectorAll('td button').length === 2")
    assert await page.see("document.getElementById('role').innerText") == "ops · operate"
    changed = lambda: [url for method, url in page.requests if method not in ("GET", "HEAD")]
    drain = "document.querySelector('td button').click()"
    await page.see(drain)
    await page.wait("a question", "document.querySelector('dialog[open]')?.innerText.includes('Drain a?')")
    await page.key("Escape")
    await page.wait("no question", "!document.querySelector('dialog')")
    assert changed() == [], "nothing is done that was not confirmed"
    await page.see(f"{drain}; document.querySelector('dialog .primary').click()")
    await page.wait("the guard's question", "Boolean(document.querySelector('dialog[open] .danger'))")
    assert len(changed()) == 1 and "force" not in changed()[0], changed()
    await page.see("document.querySelector('dialog .danger').click()")
    await page.wait("a backend that is drained", f"{rows('Backends of t')}[0].innerText.includes('drained')")
    await page.go("#/changes")
    roll_back = "[...document.querySelectorAll('td button')].find(button => button.innerText === 'Roll back')"
    await page.wait("what can be rolled back to", f"Boolean({roll_back})")
    await page.see(f"{roll_back}.click(); document.getElementById('dialog-field').value = 'too early'; document.querySelector('dialog .primary').click()")
    await page.wait("a new revision", "/Roll|done, as revision/.test(document.getElementById('notice').innerText)")
    await page.wait("who has done so", f"{rows('Events')}.some(row => row.innerText.includes('too early') && row.innerText.includes('state drain → ready'))")


async def wrong_token(page):
    """A token that is not known is dropped: what everybody may see is there without it."""
    role = "document.getElementById('role').innerText"
    await page.see("document.getElementById('sign-in').click()")
    await page.wait("that nobody is signed in", f"{role} === 'read-only'")
    await page.see("document.getElementById('sign-in').click()")
    await page.see("document.getElementById('dialog-field').value = 'none-that-is-known'; document.querySelector('dialog .primary').click()")
    await page.wait("that it is not known", "document.getElementById('notice').innerText.includes('not known here')")
    await page.wait("what everybody may see", f"{role} === 'read-only' && document.getElementById('connection').innerText === 'live'")
    assert not await page.see("document.querySelector('dialog[open]')")


asyncio.run(run(BROWSER, ORIGIN, (overview, disagreement, changes, keyboard, one_stream, narrow, actions, wrong_token)))
