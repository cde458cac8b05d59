"""The fixture for pages in a browser sets what it is asked for, and reports what a page does wrong."""

PAGE = """<!doctype html><meta name="viewport" content="width=device-width"><p id="found"></p><script>
const dark = matchMedia("(prefers-color-scheme: dark)").matches, touch = matchMedia("(pointer: coarse)").matches
document.querySelector("#found").textContent = [dark, touch, innerWidth, navigator.onLine, window.first].join(" ")
</script>"""


def test_a_page_opens_dark_on_a_phone_and_offline(open_page, tmp_path):
    (tmp_path / "page.html").write_text(PAGE)
    address = (tmp_path / "page.html").as_uri()
    page = open_page(address, dark=True, phone=True, offline=True, before="window.first = 1")
    assert page.inner_text("#found") == "true true 360 false 1"
    page = open_page(address, viewport={"width": 900, "height": 700})
    assert page.inner_text("#found") == "false false 900 true"
    assert open_page.problems == []


def test_errors_and_addresses_in_a_network_are_problems_of_a_page(open_page, tmp_path):
    (tmp_path / "page.html").write_text('<img src="http://127.0.0.1:9/a.png"><script>nothing()</script>')
    open_page((tmp_path / "page.html").as_uri(), offline=True)
    assert "http://127.0.0.1:9/a.png" in open_page.problems
    assert "nothing is not defined" in open_page.problems
