"""Spoken digits: recordings to log-mel frames and back to WAV files.

A modified cosine transform would invert exactly, but the signs of its coefficients carry the phase,
which no mean of a Gaussian predicts; a mel spectrum is smooth, and Griffin and Lim's iteration
(1984; momentum of 1303.6390) finds a phase for it. That inverse is APPROXIMATE.
"""

import dataclasses
import io
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtjax.recipes.resgen.data.examples import Examples
from mtjax.recipes.resgen.data.images import grid, write_png

RATE = 8000
WINDOW, HOP, BANDS = 256, 64, 32
_QUIET = 1e-3  # what silence counts as, relative to the loudest band
_PARTS = 128  # recordings that are transformed at once


def read_wav(file: Path | io.BytesIO, name: str) -> Float[np.ndarray, " T"]:
  """Returns the samples of a mono 16-bit WAV of 8 kHz, -1 to 1.

  Raises ValueError, with its name, for another form.
  """
  try:
    with wave.open(str(file) if isinstance(file, Path) else file) as wav:
      form = (wav.getframerate(), wav.getnchannels(), wav.getsampwidth())
      data = wav.readframes(wav.getnframes())
  except (wave.Error, EOFError) as error:
    raise ValueError(f"{name} is no WAV file: {error}") from None
  if form != (RATE, 1, 2):
    raise ValueError(f"{name} must be mono, 16 bits and {RATE} Hz, got {form[1:]} and {form[0]} Hz")
  return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def write_wav(path: Path, samples: Float[np.ndarray, " T"]) -> None:
  """Writes samples, limited to -1 to 1, as mono, 16 bits, 8 kHz."""
  with wave.open(str(path), "wb") as wav:
    wav.setnchannels(1)
    wav.setsampwidth(2)
    wav.setframerate(RATE)
    wav.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def mel_filters() -> Float[np.ndarray, "F M"]:
  """Returns triangles on the mel scale (2595 log10(1 + f / 700)) from 0 Hz to half of the rate.

  Each sums to 1.
  """
  top = 2595 * np.log10(1 + RATE / 2 / 700)
  edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
  f = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
  up = (f - edges[:-2]) / (edges[1:-1] - edges[:-2])
  down = (edges[2:] - f) / (edges[2:] - edges[1:-1])
  filters = np.maximum(np.minimum(up, down), 0)
  # Bands at low frequencies are narrower than a bin.
  centre = np.argmin(np.abs(f - edges[1:-1]), axis=0)
  filters[centre, np.arange(BANDS)] += filters.sum(0) == 0
  return filters / filters.sum(0)


_MEL = mel_filters()
_INVERSE = np.linalg.pinv(_MEL)
_HANN = np.hanning(WINDOW + 1)[:-1]


