"""Fill methods of the registry, for the proofs that every one of them goes through."""

from collections.abc import Sequence

from mtjax.anysubset import FillMethod
from mtjax.registry.methods import filling, get_fill_method
from mtjax.types import Exactness


def lossless_others(known: Sequence[FillMethod]) -> list[FillMethod]:
  """The lossless ones, with a window of 3, of classes that none of the known ones has."""
  made = [get_fill_method(name).of_window(3) for name in filling()]
  classes = {type(method) for method in known}
  return [
    method
    for method in made
    if method.exactness is Exactness.LOSSLESS and type(method) not in classes
  ]
