"""A text being filled, as a small animation in HTML: tokens appear in the order of the passes."""

import dataclasses
import zlib
from html import escape

from mtjax.anysubset.infill import Infilling
from mtjax.data.tokenizers import Tokenizer, pieces_of
from mtjax.display.cards import TINTS

_HOLD = 3  # passes for which the whole text stays, before the animation begins again


@dataclasses.dataclass(frozen=True)
class Animation:
  """An animation as one piece of HTML, which a notebook shows. It has no script and no files."""

  html: str

  def _repr_html_(self) -> str:
    return self.html


@dataclasses.dataclass(frozen=True)
class _Piece:
  text: str
  decided_at: int  # 0: context
  drafted: bool


def fill_animation(
  infilling: Infilling, tokenizer: Tokenizer, *, seconds_per_pass: float = 0.8
) -> Animation:
  """Returns the filling of a text, pass by pass, in an endless loop.

  Every token has its place from the beginning, so that the text does not move. Blue is an accepted
  draft and orange a sample of the oracle, as in a decode. Readers who ask for less motion see the
  end. Raises ValueError for a text that is not filled yet.
  """
  if seconds_per_pass <= 0:
    raise ValueError(f"seconds_per_pass must be positive: got {seconds_per_pass}")
  if any(t and not at for t, at in zip(infilling.is_target, infilling.decided_at, strict=True)):
    raise ValueError("some tokens are still open: give the result of infill, not one of its rounds")
  pieces = _pieces(infilling, tokenizer)
  passes = max(infilling.decided_at)
  # Styles are global in a page: two animations must not share a name.
  name = f"fill{zlib.crc32(repr((infilling.text, passes, seconds_per_pass)).encode()):08x}"
  length = passes + 1 + _HOLD
  rules = [_rules(name, number, length) for number in range(1, passes + 1)]
  spans = "".join(_span(piece) for piece in pieces)
  counts = "".join(
    f'<i class="c{number}">{number} of {passes} forward passes, {_filled(infilling, number)}</i>'
    for number in range(passes + 1)
  )
  return Animation(
    f"<style>{_base(name, length * seconds_per_pass)}{_counter(name, passes, length)}"
    f'{"".join(rules)}</style><div class="{name}"><p>{spans}</p><div>{counts}</div></div>'
  )


def _pieces(infilling: Infilling, tokenizer: Tokenizer) -> list[_Piece]:
  """Returns the text in pieces of whole characters, each as it is after its last token."""
  out: list[_Piece] = []
  waiting, decided_at, drafted = b"", 0, False
  pieces = pieces_of(tokenizer, infilling.tokens)
  for i, piece in enumerate(pieces):
    waiting += piece
    if infilling.decided_at[i] >= decided_at:
      decided_at, drafted = infilling.decided_at[i], infilling.drafted[i]
    try:
      text = waiting.decode("utf-8")
    except UnicodeDecodeError:
      if i + 1 < len(pieces):
        continue
      text = waiting.decode("utf-8", "replace")
    out.append(_Piece(text, decided_at, drafted))
    waiting, decided_at, drafted = b"", 0, False
  return out


def _filled(infilling: Infilling, passes: int) -> str:
  number = sum(0 < at <= passes for at in infilling.decided_at)
  return f"{number} of {sum(infilling.is_target)} tokens"


def _span(piece: _Piece) -> str:
  if not piece.decided_at:
    return escape(piece.text)
  kind = "d" if piece.drafted else "o"
  title = f"pass {piece.decided_at}, {'accepted draft' if piece.drafted else 'oracle'}"
  return f'<span class="p{piece.decided_at} {kind}" title="{title}">{escape(piece.text)}</span>'


def _base(name: str, seconds: float) -> str:
  return (
    f".{name} p{{font:15px/2 ui-monospace,monospace;white-space:pre-wrap;margin:.3em 0}}"
    f".{name} span{{border-bottom:1px solid transparent;"
    f"background:var(--tint);animation:{seconds:.2f}s step-end infinite}}"
    f".{name} .d{{--tint:{TINTS[True]}}}.{name} .o{{--tint:{TINTS[False]}}}"
    f".{name} div{{display:grid;opacity:.7;font-size:12px}}"
    f".{name} i{{grid-area:1/1;font-style:normal;visibility:hidden;"
    f"animation:{seconds:.2f}s step-end infinite}}"
  )


def _counter(name: str, passes: int, length: int) -> str:
  """Returns the rules by which one line of the count is seen at a time."""
  rules = [
    f".{name} .c{passes}{{visibility:visible}}@media(prefers-reduced-motion:reduce)"
    f"{{.{name} span,.{name} i{{animation-name:none!important}}}}"
  ]
  for number in range(passes + 1):
    start, stop = _percent(number, length), _percent(number + 1, length)
    frames = "0%{visibility:hidden}" if number else ""
    frames += f"{start}{{visibility:visible}}"
    frames += f"{stop}{{visibility:hidden}}" if number < passes else ""
    rules.append(
      f".{name} .c{number}{{animation-name:{name}c{number}}}@keyframes {name}c{number}{{{frames}}}"
    )
  return "".join(rules)


def _rules(name: str, number: int, length: int) -> str:
  """Returns the rules of the tokens that one pass decided: empty places before it, then text."""
  return (
    f".{name} .p{number}{{animation-name:{name}p{number}}}@keyframes {name}p{number}{{"
    f"0%{{color:transparent;background:none;border-color:gray}}"
    f"{_percent(number, length)}"
    f"{{color:inherit;background:var(--tint);border-color:transparent}}}}"
  )


def _percent(number: int, length: int) -> str:
  return f"{100 * number / length:.2f}%"
