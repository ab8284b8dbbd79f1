"""Files of other systems: byte order marks, halves of characters, JSON that has no end."""

import gzip
import io

import pytest

from mtjax.cli.prompts import read_prompts
from mtjax.data.sources.read import documents
from mtjax.data.sources.source import Source
from mtjax.data.sources.text_files import (
  parse_json,
  read_object,
  read_records,
  read_text,
  whole_text,
)
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer

MARK = b"\xef\xbb\xbf"
HALF = rb'{"prompt": "smile \ud83d", "text": "smile \ud83d"}'
DEEP = b"[" * 100_000


def put(path, content):
  with (gzip.open if path.suffix == ".gz" else open)(path, "wb") as file:
    file.write(content)
  return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
  file = put(tmp_path / name, MARK + b"The old\n")
  assert read_text(file) == "The old\n"
  assert list(documents(Source.parse(f"file:{file}"))) == ["The old\n"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_may_begin_with_the_mark(tmp_path, name):
  # The second mark is where two such files were joined.
  lines = [MARK + b'{"prompt": "one", "text": "one"}', MARK + b'{"prompt": "two", "text": "two"}']
  file = put(tmp_path / name, b"\r\n".join([*lines, b""]))
  assert [record["text"] for _, record in read_records(file, ["text"])] == ["one", "two"]
  assert list(documents(Source.parse(f"file:{file}"))) == ["one", "two"]
  assert read_prompts([], str(file)) == ["one", "two"]


def test_a_json_file_may_begin_with_the_mark(tmp_path):
  assert read_object(put(tmp_path / "a.json", MARK + b'{"a": 1}')) == {"a": 1}
  assert read_object(tmp_path / "none.json") == {}


def test_a_pipe_may_begin_with_the_mark(monkeypatch):
  monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffThe old\n"))
  assert read_prompts([], None) == ["The old"]


def test_half_a_character_is_refused_with_its_line(tmp_path):
  file = put(tmp_path / "a.jsonl", b"\n" + HALF)
  readers = [
    lambda: list(read_records(file, ["text"])),
    lambda: list(documents(Source.parse(f"file:{file}"))),
    lambda: read_prompts([], str(file)),
  ]
  for read in readers:
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: character 6 is U\+D83D"):
      read()


def test_a_whole_pair_is_one_character():
  assert whole_text(parse_json(r'"\ud83d\ude00"', "here"), "here") == "\N{GRINNING FACE}"


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BpeTokenizer.bundled()])
def test_half_a_character_has_no_tokens(tokenizer):
  for encode in (tokenizer.encode, lambda text: tokenizer.encode_documents([text])):
    with pytest.raises(ValueError, match=r"character 1 is U\+DE00, half of a surrogate pair"):
      encode("a\ude00")


def test_json_without_an_end_is_refused_with_its_place(tmp_path):
  file = put(tmp_path / "a.jsonl", DEEP)
  with pytest.raises(ValueError, match=r"a\.jsonl, line 1: JSON that is nested too deeply"):
    list(documents(Source.parse(f"file:{file}")))
  with pytest.raises(ValueError, match=r'a\.jsonl, line 1: not \{"prompt"'):
    read_prompts([], str(file))
  with pytest.raises(ValueError, match=r"a\.jsonl, line 1: no JSON record"):
    list(read_records(file, ["text"]))
  with pytest.raises(ValueError, match=r"a\.jsonl: JSON that is nested too deeply"):
    read_object(file)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_file_that_is_no_json_object_is_named(tmp_path, content):
  with pytest.raises(ValueError, match=r"a\.json"):
    read_object(put(tmp_path / "a.json", content))
