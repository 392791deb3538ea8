"""A page in a real browser, over the Chrome DevTools Protocol: one tab, what it asks, and what it complains of."""

import asyncio
import json
import re
import subprocess
import tempfile
import urllib.request

import websockets

PATIENCE = 20.0


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
            # Looked at again and again, until it is there.
            await asyncio.sleep(0.05)
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


# What stands out of a window that is too narrow for it.
TOO_WIDE = """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth)
    .map(e => e.tagName + '.' + e.className).slice(0, 5).join(' ')"""


async def fits(page, views, ready):
    """Each of the views, in a window of 360 pixels, light and dark: nothing is wider than the window."""
    for scheme in ("dark", "light"):
        await page.size(360, scheme)
        for where in views:
            await page.go(where)
            await page.wait("a view", f"{ready} && location.hash === {json.dumps(where)}")
            await page.see("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            wide = await page.see("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, f"{where} is {wide} px too wide: {await page.see(TOO_WIDE)}"
    await page.size(1200)


async def run(browser, origin, steps):
    """All steps in one tab; nothing hostile has run then, nothing was asked elsewhere, and the browser has refused nothing."""
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([*command, f"--user-data-dir={profile}"], stderr=subprocess.PIPE, text=True)
        try:
            told = ""
            while not (found := re.search(r"ws://(\S+?)/", told)):
                told = process.stderr.readline()
                assert told, "the browser has ended"
            blank = urllib.request.Request(f"http://{found[1]}/json/new?about:blank", method="PUT")
            tab = json.load(urllib.request.urlopen(blank, timeout=PATIENCE))
            async with websockets.connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
                await look(Page(socket), origin, steps)
        finally:
            process.kill()
            process.wait()


async def look(page, origin, steps):
    listener = asyncio.create_task(page.listen())
    for domain in ("Page", "Runtime", "Network", "Audits"):
        await page.call(f"{domain}.enable")
    await page.size(1200)
    for step in steps:
        await step(page)
        print(f"seen: {step.__name__}", flush=True)
    assert not await page.see("Boolean(window.hit)"), "something hostile has run"
    foreign = [url for _, url in page.requests if not url.startswith((origin, "data:,"))]
    assert foreign == [], foreign
    rules = [problem for problem in page.problems if "ontentSecurityPolicy" in problem or "exception" in problem.lower()]
    assert rules == [], rules
    assert not [problem for problem in page.problems if '"type": "alert"' in problem], page.problems
    print("all seen")
    listener.cancel()
