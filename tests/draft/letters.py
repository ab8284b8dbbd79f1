"""A tokenizer small enough for the tiny models: a list of pieces."""

from collections.abc import Sequence


class Letters:
  """Token i is pieces[i]; the longest piece that fits comes first, what none fits is left out."""

  bos_id = eos_id = pad_id = 0
  eos_ids: tuple[int, ...] = ()

  def __init__(self, pieces: Sequence[str]):
    self.pieces, self.vocab_size = list(pieces), len(pieces)

  def encode(self, text: str) -> list[int]:
    out, place = [], 0
    while place < len(text):
      fits = [i for i, piece in enumerate(self.pieces) if text.startswith(piece, place)]
      best = max(fits, key=lambda i: len(self.pieces[i]), default=None)
      if best is not None:
        out.append(best)
      place += 1 if best is None else len(self.pieces[best])
    return out

  def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
    return [self.encode(text) for text in texts]

  def decode(self, ids: Sequence[int]) -> str:
    return "".join(self.pieces[i] for i in ids)

  def token_bytes(self) -> list[bytes]:
    return [piece.encode() for piece in self.pieces]

  def special_tokens(self) -> dict[str, int]:
    return {}

  def fingerprint(self) -> str:
    return repr(self.pieces)
