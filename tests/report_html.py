"""What tests/report_html.sh checks in the browser.

usage: report_html.py CHROMIUM DIR [SCREENSHOT-DIR]
"""
import json
import re
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

chromium, work = sys.argv[1], Path(sys.argv[2])
shots = Path(sys.argv[3]) if len(sys.argv) > 3 else None
BAD = work / "target/qualm/report.html"
GOOD = work / "good/report.html"
DAMAGED = [work / suite / "target/qualm/report.html" for suite in ("many", "one", "deep")]


def check(holds, what):
    if not holds:
        sys.exit(f"not ok - {what}")
    print(f"ok - {what}")


def opened(browser, path, **options):
    """A page, what it logs, and what it asks for."""
    page = browser.new_context(**options).new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.resolve().as_uri())
    return page, said, asked


def bottom(page, selector):
    return page.locator(selector).first.evaluate("it => it.getBoundingClientRect().bottom")


def shown_cells(page):
    """How many cells of the first row of the first heat map are to be seen without scrolling it."""
    return page.locator("table.heat tbody tr").first.evaluate("""row => {
        const [left, right] = [row.cells[0].getBoundingClientRect().right, document.body.clientWidth];
        const places = Array.from(row.querySelectorAll("td"), cell => cell.getBoundingClientRect());
        return places.filter(it => it.left >= left - 2 && it.right <= right).length;
    }""")


def damaged(browser, path):
    """What a suite of long names looks like, on a phone, on a desk and on paper."""
    suite = path.parent.parent.parent.name
    check(path.stat().st_size < 1_000_000, f"{suite}: {path.stat().st_size:,} bytes")
    for scheme in ["light", "dark"]:
        for width, height in [(400, 800), (1400, 900)]:
            page, said, asked = opened(
                browser, path, color_scheme=scheme, viewport={"width": width, "height": height}
            )
            name = f"{suite}-{scheme}-{width}"
            wide = page.evaluate("document.documentElement.scrollWidth")
            check(wide <= width, f"{name}: the page does not scroll sideways: {wide}")
            end = bottom(page, ".decision")
            check(end <= height, f"{name}: the decision is above the fold, causes and facts as well: {end:.0f}")
            facts = page.locator(".decision").first.locator("dt").all_inner_texts()
            check(facts == ["reference", "quantized", "size", "SQNR", "baseline"], f"{name}: {facts}")
            ends = page.locator(".decision dd .cut").evaluate_all(
                "all => all.map(it => [it.lastChild.textContent, it.lastChild.getBoundingClientRect().right])"
            )
            check(
                [text.rstrip(",").rsplit(".")[-1] for text, _ in ends] == ["safetensors", "gguf"]
                and all(right <= width for _, right in ends),
                f"{name}: the files' names are cut in the middle, not at the end: {ends}",
            )
            check(shown_cells(page) >= 1, f"{name}: the heat map is not blank")
            if shots:
                page.screenshot(path=shots / f"{name}.png")
            page.context.close()
    page, _, _ = opened(browser, path)
    pages = len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(format="A4")))
    check(pages <= 10, f"{suite}: a hundred failures and more print on {pages} pages")
    rows = page.locator(".entry summary")
    check(rows.count() == {"many": 100, "one": 2, "deep": 1}[suite], f"{suite}: {rows.count()} rows")
    if suite == "many":
        row = rows.first
        check("expected" in row.locator(".says").inner_text(), "a closed row says what was expected")
        check(len(row.locator(".why b").inner_text()) > 3, "and the cause")
        check(page.locator(".decision .causes li", has_text="50 × ").count() == 4, "four causes")
    page.context.close()


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    check(BAD.stat().st_size < 1_000_000, f"1,000 tensors: {BAD.stat().st_size:,} bytes")

    if shots:
        shots.mkdir(parents=True, exist_ok=True)
    for path in DAMAGED:
        damaged(browser, path)

    for path, heading in [(BAD, "ERROR"), (GOOD, "passed")]:
        for scheme in ["light", "dark"]:
            for width, height in [(1360, 1000), (390, 844)]:
                view = {"width": width, "height": height}
                page, said, asked = opened(browser, path, color_scheme=scheme, viewport=view)
                page.wait_for_timeout(100)
                name = f"{path.parent.name}-{scheme}-{width}"
                check(said == [] and asked == [page.url], f"{name}: silent, alone {said} {asked}")
                check(page.inner_text("h1").lower() == heading.lower(), f"{name}: {heading}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                check(wide <= width, f"{name}: the page itself does not scroll sideways")
                if shots:
                    page.screenshot(path=shots / f"{name}.png")
                    page.locator("#bits").scroll_into_view_if_needed()
                    page.evaluate("document.querySelector('#bits').scrollIntoView()")
                    page.screenshot(path=shots / f"{name}-bits.png")
                    page.evaluate("document.querySelector('table.heat').scrollIntoView()")
                    page.screenshot(path=shots / f"{name}-heat.png")
                page.context.close()

    page, said, _ = opened(browser, BAD)
    contract = json.loads((work / "target/qualm/contract.json").read_text())
    failed = contract["summary"]["failed"] + contract["summary"]["errors"]
    check(page.locator("section:has(#failures) details").count() == min(failed, 100), "failures")
    check(page.locator("img, iframe, object, embed, link[rel=stylesheet]").count() == 0, "no markup of a name's")

    # Sorting and searching the thousand.
    table = page.locator("table.data", has=page.locator("caption", has_text="Tensors")).filter(
        has_text="blk.0.attn_q.weight"
    )
    heading = table.locator("thead th", has_text="RMSE")
    column = heading.evaluate("it => it.cellIndex")
    values = lambda: [float(it) for it in table.locator("tbody tr").evaluate_all(
        "(rows, at) => rows.map(row => row.cells[at].textContent)", column)]
    heading.locator("button").click()
    check(heading.get_attribute("aria-sort") == "descending", "aria-sort")
    check(values() == sorted(values(), reverse=True), "sorted, descending")
    heading.locator("button").press("Enter")
    check(heading.get_attribute("aria-sort") == "ascending" and values() == sorted(values()), "and ascending, by key")
    tools = table.locator("xpath=../preceding-sibling::div[@class='tools'][1]")
    box = tools.locator("input[type=search]")
    box.fill("blk.7. ffn")
    check(table.locator("tbody tr:visible").count() == 3, "the search leaves three rows")
    check(tools.locator("output").inner_text() == "3 of 1000", "and counts them")

    # The keyboard: a skip link first, arrows in a heat map.
    page, said, _ = opened(browser, BAD)
    page.keyboard.press("Tab")
    check(page.evaluate("document.activeElement.className") == "skip", "the skip link comes first")
    page.keyboard.press("Enter")
    check(page.evaluate("document.activeElement.id") == "main", "and leads to the verdict")
    cell = page.locator("table.heat td[tabindex='0']").last
    cell.focus()
    before = page.evaluate("document.activeElement.title")
    page.keyboard.press("ArrowRight")
    after = page.evaluate("document.activeElement.title")
    check(before != after and "SQNR" in after, "arrows walk through the heat map")

    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    check(page.evaluate("getComputedStyle(document.body).backgroundColor") != before, "the theme changes")
    check(said == [], f"nothing was said: {said}")

    page, said, _ = opened(browser, BAD, java_script_enabled=False)
    check(page.locator("table.data tbody tr").count() > 1000, "without JavaScript everything can be read")
    check(page.locator("#theme").is_hidden(), "and no button is dead")
    browser.close()
