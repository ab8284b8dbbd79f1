"""The launchers as users run them: what they print and write, and how they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from mtjax.cli import flags as launch_lib
from mtjax.data import Source, documents
from tests import tiny_model
from tests.evaluate.pages import Reader
from tests.forked import launch

ROOT = Path(__file__).resolve().parent.parent
AR = "--config=configs/decode/ar.py"


def launch_alone(*arguments):
  """Returns what `launch` does, of a process that is no fork."""
  run = subprocess.run(
    [sys.executable, "-m", *arguments],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    input="",
    capture_output=True,
    text=True,
    timeout=300,
  )
  return run.returncode, run.stdout, run.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a tiny model with random weights and the bundled tokenizer."""
  return tiny_model.save(tmp_path_factory.mktemp("model") / "tiny")


def test_decode_streams_one_prompt_and_writes_the_run(folder, tmp_path):
  out = tmp_path / "run.json"
  code, shown, counters = launch(
    "experiments.decode", AR, f"--config.model={folder}", "--config.max_tokens=6",
    "--prompt=Once upon", f"--output={out}",
  )  # fmt: skip
  assert code == 0, counters
  run = json.loads(out.read_text())
  (row,) = run["rows"]
  assert shown == row["text"] + "\n" and len(row["tokens"]) == 6
  assert row["prompt"] == "Once upon" and row["finish"] == "length"
  assert run["settings"]["max_tokens"] == 6 and run["settings"]["method"] == "ar"
  assert run["counters"]["tokens"] == 6 and "tokens per second" in counters


def test_decode_takes_prompts_from_a_file_as_a_batch_and_from_standard_input(folder, tmp_path):
  prompts = tmp_path / "prompts.jsonl"
  prompts.write_text('{"prompt": "one"}\n\n{"prompt": "two and three"}\n')
  settings = ("experiments.decode", AR, f"--config.model={folder}", "--config.max_tokens=3")
  code, shown, errors = launch(*settings, f"--prompts={prompts}")
  assert code == 0 and "[0] one\n" in shown and "[1] two and three\n" in shown, errors
  code, shown, errors = launch(*settings, f"--output={tmp_path / 'run.json'}", text="from a pipe\n")
  assert code == 0 and len(shown) > 1, errors
  assert json.loads((tmp_path / "run.json").read_text())["rows"][0]["prompt"] == "from a pipe"


@pytest.mark.parametrize("method", ["lookup", "draft"])
def test_decode_with_drafts_gives_the_text_without(folder, tmp_path, method):
  texts = []
  for name in ("ar", method):
    out = tmp_path / f"{name}.json"
    more = [f"--config.draft_model={folder}"] if name == "draft" else []
    code, _, errors = launch(
      "experiments.decode", f"--config=configs/decode/{name}.py", f"--config.model={folder}",
      "--config.max_tokens=12", "--prompt=one two one two one", f"--output={out}", *more,
    )  # fmt: skip
    assert code == 0, errors
    run = json.loads(out.read_text())
    texts.append(run["rows"][0]["text"])
  assert texts[0] == texts[1]
  assert sum(run["counters"]["drafted_at_depth"]) > 0 and "accepted at depth" in errors


def test_a_history_is_kept_and_drawn(folder, tmp_path):
  plain, out, page, picture = (tmp_path / n for n in ("a.json", "b.json", "b.html", "b.png"))
  html = tmp_path / "c.html"
  settings = (
    "experiments.decode", "--config=lookup", f"--config.model={folder}", "--config.max_tokens=8",
    "--prompt=one two one two one",
  )  # fmt: skip
  code, _, errors = launch(*settings, f"--output={plain}")
  assert code == 0 and "compiling lookup" in errors.splitlines(), errors
  code, shown, errors = launch(*settings, "--history", f"--output={out}", f"--html={html}")
  assert code == 0, errors
  without, run = (json.loads(path.read_text()) for path in (plain, out))
  assert run["complete"] and run["rows"] == without["rows"] and "history" not in without
  trees = [record["rows"][0] for record in run["history"]]
  tokens = [
    *(tree["tokens"][node] for tree in trees for node in tree["path"][1:]),
    *(tree["bonus"] for tree in trees if tree["bonus"] is not None),
  ]
  assert sorted(tokens) == sorted(run["rows"][0]["tokens"])
  draw = ("experiments.history", f"--run={out}")
  code, _, errors = launch(*draw, f"--page={page}", f"--picture={picture}", "--round=1")
  assert code == 0, errors
  assert page.read_text() == html.read_text()
  shown = Reader(page.read_text())
  assert len(shown.all("span", data_at=...)) == len(run["rows"][0]["tokens"]) == 8
  assert any("lookup" in text for _, text in shown.all("h1"))
  assert picture.read_bytes().startswith(b"\x89PNG")


