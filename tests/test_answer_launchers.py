"""mtjax-evaluate with tasks that a model answers: what it prints and writes, and how it refuses."""

import json
import re

import jax
import pytest

from mtjax import checkpoints
from mtjax.data.tokenizers import BpeTokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.report import results
from tests.forked import launch

FILES = {
  "GSM8K": [
    dict(question=f"Tom has {n} of {n} of {n}. How many?", answer=f"He has\n#### {n}")
    for n in range(3)
  ],
  "LAMBADA": [dict(text="the cat sat on the mat and the cat sat on the mat")],
  "SPECBENCH": [dict(question_id=7, category="qa", turns=["the cat sat", "and the cat"])],
  "EMPTY": [],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  for name, records in FILES.items():
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / f"{name}.jsonl").write_text(text)
  return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a tiny causal model with random weights and the bundled tokenizer."""
  config = TransformerConfig(4096, 16, 2, 1, 8, 16, uniform_layers(1), max_position=256)
  path = tmp_path_factory.mktemp("model") / "tiny"
  model = Model(config)
  checkpoints.save(path, model, model.init(jax.random.key(0)), tokenizer=BpeTokenizer.bundled())
  return path


def command(folder, files, *flags):
  flags = [re.sub("|".join(FILES), lambda name: f"{files / name[0]}.jsonl", f) for f in flags]
  return ("experiments.evaluate", f"--model={folder}", *flags)


def test_tasks_are_answered_written_and_continued_and_a_difference_is_an_error(
  folder, files, tmp_path
):
  answers, out, table = (tmp_path / name for name in ("answers.jsonl", "out.json", "table.json"))
  run = command(
    folder, files, "--task=gsm8k:max_tokens=12,lambada_greedy", "--data=GSM8K,LAMBADA",
    "--batch=2", f"--records={answers}", f"--output={out}", f"--results={table}",
  )  # fmt: skip
  methods = "--methods=ar,lookup,lookup:verifier=typical"
  code, _, errors = launch(*run, "--methods=ar", "--limit=1")
  assert code == 0, errors
  first = answers.read_text()
  code, shown, errors = launch(*run, methods)
  assert code == 0 and "mtjax:" not in errors, errors
  assert "exact match" in shown and "same text as ar" in shown and "approximate" in shown
  # What was there is not done again: 3 + 1 questions with 3 methods, and the settings.
  assert answers.read_text().startswith(first) and len(answers.read_text().splitlines()) == 13
  record = results.read(table)
  assert record["benchmark"] == "quality" and record["complete"]
  gsm8k, lambada = results.tables(record)
  assert [row[-1] for row in (*gsm8k.rows[:2], *lambada.rows[:2])] == ["100.0%"] * 4
  assert gsm8k.title.startswith("gsm8k, 3 of 3 questions, text format, at most 12 tokens, greedy")
  texts = json.loads(out.read_text())["records"]["gsm8k"]
  assert [one["answers"] for one in texts["ar"]] == [one["answers"] for one in texts["lookup"]]

  # Another token in a lossless method's record is an error, in another method's it is shown.
  for name, expected in (("lookup:verifier=typical", 0), ("lookup", 1)):
    lines = answers.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if f'"method": "{name}"' in line)
    changed = json.loads(lines[place])
    changed["tokens"][0][2] += 1
    lines[place] = json.dumps(changed)
    answers.write_text("\n".join(lines) + "\n")
    code, shown, errors = launch(*run, methods)
    assert code == expected, errors
    assert "66.6%" in shown
  told = f"gsm8k: lookup must write the text of ar: {changed['name']}, answer 1: after 2 equal"
  assert told in errors and "their logits are" in errors
  record = results.read(table)
  assert record["complete"] and told in record["notes"][-1]


def test_answers_of_spec_bench_are_written_for_its_own_programs(folder, files, tmp_path):
  out = tmp_path / "answers"
  run = command(
    folder, files, "--task=specbench:max_tokens=8", "--data=SPECBENCH", "--methods=ar,lookup",
    f"--spec_bench={out}",
  )  # fmt: skip
  code, _, errors = launch(*run, "--batch=1")
  assert code == 0, errors
  names = ["tiny-ar-temp-0", "tiny-lookup-temp-0"]
  assert sorted(path.stem for path in out.iterdir()) == names
  for name in names:
    (line,) = map(json.loads, (out / f"{name}.jsonl").read_text().splitlines())
    assert (line["question_id"], line["category"], line["model_id"]) == (7, "qa", name)
    assert line["choices"][0]["new_tokens"] == [8, 8]
  code, _, errors = launch(*run[:-1], f"--spec_bench={out / names[0]}.jsonl", "--batch=1")
  assert code == 2 and "is a file: name a folder" in errors


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--task=gsm8k"], "--data is missing"),
    (["--task=gsm8k", "--data=nowhere.jsonl"], "no file 'nowhere.jsonl'"),
    (["--task=gsm9k", "--data=GSM8K"], "task 'gsm9k' is not one of humaneval_infilling"),
    (["--task=gsm8k,sudoku", "--data=GSM8K,GSM8K"], "task 'sudoku' cannot be run beside others"),
    (["--task=gsm8k,gsm8k", "--data=GSM8K,GSM8K"], "--task names gsm8k twice"),
    (["--task=gsm8k,mtbench", "--data=GSM8K"], "names 2 tasks and --data 1 files"),
    (["--task=gsm8k:shots=5", "--data=GSM8K"], "'shots=5' must be limit=N or max_tokens=N"),
    (["--task=gsm8k", "--data=EMPTY"], "EMPTY.jsonl holds no question of gsm8k"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=lookup"], "give --methods=ar,lookup"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=ar,eagle"], "method 'eagle' is not one of: ar"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=ar,self"], "method 'self' fills blanks"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=ar,ar"], "--methods lists ar twice"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=ar,lookup:verifier=a"], "no verifier 'a'"),
    (["--task=gsm8k", "--data=GSM8K", "--prompt_format=chat"], "this model has no chat template"),
    (["--task=gsm8k", "--data=GSM8K", "--max_tokens=999"], "exceed the 256 positions"),
    (["--task=gsm8k", "--data=GSM8K", "--model=anysubset"], "the model that answers"),
    (["--task=gsm8k", "--data=GSM8K", "--orders=random"], "--orders would do nothing"),
    (["--task=gsm8k", "--data=GSM8K", "--spec_bench=a", "--batch=1"], "give --task=specbench"),
    (["--task=specbench", "--data=SPECBENCH", "--spec_bench=a"], "give --batch=1"),
    (["--task=sudoku", "--data=GSM8K", "--methods=ar"], "method of denoising 'ar' is not one of"),
    (["--text=a=file:a.txt", "--methods=ar"], "without --task, --methods would do nothing"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=d2f"], "needs a masked model"),
    (["--task=gsm8k", "--data=GSM8K", "--methods=gidd", "--temperature=1"], "setting of its rule"),
    (
      ["--task=generative_perplexity", "--data=GSM8K", "--model=target"],
      "--model would do nothing",
    ),
    (["--text=a=file:a.txt", "--max_tokens=3"], "--max_tokens would do nothing"),
  ],
)
def test_a_mistake_is_answered_with_one_line(folder, files, flags, message):
  code, _, errors = launch(*command(folder, files, *flags))
  assert code == 2 and message in errors and errors.count("\n") == 1, errors


def test_records_of_other_settings_are_refused(folder, files, tmp_path):
  path = tmp_path / "answers.jsonl"
  path.write_text('{"model": "another"}\n')
  run = command(folder, files, "--task=lambada_greedy", "--data=LAMBADA", f"--records={path}")
  code, _, errors = launch(*run)
  assert code == 2 and "answers of other settings (model 'another', not " in errors, errors
  assert path.read_text() == '{"model": "another"}\n'
