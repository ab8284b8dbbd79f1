"""A page of a recorded run shows all of it, needs nothing else, and runs no token as HTML."""

import base64
import hashlib
import json
import re

import pytest

from mtjax.decode.generation import Generation
from mtjax.report.history.numbers import acceptance_by_depth, time_by_stage, totals
from mtjax.report.history.page import generation_page, page, page_of_file, page_of_record
from mtjax.report.history.run_json import RecordedRun, runs_of
from mtjax.report.html.frame import html_figure, html_table, make_page
from mtjax.report.plotting import new_figure
from mtjax.rounds.history import RoundRecord
from mtjax.text import TextModel
from tests.evaluate.pages import (
  EMITTED,
  HOSTILE,
  KINDS,
  SECONDS,
  Reader,
  Tokens,
  compared_record,
  decode_history,
  decode_record,
  fill_record,
  tree,
)


@pytest.fixture(scope="module")
def reader():
  return Reader(page_of_record(decode_record()))


def test_every_token_stands_in_the_text_as_what_it_was(reader):
  tokens = reader.all("span", data_at=...)
  assert len(tokens) == len(EMITTED)
  assert tuple(attrs["class"].split()[1] for attrs, _ in tokens) == KINDS
  assert [attrs["data-at"] for attrs, _ in tokens] == [
    "0.0", "1.0", "1.1", "1.2", "2.0", "2.1", "2.2", "2.3",
  ]  # fmt: skip
  shown = [text for _, text in tokens]
  assert shown[:3] == list(HOSTILE[:3]) and shown[3] == "⏎\n"
  # A sign in place of the character that changes the direction of text.
  assert shown[4] == "U+202E"
  assert shown[5:7] == ["▫", "é"] and shown[7] == Tokens.name
  assert "special" in tokens[7][0]["class"] and "special" not in tokens[6][0]["class"]
  # A round begins with its first token; the prefill needs no mark.
  assert ["first" in attrs["class"] for attrs, _ in tokens] == [
    False, True, False, False, True, False, False, False,
  ]  # fmt: skip


def test_no_token_becomes_an_element_or_a_script(reader):
  made = str(page_of_record(decode_record()))
  tags = [tag for tag, _ in reader.elements]
  assert tags.count("script") == 2 and not {"img", "u"} & set(tags) and "b" in tags
  assert not any(name.startswith("on") for _, attrs in reader.elements for name in attrs)
  assert "<!--" not in made and made.count("</script") == 2
  # Of the scripts the policy lets the page's own run, and no other.
  (_, code) = reader.all("script")[1]
  digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}'" in made
  assert "alert(" not in code


def test_nothing_is_loaded_from_elsewhere():
  for record in (decode_record(), compared_record(), fill_record()):
    made = page_of_record(record)
    for _, attrs in Reader(made).elements:
      assert not {"src", "href", "srcset", "action"} & set(attrs)
    assert "default-src 'none'" in str(made) and "url(" not in str(made)
    addresses = re.findall(r"https?://[^\"' ]*", str(made))
    assert set(addresses) == {"http://www.w3.org/2000/svg"}, "the name of a format, not a file"


def test_the_data_holds_trees_and_probabilities(reader):
  data = json.loads(reader.data)
  prefill, first, second = data["texts"][0]["trees"]
  assert prefill == dict(token=[0], parent=[-1], path=[0], bonus=2, bonus_p=0.5)
  assert first["token"] == [2, 3, 4, 5, 0] and first["p"] == [None, 0.25, 0.25, 0.25, 0.25]
  assert "q" not in first and second["q"] == [None, 0.75, 0.5, 1.0, 0.125]
  assert data["pieces"]["2"] == HOSTILE[0] and data["pieces"]["10"] == Tokens.name
  assert data["pieces"]["8"] == "\ufffd", "half a character"


def test_a_page_has_acceptance_time_rounds_and_prompt(reader):
  assert [text for _, text in reader.all("h1")] == ["tree<b> of tiny"]
  rounds = [text for _, text in reader.all("details", data_round=...)]
  assert [text.split(" emitted")[0] for text in rounds] == [
    "prefill: no draft, 1 token",
    "round 1: 2 of 4 drafts accepted, 3 tokens",
    "round 2: 3 of 4 drafts accepted, 4 tokens",
  ]
  text = " ".join(text for _, text in reader.all("section"))
  assert (
    "<u>verify" in text
    and "Acceptance by depth" in text
    and "Time by stage" in text
    and "in all 3.90 ms" in text
  )
  prompt = next(text for _, text in reader.all("details") if "Prompt, 3 tokens" in text)
  assert prompt.endswith(f"a{Tokens.name}{HOSTILE[0]}")


def test_numbers_of_a_run():
  (run,) = runs_of(decode_record())
  assert totals(run, 0).tokens_per_forward == 8 / 3 and totals(run, 0).accepted == 5
  depths = acceptance_by_depth([record.rows[0] for record in run.history])
  assert [(one.depth, one.drafted, one.accepted) for one in depths] == [
    (1, 2, 2), (2, 2, 2), (3, 1, 1),
  ]  # fmt: skip
  stages = time_by_stage(run.history)
  assert [stage.name for stage in stages] == ["prefill", *SECONDS]
  assert stages[2].seconds == pytest.approx(0.004) and stages[2].median == pytest.approx(0.002)


