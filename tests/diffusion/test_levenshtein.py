"""Levenshtein editing: moves, labels against all alignments, and the loop against a plain one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtjax
from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, replay
from mtjax.diffusion.denoising.caches import ExactBlocks, Uncached
from mtjax.diffusion.moves import moved, sources
from mtjax.diffusion.noising.edit_labels import edit_labels, matches
from mtjax.diffusion.order import MaxProbability
from mtjax.diffusion.revise import EditTokens, Levenshtein
from mtjax.diffusion.traces.frames import trace_frames
from mtjax.diffusion.transfer import Threshold
from mtjax.sampling.logits import Sampling
from tests.diffusion.scripted import NETWORK, Scripted, script
from tests.diffusion.tiny_masked import BLOCKS, MASK, MODEL, PARAMS, PROMPTS, V

DELETE, INSERT = 8, 9
IDS = dict(mask_id=MASK, delete_id=DELETE, insert_id=INSERT)
L = 4


def moved_in_python(tokens, deleted, inserted):
  """Returns what a list becomes, of the same length."""
  out = []
  for token, leaves, later in zip(tokens, deleted, inserted, strict=True):
    out += [] if leaves else [MASK, token] if later else [token]
  return (out + [MASK] * len(tokens))[: len(tokens)]


def test_moves_are_those_of_a_list():
  actions = np.array(list(itertools.product((0, 1, 2), repeat=L)))
  deleted, inserted = actions == 1, actions == 2
  tokens = np.broadcast_to(np.arange(L), actions.shape)
  found = moved(jnp.asarray(tokens), sources(jnp.asarray(deleted), jnp.asarray(inserted)), MASK)
  wanted = [moved_in_python(*row) for row in zip(tokens, deleted, inserted, strict=True)]
  np.testing.assert_array_equal(found, wanted)


def alignments(draft, target):
  """Returns all largest sets of pairs of equal tokens, in order in both."""
  for size in range(min(len(draft), len(target)), -1, -1):
    found = [
      list(zip(places, others, strict=True))
      for places in itertools.combinations(range(len(draft)), size)
      for others in itertools.combinations(range(len(target)), size)
      if all(draft[i] == target[j] for i, j in zip(places, others, strict=True))
    ]
    if found:
      return found
  raise AssertionError


def labels_of(draft, target, anchors):
  """Returns the labels of one alignment, gap by gap."""
  labels, here, there = [], 0, 0
  for i, j in anchors:
    gap = list(target[there:j])
    labels += [gap[k] if k < len(gap) else DELETE for k in range(i - here)]
    labels.append(INSERT if len(gap) > i - here else draft[i])
    here, there = i + 1, j + 1
  rest = iter(target[there:])
  return [*labels, *(next(rest, MASK) if one == MASK else DELETE for one in draft[here:])]


def pairs(tokens, more=()):
  drafts = list(itertools.product((*tokens, *more), repeat=L))
  targets = list(itertools.product(tokens, repeat=L))
  both = np.array(list(itertools.product(drafts, targets)))
  return jnp.asarray(both[:, 0]), jnp.asarray(both[:, 1])


@jax.jit
def labelled(draft, target):
  return edit_labels(draft, target, **IDS)


@jax.jit
def applied(draft, label):
  deleted, inserted = label == DELETE, label == INSERT
  token = jnp.where(deleted | inserted, draft, label)
  return moved(token, sources(deleted, inserted), MASK)


def test_labels_are_those_of_a_longest_common_subsequence():
  draft, target = pairs((0, 1), (MASK,))
  found = np.asarray(labelled(draft, target))
  common = np.asarray(jax.vmap(matches)(draft, target))
  for d, t, label, match in zip(np.asarray(draft), np.asarray(target), found, common, strict=True):
    known = alignments(d.tolist(), t.tolist())
    assert label.tolist() in [labels_of(d.tolist(), t.tolist(), each) for each in known], (d, t)
    assert [(i, j) for i, j in enumerate(match.tolist()) if j >= 0] in known


@pytest.mark.parametrize("tokens,more", [((0, 1, 2), ()), ((0, 1), (MASK,))])
def test_labels_applied_again_and_again_reach_the_target(tokens, more):
  draft, target = pairs(tokens, more)
  rounds = 0
  while (np.asarray(draft) != np.asarray(target)).any():
    draft, rounds = applied(draft, labelled(draft, target)), rounds + 1
    assert rounds <= L + 1
  # What is reached stays.
  np.testing.assert_array_equal(applied(draft, labelled(draft, target)), target)


def test_without_insertion_some_targets_are_not_reached():
  """Negative control: the test above sees labels that lack a part."""
  draft, target = pairs((0, 1))
  for _ in range(2 * L):
    label = labelled(draft, target)
    draft = applied(draft, jnp.where(label == INSERT, draft, label))
  assert (np.asarray(draft) != np.asarray(target)).any()


def test_examples_of_labels():
  draft = jnp.array([[1, 2, 3, 4], [1, 7, 3, 4], [1, 7, 2, 3], [1, 3, 4, 5], [1, 2, 6, 6]])
  target = jnp.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
  wanted = [
    [1, 2, 3, 4],  # all is kept
    [1, 2, 3, 4],  # a gap that is aligned: 7 becomes 2
    [1, DELETE, 2, 3],  # a surplus; 4 follows in the mask that comes
    [1, INSERT, 4, DELETE],  # 2 is missing before 3; what is after the last anchor leaves
    [1, 2, DELETE, DELETE],
  ]
  np.testing.assert_array_equal(labelled(draft, target), wanted)
  with pytest.raises(ValueError, match="mask_id, delete_id and insert_id must differ: got 3, 3"):
    edit_labels(draft, target, mask_id=3, delete_id=3, insert_id=4)


# Of a block of 4: pass 1 decides it, 2 deletes, 3 fills the mask that comes, 4 inserts, 5 fills
# that, and 6 changes nothing.
EDITED = script(
  [(1, 0.95), (2, 0.95), (3, 0.95), (4, 0.95)],
  [(1, 0.95), (DELETE, 0.95), (3, 0.95), (4, 0.95)],
  [(1, 0.95), (3, 0.95), (4, 0.95), (5, 0.95)],
  [(1, 0.95), (3, 0.95), (INSERT, 0.95), (5, 0.95)],
  [(1, 0.95), (3, 0.95), (6, 0.95), (4, 0.95)],
  [(1, 0.95), (3, 0.95), (6, 0.95), (4, 0.95)],
)


def policy_of(revise, threshold=0.9):
  return DecidingPolicy(MaxProbability(), Threshold(threshold), revise)


def edits(**settings):
  return Levenshtein(**dict(delete_id=DELETE, insert_id=INSERT) | settings)


def run_script(table, revise):
  plan, policy = BlockPlan(4, 4, 4), policy_of(revise)
  table = dict(real=table)
  return denoise(NETWORK, table, [[1], [1]], plan=plan, policy=policy, cache=Scripted(), trace=True)


def test_a_block_is_deleted_from_and_inserted_into():
  out = run_script(EDITED, edits())
  assert out.tokens == [[1, 3, 6, 4]] * 2 and out.passes.tolist() == [6, 6]
  assert out.decided_at == [[1, 1, 5, 1]] * 2, "passes move with their tokens"
  kinds = [(event.number, event.position, event.kind) for event in out.trace.events(0)]
  assert [one for one in kinds if one[2] != "decided"] == [(2, 2, "deleted"), (4, 3, "inserted")]


def test_the_number_of_passes_that_edit_and_the_threshold_are_per_row():
  out = run_script(EDITED, edits(max_edits=[1, 16]))
  # Without a second edit the text of pass 3 stays.
  assert out.tokens == [[1, 3, 4, 5], [1, 3, 6, 4]] and out.passes.tolist() == [3, 6]
  out = run_script(EDITED, edits(threshold=[0.97, 0.9]))
  assert out.tokens == [[1, 2, 3, 4], [1, 3, 6, 4]] and out.passes.tolist() == [2, 6]


def test_no_mask_becomes_a_token_that_edits():
  most = [(DELETE, 0.6), (INSERT, 0.6), (3, 0.95), (4, 0.95)]
  out = run_script(script(most, most, most, most), edits(max_edits=0))
  assert not {DELETE, INSERT, MASK} & set(out.tokens[0]) and len(out.tokens[0]) == 4
  # Negative control: a rule that knows nothing of these tokens writes them.
  out = run_script(script(most, most, most, most), EditTokens(threshold=1.0))
  assert {DELETE, INSERT} <= set(out.tokens[0])


def test_a_model_that_always_edits_comes_to_an_end():
  always = [(DELETE, 0.95), (INSERT, 0.95), (DELETE, 0.95), (INSERT, 0.95)]
  out = run_script(script(always), edits(max_edits=5))
  assert len(out.tokens[0]) == 4 and out.passes.max() <= 5 + 6 * 4


@jax.jit
def dense(canvas, end):
  return BLOCKS.logits(MODEL.forward(PARAMS, BLOCKS.canvas(canvas, end)))[0]


def loop_in_python(prompt, length, decide, edit, max_edits, size=24):
  """Returns the text, how often it was deleted from and inserted into, and the passes."""
  end = -(-(len(prompt) + length) // 4) * 4
  x = [*prompt, *[MASK] * (end - len(prompt))]
  passes, deletions, insertions = 0, 0, 0
  for begin in range(len(prompt) // 4 * 4, end, 4):
    mine, num_edits = range(max(begin, len(prompt)), begin + 4), 0
    while True:
      passes += 1
      canvas = jnp.asarray([x + [0] * (size - end)])
      logits = np.array(dense(canvas, jnp.array([end])), np.float64)
      masks = [i for i in mine if x[i] == MASK]
      logits[np.ix_(masks, [DELETE, INSERT])] = -np.inf
      p = np.exp(logits - logits.max(-1, keepdims=True))
      p /= p.sum(-1, keepdims=True)
      best, sure = p.argmax(-1), p.max(-1)
      chosen = {i for i in masks if sure[i] >= decide} | set(
        sorted(masks, key=lambda i: -sure[i])[:1]
      )
      changes = [i for i in mine if i not in masks and best[i] != x[i] and sure[i] > edit]
      changes = changes if num_edits < max_edits else []
      num_edits += bool(changes)
      deletions += sum(best[i] == DELETE for i in changes)
      insertions += sum(best[i] == INSERT for i in changes)
      out = []
      for i in mine:
        token = int(best[i])
        if i in chosen or (i in changes and token not in (DELETE, INSERT)):
          out.append(token)
        elif i not in changes:
          out.append(x[i])
        else:
          out += [] if token == DELETE else [MASK, x[i]]
      x[mine.start : mine.stop] = (out + [MASK] * 4)[: len(mine)]
      again = (masks or changes) and num_edits < max_edits
      if not again and MASK not in x[mine.start : mine.stop]:
        break
  return x[len(prompt) : len(prompt) + length], deletions, insertions, passes


@pytest.mark.parametrize("cache", [Uncached(), ExactBlocks()], ids=["uncached", "exact"])
def test_the_loop_is_the_plain_one(cache):
  settings = dict(plan=BlockPlan(12, 4, 12), cache=cache, trace=True)
  policy = policy_of(edits(threshold=0.2, max_edits=4), threshold=0.4)
  out = denoise(BLOCKS, PARAMS, PROMPTS, policy=policy, **settings)
  wanted = [loop_in_python(prompt, 12, 0.4, 0.2, 4) for prompt in PROMPTS]
  assert out.tokens == [text for text, _, _, _ in wanted]
  assert out.passes.tolist() == [passes for _, _, _, passes in wanted]
  assert sum(one[1] for one in wanted) and sum(one[2] for one in wanted), "the case has both"
  *_, last = trace_frames(out.trace, PROMPTS, 12)
  assert last.tokens == out.tokens and last.decided_at == out.decided_at, "moves are drawn"
  again = replay(BLOCKS, PARAMS, out.trace)
  np.testing.assert_allclose(again, out.trace.passes.log_prob, atol=1e-6)


def test_a_row_is_the_same_alone():
  keys = jax.random.split(jax.random.key(1), 2)
  settings = dict(plan=BlockPlan(8, 4, 8), sampling=Sampling(temperature=1.0))
  settings |= dict(policy=policy_of(edits(threshold=0.2), threshold=0.4))
  both = denoise(BLOCKS, PARAMS, PROMPTS, key=keys, **settings)
  alone = denoise(BLOCKS, PARAMS, PROMPTS[1:], key=keys[1:], **settings)
  assert alone.tokens[0] == both.tokens[1] and alone.decided_at[0] == both.decided_at[1]


@pytest.mark.parametrize(
  "revise,message",
  [
    (Levenshtein(), "needs delete_id, a token of the model's vocabulary of 11: got -1"),
    (edits(insert_id=V), "needs insert_id, a token of the model's vocabulary of 11: got 11"),
    (edits(insert_id=DELETE), "delete_id and insert_id are one token, 8: give two"),
  ],
)
def test_a_model_without_the_tokens_is_refused(revise, message):
  with pytest.raises(ValueError, match=message):
    denoise(BLOCKS, PARAMS, PROMPTS, plan=BlockPlan(8, 4, 8), policy=policy_of(revise))


def test_the_method_by_name_asks_for_its_tokens():
  method = mtjax.denoiser("llada22", revise="levenshtein:delete_id=8:insert_id=9")
  assert method.policy.revise == edits() and "deleted and moved" in method.reason


@pytest.mark.ill_typed
def test_a_token_is_a_whole_number():
  with pytest.raises(ValueError, match="delete_id must be a whole number, got 1.5"):
    mtjax.denoiser("llada22", revise="levenshtein:delete_id=1.5")
