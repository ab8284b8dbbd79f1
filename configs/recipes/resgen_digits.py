r"""ResGen (2412.10208) on MNIST digits: 16 patches of 7 x 7 with 4 codes each.

python -m experiments.recipes.resgen --config=configs/recipes/resgen_digits.py --data=DATA \
  --results=results/resgen_digits.json

On 2 CPU cores shared with other work, about 15 minutes (2026-11-29):
class accuracy 89 % in 8 passes, 90 % in 64 autoregressive ones.
Needs DATA/mnist/*images-idx3-ubyte and its labels, gzipped or not.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.dataset = "digits"
  config.side = 7  # pixels of a patch's side
  config.held_out = 1000  # images to judge with
  config.width = 24  # principal components of a patch
  config.depth = 4
  config.codes = 128
  config.fit_vectors = 40_000
  config.network = dict(components=32, dim=96, layers=3, heads=4, mlp_dim=256, min_scale=0.15)
  config.batch = 64
  config.train_steps = 2000
  config.learning_rate = 2e-3
  config.flattened_compute = 1.0  # training of the autoregressive model, relative to ResGen's
  config.flattened_temperatures = (1.0, 0.8)
  config.steps = (1, 2, 4, 8, 16)
  config.order_noise = 4.0
  config.temperature = 0.5
  # Others: (steps, order noise, temperature). With a noise of 1000 the order is at random.
  config.other_decodings = ((8, 0.0, 0.5), (8, 1000.0, 0.5), (8, 4.0, 1.0), (8, 4.0, 0.0))
  config.samples = 500
  config.judge_rows = 7000
  config.judge_epochs = 6
  config.seed = 0
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.update(held_out=20, width=4, depth=2, codes=4, fit_vectors=200, batch=4, train_steps=4)
  config.network = dict(components=2, dim=8, layers=1, heads=2, mlp_dim=8, min_scale=0.1)
  config.update(
    steps=(1, 2),
    other_decodings=((2, 0.0, 1.0),),
    flattened_temperatures=(1.0,),
    samples=10,
    judge_epochs=1,
  )
  return config
