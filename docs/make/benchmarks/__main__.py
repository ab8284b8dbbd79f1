"""Makes the pages of benchmarks from results/*.json: python -m docs.make.benchmarks

docs/guides/benchmarks.md says how results are measured.
"""

from docs.make.benchmarks import pictures
from docs.make.benchmarks.sections import ROOT, pages, with_sections
from mtjax.cli import flags as launch


def run() -> None:
  for path in pages():
    text = path.read_text(encoding="utf-8")
    made = with_sections(text)
    if made != text:
      path.write_text(made, encoding="utf-8")
      print(f"wrote {path.relative_to(ROOT)}")
  for path in pictures.draw():
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
  launch.main(run)