def test_compare_shows_methods_side_by_side(folder, tmp_path):
  out = tmp_path / "compared.json"
  code, shown, errors = launch(
    "experiments.decode", AR, f"--config.model={folder}", "--config.max_tokens=96",
    "--compare=ar,lookup,auto", "--prompt=one two one two one", f"--output={out}",
  )  # fmt: skip
  assert code == 0, errors
  lines = {line.split()[0]: line.split() for line in shown.split("\n") if "lossless" in line}
  assert list(lines) == ["ar", "lookup", "auto"]
  assert "compiling lookup, 2 of 3: prompt 1 of 1, round 1 of 3" in errors.splitlines()
  assert {line[-1] for line in lines.values()} == {"100%"}
  ar, lookup, _ = json.loads(out.read_text())["compared"]
  assert ar["runs"][0]["tokens"] == lookup["runs"][0]["tokens"]
  # A round's last token is the target's own, unless the limit cut it off.
  for one in (ar, lookup):
    run = one["runs"][0]
    not_drafted = len(run["tokens"][0]) - sum(run["drafted"][0])
    assert run["counters"]["target_forwards"] - not_drafted in (0, 1)
  assert lookup["tokens_per_forward"] > ar["tokens_per_forward"] == 1


def test_compared_methods_share_a_page(folder, tmp_path):
  page = tmp_path / "compared.html"
  code, _, errors = launch(
    "experiments.decode", AR, f"--config.model={folder}", "--config.max_tokens=4", "--rounds=1",
    "--compare=ar,lookup", "--prompt=one two", "--prompt=one", f"--html={page}",
  )  # fmt: skip
  assert code == 0, errors
  shown = Reader(page.read_text())
  assert [text for _, text in shown.all("button", role=...)] == ["ar", "lookup"]
  assert len(shown.all("span", data_at=...)) == 2 * 2 * 4
  assert "stopped before" not in page.read_text()


def test_evaluate_scores_each_text(folder, tmp_path):
  for name in "ab":
    (tmp_path / f"{name}.txt").write_text(f"Text {name}, a line of it.\n" * 5)
  code, shown, errors = launch(
    "experiments.evaluate", f"--model={folder}", "--length=32", "--context=16",
    f"--text=first=file:{tmp_path}/a.txt", f"--text=second=file:{tmp_path}/b.txt#per=line",
    f"--output={tmp_path / 'scores.json'}",
  )  # fmt: skip
  assert code == 0 and "first" in shown and "second" in shown, errors
  scores = json.loads((tmp_path / "scores.json").read_text())["texts"]
  # Random weights are close to a uniform distribution over 4096 tokens: 12 bits per token.
  assert json.loads((tmp_path / "scores.json").read_text())["complete"]
  assert "scoring second, 2 of 2" in errors.splitlines()
  for score in scores.values():
    assert score["bits_per_byte"] * score["bytes"] / score["tokens"] == pytest.approx(12, abs=0.5)
  assert scores["second"]["bytes"] == scores["first"]["bytes"] - 5  # line breaks are no documents


def test_texts_that_a_model_writes_are_training_text_and_continue_where_they_ended(
  folder, tmp_path
):
  (tmp_path / "a.txt").write_text("".join(f"Line {n} of {n * n}.\n" for n in range(40)))
  command = (
    "experiments.write_texts", f"--model={folder}", f"--sources=file:{tmp_path}/a.txt",
    "--texts=5", "--batch=2", "--prompt_tokens=8", "--max_tokens=6",
  )  # fmt: skip
  out = tmp_path / "written.jsonl"
  code, _, errors = launch(*command, f"--output={out}")
  assert code == 0, errors
  texts = list(documents(Source.parse(f"file:{out}")))
  assert len(texts) == 6 and len(set(texts)) == 6  # whole batches
  cut = tmp_path / "cut.jsonl"
  cut.write_bytes(out.read_bytes()[: len("".join(texts[:3]))])
  code, _, errors = launch(*command, f"--output={cut}")
  assert code == 0 and cut.read_bytes() == out.read_bytes(), errors


