"""Which checkpoints may be continued: broken ones, those of other runs, and their order."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.checkpoints.training import Checkpoints, ForeignCheckpoint

# Orbax leaves the other reads of a damaged checkpoint running when the first one fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SCHEDULE = dict(steps=9, warmup=0, decay=0)
IDENTITY = dict(model=dict(dim=4, layers=(1, 2)), seed=0)


def state(scale=1.0):
  return dict(w=scale * jnp.arange(600.0).reshape(20, 30), n=jnp.array(3, jnp.int32))


@pytest.fixture
def folder(tmp_path):
  """Returns a folder with checkpoints of steps 1 and 2: the state times the step."""
  checkpoints = Checkpoints(tmp_path / "c", identity=IDENTITY, keep=3)
  for step in (1, 2):
    checkpoints.save(step, state(step), data=dict(at=step), schedule=SCHEDULE)
  checkpoints.close()
  return tmp_path / "c"


def restore(folder, *, identity=IDENTITY, like=None):
  checkpoints = Checkpoints(folder, identity=identity)
  try:
    return checkpoints.restore(state() if like is None else like)
  finally:
    checkpoints.close()


def largest(path):
  return max(
    (f for f in (path / "state").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
  )


def flip(file):
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 0xFF
  file.write_bytes(data)


def truncate(file):
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(file):
  file.unlink()


def test_the_newest_is_restored_bit_by_bit(folder):
  step, restored = restore(folder)
  assert step == 2 and restored.data == dict(at=2) and restored.schedule == SCHEDULE
  assert np.array_equal(restored.state["w"], state(2)["w"]) and restored.state["n"] == 3


def test_an_empty_folder_is_a_fresh_start(tmp_path):
  assert restore(tmp_path / "none") is None


def test_an_unfinished_save_is_ignored(folder):
  (folder / "3.orbax-checkpoint-tmp").mkdir()
  with warnings.catch_warnings():
    warnings.simplefilter("error", UserWarning)
    assert restore(folder)[0] == 2


@pytest.mark.parametrize("damage", [truncate, remove, flip])
@pytest.mark.parametrize("part", ["state", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(folder, part, damage):
  file = largest(folder / "2") if part == "state" else folder / "2" / "manifest" / "metadata"
  damage(file)
  with pytest.warns(UserWarning, match=r"refused checkpoint .*/2: "):
    step, restored = restore(folder)
  assert step == 1 and np.array_equal(restored.state["w"], state(1)["w"])
  assert (folder / "refused-2-0").exists(), "the damaged one is kept for a look"


def test_the_step_of_a_refused_checkpoint_can_be_saved_again(folder):
  truncate(largest(folder / "2"))
  checkpoints = Checkpoints(folder, identity=IDENTITY)
  with pytest.warns(UserWarning):
    checkpoints.restore(state())
  checkpoints.save(2, state(7), data={}, schedule=SCHEDULE)
  checkpoints.close()
  step, restored = restore(folder)
  assert step == 2 and np.array_equal(restored.state["w"], state(7)["w"])


def test_without_a_valid_checkpoint_no_run_begins_anew(folder):
  for step in (1, 2):
    truncate(largest(folder / str(step)))
  for _ in range(2):  # a second try must not take the folder for an empty one
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of the checkpoints"):
      restore(folder)


@pytest.mark.parametrize(
  ("like", "message"),
  [
    (dict(w=jnp.zeros((20, 31)), n=jnp.array(0)), r"w is float32\[20, 30\].* float32\[20, 31\]"),
    (dict(w=jnp.zeros((20, 30), jnp.bfloat16), n=jnp.array(0)), "needs bfloat16"),
    (dict(w=jnp.zeros((20, 30))), "unknown n"),
    (dict(w=jnp.zeros((20, 30)), n=jnp.array(0), m=jnp.array(0)), "lacks m"),
  ],
)
def test_other_arrays_are_refused_and_never_cast(folder, like, message):
  with pytest.warns(UserWarning, match=message), pytest.raises(ValueError, match="none of the"):
    restore(folder, like=like)


def test_a_checkpoint_of_another_run_is_an_error_that_says_what_differs(folder):
  other = dict(model=dict(dim=8, layers=(1, 2)), seed=0)
  with pytest.raises(ForeignCheckpoint, match="model.dim is 4 there, 8 here"):
    restore(folder, identity=other)
  assert restore(folder)[0] == 2, "and it is left alone"


def test_a_folder_of_something_else_is_refused(folder):
  (folder / "2" / "manifest" / "metadata").write_text(json.dumps(dict(hello=1)))
  with pytest.warns(UserWarning, match="not one of a training run"):
    assert restore(folder)[0] == 1


def test_old_checkpoints_are_removed_but_for_keep_steps(tmp_path):
  checkpoints = Checkpoints(tmp_path / "c", identity=IDENTITY, keep=2, keep_steps=(1,))
  for step in range(5):
    checkpoints.save(step, state(), data={}, schedule=SCHEDULE)
  checkpoints.close()
  assert {f.name for f in (tmp_path / "c").iterdir() if f.name.isdigit()} == {"1", "3", "4"}


def test_a_state_may_be_donated_while_it_is_written(tmp_path):
  checkpoints = Checkpoints(tmp_path / "c", identity=IDENTITY)
  double = jax.jit(lambda x: jax.tree.map(lambda y: y * 2, x), donate_argnums=0)
  big = dict(w=jnp.ones((1 << 20,)))
  checkpoints.save(1, big, data={}, schedule=SCHEDULE)
  big = double(big)
  checkpoints.wait()
  _, restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, big))
  checkpoints.close()
  assert float(restored.state["w"].max()) == 1
