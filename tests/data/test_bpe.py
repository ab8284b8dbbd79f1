"""Training a tokenizer: the sample, the file, the launcher's mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

from mtjax.data import bpe
from mtjax.data.sources.source import Source
from mtjax.data.tokenizers import BpeTokenizer
from tests import forked

CODE = "def f(x):\n    for i in range(10):\n        print(i + 123)\n" * 5


def test_the_file_is_a_tokenizer_of_the_requested_size(tmp_path):
  texts = [CODE, "The quick brown fox jumps over the lazy dog. " * 4]
  bpe.train(texts, vocab_size=300).save(str(tmp_path / "tokenizer.json"))
  tokenizer = BpeTokenizer(tmp_path / "tokenizer.json")
  assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id) == (300, 0, 1)
  assert tokenizer.decode(tokenizer.encode(CODE + "é漢")) == CODE + "é漢"
  assert b"\n    " in tokenizer.token_bytes() and b"12" not in tokenizer.token_bytes()
  assert len(tokenizer.encode("9876")) == 4


@pytest.mark.parametrize(("size", "message"), [(258, "at least 259"), (4096, "give more text")])
def test_impossible_sizes_are_refused(size, message):
  with pytest.raises(ValueError, match=message):
    bpe.train([CODE], vocab_size=size)


def test_a_sample_is_balanced_by_weight(tmp_path):
  for name in "ab":
    (tmp_path / f"{name}.txt").write_text("\n".join([name * 10] * 100))
  sources = [
    Source.parse(f"file:{tmp_path}/a.txt#per=line"),
    Source.parse(f"file:{tmp_path}/b.txt#per=line;weight=3"),
  ]
  a, b = bpe.sample(sources, characters=400, seed=0)
  assert (sum(map(len, a)), sum(map(len, b))) == (110, 310)
  assert bpe.sample(sources, characters=400, seed=0) == [a, b]


def launch(*arguments):
  command = [sys.executable, "-m", "experiments.train_tokenizer", *arguments]
  root = Path(__file__).parents[2]
  return subprocess.run(command, capture_output=True, text=True, cwd=root)


def test_the_launcher_writes_and_reports(tmp_path):
  (tmp_path / "a.txt").write_text(CODE)
  run = launch(
    f"--source=file:{tmp_path}/a.txt", f"--output={tmp_path}/out.json", "--vocab_size=280"
  )
  assert run.returncode == 0, run.stderr
  assert "bytes per token, 1 documents" in run.stderr
  assert BpeTokenizer(tmp_path / "out.json").vocab_size == 280


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--output=x.json"], "--source is missing"),
    (["--source=file:x.txt"], "--output is missing"),
    (["--source=file:no.txt", "--output=no/x.json"], "no folder 'no'"),
    (["--source=file:nothing.txt", "--output=x.json"], "no file matches 'nothing.txt'"),
  ],
)
def test_a_mistake_costs_one_line(arguments, message):
  code, _, errors = forked.launch("experiments.train_tokenizer", *arguments)
  assert code == 2
  assert message in errors and len(errors.strip().split("\n")) == 1
