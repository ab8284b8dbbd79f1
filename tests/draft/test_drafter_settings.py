"""Settings of drafters: each has one default, a field of its config, and a flag that changes it."""

import importlib
import sys
from unittest import mock

import pytest
from absl import flags
from ml_collections import config_flags

from configs.decode import auto, drafter
from mtjax.cli.method_names import config_of
from mtjax.draft import Jacobi, PromptLookup, Recycling
from mtjax.registry.drafters import Entry, of_settings
from mtjax.registry.methods import DRAFTERS, METHODS, drafter_settings, get_drafter
from mtjax.registry.rows import MethodRow
from mtjax.text import TextModel
from mtjax.trees.named import PUBLISHED, get_topology
from mtjax.types import Exactness
from tests.draft.drafters import PARAMS, TARGET, VOCAB
from tests.draft.letters import Letters


def parsed(file, *overrides):
  """Returns what a launcher reads from --config=FILE and --config.NAME=VALUE."""
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True)
  line = ["launcher", f"--config={file}", *(f"--config.{each}" for each in overrides)]
  with mock.patch.object(sys, "argv", line):  # where config_flags looks for overrides
    values(line)
  return holder.value


def other(value):
  """Another value of the same kind, and how a command line writes it."""
  if isinstance(value, str):
    return "another", "another"
  if isinstance(value, tuple):
    return (2, 1), "(2,1)"
  return value + 1, str(value + 1)


@pytest.mark.parametrize("name", DRAFTERS)
def test_every_setting_of_every_drafter_is_a_flag(name):
  defaults = drafter_settings(name)
  assert defaults, "a drafter without settings: say so here"
  changed = {field: other(value) for field, value in defaults.items()}
  overrides = [f"drafter.{field}={text}" for field, (_, text) in changed.items()]
  found = parsed(f"configs/decode/drafter.py:{name}", *overrides)
  assert found.method == name
  assert found.drafter.to_dict() == {field: value for field, (value, _) in changed.items()}
  assert parsed(f"configs/decode/drafter.py:{name}").drafter.to_dict() == defaults


def test_what_a_flag_sets_is_what_decodes():
  target = TextModel(TARGET, PARAMS, Letters("abcdefghijkl"))
  for name, override, wanted in (
    ("lookup", "length=4", PromptLookup(length=4)),
    ("recycling", "tree=5", Recycling(VOCAB, tree=5)),
    ("jacobi", "ngram=4", Jacobi(ngram=4)),
  ):
    config = parsed(f"configs/decode/drafter.py:{name}", f"drafter.{override}")
    assert DRAFTERS[name](config.to_dict(), target)[0] == wanted
    config = config_of(f"{name}:{override}")
    assert DRAFTERS[name](config, target)[0] == wanted


@pytest.mark.parametrize("name", [name for name in METHODS if name in DRAFTERS])
def test_the_config_of_a_method_has_the_drafters_own_defaults(name):
  path = METHODS[name].config
  module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
  of_any = path == "configs/decode/drafter.py"
  found = module.get_config(*[name] * of_any).drafter.to_dict()
  assert found == dict(DRAFTERS[name].settings) | METHODS[name].settings
  assert name == "self_sorted" or not METHODS[name].settings, "one default, the drafter's own"


def test_any_drafter_may_be_the_one_that_speculates_while_it_pays():
  assert auto.get_config().drafter.to_dict() == drafter_settings("lookup")
  config = parsed("configs/decode/auto.py:trie", "drafter.size=6")
  assert config.of == "trie" and config.drafter.to_dict() == drafter_settings("trie") | dict(size=6)


def test_a_drafter_of_ones_own_has_its_settings_too(monkeypatch):
  def echo(length: int = 3, word: str = "a"):
    return length, word

  row = MethodRow("", "", Exactness.LOSSLESS, "", drafter=of_settings(echo))
  monkeypatch.setitem(METHODS, "echo", row)
  config = drafter.get_config("echo")
  assert config.drafter.to_dict() == dict(length=3, word="a")
  config.drafter.length = 5
  assert get_drafter("echo")(config.to_dict(), None) == ((5, "a"), None)


def test_mistakes_are_named():
  with pytest.raises(ValueError, match="has no setting long and lenth; it has: length, "):
    DRAFTERS["lookup"](dict(drafter=dict(long=1, length=2, lenth=3)), None)
  with pytest.raises(ValueError, match="has no setting a; it has: none"):
    Entry({}, lambda config, target: (None, None))(dict(drafter=dict(a=1)), None)
  with pytest.raises(ValueError, match="drafter 'magic' is not one of: .*lookup, "):
    drafter_settings("magic")


def test_a_tree_may_be_named_on_a_command_line():
  config = parsed("configs/decode/draft_tree.py", "drafter.topology=medusa_63")
  assert get_topology(config.drafter.topology) == PUBLISHED["medusa_63"]
