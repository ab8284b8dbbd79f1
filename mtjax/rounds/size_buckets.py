"""Static sizes: lengths are rounded up to few named sizes, so that few programs are compiled."""

import bisect

# Steps of at most 1.5x: padding costs at most a third of a prefill, and 20 sizes reach 12k.
SIZES = tuple(sorted(base * 2**n for n in range(3, 13) for base in (2, 3)))


def bucket(length: int, *, maximum: int | None = None) -> int:
  """Returns the smallest of SIZES >= length (then multiples of the last), at most `maximum`.

  Above the last of SIZES it is a multiple of the last. Raises ValueError when `length` itself
  exceeds `maximum`.
  """
  if maximum is not None and length > maximum:
    raise ValueError(f"the length must be at most {maximum}, got {length}")
  if length <= SIZES[-1]:
    size = SIZES[bisect.bisect_left(SIZES, length)]
  else:
    size = -(-length // SIZES[-1]) * SIZES[-1]
  return size if maximum is None else min(size, maximum)
