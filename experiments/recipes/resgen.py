r"""ResGen (2412.10208): quality by number of steps, against an autoregressive decoder.

python -m experiments.recipes.resgen --config=configs/recipes/resgen_digits.py --data=DATA \
  --results=results/resgen_digits.json --folder=runs/resgen_digits \
  --picture=docs/pictures/resgen_digits.png

--folder gets what was generated: a PNG for each maker, and a WAV too where it is speech. --picture
shows some of each, in the order of the table. DATA is the folder of the public sets, with mnist or
fsdd in it.
"""

from pathlib import Path

from absl import flags

from mtjax.cli import flags as launch
from mtjax.cli.running import progress

_CONFIG = launch.define_config(flags.FLAGS, named=lambda name: _unknown(name))
_DATA = flags.DEFINE_string("data", None, "Folder of the data sets.", required=True)
_RESULTS = flags.DEFINE_string("results", None, "JSON file of the figures.")
_FOLDER = flags.DEFINE_string("folder", None, "Folder for pictures and sounds.")
_PICTURE = flags.DEFINE_string("picture", None, "PNG file of some rows of every maker.")
_SHOWN = flags.DEFINE_integer("shown", 40, "Number of generated rows in a picture or sound.", 1)
_UNITS = dict(accuracy="share of rows", distance="squared feature units", seconds="s for all rows")


def _unknown(name: str):
  raise ValueError(f"--config must be a file, for example configs/recipes/{name}.py")


def run() -> None:
  launch.check_output(_RESULTS, _PICTURE)
  config = launch.required(_CONFIG, "configs/recipes/resgen_digits.py")
  # Imported here: a mistake in the command is answered at once.
  from rich.console import Console

  from mtjax.recipes.resgen.data.images import grid, write_png
  from mtjax.recipes.resgen.report import table
  from mtjax.recipes.resgen.run import experiment
  from mtjax.report import results

  outcome = experiment(config, Path(_DATA.value), progress)
  cells = table(f"ResGen, {config.dataset}", outcome.rows)
  Console().print(cells.for_terminal())
  if _FOLDER.value is not None:
    folder = Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    for name, blocks in outcome.made.items():
      stem = name.replace(",", "").replace(" ", "_")
      for path in outcome.data.write(folder, stem, blocks[: _SHOWN.value]):
        progress(f"wrote {path}")
  if _PICTURE.value is not None:
    rows = [outcome.data.pictures(blocks[:20]) for blocks in outcome.made.values()]
    # 16 shades: the file is a quarter as large.
    write_png(Path(_PICTURE.value), grid(rows, 10) // 17 * 17)
  results.write(
    _RESULTS.value,
    f"resgen_{config.dataset}",
    tables=[cells],
    rows=dict(quality=outcome.rows, training=outcome.facts),
    units=_UNITS,
    rounds=1,
    settings=config.to_dict(),
  )


if __name__ == "__main__":
  launch.main(run)
