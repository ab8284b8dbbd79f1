r"""An any-subset model of 4 x 4 sudokus, 0.84 M parameters: orders of filling differ here.

python -m experiments.evaluate --task=sudoku --data=DATA/puzzles/sudoku4x4_dev.csv \
  --sample=40000 --output=sudoku.jsonl
python -m experiments.train --config=configs/train/sudoku.py --workdir=runs/sudoku \
  --config.data.sources="('file:sudoku.jsonl',)"
python -m experiments.export --workdir=runs/sudoku --output=models/sudoku
python -m experiments.evaluate --task=sudoku --data=DATA/puzzles/sudoku4x4_dev.csv \
  --model=models/sudoku --limit=100 --orders=lattice,random,left_to_right

No puzzle of the data is in the training texts; the solutions are, as there are only 288. 2 CPU
cores shared with other work: 8 min at 3,400 tokens/s. Expected: loss .45 nats per target token
(mean of the last 200 steps), and greedily 44 of 100 puzzles solved in the lattice's order, 9 in
random ones, 42 left to right (2026-11-27). The loss still fell.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults
from mtjax.train.losses.registry import objective_settings


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(dim=96, layers=4, heads=3, kv_heads=3, head_dim=32, mlp_dim=256)
  config.model.update(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  config.objective = "any_subset"
  config.any_subset = objective_settings(
    "any_subset", start=(0.05, 0.7), end=(0.05, 0.7), queries=32
  )
  config.optimizer.update(name="muon", learning_rate=3e-3, muon_learning_rate=0.02)
  config.update(batch=16, length=128, steps=800, warmup=30, decay=400)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(dim=16, layers=1, heads=2, kv_heads=2, head_dim=8, mlp_dim=16)
  config.any_subset.queries = 8
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config
