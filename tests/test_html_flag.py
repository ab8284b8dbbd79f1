"""--html of the launchers: the page of a run, and of what a stopped run had finished."""

import types

import pytest

from mtjax import pretrained
from mtjax.anysubset.infill import Infilling
from mtjax.cli import decode, infill
from mtjax.cli.running import results_file
from mtjax.registry.configs import decode_config
from mtjax.report.history.page import page_of_record
from mtjax.rounds.history import from_json
from tests.evaluate.pages import Reader, Tokens, decode_history, fill_record

flag = types.SimpleNamespace


class StoppedText:
  """A model that is stopped after the prefill and one round."""

  tokenizer = Tokens()

  def stream(self, prompts, *, history, on_record, **settings):
    assert history
    for record in decode_history()[:2]:
      on_record(record)
      yield ["a"]
    raise KeyboardInterrupt


def test_a_stopped_decode_leaves_the_page_of_its_rounds(monkeypatch, tmp_path, capsys):
  path = tmp_path / "run.html"
  monkeypatch.setattr(decode, "_HTML", flag(value=str(path)))
  monkeypatch.setattr(decode, "_HISTORY", flag(value=False))
  monkeypatch.setattr(decode, "_AUDIT", flag(value=False))
  monkeypatch.setattr(decode, "_JUDGE", flag(value=None))
  monkeypatch.setattr(decode, "make_method", lambda config, text, **_: (None, None))
  written = []
  with (
    pytest.raises(KeyboardInterrupt),
    results_file(str(path), dump=lambda record: page_of_record(record).text) as write_page,
  ):
    outputs = decode._Outputs(written.append, write_page)
    decode._decode(decode_config("ar"), StoppedText(), ["a b"], outputs)
  reader = Reader(path.read_text())
  assert "stopped before its end" in path.read_text()
  assert [attrs["data-at"] for attrs, _ in reader.all("span", data_at=...)] == [
    "0.0", "1.0", "1.1", "1.2",
  ]  # fmt: skip
  assert any("Prompt, 2 tokens" in text for _, text in reader.all("details"))
  assert not written and [each.name for each in tmp_path.iterdir()] == ["run.html"]
  assert "holds what was finished before this" in capsys.readouterr().err


def test_a_stopped_fill_leaves_the_page_of_its_passes(monkeypatch, tmp_path):
  path = tmp_path / "run.html"
  fields = fill_record()

  def results(*_, **__):
    yield Infilling(
      text="", blanks=[], tokens=fields["tokens"], is_target=fields["is_target"],
      decided_at=[0, 1, 0, 0, 0], drafted=[False] * 5, lengths=(3,), counters={},
      history=from_json(fields["history"][:1]),
    )  # fmt: skip
    raise KeyboardInterrupt

  model = flag(tokenizer=Tokens())
  monkeypatch.setattr(infill, "_results", results)
  monkeypatch.setattr(pretrained, "load_pretrained", lambda name, **_: model)
  monkeypatch.setattr(pretrained, "for_decoding", lambda model: model)
  infill.VALUES(["infill", "--text=a ___", f"--html={path}"])
  try:
    with pytest.raises(KeyboardInterrupt):
      infill.run()
  finally:
    infill.VALUES.unparse_flags()
    for name in ("text", "html"):
      infill.VALUES[name].unparse()
  shown = Reader(path.read_text())
  assert len(shown.all("span", data_entry=...)) == 1 and "stopped before" in path.read_text()
  assert [text for _, text in shown.all("h1")] == ["self of anysubset"]
