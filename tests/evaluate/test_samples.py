"""Texts of any system are read from files, and judged by several models with their entropy."""

import gzip
import json

import pytest

from mtjax.evaluate.generative import TextQuality, judge_texts, load_judge
from mtjax.evaluate.samples import Sample, read_samples
from mtjax.report import results
from tests import tiny_model
from tests.forked import launch


def write(path, records):
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return path


def test_a_file_of_text_is_one_sample(tmp_path):
  path = tmp_path / "a.txt.gz"
  path.write_bytes(gzip.compress(b"one\ntwo\n"))
  assert read_samples(path) == {"a.txt.gz": [Sample("one\ntwo\n")]}


def test_json_lines_have_texts_lists_of_texts_and_prompts(tmp_path):
  records = [
    dict(text="a", answer="not this one"),
    dict(completion="b", prompt="before"),
    dict(answers=["c", "d"], prompt="p"),
    dict(output="e"),
    dict(answers=["f", "g"], prompts=["p", "q"]),
  ]
  (samples,) = read_samples(write(tmp_path / "a.jsonl", records)).values()
  assert samples == [
    Sample("a"), Sample("b", "before"), Sample("c", "p"), Sample("d", "p"), Sample("e"),
    Sample("f", "p"), Sample("g", "q"),
  ]  # fmt: skip


def test_records_of_mtjax_are_kept_apart_by_method_and_their_settings_are_no_text(tmp_path):
  records = [
    dict(params_crc32=3, model="masked"),
    dict(task="mbpp", method="llada", answers=["a"]),
    dict(task="mbpp", method="block", answers=["b"]),
    dict(task="mbpp", method="llada", answers=["c"]),
    dict(order="lattice", answer="d"),
  ]
  assert read_samples(write(tmp_path / "a.jsonl", records)) == {
    "a.jsonl mbpp llada": [Sample("a"), Sample("c")],
    "a.jsonl mbpp block": [Sample("b")],
    "a.jsonl lattice": [Sample("d")],
  }


@pytest.mark.parametrize(
  ("record", "message"),
  [
    (dict(words="a"), "line 1: a record must have a text, .* in one of text, answer, .* has words"),
    (dict(text=3), "line 1: a record must have a text"),
    (dict(answers=["a", 3]), "line 1: a record must have a text"),
    (dict(answers=["a", "b"], prompts=["p"]), "line 1: prompts must .* one prompt for each of 2"),
    (dict(text="a", prompt=3), "line 1: prompt must be a text, got int"),
    (dict(text="\ud83d"), "line 1: character 0 is U[+]D83D, half of a surrogate"),
    (dict(text=""), "holds no text to judge"),
  ],
)
def test_other_files_are_refused_with_the_line(tmp_path, record, message):
  with pytest.raises(ValueError, match=message):
    read_samples(write(tmp_path / "a.jsonl", [record]))


def test_the_command_judges_every_file_by_every_judge_with_its_entropy(tmp_path):
  out, table = tmp_path / "out.json", tmp_path / "table.json"
  plain = tmp_path / "plain.txt"
  plain.write_text("The old clock struck nine.")
  mine = write(tmp_path / "mine.jsonl", [dict(text="0000"), dict(text="two words", prompt="a b")])
  records = [dict(method="silent", answers=["", ""]), dict(method="other", answers=["two"])]
  some = write(tmp_path / "some.jsonl", records)
  judges = [str(tiny_model.save(tmp_path / name)) for name in ("one", "two")]
  code, shown, errors = launch(
    "experiments.evaluate", "--task=generative_perplexity", f"--data={plain},{mine},{some}",
    f"--judge={','.join(judges)}", f"--output={out}", f"--results={table}",
  )  # fmt: skip
  assert code == 0, errors
  assert "gen. perplexity" in shown and "entropy" in shown and "mine.jsonl" in shown
  found = json.loads(out.read_text())["texts"]
  names = ["plain.txt", "mine.jsonl", "some.jsonl silent", "some.jsonl other"]
  assert list(found) == judges and list(found[judges[0]]) == names
  judged = judge_texts(load_judge(judges[1]), ["0000", "two words"], ["", "a b"])
  quality, got = TextQuality.of(judged), found[judges[1]]["mine.jsonl"]
  assert got["perplexity"] == pytest.approx(quality.perplexity, rel=1e-5)
  assert (got["entropy"], got["texts"]) == (quality.entropy, 2)
  assert got["tokens"] == sum(one.tokens for one in judged)
  silent = dict(found[judges[0]][names[2]])
  assert len(silent.pop("judged")) == silent.pop("texts") == 2 and silent.pop("tokens") == 0
  assert silent == dict(perplexity=None, bits_per_byte=None, entropy=None)
  record = json.loads(table.read_text())
  assert record["benchmark"] == "generative_perplexity"
  (shown_table,) = results.tables(record)
  assert tuple(shown_table.rows[2]) == (names[2], judges[0], "-", "-", "-", "2", "0")
  code, _, errors = launch(
    "experiments.evaluate", "--task=generative_perplexity", f"--data={plain},{plain}",
  )  # fmt: skip
  assert code == 2 and "two files are named 'plain.txt'" in errors, errors
  code, _, errors = launch(
    "experiments.evaluate", "--task=generative_perplexity", f"--data={plain}",
    f"--judge={judges[0]},targt",
  )  # fmt: skip
  assert code == 2 and "there is no model 'targt'" in errors and "judging" not in errors, errors
