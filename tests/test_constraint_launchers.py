"""mtjax-decode and mtjax-infill with constraints, as users run them."""

import json
import re
import sys

import pytest

from mtjax.data.tokenizers import BpeTokenizer
from mtjax.registry.constraints import make_constraint
from tests import tiny_model
from tests.forked import launch

SCHEMA = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}},
          "required": ["answer"]}  # fmt: skip
ANY_SUBSET = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
ANSWER = "(yes|no), [a-d]{1,3}[.]"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Folders of tiny models with random weights and the bundled tokenizer, by what they predict."""
  path = tmp_path_factory.mktemp("models")
  kinds = dict(next_token={}, masked=tiny_model.MASKED, any_subset=ANY_SUBSET)
  return {name: tiny_model.save(path / name, **fields) for name, fields in kinds.items()}


RUNS = {
  "lookup": ("next_token", ["--config=lookup", "--config.max_tokens=24"], "lossless"),
  "llada": (
    "masked",
    ["--config=llada", "--config.denoise.length=24", "--config.denoise.block_length=8",
     "--config.denoise.steps=12"],
    "approximate: .*; the constraint restricts each position",
  ),
  "set": (
    "any_subset",
    ["--config=configs/decode/set.py", "--config.denoise.length=24", "--config.denoise.fill=self"],
    "lossless",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_every_text_matches(folders, tmp_path, name):
  kind, arguments, label = RUNS[name]
  out, schema = tmp_path / "run.json", tmp_path / "schema.json"
  schema.write_text(json.dumps(SCHEMA))
  for constraint in (f"regex={ANSWER}", f"json_schema={schema}"):
    code, _, errors = launch(
      "experiments.decode", *arguments, f"--config.model={folders[kind]}", "--prompt=Well? ",
      "--prompt=It was", f"--config.constraint.{constraint}", "--config.temperature=1",
      f"--output={out}",
    )  # fmt: skip
    assert code == 0, errors
    for row in json.loads(out.read_text())["rows"]:
      if constraint.startswith("regex"):
        assert re.fullmatch(ANSWER, row["text"]), row["text"]
      else:
        assert json.loads(row["text"])["answer"] in ("yes", "no")
    if name != "lookup":
      assert re.search(label, " ".join(errors.split())), errors


def test_blanks_match_without_the_space_before_them(folders, tmp_path):
  out = tmp_path / "run.json"
  code, shown, errors = launch(
    "experiments.infill", f"--model={folders['any_subset']}", "--text=The ___ sat (___) there.",
    "--length=2,4,6", "--length=3", "--regex=(cat|dog)s?", "--regex=", "--temperature=1",
    f"--output={out}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert re.fullmatch(" (cat|dog)s?", run["blanks"][0]) and run["tried"] == 3
  assert re.match(r"The (cat|dog)s? sat \(", shown)


@pytest.mark.parametrize(
  ("program", "arguments", "message"),
  [
    ("decode", ["--config.constraint.regex=a[^\\s\\S]"], "no text satisfies the regular expres"),
    ("decode", ["--config.constraint.regex=(a"], "the regular expression '\\(a' cannot be compi"),
    (
      "decode",
      ["--config.constraint.regex=[a-z]{40}[.]", "--config.max_tokens=2"],
      "row 0 may have 2 tokens, and the shortest text that its constraint accepts has .* give it",
    ),
    (
      "set",
      ["--config.constraint.regex=[a-z]{40}[.]", "--config.denoise.length=2"],
      "row 0 may have 2 tokens, and the shortest text that its constraint accepts has .* give it",
    ),
    ("apd", ["--config.constraint.regex=a+"], "adaptive parallel decoding takes no constraint: le"),
    ("decode", ["--config.constraint.json_schema=no.json"], "there is no file 'no.json', which"),
    (
      "decode",
      ["--config.constraint.regex=a", "--config.constraint.json_schema=no.json"],
      "config.constraint has both regex and json_schema: give one of them",
    ),
    ("decode", ["--config.constraint.regexp=a"], "no field 'constraint.regexp'; did you mean con"),
    ("decode", ["--chat", "--config.constraint.regex=a"], "with --chat there is no constraint"),
    ("infill", ["--regex=a", "--json_schema=b"], "--regex and --json_schema exclude each other"),
    ("infill", ["--regex=a", "--regex=b", "--regex=c"], "there are 3 --regex for 2 blanks"),
    ("infill", ["--json_schema=no.json"], "there is no file 'no.json', which --json_schema names"),
    (
      "infill",
      ["--regex=[a-d]{30}", "--length=2"],
      "blank 1 has 2 tokens, and its constraint accepts no text of exactly so many",
    ),
  ],
)
def test_a_mistake_is_answered_with_one_line(folders, program, arguments, message):
  kinds = dict(decode="next_token", set="any_subset", infill="any_subset", apd="masked")
  kind = kinds[program]
  if program == "infill":
    arguments = [f"--model={folders[kind]}", "--text=A ___ and ___.", *arguments]
  else:
    method = "ar" if program == "decode" else program
    model = f"--config.model={folders[kind]}"
    prompt = [] if "--chat" in arguments else ["--prompt=a"]
    arguments = [f"--config={method}", model, *prompt, *arguments]
  code, _, errors = launch(
    "experiments.infill" if program == "infill" else "experiments.decode", *arguments
  )
  (line,) = errors.splitlines()
  assert code == 2 and line.startswith("mtjax: ")
  assert re.search(message, line), line


def test_without_the_extra_its_name_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, "outlines_core", None)
  with pytest.raises(ImportError, match=r"pip install 'mtjax\[constraints\]'"):
    make_constraint({"constraint": {"regex": "(yes|no)"}}, BpeTokenizer.bundled())


def test_a_config_without_the_group_has_no_constraint():
  assert make_constraint({}, BpeTokenizer.bundled()) is None
  with pytest.raises(ValueError, match="has no setting grammar; it has: regex, json_schema"):
    make_constraint({"constraint": {"grammar": "a"}}, BpeTokenizer.bundled())
