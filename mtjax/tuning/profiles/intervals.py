"""Confidence intervals of shares."""

import numpy as np
from jaxtyping import Float, Int

Z_95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson_interval(
  accepted: Int[np.ndarray, "*S"], tried: Int[np.ndarray, "*S"], z: float = Z_95
) -> tuple[Float[np.ndarray, "*S"], Float[np.ndarray, "*S"]]:
  """Returns the lower and upper ends of Wilson's interval of `accepted` of `tried`.

  E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
  Where nothing was tried it is 0 to 1.
  """
  count = np.maximum(tried, 1)
  share, scale = accepted / count, 1 + z**2 / count
  middle = (share + z**2 / (2 * count)) / scale
  half = z / scale * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
  low, high = np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
  return np.where(tried > 0, low, 0.0), np.where(tried > 0, high, 1.0)
