"""The page in a real browser, over the Chrome DevTools Protocol. One browser for all; each step says what it has seen.

Arguments: the browser, the admin listener's address, an HTTP listener's address, a token that may operate.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import websockets

BROWSER, ADMIN, WEB, TOKEN = sys.argv[1:5]
ORIGIN = f"http://{ADMIN}"
PATIENCE = 20.0
HOSTILE = "<img/src=x/onerror=window.hit=1>"


class Page:
    """One tab: its calls, and everything that it was told meanwhile."""

    def __init__(self, socket):
        self.socket, self.last, self.requests, self.problems, self.answers = socket, 0, [], [], {}

    async def listen(self):
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            elif message["method"] == "Network.requestWillBeSent":
                request = message["params"]["request"]
                self.requests.append((request["method"], request["url"]))
            elif message["method"] in ("Runtime.exceptionThrown", "Audits.issueAdded", "Page.javascriptDialogOpening"):
                self.problems.append(json.dumps(message["params"]))

    async def call(self, method, **parameters):
        self.last += 1
        answer = self.answers[self.last] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"id": self.last, "method": method, "params": parameters}))
        message = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in message, message
        return message["result"]

    async def see(self, script):
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait(self, what, script):
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (seen := await self.see(script)):
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"{what}: not seen in\n{await self.see('document.body.innerText')}")
            await asyncio.sleep(0.05)  # Between two looks.
        return seen

    async def go(self, where):
        await self.see(f"location.hash = {json.dumps(where)}")

    async def key(self, key, code=None):
        for kind in ("rawKeyDown", "char", "keyUp") if key == "Enter" else ("rawKeyDown", "keyUp"):
            text = {"text": "\r"} if kind == "char" else {}
            number = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, windowsVirtualKeyCode=number, **text)

    async def size(self, width, scheme="light"):
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


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
    for scheme in ("dark", "light"):
        await page.size(360, scheme)
        for where in ("#/", "#/service/few", "#/service/many", "#/explain", "#/keys", "#/changes"):
            await page.go(where)
            await page.wait("a view", f"document.querySelector('main .view') && location.hash === {json.dumps(where)}")
            await page.see("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            wide = await page.see("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, f"{where} is {wide} px too wide: {await page.see(TOO_WIDE)}"
    await page.size(1200)


TOO_WIDE = """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth)
    .map(e => e.tagName + '.' + e.className).slice(0, 5).join(' ')"""


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


async def main():
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen([*command, f"--user-data-dir={profile}"], stderr=subprocess.PIPE, text=True)
        try:
            told = ""
            while not (found := re.search(r"ws://(\S+?)/", told)):
                told = browser.stderr.readline()
                assert told, "the browser has ended"
            blank = urllib.request.Request(f"http://{found[1]}/json/new?about:blank", method="PUT")
            tab = json.load(urllib.request.urlopen(blank, timeout=PATIENCE))
            async with websockets.connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
                await look(Page(socket))
        finally:
            browser.kill()
            browser.wait()


async def look(page):
    listener = asyncio.create_task(page.listen())
    for domain in ("Page", "Runtime", "Network", "Audits"):
        await page.call(f"{domain}.enable")
    await page.size(1200)
    for step in (overview, ejection, thousand, explain, keyboard, narrow, action):
        await step(page)
        print(f"seen: {step.__name__}", flush=True)
    assert not await page.see("Boolean(window.hit)"), "something hostile has run"
    foreign = [url for _, url in page.requests if not url.startswith((ORIGIN, "data:,"))]
    assert foreign == [], foreign
    rules = [problem for problem in page.problems if "ontentSecurityPolicy" in problem or "exception" in problem.lower()]
    assert rules == [], rules
    assert not [problem for problem in page.problems if '"type": "alert"' in problem], page.problems
    print("all seen")
    listener.cancel()


asyncio.run(main())
