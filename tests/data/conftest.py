"""What data tests share: a few short documents in files, and their folder."""

import gzip
import json

import pytest


@pytest.fixture
def folder(tmp_path):
  """books/{a,b}.txt.gz with headers, names.txt, qa.jsonl and qa.jsonl.gz."""
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