def holder(value, name="output"):
  """Returns a flag with this value, which belongs to no launcher."""
  values = flags.FlagValues()
  flag = flags.DEFINE_string(name, None, "", flag_values=values)
  values(["a.py", *([] if value is None else [f"--{name}={value}"])])
  return flag


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
  launch_lib.check_output(holder(None), holder(tmp_path / "a"), holder(tmp_path / "b", "records"))
  for path, error, message in (
    (tmp_path / "no" / "a", FileNotFoundError, "no folder .* for --records"),
    (tmp_path, IsADirectoryError, "--records=.* is a folder"),
    (f"{tmp_path}/../{tmp_path.name}/a", ValueError, "--output and --records are one file"),
  ):
    with pytest.raises(error, match=message):
      launch_lib.check_output(holder(tmp_path / "a"), holder(path, "records"))
  (tmp_path / "read.txt").write_text("x")
  named = f"draft={tmp_path}/read.txt"
  for read in (tmp_path / "read.txt", named, f"books=file:{tmp_path}/*.txt#header=a"):
    with pytest.raises(ValueError, match="--data and --output are one file"):
      launch_lib.check_output(holder(tmp_path / "read.txt"), inputs=[holder(read, "data")])


def test_a_picture_has_a_suffix_that_matplotlib_writes(tmp_path):
  launch_lib.check_picture(holder(None))
  for name in ("a.png", "a.PDF", "a.svg"):
    launch_lib.check_picture(holder(tmp_path / name))
  for name in ("a.txt", "a", ".png", "a.pgf"):
    with pytest.raises(ValueError, match="a picture is one of .*png.*, by its suffix"):
      launch_lib.check_picture(holder(tmp_path / name))


def test_a_list_names_something_and_nothing_twice():
  def listed(value):
    values = flags.FlagValues()
    orders = flags.DEFINE_list("orders", "lattice", "", flag_values=values)
    values(["a.py", f"--orders={value}"])
    return launch_lib.distinct(orders)

  assert listed("random,lattice") == ["random", "lattice"]
  with pytest.raises(ValueError, match="--orders lists nothing, for example --orders=lattice"):
    listed("")
  with pytest.raises(ValueError, match="--orders lists a twice"):
    listed("a,b,a")


