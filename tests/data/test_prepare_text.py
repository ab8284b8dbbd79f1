"""The launcher that makes a dataset of local text, and its refusals."""

import pytest

from mtjax.data.sources.local_text import prepare
from mtjax.data.sources.read import documents
from mtjax.data.sources.source import Source
from tests.forked import launch


def test_it_prints_a_source(tmp_path):
  (tmp_path / "a.txt").write_text("one\ntwo\n")
  (tmp_path / "b.jsonl").write_text('{"text": "three"}\n')
  code, shown, errors = launch(
    "experiments.prepare_text", "--name=numbers", f"--data_dir={tmp_path}/data",
    f"--split=train=file:{tmp_path}/a.txt#per=line", f"--split=valid=file:{tmp_path}/b.jsonl",
  )  # fmt: skip
  assert code == 0 and shown.count("\n") == 1 and not errors, errors
  source = shown.strip()
  assert source.startswith("tfds:local_text/numbers_") and source.endswith(";split=train")
  assert sorted(documents(Source.parse(source))) == ["one", "two"]
  assert list(documents(Source.parse(source.replace("=train", "=valid")))) == ["three"]


@pytest.mark.parametrize(
  ("splits", "message"),
  [
    ([], "--split is missing, for example"),
    (["train"], "--split=train is not name=source"),
    (["a=builtin:tinyshakespeare", "a=file:b.txt"], "two of --split are named 'a'"),
  ],
)
def test_a_mistake_costs_one_line(tmp_path, splits, message):
  flags = [f"--split={split}" for split in splits]
  command = ("experiments.prepare_text", "--name=a", f"--data_dir={tmp_path}")
  code, _, errors = launch(*command, *flags)
  assert code == 2 and message in errors and errors.count("\n") == 1, errors
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("split", "content", "message"),
  [
    ("train[:10%]", "x", "a split's name must be of a-z"),
    ("all", "x", "no split may be called 'all'"),
    ("train", "", "the split 'train' would be empty"),
  ],
)
def test_splits_that_could_not_be_opened_are_refused_before_anything_is_written(
  tmp_path, split, content, message
):
  (tmp_path / "a.txt").write_text(content)
  data = tmp_path / "data"
  with pytest.raises(ValueError, match=message):
    prepare("a", {split: f"file:{tmp_path}/a.txt"}, data_dir=str(data))
  with pytest.raises(ValueError, match="data_dir must not contain a ;"):
    prepare("a", {"train": "builtin:tinyshakespeare"}, data_dir=f"{data};x")
  assert not data.exists()
