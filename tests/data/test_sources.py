"""Source strings: the texts that they read, and the messages for mistakes."""

import gzip

import pytest

from mtjax.data.sources.read import documents, fingerprint
from mtjax.data.sources.source import Source


def read(text):
  return list(documents(Source.parse(text)))


def test_books_begin_after_their_header_and_line_ends_are_one_character(folder):
  texts = read(f"file:{folder}/books/*.txt.gz#header=-------")
  assert texts == ["Text of a.\nEnd.", "Text of b.\nEnd."]


def test_without_the_option_a_header_is_text(folder):
  assert read(f"file:{folder}/books/a.txt.gz")[0].startswith("# Title: a\n-------\n")


def test_one_document_per_line(folder):
  assert read(f"file:{folder}/names.txt#per=line") == ["emma", "olivia"]


@pytest.mark.parametrize("name", ["qa.jsonl", "qa.jsonl.gz"])
def test_several_keys_in_a_format_and_lines_that_end_at_newlines_only(folder, name):
  texts = read(f"file:{folder}/{name}#text_key=Q: {{question}}\\nA: {{answer}}")
  assert texts == ["Q: 1+1?\nA: 2", "Q: é\u2028?\nA: 漢"]


@pytest.mark.parametrize(("split", "size"), [("train", 1_003_854), ("valid", 55_770)])
def test_tinyshakespeare_comes_with_mtjax(split, size):
  (text,) = read(f"builtin:tinyshakespeare#split={split}")
  assert len(text) == size


def test_options_and_the_string_make_the_same_source():
  text = "file:a.txt#header=---;per=line;weight=2.5"
  assert Source.parse(text) == Source("file:a.txt", header="---", per="line", weight=2.5)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("books/*.txt", "is none of: file:"),
    ("http:x", "is none of: file:"),
    ("file:", "is none of: file:"),
    ("file:a.txt#split=valid", "file: takes text_key, ids_key, header, per, weight; not split"),
    ("tfds:lm1b#per=line", "tfds: takes text_key, split, data_dir, download, weight; not per"),
    ("file:a.txt#haeder=-", "'haeder=-' is not key=value of: data_dir"),
    ("file:a.txt#per", "'per' is not key=value"),
    ("file:a.txt#per=word", "per must be"),
    ("file:a.txt#weight=0", "must be above 0"),
    ("file:a.txt#weight=big", "weight cannot be 'big'"),
    ("tfds:lm1b#download=perhaps", "download cannot be 'perhaps'"),
    ("builtin:war_and_peace", "there is: tinyshakespeare"),
    ("builtin:tinyshakespeare#split=dev", "it has: t"),
    ("file:{folder}/qa.jsonl", "qa.jsonl, line 1: no key 'text'; there is: question, answer"),
    ("file:{folder}/qa.jsonl#text_key={question} {text}", "no key 'text'"),
    ("file:{folder}/books/*.gz#header=====", "has no header: no line is '===='"),
    ("file:{folder}/numbers.jsonl", "line 2: 'text' holds int, not text"),
    ("file:{folder}/broken.jsonl", "line 1: not JSON"),
    ("file:{folder}/list.jsonl", "line 1: it must be an object"),
    ("file:{folder}/latin.txt", "cannot be read as UTF-8"),
    ("file:{folder}/cut.txt.gz", "cannot be read as UTF-8 text"),
    ("file:{folder}/damaged.txt.gz", "cannot be read as UTF-8 text"),
    ("file:{folder}/table.csv", r"must end in one of: .txt, .txt.gz, .jsonl, .jsonl.gz"),
  ],
)
def test_a_mistake_is_named(folder, text, message):
  (folder / "numbers.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')
  (folder / "broken.jsonl").write_text("{text\n")
  (folder / "list.jsonl").write_text("[1]\n")
  (folder / "latin.txt").write_bytes("é".encode("latin-1"))
  (folder / "cut.txt.gz").write_bytes(gzip.compress(b"abc" * 100)[:-12])
  whole = gzip.compress(b"abc" * 100)
  (folder / "damaged.txt.gz").write_bytes(whole[:10] + b"\xff" * 4 + whole[14:])
  (folder / "table.csv").write_text("a,b")
  with pytest.raises(ValueError, match=message):
    read(text.replace("{folder}", str(folder)))


def test_no_file_is_an_error(folder):
  with pytest.raises(FileNotFoundError, match=r"no file matches .*nothing\*"):
    read(f"file:{folder}/nothing*")


def test_the_fingerprint_is_of_the_content_not_of_the_place(folder):
  text = f"file:{folder}/names.txt"
  before = fingerprint(Source.parse(text))
  moved = folder / "elsewhere"
  moved.mkdir()
  (moved / "names.txt").write_bytes((folder / "names.txt").read_bytes())
  assert fingerprint(Source.parse(f"file:{moved}/names.txt#weight=3")) == before
  assert fingerprint(Source.parse(text + "#per=line")) != before
  (moved / "names.txt").write_text("ava\n")
  assert fingerprint(Source.parse(f"file:{moved}/names.txt")) != before