def test_methods_have_tabs_and_names_are_used_once():
  reader = Reader(page_of_record(compared_record()))
  assert [text for _, text in reader.all("button", role=...)] == ["ar", "tree"]
  panels = reader.all("section", role=...)
  assert [attrs["id"] for attrs, _ in panels] == ["panel0", "panel1"]
  assert all("Prompt 1" in text and "Prompt 2" in text for _, text in panels)
  assert len(reader.ids) == len(set(reader.ids))
  assert len(reader.all("span", data_at=...)) == 4 * len(EMITTED)
  assert "1.00x" in next(text for _, text in reader.all("table"))


def test_a_fill_can_be_played_pass_by_pass():
  reader = Reader(page_of_record(fill_record(settings=dict(method="self"))))
  entries = reader.all("span", data_entry=...)
  assert [(attrs["data-entry"], text) for attrs, text in entries] == [
    ("1", HOSTILE[1]), ("2", HOSTILE[0]), ("3", " b"),
  ]  # fmt: skip
  assert ["draft" in attrs["class"] for attrs, _ in entries] == [False, True, False]
  data = json.loads(reader.data)["texts"][0]
  assert data["passes"] == {"1": [1, 0.607, 0], "2": [2, 0.287, 1], "3": [2, 0.135, 0]}
  slider = next(attrs for tag, attrs in reader.elements if tag == "input")
  assert slider["max"] == slider["value"] == "2"


def test_a_stopped_fill_shows_what_was_filled():
  record = fill_record(complete=False)
  record["history"] = record["history"][:1]
  made = page_of_record(record)
  reader = Reader(made)
  assert "stopped before its end" in str(made)
  assert len(reader.all("span", data_entry=...)) == 1
  canvas = next(text for _, text in reader.all("div", data_canvas=...))
  assert canvas == f"a{HOSTILE[1]}__{Tokens.name}"


def test_a_notebook_gets_a_page_in_a_frame():
  history = decode_history()
  generation = Generation([list(EMITTED)], ["eos"], {}, [[False] * 8], history)
  made = generation_page(generation, TextModel(None, None, Tokens()), ["a b"], title="lookup")
  frame = made._repr_html_()
  assert frame.startswith("<iframe srcdoc=") and frame.count("<iframe") == 1
  assert "Prompt, 2 tokens" in str(made) and "<h1>lookup</h1>" in str(made)
  ((_, attrs),) = [one for one in Reader(frame).elements if one[0] == "iframe"]
  assert attrs["srcdoc"] == str(made)
  with pytest.raises(ValueError, match="generate with history=True"):
    generation_page(Generation([[]], [], {}, [[]]), TextModel(None, None, Tokens()))


def test_a_large_run_stays_below_two_megabytes():
  """512 tokens of the widest kind in 200 rounds with trees of 64 nodes."""
  words = {token: f"word{token}" for token in range(5000)}
  probs = (None, *(1 / (3 + node) for node in range(63)))

  def large(number):
    tokens = tuple((number * 64 + node) % 5000 for node in range(64))
    parents = (-1, *(node // 3 for node in range(63)))
    return tree(tokens, parents, (0, 1), 7, draft_probs=probs, target_probs=probs)

  history = [RoundRecord(SECONDS, (large(number),)) for number in range(256)]
  made = page([RecordedRun(history, words, "large")])
  assert len(Reader(made).all("span", data_at=...)) == 512
  assert len(str(made).encode()) < 2_000_000


def test_a_file_of_json_gives_the_same_page(tmp_path):
  path = tmp_path / "run.json"
  path.write_text(json.dumps(decode_record()))
  assert page_of_file(path) == page_of_record(decode_record())
  path.write_text(json.dumps(dict(compared=[dict(name="ar", runs=[{}])])))
  with pytest.raises(ValueError, match=r"run\.json holds no history: run it again"):
    page_of_file(path)


def test_a_file_of_an_older_version_has_a_page_without_probabilities():
  record = decode_record()
  for field in ("special", "parts", "prompts"):
    del record[field]
  for one in record["history"]:
    for row in one["rows"]:
      del row["target_probs"], row["bonus_prob"]
  data = json.loads(Reader(page_of_record(record)).data)
  assert "p" not in data["texts"][0]["trees"][1]


def test_tables_and_figures_of_other_pages():
  figure = new_figure(figsize=(1, 1))
  body = [html_table(("a<b", "n"), [("x&y", "<i>")]), html_figure(figure, "a <picture>")]
  reader = Reader(make_page("a sweep", body))
  assert [text for _, text in reader.all("td")] == ["x&y", "<i>"]
  image = next(attrs for tag, attrs in reader.elements if tag == "img")
  assert image["alt"] == "a <picture>" and image["src"].startswith("data:image/png;base64,iVBOR")
  assert not reader.all("script")
