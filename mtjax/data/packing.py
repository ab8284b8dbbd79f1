"""Rows of packed documents, by index: pure functions of (text, seed, epoch, row)."""

import functools

import numpy as np
from jaxtyping import Float, Int

from mtjax.data.token_cache import TokenizedText

Row = dict[str, Int[np.ndarray, " L"] | Float[np.ndarray, " L"]]


class PackedRows:
  """Endless rows of `length` entries; row i belongs to epoch i // rows.

  A document of tokens x_1..x_n has n + 1 entries: (begin -> x_1), (x_1 -> x_2), ..., (x_n -> end).
  The documents of an epoch form one sequence, in an order sampled from (seed, epoch), which is cut
  into rows; the order of the rows is sampled too. So every epoch scores every token, and every
  document's end, exactly once; the rest of the last row is padding. A row holds

    tokens, targets   int32
    segment           int32, number of the document within the row from 1; 0 is padding
    position          int32, from 0 at every document's first entry within the row
    weight            float32, 1; 0 in padding

  A document that is cut continues in another row, without the tokens before the cut.
  """

  def __init__(
    self, text: TokenizedText, *, length: int, begin: int, pad: int, seed: tuple[int, ...]
  ):
    if length < 1:
      raise ValueError(f"length must be at least 1, got {length}")
    self._text, self._length, self._begin, self._pad = text, length, begin, pad
    self._seed = seed
    self.rows = -(-len(text.tokens) // length)
    # Two, because reading ahead crosses from one epoch to the next.
    self._order = functools.lru_cache(maxsize=2)(self._sample_order)

  def __len__(self) -> int:
    """Returns a number that is practically endless, but small enough for grain's arithmetic."""
    return 1 << 48

  def __getitem__(self, index: int) -> Row:
    epoch, row = divmod(index, self.rows)
    order, stops, rows = self._order(epoch)
    return self._row(order, stops, int(rows[row]))

  def in_order(self, row: int) -> Row:
    """Returns a row of the documents in the source's order, for evaluation."""
    return self._row(None, self._text.ends, row)

  def _sample_order(self, epoch: int):
    rng = np.random.default_rng((*self._seed, epoch))
    order = rng.permutation(len(self._text.ends))
    lengths = self._text.ends - self._text.starts
    return order, np.cumsum(lengths[order]), rng.permutation(self.rows)

  def _row(self, order, stops, row: int) -> Row:
    """Cuts a row from the sequence in which document order[k] ends at entry stops[k]."""
    text, length = self._text, self._length
    out = dict(
      tokens=np.full(length, self._pad, np.int32),
      targets=np.full(length, self._pad, np.int32),
      segment=np.zeros(length, np.int32),
      position=np.zeros(length, np.int32),
      weight=np.zeros(length, np.float32),
    )
    first = row * length
    place = int(np.searchsorted(stops, first, side="right"))
    at, segment = 0, 0
    while at < length and place < len(stops):
      document = place if order is None else int(order[place])
      # Entry e of the sequence is the document's entry e - origin.
      origin = int(stops[place]) - int(text.ends[document] - text.starts[document])
      begin = first + at - origin
      count = min(length - at, int(stops[place]) - first - at)
      source = int(text.starts[document]) + begin
      span = slice(at, at + count)
      segment += 1
      out["targets"][span] = text.tokens[source : source + count]
      if begin:
        out["tokens"][span] = text.tokens[source - 1 : source + count - 1]
      else:
        out["tokens"][at] = self._begin
        out["tokens"][at + 1 : at + count] = text.tokens[source : source + count - 1]
      out["segment"][span] = segment
      out["position"][span] = np.arange(count)
      out["weight"][span] = 1
      at += count
      place += 1
    return out
