"""The launchers that make a draft model: texts of the target, and a small model to begin with."""

import json
import shutil

import pytest

from mtjax.data import load_tokenizer
from mtjax.data.trimmed import read_map
from tests import tiny_model
from tests.forked import launch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a tiny model with random weights and the bundled tokenizer."""
  return tiny_model.save(tmp_path_factory.mktemp("model") / "tiny")


def test_answers_that_a_model_writes_are_stored_as_its_tokens(folder, tmp_path):
  chat = tmp_path / "chat"
  shutil.copytree(folder, chat)
  (chat / "chat_template.jinja").write_text("{{ messages[0].content }}<|endoftext|>")
  (tmp_path / "a.txt").write_text("".join(f"Question {n}?\n" for n in range(5)))
  command = (
    "experiments.write_texts", f"--model={chat}", f"--sources=file:{tmp_path}/a.txt#per=line",
    "--prompt_format=chat", "--batch=2", "--prompt_tokens=16", "--max_tokens=6",
  )  # fmt: skip
  out = tmp_path / "written.jsonl"
  code, _, errors = launch(*command, "--texts=4", f"--output={out}")
  assert code == 0, errors
  records = [json.loads(line) for line in out.read_text().splitlines()]
  tokenizer = load_tokenizer(chat)
  questions = [tokenizer.decode(one["ids"][: one["context"]]) for one in records]
  assert len(set(questions)) == 4 and all(text.startswith("Question ") for text in questions)
  for one in records:
    assert one["ids"][one["context"] - 1] == tokenizer.eos_id
    assert one["context"] < len(one["ids"]) <= one["context"] + 6
    assert one["text"] == tokenizer.decode(one["ids"])
  before = out.read_bytes()
  out.write_bytes(before[: len(before) * 3 // 4])
  code, _, errors = launch(*command, "--texts=4", f"--output={out}")
  assert code == 0 and out.read_bytes() == before, errors
  code, _, errors = launch(*command, "--texts=9", f"--output={out}")
  assert code and "the sources hold 5 messages, but --texts=9" in errors


def test_a_small_model_of_frequent_tokens_is_a_draft_model_as_it_is(folder, tmp_path):
  text = tmp_path / "a.txt"
  text.write_text("the cat and the dog and the bird\n" * 9)
  out = tmp_path / "small"
  code, said, errors = launch(
    "experiments.export", f"--model={folder}", f"--output={out}", "--tokens=6", "--layers=1",
    "--mlp_dim=8", f"--vocabulary=file:{text}#per=line",
  )  # fmt: skip
  assert code == 0, errors
  assert "6 tokens are " in said and "100.0%" not in said
  name, ids = read_map(out)
  assert name == str(folder) and len(ids) == 6
  plain, drafted = (
    launch(
      "experiments.decode", f"--config=configs/decode/{method}.py", f"--config.model={folder}",
      "--config.max_tokens=6", "--prompt=the cat and", *more,
    )
    for method, more in (("ar", ()), ("draft", (f"--config.draft_model={out}",)))
  )  # fmt: skip
  assert plain[0] == drafted[0] == 0, drafted[2]
  assert plain[1] == drafted[1]
