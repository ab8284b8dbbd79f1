"""Pages in Chromium: they draw, answer and run nothing of their tokens."""

import html
import json
import re

import pytest

from docs.make.browser import INSTALL, acted_on, browser, document_after
from mtjax.report.history.page import page_of_record
from tests.evaluate.pages import (
  EMITTED,
  HOSTILE,
  Tokens,
  compared_record,
  decode_record,
  fill_record,
)
from tests.evaluate.test_canvas_report import record as canvas_record

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(browser() is None, reason=f"there is no Chromium: {INSTALL}"),
]

BEFORE = """<script>
const errors = [];
window.alert = (text) => errors.push(`alert ${text}`);
window.onerror = (text) => { errors.push(text); };
console.error = (text) => errors.push(text);
</script>"""
AFTER = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const all = (query) => [...document.querySelectorAll(query)];
const tipText = () => (tip.hidden ? null : tip.innerText);
const press = (element, key) =>
  element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const report = (found) => {
  const place = document.body.appendChild(document.createElement("pre"));
  place.id = "report";
  place.textContent = JSON.stringify({ errors, ...found });
};
(async () => { %s })().catch((error) => report({ thrown: String(error) }));
"""


def act(tmp_path, record, script):
  """Returns what `report` was called with on a page that `script` acts on."""
  path = tmp_path / "acted.html"
  made = acted_on(str(page_of_record(record)), AFTER % script)
  path.write_text(made.replace("<main>", f"{BEFORE}<main>"))
  document, console = document_after(path.as_uri())
  assert console == []
  found = re.search(r'<pre id="report">(.*?)</pre>', document, re.DOTALL)
  assert found, document[-2000:]
  return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("make", [decode_record, compared_record, fill_record, canvas_record])
def test_the_console_stays_empty_and_the_policy_lets_the_script_run(tmp_path, make):
  path = tmp_path / "run.html"
  page_of_record(make()).save(path)
  document, console = document_after(path.as_uri())
  assert console == []
  assert 'id="tip"' in document, "the page's script has run"


def test_a_tree_opens_by_click_and_tokens_say_who_proposed_them(tmp_path):
  found = act(
    tmp_path,
    decode_record(),
    """
    const tokens = all("[data-at]");
    tokens[2].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    const drafted = tipText();
    tokens[3].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    const own = tipText();
    tokens[0].focus();
    press(tokens[0], "ArrowRight");
    const walked = tokens.indexOf(document.activeElement), said = tipText();
    press(document.body, "Escape");
    const hidden = tipText();
    const before = all("svg").length;
    tokens[1].click();
    await wait(200);
    const round = document.getElementById("t0-1");
    const texts = [...round.querySelectorAll("svg text:not(.note)")].map((one) => one.textContent);
    const kinds = [...round.querySelectorAll("svg g")].map((one) => one.getAttribute("class"));
    const paths = round.querySelectorAll("svg path").length;
    press(tokens[4], "Enter");
    await wait(200);
    const notes = [...document.querySelectorAll("#t0-2 svg .note")].map((one) => one.textContent);
    report({
      tokens: tokens.length, drafted, own, walked, said, hidden, before, open: round.open, texts,
      kinds, paths, notes, images: document.images.length, scripts: document.scripts.length,
    });
    """,
  )
  assert found["errors"] == [] and "thrown" not in found
  assert found["tokens"] == len(EMITTED)
  assert found["images"] == 0 and found["scripts"] == 4, "the page's two, and those of this test"
  assert found["drafted"].split("\n") == [
    HOSTILE[2].replace(" ", "·"), "token 4", "drafted by tree<b>, accepted, round 1",
    "p = 0.250 (target)",
  ]  # fmt: skip
  assert "the target's own token, round 1" in found["own"] and "p = 0.500" in found["own"]
  assert found["walked"] == 1 and "token 3" in found["said"] and found["hidden"] is None
  assert f"refused here: {HOSTILE[3]}  p = 0.250" in found["said"]
  assert found["before"] == 0 and found["open"], "trees are drawn when they are opened"
  pieces = [piece.replace(" ", "·") for piece in HOSTILE]
  assert found["texts"] == [*pieces, "a", "\\n"]
  assert found["kinds"] == ["root", "accepted", "accepted", "refused", "refused", "bonus"]
  assert found["paths"] == 5
  assert found["notes"] == ["p .25 q .75", "p .25 q .50", "p .25 q 1", "p .25 q .13", "p .50"]


def test_tabs_show_one_method_at_a_time(tmp_path):
  found = act(
    tmp_path,
    compared_record(),
    """
    const shown = () => all("[role=tabpanel]").map((one) => one.checkVisibility());
    const first = shown();
    press(all("[role=tab]")[0], "ArrowRight");
    const second = shown();
    location.hash = "t0-1";
    await wait(200);
    report({ first, second, linked: shown(), open: document.getElementById("t0-1").open });
    """,
  )
  assert found["errors"] == []
  assert (found["first"], found["second"]) == ([True, False], [False, True])
  assert found["linked"] == [True, False] and found["open"], "a link to a round opens its tab"


def test_a_fill_is_played(tmp_path):
  found = act(
    tmp_path,
    fill_record(),
    """
    const open = () => all("[data-entry]").map((one) => one.classList.contains("open"));
    const slider = document.querySelector("input");
    slider.value = 1;
    slider.dispatchEvent(new Event("input"));
    const first = open();
    slider.value = 2;
    slider.dispatchEvent(new Event("input"));
    all("[data-entry]")[1].focus();
    const said = tipText(), full = open();
    document.querySelector("button").click();
    const begun = open();
    await wait(1800);
    report({ first, full, said, begun, played: open() });
    """,
  )
  assert found["errors"] == []
  assert found["first"] == [False, True, True] and not any(found["full"])
  assert found["begun"] == [True] * 3 and found["played"] == [False] * 3
  assert "decided in pass 2: an accepted draft" in found["said"] and "p = 0.287" in found["said"]


def test_a_canvas_is_played_with_what_is_masked_again_and_replaced(tmp_path):
  found = act(
    tmp_path,
    canvas_record(),
    """
    const slider = document.querySelector("input");
    const at = (pass) => {
      slider.value = pass;
      slider.dispatchEvent(new Event("input"));
      const shown = (one) => (one.classList.contains("open") ? null : one.textContent);
      return all("[data-entry]").map(shown);
    };
    all("[data-entry]")[0].focus();
    report({ passes: [0, 1, 2, 3].map(at), said: tipText() });
    """,
  )
  assert found["errors"] == []
  assert found["passes"] == [
    [None] * 4,
    ["a", None, "\ufffd", None],
    [None, " b", "▫", "é"],
    [HOSTILE[0], "⏎\n", "▫", "é"],
  ]
  lines = found["said"].split("\n")
  assert lines[:3] == ["place 0", "pass 1: a", "pass 2: masked again"]
  assert lines[3] == f"pass 3: {HOSTILE[0].replace(' ', '·')}"


@pytest.mark.parametrize("width", [375, 1400])
@pytest.mark.parametrize("make", [decode_record, compared_record, fill_record, canvas_record])
def test_no_page_is_wider_than_its_window(tmp_path, make, width):
  """Long trees and tables scroll by themselves."""
  made = html.escape(str(page_of_record(make())))
  path = tmp_path / "frame.html"
  path.write_text(
    f'<iframe style="border:0;width:{width}px;height:800px" srcdoc="{made}"></iframe><script>'
    "const frame = document.querySelector('iframe');"
    "frame.onload = () => setTimeout(() => {"
    "  const inner = frame.contentDocument;"
    "  for (const one of inner.querySelectorAll('details')) one.open = true;"
    "  setTimeout(() => { document.title = inner.documentElement.scrollWidth; }, 200);"
    "}, 200);</script>"
  )
  document, _ = document_after(path.as_uri())
  assert int(re.search(r"<title>(\d+)</title>", document)[1]) <= width
  assert Tokens.name not in re.sub(r'srcdoc="[^"]*"', "", document)
