"""The counters of a run: drafts after the end of a text do not count as emitted."""

import dataclasses

import jax
import numpy as np
import pytest

from mtjax.anysubset import Sequential, fill, make_canvas
from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.models import Model
from mtjax.registry import counters
from mtjax.rounds.stop_strings import StopStrings
from tests.draft.drafters import PARAMS, PROMPTS, ROWS, TARGET
from tests.forked import launch

LETTERS = [bytes([97 + token]) for token in range(TARGET.config.vocab_size)]


@pytest.fixture(scope="module")
def free():
  return generate(TARGET, PARAMS, PROMPTS, max_tokens=20).tokens


def ends(texts):
  """Settings with which texts end at every place within a draft."""
  for row, place in ((0, 1), (1, 2), (2, 3), (0, 6)):
    yield dict(eos=(texts[row][place],))
    word = b"".join(LETTERS[token] for token in texts[row][place - 1 : place + 1])
    yield dict(stop=StopStrings.compile([word], LETTERS))
    # The limit of one row alone: the others keep the program's sizes.
    yield dict(max_tokens=[place + 1 if row == r else 20 for r in range(len(texts))])


@pytest.mark.parametrize(
  ("name", "adaptive"),
  [
    pytest.param("the target itself", False, marks=pytest.mark.slow),
    pytest.param("the target itself", True, marks=pytest.mark.slow),
    ("a tree of the target", False),
    ("a tree of the target", True),
    ("lookup, a tree", False),
    pytest.param("lookup, a tree", True, marks=pytest.mark.slow),
  ],
)
def test_accepted_drafts_are_those_that_were_emitted(free, name, adaptive):
  row = ROWS[name]
  method, params = Speculative(row.drafter), row.params
  if adaptive:
    method = Adaptive(method)
    params = method.params(1.0, params)
  cut = 0
  for settings in ends(free):
    settings = dict(max_tokens=20) | settings
    out = generate(TARGET, PARAMS, PROMPTS, method=method, method_params=params, **settings)
    # A round emits its accepted drafts, then a token of the target's own unless the text has ended.
    flags = "".join("d" if draft else " " for own in out.drafted for draft in [*own, False])
    runs = np.array([len(run) for run in flags.split()], int)
    depths = np.arange(1, row.drafter.height + 1)[:, None]
    assert out.counters["accepted_at_depth"] == (runs >= depths).sum(axis=1).tolist()
    assert sum(out.counters["accepted_at_place"]) == runs.sum()
    cut += sum(own[-1] for own in out.drafted)
  assert cut > 0, "no text ended within a draft: this tests nothing"


def test_every_counter_of_a_run_has_a_meaning_and_every_meaning_a_counter():
  seen = set()
  # The first two have their programs from other tests.
  for name in ("lookup, a tree", "a tree of the target", "sorted"):
    row = ROWS[name]
    method = Speculative(row.drafter)
    settings = dict(max_tokens=20, method=method, method_params=row.params)
    seen |= set(generate(TARGET, PARAMS, PROMPTS, **settings).counters)
  plain = set(generate(TARGET, PARAMS, PROMPTS, max_tokens=20).counters)
  assert seen == set(counters.DECODING) and plain < seen

  named = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  model = Model(dataclasses.replace(TARGET.config, **named))
  canvas = make_canvas(model.config, np.array([[1, 0, 2]]), np.array([[False, True, False]]))
  params = model.init(jax.random.key(0))
  assert set(fill(model, params, canvas, method=Sequential()).counters) == set(counters.FILLING)


@pytest.mark.parametrize(
  ("launcher", "legend"), [("decode", counters.DECODING), ("infill", counters.FILLING)]
)
def test_the_launchers_help_has_the_legend(launcher, legend):
  _, shown, errors = launch(f"experiments.{launcher}", "--help")
  for name, meaning in legend.items():
    assert f"  {name.replace('_', ' ')}: {meaning}\n" in shown, errors
