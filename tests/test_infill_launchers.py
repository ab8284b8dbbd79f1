"""The infilling launchers as users run them: what they print and write, and how they refuse."""

import json
import re

import jax
import pytest

from mtjax import checkpoints
from mtjax.data import Source, documents
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
from tests import tiny_model
from tests.evaluate.pages import Reader
from tests.forked import launch

TEXT = "--text=The cat ___ on the ___."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a tiny any-subset model with random weights and the bundled tokenizer."""
  config = TransformerConfig(
    4096,
    16,
    2,
    1,
    8,
    16,
    uniform_layers(1),
    max_position=256,
    predicts="any_subset",
    extra_embeddings=2,
    extra_names=("query", "sink"),
  )
  path = tmp_path_factory.mktemp("model") / "tiny"
  model = Model(config)
  checkpoints.save(path, model, model.init(jax.random.key(0)), tokenizer=BpeTokenizer.bundled())
  assert checkpoints.load(path)[0] == model
  return path


def test_infill_shows_writes_and_draws_when_each_entry_was_filled(folder, tmp_path):
  out, picture = tmp_path / "run.json", tmp_path / "when.png"
  code, shown, counters = launch(
    "experiments.infill", f"--model={folder}", TEXT, "--length=3", "--length=2", "--method=fused",
    "--temperature=1", f"--output={out}", f"--picture={picture}",
  )  # fmt: skip
  assert code == 0, counters
  run = json.loads(out.read_text())
  assert run["lengths"] == [3, 2] and sum(run["is_target"]) == 5 and len(run["blanks"]) == 2
  assert shown == run["text"] + "\n" and "tokens per forward" in counters
  assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_fill_keeps_its_history_and_draws_it(folder, tmp_path):
  out, page, html = (tmp_path / name for name in ("run.json", "run.html", "html.html"))
  code, shown, errors = launch(
    "experiments.infill", f"--model={folder}", TEXT, "--length=3", "--length=2",
    f"--output={out}", f"--html={html}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  passes = [one for record in run["history"] for one in record["rows"][0] or ()]
  tokens, decided_at = list(run["tokens"]), [0] * len(run["tokens"])
  for one in passes:
    for entry, token in zip(one["entries"], one["tokens"], strict=True):
      assert run["is_target"][entry] and tokens[entry] == token
      decided_at[entry] = one["number"]
  assert decided_at == run["decided_at"] and run["complete"]
  code, _, errors = launch("experiments.history", f"--run={out}", f"--page={page}")
  assert code == 0 and "log p" in page.read_text(), errors
  assert shown == run["text"] + "\n"
  for made in (page, html):
    entries = Reader(made.read_text()).all("span", data_entry=...)
    assert [int(attrs["data-entry"]) for attrs, _ in entries] == [
      entry for entry, is_target in enumerate(run["is_target"]) if is_target
    ]


def test_a_length_may_be_chosen(folder, tmp_path):
  out = tmp_path / "run.json"
  code, shown, errors = launch(
    "experiments.infill", f"--model={folder}", "--text=The cat ___ ." + " And so on." * 20,
    "--length=2,3", "--method=confidence", f"--output={out}",
  )  # fmt: skip
  assert code == 0, errors
  run = json.loads(out.read_text())
  assert shown == run["text"] + "\n" and run["tried"] == 2, "the text as it is, in lines of its own"
  shown_counters = r"lengths [23]; counters of all 2 candidates together:\n +targets +5 *\n"
  assert re.search(shown_counters, errors), errors


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["infill"], "--text is missing"),
    (["infill", "--text=no blank"], "no blank: write ___"),
    (["infill", TEXT, "--length=a"], "--length must be a number, or candidates"),
    (
      ["infill", TEXT, "--length=1", "--length=2", "--length=3"],
      "lengths are for 3 blanks, but the text has 2",
    ),
    (["infill", TEXT, "--length=300"], "takes at most 255"),
    (["infill", TEXT, "--mesh=heads:2"], "a mesh has the axes data, model, sequence, not 'heads'"),
    (["infill", TEXT, "--mesh=model:64"], "needs 64 devices, but there"),
    (["infill", "--text=a ___ [MASK]"], "holds a mask token"),
    (["infill", TEXT, "--picture=nowhere/when.png"], "'nowhere' for --picture"),
    (["infill", TEXT, "--picture=when.txt"], "a picture is one of"),
    (["infill", TEXT, "--model=target"], "no any-subset model"),
    (["evaluate", "--task=lambada"], "--data is missing"),
    (["evaluate", "--task=rocstories", "--data=a"], "task 'rocstories' is not one of humaneval"),
    (["evaluate", "--task=lambada", "--data=nowhere.jsonl"], "no file 'nowhere.jsonl'"),
    (["evaluate", "--task=lambada", "--data=a", "--model=target"], "no file 'a'"),
    (["evaluate", "--task=lambada", "--data=PASSAGES", "--model=target"], "Use --model=anysubset"),
    (
      ["evaluate", "--task=humaneval_infilling", "--data=HUMANEVAL", "--model=nowhere"],
      "HumanEval-Single",
    ),
    (["evaluate", "--task=lambada", "--data=a", "--orders="], "--orders lists nothing"),
    (["evaluate", "--text=a=file:a", "--orders=random,random"], "lists random twice"),
    (
      ["evaluate", "--text=a=file:a", "--orders=best"],
      "orders must be among lattice, random, staggered, eso, right_to_left, left_to_right, got",
    ),
    (["evaluate", "--text=a=file:a", "--orders=random", "--context=3"], "--context would do"),
    (["evaluate", "--text=a=file:a", "--orders=random", "--length=256"], "--length=256 is too"),
    (["evaluate", "--task=lambada", "--data=PASSAGES", "--length=256"], "room for 255 tokens"),
    (["evaluate", "--task=lambada", "--data=a", "--batch=1"], "with --task, --batch would"),
    (["evaluate", "--task=wikitext_masked", "--data=a", "--judge=anysubset"], "no file 'a'"),
    (
      ["evaluate", "--task=wikitext_masked", "--data=PASSAGES", "--judge=anysubset"],
      "the judge 'any",
    ),
    (["evaluate", "--task=lambada", "--data=a", "--output=b", "--records=./b"], "are one file"),
    (["evaluate", "--task=lambada", "--data=a", "--output=./a"], "--data and --output are one"),
    (["evaluate", "--task=countdown", "--data=a", "--judge=b"], "--judge would do nothing"),
    (["evaluate", "--text=a=b", "--orders=lattice", "--seeds=3"], "--seeds would do nothing"),
    (["infill", TEXT, "--method=sequential", "--window=3"], "--window would do nothing"),
    (["evaluate", "--task=sudoku", "--data=a", "--sample=3", "--length=9"], "--length would"),
    (["evaluate", "--task=lambada", "--data=a", "--methods=ar"], "method of denoising 'ar' is not"),
    (
      ["evaluate", "--task=lambada", "--data=a", "--methods=d2f"],
      "d2f continues prompts from left",
    ),
    (
      ["evaluate", "--task=lambada", "--data=a", "--methods=set", "--orders=random"],
      "with --methods, --orders would do nothing",
    ),
    (["evaluate", "--task=lambada", "--data=PASSAGES", "--methods=llada"], "needs a masked model"),
    (["bench.infill"], "give a set"),
    (["bench.infill", "--code=nowhere.jsonl"], "nowhere.jsonl"),
    (["bench.infill", "--code=HUMANEVAL", "--model=nowhere"], "is a problem of HumanEval itself"),
    (["bench.infill", "--code=a", "--weights=int4"], "--weights=int4 is none of stored"),
    (["bench.infill", "--code=a/x_1.gz", "--code=x_2.gz"], "--code=a/x_1.gz and --code=x_2.gz"),
    (["bench.infill", "--text=a=x", "--text=a=y"], "--text=a=x with --rate=0.15 and --text=a=y"),
    (["bench.infill", "--code=a", "--ways=self0"], "way 'self0': window must be at least 1"),
    (["bench.infill", "--code=a", "--ways=authors0"], "way 'authors0': window must be at least"),
    (["bench.infill", "--code=a", "--ways=self"], "way 'self' is none of sequential, self4"),
    (["bench.infill", "--code=a", "--ways=once2,once2"], "--ways lists once2 twice"),
  ],
)
def test_a_mistake_is_answered_with_one_line(folder, tmp_path, arguments, message):
  files = {name: tmp_path / f"{name}.jsonl" for name in ("PASSAGES", "HUMANEVAL")}
  files["PASSAGES"].write_text('{"text": "one two"}\n')
  fields = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
  files["HUMANEVAL"].write_text(json.dumps(dict.fromkeys(fields, "x")))
  for text, file in files.items():
    arguments = [argument.replace(text, str(file)) for argument in arguments]
  name, *flags = arguments
  if not any(flag.startswith("--model") for flag in flags):
    flags.append(f"--model={folder}")
  code, _, errors = launch(f"experiments.{name}", *flags)
  assert code == 2 and message in errors and errors.count("\n") == 1, errors


def test_the_benchmark_has_a_row_for_every_way(folder, tmp_path):
  file, out = tmp_path / "text.txt", tmp_path / "figures.json"
  file.write_text("one two three four five six seven eight nine ten " * 20)
  code, shown, errors = launch(
    "experiments.bench.infill", f"--model={folder}", f"--text=words=file:{file}", "--size=15",
    "--count=1", "--repeats=2", "--ways=sequential,self2,authors5,confidence2", f"--output={out}",
  )  # fmt: skip
  assert code == 0, errors
  written = json.loads(out.read_text())
  (report,), settings = written["sets"].values(), written["settings"]
  assert settings["text"] == [f"words=file:{file}"] and settings["code"] == []
  assert settings["rate"] == [0.15] and settings["max_tokens"] == 24 and len(settings["ways"]) == 4
  assert [row["name"] for row in report["rows"]] == settings["ways"]
  assert report["rows"][0]["speedup"] == 1 and "words, 15%" in shown


def test_a_task_prints_writes_and_continues(folder, tmp_path):
  data, answers, out = (tmp_path / name for name in ("data.jsonl", "answers.jsonl", "out.json"))
  texts = ["the cat sat on the mat", "one two three four", "a b c d"]
  data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
  command = (
    "experiments.evaluate", "--task=lambada", f"--model={folder}", f"--data={data}",
    f"--records={answers}", f"--output={out}",
  )  # fmt: skip
  code, shown, errors = launch(*command, "--limit=1")
  assert code == 0 and "exact match" in shown and "lattice" in shown, errors
  first = json.loads(out.read_text())
  assert first["summaries"]["lattice"]["examples"] == 1
  code, _, errors = launch(*command)
  assert code == 0, errors
  second = json.loads(out.read_text())
  assert len(answers.read_text().splitlines()) == 1 + 3, "what was there is not done again"
  assert second["records"]["lattice"][0] == first["records"]["lattice"][0]


def test_methods_of_denoising_fill_functions_that_are_run(tmp_path):
  data, answers, out = (tmp_path / name for name in ("data.jsonl", "answers.jsonl", "out.json"))
  problem = dict(
    task_id="one", prompt="def f(x):\n  return ", canonical_solution="x + 1", suffix="\n",
    test="def check(f):\n  assert f(1) == 2\n", entry_point="f",
  )  # fmt: skip
  data.write_text(json.dumps(problem) + "\n" + json.dumps(problem | dict(task_id="two")) + "\n")
  masked = tiny_model.save(tmp_path / "masked", **tiny_model.MASKED)
  command = (
    "experiments.evaluate", "--task=humaneval_infilling", f"--data={data}",
    f"--records={answers}", f"--output={out}",
  )  # fmt: skip
  methods = "--methods=llada:length=8:block_length=8:steps=4,first_hitting:temperature=0.5"
  code, shown, errors = launch(*command, f"--model={masked}", methods)
  assert code == 0 and "pass@1" in shown and "method" in shown and "100.0%" in shown, errors
  assert len(answers.read_text().splitlines()) == 1 + 2 * 2, "the settings, and each answer"
  run = json.loads(out.read_text())
  names = methods.removeprefix("--methods=").split(",")
  assert list(run["summaries"]) == names
  for name in names:
    figures = run["summaries"][name]
    assert figures["reference_passes"] == 1 and figures["nats"] is None
    assert [record["order"] for record in run["records"][name]] == [name, name]


def test_orders_are_scored_with_the_weights_and_bytes_of_the_flags(folder, tmp_path):
  file, out = tmp_path / "text.txt", tmp_path / "scores.json"
  file.write_text("one two three four five six seven eight nine ten " * 20)
  records = []
  for more in ((), ("--weights=int8",)):
    code, shown, errors = launch(
      "experiments.evaluate", f"--model={folder}", f"--text=words=file:{file}", "--orders=lattice",
      "--length=15", "--count=1", f"--output={out}", *more,
    )  # fmt: skip
    assert code == 0 and "words" in shown, errors
    records.append(json.loads(out.read_text()))
  stored, narrow = ([order["nats"] for order in one["texts"]["words"]] for one in records)
  assert stored != narrow and stored == pytest.approx(narrow, rel=0.1)
  assert records[1]["settings"]["weights"] == "int8"
  code, _, errors = launch(
    "experiments.evaluate", f"--model={folder}", f"--text=words=file:{file}", "--orders=lattice",
    "--length=15", "--count=1", "--bytes=20",
  )  # fmt: skip
  assert code == 2 and "there are 0 rows of that size, but 1 are needed" in errors


def test_puzzles_to_train_on_are_written_as_a_source(tmp_path):
  data, out = tmp_path / "dev.jsonl", tmp_path / "train.jsonl"
  data.write_text('{"input": "30,100,93", "output": "23"}\n')
  code, _, errors = launch(
    "experiments.evaluate", "--task=countdown", f"--data={data}", "--sample=5", f"--output={out}"
  )
  assert code == 0, errors
  texts = list(documents(Source.parse(f"file:{out}")))
  assert len(texts) == 5 and all(text.startswith("Numbers: ") for text in texts)