def stft(samples: Float[np.ndarray, "N T"]) -> np.ndarray:
  """Returns the spectra [N, T / HOP, WINDOW / 2 + 1] of frames that are centred at each hop."""
  padded = np.pad(samples, ((0, 0), (WINDOW // 2, WINDOW // 2)))
  frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::HOP]
  return np.fft.rfft(frames[:, : samples.shape[1] // HOP] * _HANN, axis=-1)


def istft(spectra: np.ndarray) -> Float[np.ndarray, "N T"]:
  """Returns the samples whose windows fit the spectra best, in the mean square."""
  count, frames, _ = spectra.shape
  pieces = np.fft.irfft(spectra, WINDOW, axis=-1) * _HANN
  out = np.zeros((count, frames * HOP + WINDOW))
  weight = np.zeros(out.shape[1])
  for frame in range(frames):
    here = slice(frame * HOP, frame * HOP + WINDOW)
    out[:, here] += pieces[:, frame]
    weight[here] += _HANN**2
  out /= np.maximum(weight, 1e-3)
  return out[:, WINDOW // 2 : WINDOW // 2 + frames * HOP]


def log_mel(samples: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N T M"]:
  """Returns the logarithms of band magnitudes, 0 for silence to 1 for a recording's loudest."""
  mel = np.abs(stft(samples)) @ _MEL
  mel = mel / np.maximum(mel.max((1, 2), keepdims=True), 1e-9)
  return (1 - np.log10(mel + _QUIET) / np.log10(_QUIET)).astype(np.float32)


def from_log_mel(
  mel: Float[np.ndarray, "N T M"], iterations: int = 24, seed: int = 0
) -> Float[np.ndarray, "N T"]:
  """Returns samples with about these magnitudes; the loudest sample of each recording is 0.7."""
  magnitude = 10 ** ((1 - np.clip(mel, 0, 1.1)) * np.log10(_QUIET)) - _QUIET
  magnitude = np.maximum(magnitude @ _INVERSE, 0)
  rng = np.random.default_rng(seed)
  phase = np.exp(2j * np.pi * rng.random(magnitude.shape[1:]))
  phase, before = np.broadcast_to(phase, magnitude.shape), 0
  for _ in range(iterations):
    now = stft(istft(magnitude * phase))
    faster = now + 0.9 * (now - before)
    phase, before = faster / np.maximum(np.abs(faster), 1e-9), now
  samples = istft(magnitude * phase)
  return 0.7 * samples / np.maximum(np.abs(samples).max(1, keepdims=True), 1e-9)


@dataclasses.dataclass(frozen=True)
class SpokenDigits:
  """Recordings of digits: a position is `frames` spectra of BANDS numbers."""

  train: Examples
  test: Examples
  frames: int

  def samples(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N T"]:
    """Returns the sound of rows."""
    mel = blocks.reshape(len(blocks), -1, BANDS)
    parts = [from_log_mel(mel[first : first + _PARTS]) for first in range(0, len(mel), _PARTS)]
    return np.concatenate(parts)

  def judged(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
    return log_mel(self.samples(blocks))

  def pictures(self, blocks: Float[np.ndarray, "N L F"]) -> Float[np.ndarray, "N H W"]:
    """Returns the spectra of the sound: time to the right, high bands above."""
    return self.judged(blocks).swapaxes(1, 2)[:, ::-1]

  def write(self, folder: Path, name: str, blocks: Float[np.ndarray, "N L F"]) -> list[Path]:
    """Writes one WAV with all rows after each other, and their spectra as a PNG."""
    sound = self.samples(blocks)
    files = [folder / f"{name}.wav", folder / f"{name}.png"]
    write_wav(files[0], np.pad(sound, ((0, 0), (0, RATE // 8))).reshape(-1))
    write_png(files[1], grid([log_mel(sound).swapaxes(1, 2)[:, ::-1]], 10))
    return files


def read_spoken(folder: Path, *, length: int, frames: int, shifts: int) -> SpokenDigits:
  """Returns the recordings {digit}_{speaker}_{index}.wav of a folder or of its *.tar.gz files.

  Index 0 to 4 is the test part. Recordings are cut or filled with silence to length * frames
  spectra; those to train with come `shifts` times, each one spectrum later. Raises
  FileNotFoundError for a folder without recordings, and ValueError if one part has none.
  """
  sounds: dict[bool, list] = {True: [], False: []}
  labels: dict[bool, list] = {True: [], False: []}
  size = length * frames * HOP
  for name, samples in _recordings(folder):
    digit, _, index = name.split("_")
    test = int(index) < 5
    for shift in range(1 if test else shifts):
      row = np.zeros(size, np.float32)
      part = samples[: size - shift * HOP]
      row[shift * HOP : shift * HOP + len(part)] = part
      sounds[test].append(row)
      labels[test].append(int(digit))
  if not sounds[True] and not sounds[False]:
    raise FileNotFoundError(f"no DIGIT_SPEAKER_INDEX.wav in {folder} or in its *.tar.gz files")
  if not sounds[True] or not sounds[False]:
    raise ValueError(f"{folder} needs recordings of index 0 to 4 and later ones")

  def part(test):
    mel = log_mel(np.stack(sounds[test]))
    blocks = mel.reshape(len(mel), length, frames * BANDS)
    return Examples(blocks, np.array(labels[test], np.int32))

  return SpokenDigits(part(False), part(True), frames)


def _recordings(folder: Path) -> Iterator[tuple[str, Float[np.ndarray, " T"]]]:
  for path in sorted(folder.glob("*_*_*.wav")):
    yield path.stem, read_wav(path, str(path))
  for path in sorted(folder.glob("*.tar.gz")):
    with tarfile.open(path) as archive:
      for member in sorted(archive.getmembers(), key=lambda one: one.name):
        name = Path(member.name)
        file = archive.extractfile(member)
        if file is not None and name.suffix == ".wav" and name.stem.count("_") == 2:
          yield name.stem, read_wav(io.BytesIO(file.read()), f"{path}: {member.name}")
