"""Emitting several tokens at once ends a row exactly where emitting one at a time does."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtjax import cache
from mtjax.rounds import state as rounds
from mtjax.rounds.state import DecodeState, Finish, Request
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import History, Rules

BATCH, WIDTH, CAPACITY, VOCAB, EOS = 3, 4, 12, 6, 5
STOP = StopStrings.compile(["ab", "ddd"], [b"a", b"b", b"c", b"d", b"ad", b""])

emit = jax.jit(rounds.emit)


def fresh():
  zeros = jnp.zeros((BATCH,), jnp.int32)
  seen = jnp.zeros((BATCH, VOCAB), bool)
  return DecodeState(
    cache=cache.allocate(batch=BATCH, capacity=1, heads=[1], head_dim=1),
    tokens=jnp.zeros((BATCH, CAPACITY), jnp.int32),
    drafted=jnp.zeros((BATCH, CAPACITY), bool),
    count=zeros,
    finish=zeros,
    stop_state=zeros,
    rounds=zeros,
    history=History(seen, seen),
  )


@given(st.data())
def test_many_tokens_equal_one_at_a_time(data):
  def ints(low, high, *shape):
    size = int(np.prod(shape))
    values = data.draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
    return jnp.asarray(values, jnp.int32).reshape(shape)

  request = Request(
    rules=Rules(),
    limit=ints(1, CAPACITY, BATCH),
    eos=jnp.array([EOS]),
    key=jax.random.split(jax.random.key(0), BATCH),
    stop=STOP,
  )
  many = one = fresh()
  for _ in range(4):
    tokens, count = ints(0, VOCAB - 1, BATCH, WIDTH), ints(1, WIDTH, BATCH)
    before, drafted = many.count, np.array(many.drafted)
    many, num_emitted = emit(many, request, tokens, count)
    for place in range(WIDTH):
      # A row without a token here waits for the next round: it is passed as ended.
      waits = place >= count
      shown = one.replace(finish=jnp.where(waits, int(Finish.LENGTH), one.finish))
      after, _ = emit(shown, request, tokens[:, place : place + 1], jnp.ones((BATCH,), jnp.int32))
      one = after.replace(finish=jnp.where(waits, one.finish, after.finish))
    jax.tree.map(np.testing.assert_array_equal, many.replace(drafted=one.drafted), one)
    np.testing.assert_array_equal(many.count - before, num_emitted)
    for row in range(BATCH):  # the last token of a round is no draft, unless it was cut off
      new = np.arange(int(num_emitted[row]))
      drafted[row, int(before[row]) + new] = new < int(count[row]) - 1
    np.testing.assert_array_equal(many.drafted, drafted)
