"""Packed rows, compared with a slow program that lists every entry of every document."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from mtjax.data.packing import PackedRows
from mtjax.data.token_cache import TokenizedText

BEGIN, PAD, END = 7, 8, 9


def text_of(lengths):
  """Returns documents of these lengths, with distinct tokens from 100 on, each closed by END."""
  parts, token = [], 100
  for length in lengths:
    parts.append([*range(token, token + length), END])
    token += length
  ends = np.cumsum([len(part) for part in parts])
  return TokenizedText(np.concatenate(parts).astype(np.uint32), ends, np.asarray(lengths), "")


def packed(lengths, length, seed=0):
  return PackedRows(text_of(lengths), length=length, begin=BEGIN, pad=PAD, seed=(seed,))


def entries(lengths):
  """Returns the (token, target) pairs of every document, entry by entry."""
  text = text_of(lengths)
  for start, end in zip(text.starts, text.ends, strict=True):
    document = [int(token) for token in text.tokens[start:end]]
    yield list(zip([BEGIN, *document[:-1]], document, strict=True))


documents = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@hypothesis.given(documents, st.integers(1, 12), st.integers(0, 3))
def test_an_epoch_scores_every_entry_once(lengths, length, epoch):
  rows = packed(lengths, length)
  seen = []
  for index in range(epoch * rows.rows, (epoch + 1) * rows.rows):
    row = rows[index]
    real = row["weight"] == 1
    seen += zip(row["tokens"][real].tolist(), row["targets"][real].tolist(), strict=True)
    assert (real == (row["segment"] > 0)).all()
    assert (row["tokens"][~real] == PAD).all() and (row["weight"][~real] == 0).all()
  assert sorted(seen) == sorted(entry for document in entries(lengths) for entry in document)


@hypothesis.given(documents, st.integers(1, 12))
def test_a_segment_is_a_piece_of_one_document(lengths, length):
  rows = packed(lengths, length)
  whole = list(entries(lengths))
  for index in range(rows.rows):
    row = rows[index]
    numbers = [n for n in dict.fromkeys(row["segment"].tolist()) if n]
    assert numbers == list(range(1, len(numbers) + 1))
    for number in numbers:
      span = row["segment"] == number
      piece = list(zip(row["tokens"][span].tolist(), row["targets"][span].tolist(), strict=True))
      assert row["position"][span].tolist() == list(range(len(piece)))
      assert any(
        piece == document[begin : begin + len(piece)]
        for document in whole
        for begin in range(len(document))
      )


def test_rows_in_order_are_pieces_of_the_text():
  rows = packed([2, 3], 4)
  np.testing.assert_array_equal(rows.in_order(0)["tokens"], [BEGIN, 100, 101, BEGIN])
  np.testing.assert_array_equal(rows.in_order(0)["targets"], [100, 101, END, 102])
  np.testing.assert_array_equal(rows.in_order(0)["segment"], [1, 1, 1, 2])
  np.testing.assert_array_equal(rows.in_order(1)["tokens"], [102, 103, 104, PAD])
  np.testing.assert_array_equal(rows.in_order(1)["targets"], [103, 104, END, PAD])
  np.testing.assert_array_equal(rows.in_order(1)["position"], [0, 1, 2, 0])


def test_epochs_differ_in_the_order_and_the_neighbours_of_documents():
  rows = packed([3] * 8, 8)
  epochs = [np.stack([rows[e * rows.rows + i]["tokens"] for i in range(rows.rows)]) for e in (0, 1)]
  assert {tuple(row) for row in epochs[0]} != {tuple(row) for row in epochs[1]}


def test_the_seed_decides_the_order():
  one, two, other = (packed([3] * 8, 8, seed)[0]["tokens"] for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, two)
  assert not np.array_equal(one, other)
