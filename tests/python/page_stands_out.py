"""The page of a proxy in a real browser while one backend of a service fails and another is slow.

Arguments: the browser, the admin listener's address.
"""

import asyncio
import sys

from browser import run

BROWSER, ADMIN = sys.argv[1:3]
ORIGIN = f"http://{ADMIN}"

TEXT = "document.querySelector('main').innerText"
ROWS = "[...document.querySelectorAll('main table')].at(-1).tBodies[0].rows"


async def overview(page):
    await page.call("Page.navigate", url=ORIGIN)
    await page.wait("the state of the service", f"document.querySelector('main') && {TEXT}.includes('failing')")
    await page.wait("which and how much", f"{TEXT}.includes('bad fails ') && {TEXT}.includes('late takes ')")


async def service(page):
    await page.go("#/service/s")
    await page.wait("four backends", f"document.getElementById('find') && {ROWS}.length === 4")
    state = "document.querySelector('.view-head').innerText"
    await page.wait("the state of the service", f"{state}.includes('failing')")
    first, second, *others = await page.see(f"[...{ROWS}].map(row => row.innerText)")
    assert "bad" in first and "failing" in first and "fails " in first and "(for " in first, first
    assert "late" in second and "slow" in second and "takes " in second, second
    assert not any("slow" in other or "failing" in other for other in others), others


asyncio.run(run(BROWSER, ORIGIN, (overview, service)))
