"""--method of the launchers that fill: a name, settings after it, and --window."""

import pytest
from absl import flags

from mtjax.anysubset import Confidence, Fused, SelfDraft, Sequential
from mtjax.cli.method_names import config_of, fill_method_of
from mtjax.registry.fill_methods import FillEntry


def parsed(*line):
  """Returns the fill method that a launcher makes of a command line."""
  values = flags.FlagValues()
  method = flags.DEFINE_string("method", "self", "", flag_values=values)
  window = flags.DEFINE_integer("window", 4, "", flag_values=values)
  values(["launcher", *line])
  return fill_method_of(method, window)


@pytest.mark.parametrize(
  ("line", "method"),
  [
    ([], SelfDraft(4)),
    (["--method=fused", "--window=2"], Fused(2)),
    (["--method=self:bonus=False:verifier=block"], SelfDraft(4, False, "block")),
    (["--method=self:window=8"], SelfDraft(8)),
    (["--method=confidence", "--window=3"], Confidence(per_pass=3)),
    (["--method=confidence:criterion=entropy:per_pass=2"], Confidence("entropy", 2)),
    (["--method=sequential"], Sequential()),
  ],
)
def test_settings_follow_the_name(line, method):
  assert parsed(*line) == method


@pytest.mark.parametrize(
  ("line", "message"),
  [
    (["--method=magic"], "fill method 'magic' is not one of: sequential, self, fused, once, ngram"),
    (["--method=lookup"], "method 'lookup' decodes: mtjax-decode takes it, as --config=lookup"),
    (["--method=self:widow=8"], "fill method has no setting widow; it has: window, bonus, verif"),
    (["--method=self:window=a"], "window must be a whole number, got 'a'"),
    (["--method=self:window=True"], "window must be a whole number, got True"),
    (["--method=self:bonus=no"], "bonus must be True or False, got 'no'"),
    (["--method=self:window=0"], "window must be at least 1, got 0"),
    (["--method=self:verifier=traversal"], "verifier must be one of"),
    (["--method=sequential", "--window=3"], "with --method=sequential, --window would do nothing"),
    (["--method=self:window=8", "--window=8"], "--window would do nothing"),
  ],
)
def test_mistakes_are_named(line, message):
  with pytest.raises(ValueError, match=message):
    parsed(*line)


def test_a_row_whose_window_is_no_setting_is_refused():
  with pytest.raises(
    ValueError, match="is 'window', and this .* no such setting .*: it has criterion, per"
  ):
    FillEntry(Confidence)


def test_settings_of_decoding_are_read_alike():
  config = config_of("lookup:length=5:temperature=0.5:model=a/b:stop=('x',)")
  assert config["drafter"]["length"] == 5 and config["temperature"] == 0.5
  assert config["model"] == "a/b" and config["stop"] == ("x",)
