"""Every decoding method there is: what it keeps, where it stands, what proves it.

README's table is made from this one, and a test fails for a row without a file, config or test.
"""

import dataclasses

from mtjax.types import Exactness


@dataclasses.dataclass(frozen=True)
class Method:
  """One row of the method table. Paths are relative to the repository."""

  title: str
  paper: str
  exactness: Exactness
  file: str
  config: str
  test: str


METHODS = {
  "ar": Method(
    title="autoregressive",
    paper="-",
    exactness=Exactness.LOSSLESS,
    file="mtjax/decode.py",
    config="configs/decode/ar.py",
    test="tests/core/test_law.py",
  ),
}


def table() -> str:
  """The method table in Markdown."""
  lines = ["| method | paper | exactness | file | config | test |", "|---|---|---|---|---|---|"]
  for name, m in METHODS.items():
    cells = (f"{m.title} (`{name}`)", m.paper, m.exactness.value)
    paths = (f"`{path}`" for path in (m.file, m.config, m.test))
    lines.append(f"| {' | '.join((*cells, *paths))} |")
  return "\n".join(lines)
