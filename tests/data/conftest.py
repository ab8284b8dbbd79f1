"""Fixtures of the data tests: a few short documents in files, and imported folders."""

import gzip
import json

import pytest

from mtjax.data.token_bytes import letters


@pytest.fixture
def folder(tmp_path):
  """Returns a folder: books/{a,b}.txt.gz with headers, names.txt, qa.jsonl and qa.jsonl.gz."""
  books = tmp_path / "books"
  books.mkdir()
  for name in "ab":
    with gzip.open(books / f"{name}.txt.gz", "wb") as file:
      file.write(f"# Title: {name}\r\n-------\r\n\r\nText of {name}.\r\nEnd.\r\n".encode())
  (tmp_path / "names.txt").write_text("emma\n\nolivia\n")
  records = [dict(question="1+1?", answer="2"), dict(question="é\u2028?", answer="漢")]
  lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n"
  (tmp_path / "qa.jsonl").write_text(lines, encoding="utf-8")
  with gzip.open(tmp_path / "qa.jsonl.gz", "wb") as file:
    file.write(lines.encode())
  return tmp_path


@pytest.fixture
def imported(tmp_path):
  """Makes an imported model's folder: a byte-level tokenizer.json, and JSON files by their name.

  Ids 0 to 255 are the bytes, `special` follow.
  """
  import tokenizers

  def make(*special, **files):
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=letters(), merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False, use_regex=False
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(list(special))
    folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
      (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder

  return make
