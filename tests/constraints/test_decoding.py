"""Decoding with constraints: plain and speculative, jitted, against automata written by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import generate, stream
from mtjax.decode.speculative import Speculative
from mtjax.evaluate.exactness import p_value
from mtjax.models import Model
from mtjax.rounds import run
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.constraint import Automata
from mtjax.sampling.logits import Sampling, row_keys
from tests.compiled import forward
from tests.constraints.toys import complete_texts, dfa_of
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, ROWS, TARGET, VOCAB

EOS = 11
# (1 (2 3)* 4 | 5 5 6)+: from most states few tokens may follow, and texts may end rarely.
AGAIN = {1: 1, 5: 3}
WORDS = dfa_of([AGAIN, {2: 2, 4: 5}, {3: 1}, {5: 4}, {6: 5}, AGAIN], {5}, VOCAB)
ANY = dict.fromkeys(range(8), 1)
LOOSE = dfa_of([ANY, dict.fromkeys(range(4), 2), ANY], {2}, VOCAB)
CONSTRAINTS = [WORDS, None, LOOSE]
BIAS = {EOS: -3.0}  # the tiny target would end most texts at once
# Three rows that are greedy, and the same prompts and constraints with temperatures.
MIXED = Sampling(
  temperature=(0.0, 0.0, 0.0, 0.0, 1.0, 0.7), top_k=(0, 0, 0, 0, 5, 3), logit_bias=BIAS
)
SIX = dict(prompts=PROMPTS * 2, max_tokens=LIMITS * 2, constraint=CONSTRAINTS * 2, sampling=MIXED)
HALVES = slice(0, 3), slice(3, 6)
NAMES = ["lookup, a tree", "a tree of the target", "model", "jacobi"]


def generated(method=None, params=None, *, target=TARGET, **changed):
  settings = dict(max_tokens=LIMITS, key=3, eos=[EOS], constraint=CONSTRAINTS) | changed
  if method is not None:
    settings |= dict(method=method, method_params=params)
  return generate(target, PARAMS, settings.pop("prompts", PROMPTS), **settings)


def text_of(tokens):
  return tokens[:-1] if tokens[-1] == EOS else tokens


@pytest.fixture(scope="module")
def plain():
  return generated(**SIX).tokens


def test_every_text_is_accepted_and_rows_without_a_constraint_are_as_before(plain):
  free = generated(**SIX | dict(constraint=None)).tokens
  for rows in HALVES:
    first, second, third = plain[rows]
    assert WORDS.accepts(text_of(first)) and LOOSE.accepts(text_of(third))
    assert second == free[rows][1]
    assert not WORDS.accepts(text_of(free[rows][0]))


@pytest.mark.parametrize("name", NAMES)
def test_speculation_gives_the_text_of_plain_decoding(plain, name):
  row = ROWS[name]
  found = generated(Speculative(row.drafter), row.params, **SIX)
  assert found.tokens == plain
  for rows in HALVES:
    assert any(map(any, found.drafted[rows])) or not row.useful


def test_adaptive_streamed_and_recorded_texts_are_the_same(plain):
  row = ROWS["a tree of the target"]
  speculative = Speculative(row.drafter)
  adaptive = Adaptive(speculative)
  found = generated(adaptive, adaptive.params(1.2, row.params), **SIX)
  assert found.tokens == plain
  pieces = stream(
    TARGET, PARAMS, method=speculative, method_params=row.params, history=True, key=3, eos=[EOS],
    **SIX,
  )  # fmt: skip
  rows = [[] for _ in plain]
  for new in pieces:
    for out, tokens in zip(rows, new, strict=True):
      out += tokens
  assert rows == plain


def test_a_row_does_not_depend_on_its_batch(plain):
  key = row_keys(3, 6)
  for row in (0, 5):
    alone = generated(
      prompts=SIX["prompts"][row : row + 1],
      max_tokens=SIX["max_tokens"][row],
      key=key[row : row + 1],
      constraint=SIX["constraint"][row],
      sampling=Sampling(
        temperature=MIXED.temperature[row], top_k=MIXED.top_k[row], logit_bias=BIAS
      ),
    )
    assert alone.tokens[0] == plain[row]


def test_the_limit_ends_complete_texts(plain):
  """A text that would go on for ever is completed within its tokens."""
  favoured = Sampling(logit_bias={2: 30.0, 3: 30.0, EOS: -30.0, 6: -10.0})
  for limit in (3, 4, 5, 8, 9):
    tokens = generated(sampling=favoured, constraint=WORDS, max_tokens=limit).tokens
    assert all(len(row) == limit and WORDS.accepts(text_of(row)) for row in tokens)


@pytest.mark.parametrize(
  "verifier", [pytest.param("rrs_without", marks=pytest.mark.slow), "traversal"]
)
def test_sampled_texts_follow_the_constrained_distribution(verifier):
  """The jitted loop over two rounds and more, against products of masked softmaxes."""
  rows, length, prompt = 4096, 4, PROMPTS[0]
  dfa = dfa_of([{1: 1, 5: 0}, {2: 0, 4: 1}], {0}, VOCAB)
  row = ROWS["a tree of the target"]
  method = Speculative(dataclasses.replace(row.drafter, model=TARGET), verifier)
  found = generated(
    method, row.params, prompts=[prompt] * rows, max_tokens=length, constraint=dfa,
    sampling=Sampling(temperature=1.0), key=5,
  )  # fmt: skip
  texts = complete_texts(dfa, length, VOCAB, EOS)
  number = {text: i for i, text in enumerate(texts)}
  seen = [number[(*tokens, *[EOS] * (length - len(tokens)))] for tokens in found.tokens]
  prefixes = {text[:n] for text in texts for n in range(1, length + 1)}
  probs = np.ones(len(texts))
  logits = forward(TARGET, PARAMS, frontier.causal(jnp.asarray([[*prompt, *t] for t in texts])))
  p = np.asarray(jax.nn.softmax(logits.logits, axis=-1), np.float64)[:, len(prompt) - 1 :]
  for i, text in enumerate(texts):
    for n in range(length):
      allowed = [(*text[:n], token) in prefixes for token in range(VOCAB)]
      probs[i] *= p[i, n, text[n]] / p[i, n][allowed].sum() if EOS not in text[:n] else 1.0
  assert probs.sum() == pytest.approx(1, abs=1e-5)
  assert p_value(np.array(seen), probs) > 1e-6
  given = np.array([np.prod([p[i, n, t] for n, t in enumerate(x)]) for i, x in enumerate(texts)])
  assert p_value(np.array(seen), given / given.sum()) < 1e-6, "a wrong p is not noticed"


def test_other_constraints_of_similar_size_compile_nothing():
  generated(constraint=WORDS)
  before = run.whole._cache_size()
  generated(constraint=LOOSE)
  other = dfa_of([{3: 1}, {4: 2}, {5: 3}, {6: 0}], {0, 2}, VOCAB)
  assert all(other.accepts(text_of(row)) for row in generated(constraint=other).tokens)
  assert run.whole._cache_size() == before


def test_masks_are_what_decides(plain, monkeypatch):
  """With the masks of another node, what is sampled is no longer accepted."""
  row = ROWS["a tree of the target"]
  monkeypatch.setattr(
    Automata, "along", lambda self, place, token, *_: jax.tree.map(
      lambda x: jnp.broadcast_to(x[:, None], token.shape), place
    ),
  )  # fmt: skip
  # Another model, with the same network: no other test has compiled its programs.
  target = Model(dataclasses.replace(TARGET.config, max_position=120))
  found = generated(Speculative(row.drafter), row.params, target=target, **SIX)
  assert found.tokens[HALVES[1]] != plain[HALVES[1]]


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    (dict(constraint=WORDS, max_tokens=1), "the shortest text that its constraint accepts has 2"),
    (dict(constraint=WORDS, eos=()), "give eos"),
    (dict(constraint=[WORDS, None]), "2 values for a batch of 3"),
    (dict(constraint=["ab", None, None]), "row 0 is 'ab'"),
    (dict(constraint=WORDS, stop=StopStrings.compile("a", [b"a"] * VOCAB)), "no stop"),
    (dict(constraint=WORDS, sampling=Sampling(logit_bias={4: -np.inf})), r"bans the tokens \[4\]"),
    (dict(constraint=dfa_of([{EOS: 1}, {}], {1}, VOCAB)), "no text satisfies"),
    (dict(constraint=dfa_of([{VOCAB: 1}, {}], {1}, VOCAB + 1)), "no text satisfies"),
  ],
)
def test_what_cannot_be_is_refused_before_compilation(changed, message):
  before = run.whole._cache_size()
  with pytest.raises(ValueError, match=message):
    generated(**changed)
  assert run.whole._cache_size() == before
