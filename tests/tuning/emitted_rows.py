"""The joint distribution of a batch's texts, by enumeration of everything that is drafted."""

import itertools

import numpy as np

VOCAB, DRAFTS = 2, 2
LENGTH = DRAFTS + 1
TEXTS = tuple(itertools.product(range(VOCAB), repeat=LENGTH))


def conditional(table, context):
  """Returns the row of a context in a table [contexts, VOCAB], sorted by length and content."""
  index = (VOCAB ** len(context) - 1) // (VOCAB - 1) + sum(
    token * VOCAB**place for place, token in enumerate(reversed(context))
  )
  return table[index]


def text_probs(table):
  """Returns the distribution over TEXTS."""
  return np.array(
    [np.prod([conditional(table, text[:i])[text[i]] for i in range(LENGTH)]) for text in TEXTS]
  )


def emitted(p, q, draft, admitted):
  """Returns the distribution over TEXTS of a row that drafted `draft` and verified some of it.

  Chain rejection (2211.17192) of the admitted drafts; what follows is sampled from the target.
  """
  out, done = np.zeros(len(TEXTS)), 1.0
  for position in range(admitted + 1):
    context = draft[:position]
    target = conditional(p, context)
    if position == admitted:
      following, share = target, 1.0
    else:
      drafted, token = conditional(q, context), draft[position]
      accept = min(1.0, target[token] / drafted[token])
      following, share = np.maximum(target - drafted, 0), 1 - accept
      following = following / following.sum() if share > 0 else target
    for place, text in enumerate(TEXTS):
      if text[:position] == context:
        rest = [conditional(p, text[:i])[text[i]] for i in range(position + 1, LENGTH)]
        out[place] += done * share * following[text[position]] * np.prod(rest)
    done *= 1 - share
  return out


def drafts_of(q, rows):
  """Yields the drafts of all rows, with their probability."""
  texts = list(itertools.product(range(VOCAB), repeat=DRAFTS))
  for drafts in itertools.product(texts, repeat=rows):
    yield (
      drafts,
      np.prod(
        [
          conditional(table, draft[:i])[draft[i]]
          for table, draft in zip(q, drafts, strict=True)
          for i in range(DRAFTS)
        ]
      ),
    )


def confidences(confidence, drafts):
  """Returns the confidence [rows, DRAFTS] of drafts: a table [contexts] per row."""
  return np.array(
    [
      [conditional(table[:, None], draft[:i])[0] for i in range(DRAFTS)]
      for table, draft in zip(confidence, drafts, strict=True)
    ]
  )


def joint(p, q, rule):
  """Returns the joint distribution over the texts of all rows; rule: drafts to admitted lengths."""
  out = 0.0
  for drafts, chance in drafts_of(q, len(q)):
    product = np.ones(1)
    for target, drafter, draft, count in zip(p, q, drafts, rule(drafts), strict=True):
      product = np.multiply.outer(product, emitted(target, drafter, draft, int(count)))
    out = out + chance * product[0]
  return out
