"""Settings of one distribution have one name, however their numbers are written."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.sampling.canonical import canonical_sampling, sampling_name
from mtjax.sampling.logits import Sampling


@pytest.mark.parametrize(
  ("settings", "same"),
  [
    (dict(temperature=1.0), [dict(temperature=one) for one in (1, np.float32(1), jnp.ones(2))]),
    (dict(temperature=0.7), [dict(temperature=np.float32(0.7)), dict(temperature=[0.7, 0.7])]),
    (
      dict(temperature=1.0, top_k=5),
      [dict(temperature=1, top_k=np.int64(5), top_p=1, min_p=0.0, logit_bias={})],
    ),
    (
      dict(logit_bias={2: 1.0, 7: -np.inf}, repetition_penalty=1.5),
      [dict(logit_bias={7: -np.inf, 3: 0, 2: np.float32(1)}, repetition_penalty=1.5, top_p=0.9)],
    ),
    (dict(temperature=(0.0, 1.0), top_p=0.5), [dict(temperature=np.arange(2.0), top_p=[0.5] * 2)]),
  ],
)
def test_settings_of_one_distribution_are_equal(settings, same):
  plain = Sampling(**settings)
  assert canonical_sampling(plain) == plain
  for other in same:
    assert sampling_name(Sampling(**other)) == sampling_name(plain) == repr(plain)


def test_greedy_settings_have_no_filters():
  greedy = [Sampling(temperature=0, top_p=0.9, top_k=3), Sampling(min_p=[0.1, 0.2]), Sampling()]
  assert [canonical_sampling(one) for one in (None, *greedy)] == [None] * 4
  assert {sampling_name(one) for one in (None, *greedy)} == {"greedy"}


def test_other_distributions_have_other_names():
  others = [
    dict(temperature=1.0),
    dict(temperature=1.1),
    dict(temperature=1.0, top_k=3),
    dict(temperature=[1.0, 0.0], top_k=3),
    dict(temperature=[0.0, 1.0], top_k=3),
    dict(presence_penalty=0.5),
    dict(logit_bias={1: 2.0}),
  ]
  names = {sampling_name(Sampling(**one)) for one in others}
  assert len(names) == len(others) and "greedy" not in names


@pytest.mark.ill_typed
def test_a_top_k_that_is_no_whole_number_is_refused():
  with pytest.raises(ValueError, match="top_k must be a whole number, got 2.5"):
    sampling_name(Sampling(temperature=1.0, top_k=2.5))
