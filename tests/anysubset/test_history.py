"""The history of a fill: pass by pass it gives the canvas, and the probability of what it holds."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset import fill, log_likelihood, make_canvas, stream
from mtjax.anysubset.filling.confidence import Confidence
from mtjax.anysubset.filling.methods import SelfDraft
from mtjax.rounds.history import from_json, to_json
from mtjax.sampling.logits import Sampling

TEXT = np.array([[1, 0, 2, 2, 0, 1], [0, 0, 1, 2, 1, 1]])
IS_TARGET = np.array(
  [[True, False, True, True, False, True], [False, False, True, True, False, False]]
)
SETTINGS = dict(sampling=Sampling(temperature=0.9), key=5)


def passes_of(history, row):
  return [one for record in history for one in record.rows[row] or ()]


@pytest.fixture(scope="module")
def canvas(tiny):
  return make_canvas(tiny[0].config, TEXT, IS_TARGET)


@pytest.mark.parametrize("method", [SelfDraft(3), Confidence(per_pass=2)])
def test_passes_one_after_the_other_fill_the_canvas(tiny, canvas, method):
  model, params = tiny
  plain = fill(model, params, canvas, method=method, **SETTINGS)
  found = fill(model, params, canvas, method=method, **SETTINGS, history=True)
  assert plain.history is None
  np.testing.assert_array_equal(found.token, plain.token)
  for row in range(2):
    token, decided_at = np.array(canvas.token[row]), np.zeros(canvas.size, int)
    drafted = np.zeros(canvas.size, bool)
    for number, one in enumerate(passes_of(found.history, row), 1):
      assert one.number == number and len(one.entries) >= 1
      assert not decided_at[list(one.entries)].any(), "an entry is decided once"
      token[list(one.entries)], decided_at[list(one.entries)] = one.tokens, number
      drafted[list(one.entries)] = one.drafted
    np.testing.assert_array_equal(token, plain.token[row])
    np.testing.assert_array_equal(decided_at, plain.decided_at[row])
    np.testing.assert_array_equal(drafted, plain.drafted[row])
  assert all(second > 0 for record in found.history for second in record.seconds.values())
  assert from_json(to_json(found.history)) == found.history


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_log_probabilities_are_those_of_the_finished_text(tiny, canvas, temperature):
  """Each entry's own, at temperature 1, given the context and what comes before it in the order.

  Those of greedy filling are the same, for its own distribution would say 1 of every token.
  """
  model, params = tiny
  settings = dict(SETTINGS, sampling=Sampling(temperature=temperature, top_k=2))
  if temperature:
    settings["sampling"] = Sampling(temperature=temperature)
  found = fill(model, params, canvas, method=SelfDraft(3), **settings, history=True)
  finished = canvas.replace(token=jnp.asarray(found.token))
  expected = np.asarray(log_likelihood(model, params, finished))
  own = np.zeros(expected.shape)
  for row in range(2):
    for one in passes_of(found.history, row):
      own[row, list(one.entries)] = one.log_probs
  np.testing.assert_allclose(own, expected, atol=1e-4)
  assert (own[np.asarray(canvas.is_target)] < 0).all()


def test_a_stream_has_the_history_so_far(tiny, canvas):
  model, params = tiny
  rounds = list(stream(model, params, canvas, method=SelfDraft(3), **SETTINGS, history=True))
  for number, found in enumerate(rounds, 1):
    assert len(found.history) == number
    for row in range(2):
      decided = {entry for one in passes_of(found.history, row) for entry in one.entries}
      assert decided == set(np.flatnonzero(found.decided_at[row]).tolist())
