"""The loop of a chat: its replies, history, compilations, and how it is interrupted."""

import dataclasses
import io
import json
import signal

import pytest

import mtjax
from mtjax.cli.chat import loop
from mtjax.cli.chat.reply import interruptible
from mtjax.data.tokenizers import load_tokenizer
from mtjax.decode import prefix
from mtjax.decode.method import Autoregressive
from mtjax.registry.build import run_settings
from mtjax.registry.configs import decode_config
from mtjax.rounds import run as run_lib
from tests.forked import launch

QUESTIONS = ["one two one two", "three one two", " /and four", "one two three"]


@pytest.fixture(scope="module")
def text(chat_folder):
  return mtjax.load(str(chat_folder), weights="float32")


def config_for(method, **settings):
  config = decode_config(method)
  config.update(max_tokens=12, **settings)
  return config


def talk(text, config, lines, monkeypatch, capsys, tmp_path):
  """Returns the messages after a chat from a pipe, what stdout shows, and what stderr shows."""
  file = tmp_path / "talk.json"
  monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, f"/save {file}", ""])))
  loop.converse(config, text)
  shown = capsys.readouterr()
  return json.loads(file.read_text()), shown.out, shown.err


@pytest.fixture
def said(text, monkeypatch, capsys, tmp_path):
  return lambda config, lines: talk(text, config, lines, monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize(("method", "temperature"), [("ar", 0.0), ("lookup", 0.0), ("lookup", 0.9)])
def test_replies_are_those_of_plain_decoding_of_the_history(text, said, method, temperature):
  config = config_for(method, temperature=temperature, seed=7)
  messages, shown, told = said(config, ["/system be brief", *QUESTIONS])
  settings = run_settings(config)
  expected = [dict(role="system", content="be brief")]
  for number, question in enumerate(QUESTIONS):
    expected.append(dict(role="user", content=question.strip()))
    prompt = text.tokenizer.encode_chat(expected)
    (completion,), _ = text.generate([prompt], **{**settings, "key": 7 + number})
    expected.append(dict(role="assistant", content=completion.text))
  assert messages == expected
  assert shown == "".join(m["content"] + "\n" for m in expected if m["role"] == "assistant")
  figures = [line for line in told.splitlines() if "tokens per forward" in line]
  assert len(figures) == len(QUESTIONS) and "tokens per second" in figures[0]
  assert figures[-1].startswith("[12 tokens, ") and "ended by --config.max_tokens" in figures[-1]


def test_a_chat_that_grows_is_planned_for_longer_contexts(said, text, monkeypatch):
  contexts = []

  def plan(config, target, batch, drafters):
    contexts.append(config["plan"]["context"])
    return Autoregressive(), None

  monkeypatch.setattr("mtjax.registry.by_name.make_planned", plan)
  config = config_for("lookup", tree="auto")
  config.plan.context = 16
  messages, _, _ = said(config, QUESTIONS)
  sizes = [len(text.tokenizer.encode_chat(messages[:n])) + 12 for n in range(1, len(messages), 2)]
  needed = [max(16, 1 << (size - 1).bit_length()) for size in sizes]
  assert contexts == list(dict.fromkeys([16, *needed])) and len(contexts) > 1


def test_earlier_turns_are_neither_computed_nor_compiled_again(text, said, monkeypatch):
  counts, known = [], []
  cache_for = prefix.Prefix.cache_for

  def observed(self, model, prompt, capacity):
    counts.append([program._cache_size() for program in (run_lib.begin, run_lib.advance)])
    known.append((self.common(prompt), len(prompt)))
    return cache_for(self, model, prompt, capacity)

  monkeypatch.setattr(prefix.Prefix, "cache_for", observed)
  said(config_for("lookup", stop=("never",)), QUESTIONS)  # stop strings: programs of its own
  first, *later = counts
  assert [n + 1 for n in first] == later[0] == later[1] == later[2]
  assert known[0][0] == 0
  for (_, before), (common, _) in zip(known, known[1:], strict=False):
    assert common >= before - 1, "the question before was known but for its last token"


def test_the_user_is_told_when_turns_are_left_out(text, said):
  lines = ["/system be brief", *[f"{i} " + "cat dog " * 30 for i in range(5)]]
  messages, _, told = said(config_for("ar"), lines)
  assert len(messages) == 11, "what is left out is saved all the same"
  left_out = [line for line in told.splitlines() if "no longer fits the model's 256" in line]
  assert left_out and "left out from here on: the oldest 1 turn" in left_out[0]
  with pytest.raises(ValueError, match="this message has .* the model has 256 positions: write le"):
    said(config_for("ar"), ["cat " * 300])


def test_ctrl_c_ends_the_reply_and_keeps_what_was_written(text, said, monkeypatch):
  whole, _, _ = said(config_for("ar"), QUESTIONS[:2])
  pieces = []

  def write(piece):
    pieces.append(piece)
    if len(pieces) == 3:
      signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr(loop, "_write", write)
  known, cache_for = [], prefix.Prefix.cache_for
  monkeypatch.setattr(
    prefix.Prefix,
    "cache_for",
    lambda self, *rest: known.append(self.tokens) or cache_for(self, *rest),
  )
  messages, _, told = said(config_for("ar"), QUESTIONS[:2])
  assert messages[1]["content"] == "".join(pieces[:3])
  assert whole[1]["content"].startswith(messages[1]["content"]) and len(pieces) > 4
  assert "[interrupted; what was written is kept]" in told
  first, prompt = (text.tokenizer.encode_chat(messages[:n]) for n in (1, 3))
  assert known[1][: len(first)] == tuple(first), "what was read is known, too"
  (completion,), _ = text.generate([prompt], **{**run_settings(config_for("ar")), "key": 1})
  assert messages[3]["content"] == completion.text


def test_ctrl_c_twice_ends_the_program():
  before = signal.getsignal(signal.SIGINT)
  with pytest.raises(KeyboardInterrupt), interruptible() as interrupted:
    signal.raise_signal(signal.SIGINT)
    assert interrupted()
    signal.raise_signal(signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is before


def test_exit_ends_the_chat_and_what_follows_is_not_read(text, monkeypatch, capsys):
  lines = io.StringIO("\ufeff/help\n\n/exit\none\n")
  monkeypatch.setattr("sys.stdin", lines)
  loop.converse(config_for("ar"), text)
  shown = capsys.readouterr()
  assert shown.out == "" and "/system TEXT" in shown.err and lines.read() == "one\n"


def test_a_mistake_ends_a_script_but_not_a_chat(text, monkeypatch, capsys):
  lines = io.StringIO("/load no-such-file\none\n")
  monkeypatch.setattr("sys.stdin", lines)
  with pytest.raises(FileNotFoundError, match="no-such-file"):
    loop.converse(config_for("ar"), text)

  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setattr("sys.stdin", Terminal("/load no-such-file\n/qui\n/exit\n"))
  loop.converse(config_for("ar"), text)
  told = capsys.readouterr().err
  assert "mtjax: there is no file 'no-such-file'" in told and "there is no command /qui" in told


@pytest.mark.parametrize("name", ["target", "bytes"])
def test_a_model_without_a_template_is_refused_before_anything_is_compiled(name, text, monkeypatch):
  tokenizer = load_tokenizer("bytes" if name == "bytes" else "bundled")
  before = [program._cache_size() for program in (run_lib.begin, run_lib.whole)]
  with pytest.raises(ValueError, match=f"'{name}' has no chat template.*--config.model=smollm2"):
    loop.converse(config_for("auto"), dataclasses.replace(text, name=name, tokenizer=tokenizer))
  assert [program._cache_size() for program in (run_lib.begin, run_lib.whole)] == before


def test_the_launcher_reads_lines_and_keeps_the_history(chat_folder, tmp_path):
  talk = tmp_path / "talk.json"
  chat = ("experiments.decode", "--chat", "--config=lookup", "--config.max_tokens=6")
  model = f"--config.model={chat_folder}"
  code, shown, errors = launch(*chat, model, text=f"hello\nand again\n/save {talk}\n")
  assert code == 0, errors
  messages = json.loads(talk.read_text())
  assert [m["content"] for m in messages[::2]] == ["hello", "and again"]
  assert shown == "".join(m["content"] + "\n" for m in messages[1::2])
  assert errors.count("tokens per forward") == 2 and errors.count("compiling") == 1
  code, shown, errors = launch(*chat, "--config.model=target", text="hello\n")
  assert code == 2 and not shown and "'target' has no chat template, which --chat" in errors
  code, _, errors = launch(*chat, model, "--prompt=a", "--compare=ar,lookup")
  assert code == 2 and "with --chat, --prompt and --compare would do nothing" in errors
