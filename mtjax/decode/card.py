"""The HTML card of a generation: its cost, and the tokens of each row by who proposed them."""

from collections.abc import Sequence

from mtjax.display.cards import card, legend, note, tokens
from mtjax.rounds.history import RoundRecord, TreeRecord

_MAX_ROWS, _MAX_TOKENS = 8, 512  # what a card shows; a notebook keeps every card in its file


def generation_card(
  title: str,
  rows: Sequence[Sequence[int]],
  drafted: Sequence[Sequence[bool]],
  pieces: Sequence[Sequence[str]] | None,
  history: Sequence[RoundRecord] | None,
) -> str:
  """Returns the card. Tokens are shown as text if `pieces` has it, and by their ids otherwise.

  A hover shows a token's id, and with a history also its round.
  """
  parts = [legend()]
  for row, ids in enumerate(rows[:_MAX_ROWS]):
    shown = ids[:_MAX_TOKENS]
    spelled = [f"{token} " for token in shown] if pieces is None else pieces[row][: len(shown)]
    numbers = _rounds(history, row) if history else []
    titles = [
      f"token {token}" + (f", round {numbers[place]}" if place < len(numbers) else "")
      for place, token in enumerate(shown)
    ]
    parts.append(tokens(spelled, drafted[row][: len(shown)], titles))
    if len(ids) > len(shown):
      parts.append(note(f"and {len(ids) - len(shown):,} more tokens"))
  if len(rows) > _MAX_ROWS:
    parts.append(note(f"and {len(rows) - _MAX_ROWS:,} more rows"))
  return card(title, (), parts)


def _rounds(history: Sequence[RoundRecord], row: int) -> list[int]:
  """Returns the number of the round that emitted each token of a row."""
  trees = ((number, record.rows[row]) for number, record in enumerate(history))
  return [number for number, tree in trees if isinstance(tree, TreeRecord) for _ in tree.emitted]
