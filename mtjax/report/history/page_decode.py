"""The part of a page that shows a decode: text, acceptance by depth, and the tree of each round."""

from collections.abc import Iterator
from html import escape
from typing import Any

from mtjax.report.history.numbers import acceptance_by_depth, totals, trees_of
from mtjax.report.history.page_text import prompt_text, spellings, token_element
from mtjax.report.history.page_time import full_bar, round_bar, stage_classes
from mtjax.report.history.picture import counted, time_line
from mtjax.report.history.run_json import RecordedRun
from mtjax.report.html.frame import html_table, html_tiles
from mtjax.rounds.history import TreeRecord

_LEGEND = (
  '<p><small><span class="sample draft">draft, accepted</span>'
  '<span class="sample own">the target\'s own token</span> A bar before a token begins a round. '
  "Point at a token, or go through them with the arrow keys, to see probabilities; click it, or "
  "press Enter, to see the tree of its round.</small></p>"
)


def decode_row(run: RecordedRun, row: int, name: str) -> Iterator[str]:
  """Yields the HTML of one row; `name` is unique in the page and names its rounds."""
  counts = totals(run, row)
  yield prompt_text(run, row)
  yield (
    f'<div class="text" data-text="{name}" role="group" aria-label="generated text">'
    f"{''.join(_tokens(run, row))}</div>{_LEGEND}"
  )
  share = f"{counts.accepted:,} of {counts.drafted:,}" if counts.drafted else "none drafted"
  tiles = (
    (f"{counts.tokens:,}", "tokens"),
    (f"{counts.forwards:,}", "forward passes"),
    (f"{counts.tokens_per_forward:.2f}", "tokens per forward pass"),
    (share, "drafts accepted"),
  )
  yield html_tiles(tiles)


def acceptance_section(run: RecordedRun, row: int) -> str:
  """Returns a table of acceptance by depth, or nothing where nothing was drafted."""
  depths = acceptance_by_depth(trees_of(run, row))
  if not depths:
    return ""
  rows = [
    (
      str(one.depth),
      f"{one.drafted:,}",
      f"{one.accepted:,}",
      f"{one.accepted / one.drafted:.0%}",
      f'<span class="meter"><i style="width:{100 * one.accepted / one.drafted:.1f}%"></i></span>',
    )
    for one in depths
  ]
  header = ("depth", "rounds with drafts", "accepted", "share", "")
  return f"<section><h3>Acceptance by depth</h3>{html_table(header, rows, raw=1)}</section>"


def rounds_section(run: RecordedRun, row: int, name: str) -> Iterator[str]:
  """Yields an element per round, which opens; the page's script draws the tree into it."""
  longest, classes = full_bar(run.history), stage_classes(run.history)
  yield "<section><h3>Rounds</h3><p><small>Open one to see its tree: p is the target's "
  yield "probability, q the drafter's where it samples. Of greedy requests p is that at "
  yield 'temperature 1.</small></p><div class="rounds">'
  for number, tree in enumerate(trees_of(run, row)):
    if tree is not None:
      yield (
        f'<details id="{name}-{number}" data-tree="{name}" data-round="{number}"><summary>'
        f"<span>{_what(tree, number)}</span>"
        f"{round_bar(run.history[number], longest, classes)}</summary>"
        f"<small>{escape(time_line(run.history[number].seconds))}</small>"
        '<div class="scroll" tabindex="0"></div></details>'
      )
  yield "</div></section>"


def decode_data(run: RecordedRun, row: int) -> dict[str, Any]:
  """Returns what the page's script reads of a row: its trees, with rounded probabilities."""
  return dict(method=run.title, trees=[tree and _tree_data(tree) for tree in trees_of(run, row)])


def _tokens(run: RecordedRun, row: int) -> Iterator[str]:
  """Yields the emitted tokens; data-at is the round, and the token's place in it."""
  places = [
    (number, place, token, place < len(tree.path) - 1)
    for number, tree in enumerate(trees_of(run, row))
    if tree is not None
    for place, token in enumerate(tree.emitted)
  ]
  shown = spellings(run, [token for _, _, token, _ in places])
  for (number, place, token, is_draft), text in zip(places, shown, strict=True):
    first = "" if place or not number else " first"
    classes = f"{'draft' if is_draft else 'own'}{first}"
    yield token_element(run, token, text, classes, f' role="button" data-at="{number}.{place}"')


def _what(tree: TreeRecord, number: int) -> str:
  drafts, accepted = len(tree.tokens) - 1, len(tree.path) - 1
  said = f"{accepted} of {counted(drafts, 'draft', 'drafts')} accepted" if drafts else "no draft"
  where = f"round {number}" if number else "prefill"
  return f"{where}: {said}, {counted(len(tree.emitted), 'token', 'tokens')} emitted"


def _tree_data(tree: TreeRecord) -> dict[str, Any]:
  data: dict[str, Any] = dict(token=tree.tokens, parent=tree.parents, path=tree.path)
  if tree.bonus is not None:
    data["bonus"] = tree.bonus
    data["bonus_p"] = _rounded(tree.bonus_prob)
  if any(prob is not None for prob in tree.target_probs):
    data["p"] = list(map(_rounded, tree.target_probs))
  if any(prob is not None for prob in tree.draft_probs):
    data["q"] = list(map(_rounded, tree.draft_probs))
  return data


def _rounded(prob: float | None) -> float | None:
  """Returns three digits, also of small probabilities."""
  return None if prob is None else float(f"{prob:.3g}")
