"""A text that goes on: known tokens are not computed again, and the tokens are the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.decode import Autoregressive, Prefix, Speculative, generate, stream
from mtjax.draft import PromptLookup
from mtjax.models import Model
from mtjax.rounds import prefill
from mtjax.rounds import run as run_lib
from mtjax.sampling.logits import Sampling, row_keys

METHODS = {"ar": Autoregressive(), "lookup": Speculative(PromptLookup(length=3, branches=2))}
SIZE = 24  # in place of MIN_SIZE: the tiny model has 256 positions


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr("mtjax.decode.prefix.MIN_SIZE", SIZE)


def go_on(model, params, prompt, prefix, **settings):
  """Returns the tokens of one prompt, and the prefix for the next."""
  known = []
  rounds = stream(model, params, [prompt], prefix=prefix, on_prefix=known.append, **settings)
  return [token for (row,) in rounds for token in row], known[0]


def turns(seed, *sizes):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 48, size).tolist() for size in sizes]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_turns_give_the_tokens_of_the_whole_text(causal, method, temperature, monkeypatch):
  monkeypatch.setattr(prefill, "REST_CHUNK", 4)
  model, params, _ = causal
  settings = dict(max_tokens=6, sampling=Sampling(temperature=temperature))
  text, prefix, texts, found = [], Prefix(), [], []
  for turn in turns(0, 5, 9, 1, 3):  # the second crosses a size
    text = text + turn
    tokens, prefix = go_on(model, params, text, prefix, method=METHODS[method], key=3, **settings)
    texts.append(text)
    found.append(tokens)
    text = text + tokens
    assert prefix.tokens == tuple(text[:-1])
  key = jnp.repeat(row_keys(3, 1), len(texts))
  assert found == generate(model, params, texts, key=key, **settings).tokens
  # The last token is not in the cache yet; all before it are.
  assert prefix.common([*text, 7]) == len(text) - 1


@pytest.mark.parametrize("keep", [0, 3, 9])
def test_only_the_common_beginning_is_kept(causal, keep):
  model, params, _ = causal
  one, other, question = turns(1, 14, 14, 4)
  _, prefix = go_on(model, params, one, Prefix(), max_tokens=6)
  changed = [*one[:keep], (one[keep] + 1) % 48, *other, *question]
  assert prefix.common(changed) == keep
  tokens, _ = go_on(model, params, changed, prefix, max_tokens=6)
  assert tokens == generate(model, params, [changed], max_tokens=6).tokens[0]
  # A shorter text, which is known but for the logits after its last token.
  tokens, after = go_on(model, params, one[:8], prefix, max_tokens=6)
  assert prefix.common(one[:8]) == 7 and after.tokens[:8] == tuple(one[:8])
  assert tokens == generate(model, params, [one[:8]], max_tokens=6).tokens[0]


def test_a_text_that_is_left_before_its_end_goes_on(causal):
  model, params, _ = causal
  (text,) = turns(5, 12)
  tokens, _ = go_on(model, params, text, Prefix(), max_tokens=6)
  known = []
  rounds = stream(
    model, params, [text], max_tokens=6, every=1, prefix=Prefix(), on_prefix=known.append
  )
  written = [token for _, ((token,),) in zip(range(3), rounds, strict=False)]
  rounds.close()
  (prefix,) = known
  assert written == tokens[:3] and prefix.tokens == (*text, *written[:2])
  assert go_on(model, params, [*text, *written], prefix, max_tokens=3)[0] == tokens[3:]


def test_known_tokens_are_read_from_the_cache(causal):
  """With other keys and values in it the tokens are others: nothing was computed again."""
  model, params, _ = causal
  (text,) = turns(2, 12)
  tokens, prefix = go_on(model, params, text, Prefix(), max_tokens=6)
  foreign = dataclasses.replace(prefix, cache=jax.tree.map(lambda x: x[..., ::-1], prefix.cache))
  assert go_on(model, params, text, foreign, max_tokens=6)[0] != tokens
  assert go_on(model, params, text, prefix, max_tokens=6)[0] == tokens


def test_turns_of_one_size_compile_once(causal, monkeypatch):
  monkeypatch.setattr("mtjax.decode.prefix.MIN_SIZE", 64)  # a size that no other test compiles
  model, params, _ = causal
  params = jax.device_put(params, jax.devices()[0])  # as packed weights are
  programs = (run_lib.begin, run_lib.advance)
  text, prefix, counts = [], Prefix(), []
  for turn in turns(3, 3, 1, 4, 2, 60):
    text = text + turn
    tokens, prefix = go_on(model, params, text, prefix, max_tokens=3)
    text = text + tokens
    counts.append([program._cache_size() for program in programs])
  assert counts[0] == counts[1] == counts[2] == counts[3]
  assert counts[4] == [n + 1 for n in counts[3]], "the count could not see a compilation"


def test_a_text_that_goes_on_may_use_every_position(causal):
  model, params, _ = causal
  (text,) = turns(4, 240)
  tokens, prefix = go_on(model, params, text[:230], Prefix(), max_tokens=6)
  assert len(tokens) == 6
  tokens, _ = go_on(model, params, text, prefix, max_tokens=16)
  assert tokens == generate(model, params, [text], max_tokens=16).tokens[0]


def test_what_cannot_go_on_is_refused_before_compilation(causal):
  model, params, _ = causal
  _, prefix = go_on(model, params, [1, 2, 3], Prefix(), max_tokens=2)
  before = run_lib.begin._cache_size()
  with pytest.raises(ValueError, match="a prefix is of one text, got 2 prompts"):
    stream(model, params, [[1], [2]], prefix=prefix)
  with pytest.raises(ValueError, match="on_prefix receives the text of one prompt, got 2"):
    stream(model, params, [[1], [2]], on_prefix=print)
  other = Model(dataclasses.replace(model.config, kv_heads=4))
  with pytest.raises(ValueError, match="the prefix holds keys and values of a model of other"):
    stream(other, params, [[1, 2, 3, 4]], prefix=prefix)
  assert run_lib.begin._cache_size() == before