MISTAKES = {
  "no sources": (("experiments.write_texts", "--output=x.jsonl"), "--sources is missing"),
  "no prompt": (("experiments.decode", AR), "no prompt"),
  "no config": (("experiments.train",), "--config is missing, for example --config=tiny"),
  "config file": (("experiments.decode", "--config=nowhere.py"), "'nowhere.py' does not exist"),
  "config name": (("experiments.decode", "--config=magic"), "method 'magic' is not one of: ar"),
  "training config name": (
    ("experiments.train", "--config=huge", "--workdir=x"),
    "training config 'huge' is not one of: tiny",
  ),
  "config field of the default": (
    ("experiments.decode", "--config.max_token=3"),
    "ar has no field 'max_token'; did you mean max_tokens",
  ),
  "config field": (
    ("experiments.decode", AR, "--config.max_token=3"),
    "did you mean max_tokens",
  ),
  "method": (
    ("experiments.decode", AR, "--config.method=magic", "--prompt=a"),
    "method 'magic' is not one of: ar",
  ),
  "compared method": (
    ("experiments.decode", AR, "--compare=ar,magic", "--prompt=a"),
    "method 'magic' is not one of: ar",
  ),
  "prompts folder": (("experiments.decode", AR, "--prompts=tests"), "is a folder, but a file"),
  "output folder": (
    ("experiments.decode", AR, "--prompt=a", "--output=nowhere/run.json"),
    "there is no folder 'nowhere' for --output",
  ),
  "method of another config": (
    ("experiments.decode", AR, "--config.model=FOLDER", "--config.method=lookup", "--prompt=a"),
    "begin with --config=lookup",
  ),
  "prompts file": (("experiments.decode", AR, "--prompts=no.jsonl"), "no.jsonl"),
  "model": (
    ("experiments.decode", AR, "--config.model=./nowhere", "--prompt=a"),
    "nowhere",
  ),
  "model name": (
    ("experiments.decode", AR, "--config.model=targt", "--prompt=a"),
    "there is no model 'targt'; it must be a bundled model (target, draft, sorted, anysubset, ",
  ),
  "number": (
    ("experiments.decode", AR, "--config.temperature=warm", "--prompt=a"),
    "flag --config.temperature=warm: must be a number, got 'warm'",
  ),
  "long prompt": (
    ("experiments.decode", AR, "--config.model=FOLDER", "--prompt=" + "word " * 300),
    "the model has 256 positions",
  ),
  "temperature": (
    ("experiments.decode", AR, "--config.model=FOLDER", "--config.temperature=-1", "--prompt=a"),
    "temperature must be at least 0",
  ),
  "weights": (
    ("experiments.decode", AR, "--config.model=FOLDER", "--config.weights=int3", "--prompt=a"),
    "weights 'int3' is not one of: stored, float32, int8",
  ),
  "chat": (
    (
      "experiments.decode",
      AR,
      "--config.model=FOLDER",
      "--config.prompt_format=chat",
      "--prompt=a",
    ),
    "no chat template",
  ),
  "unknown flag": (("experiments.evaluate", "--txt=a"), "txt"),
  "no text": (("experiments.evaluate",), "--text is missing"),
  "a flag of tasks": (
    ("experiments.evaluate", "--text=a=file:a.txt", "--limit=3", "--records=a"),
    "without --task, --limit and --records would do nothing",
  ),
  "a flag of orders": (
    ("experiments.evaluate", "--text=a=file:a.txt", "--rate=0.5"),
    "without --orders, --rate would do nothing",
  ),
  "any-subset model": (
    ("experiments.evaluate", "--text=a=file:a.txt", "--model=anysubset"),
    "anysubset is an any-subset model, but a causal one is needed, unless --orders",
  ),
  "text without a name": (
    ("experiments.evaluate", "--model=FOLDER", "--text=a.txt"),
    "'a.txt' is not name=source",
  ),
  "system": (
    ("experiments.bench.autoregressive", "--model=FOLDER", "--systems=vllm"),
    "unknown systems ['vllm']",
  ),
  "nothing to draw": (("experiments.history", "--run=run.json"), "nothing to write: give --page"),
  "a round without a picture": (
    ("experiments.history", "--run=run.json", "--page=a.html", "--round=1"),
    "without --picture, --round would do nothing",
  ),
  "chip": (
    ("docs.make.kernel_table", "--chips=v5e,z80"),
    "unknown chip 'z80'; there are: v4, v5e",
  ),
  "slice": (
    ("docs.make.pods", "--results=nowhere.json", "--pods=v9-8"),
    "unknown slice 'v9-8'; there are: v5e-8, v5p-16, v6e-8, 8 x H100",
  ),
  "a config without a sweep": (
    ("experiments.sweep", "--config=configs/train/tiny.py", "--results=nowhere"),
    "'configs/train/tiny.py': it does not say which program it sweeps; PROGRAM = ",
  ),
  "workers": (
    ("experiments.sweep", "--config=configs/sweep/tiny_learning_rates.py", "--workers=0"),
    "flag --workers=0: 0 is not a positive integer",
  ),
  "a field of a sweep": (
    (
      "experiments.sweep",
      "--config=configs/sweep/tiny_learning_rates.py",
      "--results=nowhere",
      "--config.batches=2",
    ),
    "has no field 'batches'; did you mean batch",
  ),
  "workdir": (
    ("experiments.export", "--workdir=nowhere", "--output=x"),
    "'nowhere' is not the folder of a training run",
  ),
  "workdir and model": (
    ("experiments.export", "--workdir=nowhere", "--model=target", "--output=x"),
    "give either --workdir or --model",
  ),
  "a vocabulary of a run": (
    ("experiments.export", "--workdir=nowhere", "--vocabulary=file:a.txt", "--output=x"),
    "--vocabulary trims the model of --model, and there is a --workdir",
  ),
}


# One mistake of each launcher is made in a process of its own, and the others in forks.
ALONE = set({command[0]: name for name, (command, _) in MISTAKES.items()}.values())


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_with_one_line_and_exit_code_2(folder, name):
  command, message = MISTAKES[name]
  run = launch_alone if name in ALONE else launch
  code, shown, errors = run(*(a.replace("FOLDER", str(folder)) for a in command))
  assert code == 2 and message in errors, (code, errors)
  lines = [line for line in errors.splitlines() if line]
  assert len(lines) == 1 and lines[0].startswith("mtjax: "), errors
  assert not shown


def test_a_fork_answers_as_a_process_of_its_own():
  for command in (("experiments.evaluate", "--help"), ("experiments.evaluate", "--text=no.txt")):
    assert launch(*command) == launch_alone(*command)
