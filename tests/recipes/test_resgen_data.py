"""Files and features of the recipe: IDX, PNG and WAV, spectra and back, and the two measures."""

import gzip
import io
import struct
import tarfile
import zlib

import numpy as np
import pytest

from mtjax.recipes.resgen.data import images, latents, speech
from mtjax.recipes.resgen.judge import frechet, train_judge


def idx(array):
  head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
  return head + array.astype(np.uint8).tobytes()


def mnist(folder, count=40, zipped=True):
  """Writes `count` images, of which image n has n bright pixels, in the form of MNIST."""
  folder.mkdir(exist_ok=True)
  pixels = (np.arange(784) < np.arange(count)[:, None]) * 255
  packed = gzip.compress if zipped else bytes
  tail = ".gz" if zipped else ""
  for name, array in (
    ("t10k-images-idx3-ubyte", pixels.reshape(count, 28, 28)),
    ("t10k-labels-idx1-ubyte", np.arange(count) % 10),
  ):
    (folder / f"{name}{tail}").write_bytes(packed(idx(array)))
  return folder


def tone(seconds, pitch):
  return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * speech.RATE)) / speech.RATE)


@pytest.mark.parametrize("zipped", [True, False])
def test_digits_are_read_as_patches_and_labels(zipped, tmp_path):
  digits = images.read_digits(mnist(tmp_path / "mnist", zipped=zipped), side=7, held_out=10)
  assert digits.train.blocks.shape == (30, 16, 49) and digits.test.blocks.shape == (10, 16, 49)
  assert digits.test.label.tolist() == list(range(10))
  assert digits.judged(digits.test.blocks).sum((1, 2)).tolist() == list(range(30, 40))
  # The first row of pixels of the image lies in the first four patches.
  assert digits.test.blocks[-1, 0, :7].tolist() == [1.0] * 7


def test_patches_are_undone():
  pictures = np.random.default_rng(0).random((3, 6, 6)).astype(np.float32)
  np.testing.assert_array_equal(images.to_images(images.to_blocks(pictures, 2)), pictures)
  with pytest.raises(ValueError, match="patches of 4 do not divide images of 6 x 6"):
    images.to_blocks(pictures, 4)


def test_files_that_are_no_digits_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no \*images-idx3-ubyte file in"):
    images.read_digits(tmp_path, side=7, held_out=1)
  with pytest.raises(ValueError, match="more than 40 images"):
    images.read_digits(mnist(tmp_path / "mnist"), side=7, held_out=40)
  for data in (b"GIF89a", b"", idx(np.zeros((4, 2)))[:-1], b"\0\0\x08\x03\0"):
    path = tmp_path / "broken-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="broken-images-idx3-ubyte (is no IDX file|says shape)"):
      images.read_idx(path)


def test_a_picture_holds_its_pixels(tmp_path):
  pictures = np.stack([np.full((2, 3), value) for value in (0.0, 1.0, 0.5)])
  page = images.grid([pictures, pictures[1:2]], 2, zoom=2, line=1)
  assert page.shape == (14, 12)
  assert page[0, 0] == 0 and page[0, 11] == 255 and page[4, 0] == 128 and page[10, 0] == 255
  path = tmp_path / "page.png"
  images.write_png(path, page)
  data = path.read_bytes()
  size = struct.unpack(">I", data[33:37])[0]
  raw = np.frombuffer(zlib.decompress(data[41 : 41 + size]), np.uint8).reshape(14, 13)
  assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">2I", data[16:24]) == (12, 14)
  np.testing.assert_array_equal(raw[:, 1:], page)


def test_sound_is_written_and_read(tmp_path):
  path = tmp_path / "a.wav"
  speech.write_wav(path, tone(0.1, 440))
  np.testing.assert_allclose(speech.read_wav(path, "a"), tone(0.1, 440), atol=1e-4)
  path.write_bytes(b"RIFF")
  with pytest.raises(ValueError, match="a.wav is no WAV file"):
    speech.read_wav(path, "a.wav")


def test_spectra_are_undone():
  samples = np.random.default_rng(0).normal(size=(2, 20 * speech.HOP))
  again = speech.istft(speech.stft(samples))
  np.testing.assert_allclose(again, samples, atol=1e-10)


def test_sound_made_from_a_mel_spectrum_has_about_that_spectrum():
  samples = np.stack([tone(0.32, 300), tone(0.32, 1500)])
  mel = speech.log_mel(samples)
  assert mel.shape == (2, 40, speech.BANDS) and 0 <= mel.min() and mel.max() <= 1.001
  peak = mel.mean(1).argmax(1)
  assert peak[0] < peak[1]
  made = speech.from_log_mel(mel)
  assert np.abs(made).max() == pytest.approx(0.7)
  assert np.square(speech.log_mel(made) - mel).mean() < 0.2 * np.square(mel).mean()


def test_recordings_come_from_files_and_archives(tmp_path):
  for name, pitch in (("3_ann_0", 300), ("3_ann_7", 320)):
    speech.write_wav(tmp_path / f"{name}.wav", tone(0.1, pitch))
  with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as archive:
    data = (tmp_path / "3_ann_7.wav").read_bytes()
    member = tarfile.TarInfo("folder/8_bob_9.wav")
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
  spoken = speech.read_spoken(tmp_path, length=3, frames=4, shifts=2)
  assert spoken.train.blocks.shape == (4, 3, 4 * speech.BANDS)
  assert spoken.train.label.tolist() == [3, 3, 8, 8] and spoken.test.label.tolist() == [3]
  (tmp_path / "3_ann_0.wav").unlink()
  with pytest.raises(ValueError, match="needs recordings of index 0 to 4 and later ones"):
    speech.read_spoken(tmp_path, length=3, frames=4, shifts=2)
  with pytest.raises(FileNotFoundError, match="no DIGIT_SPEAKER_INDEX.wav in"):
    speech.read_spoken(tmp_path / "empty", length=3, frames=4, shifts=2)


def test_components_keep_what_they_span():
  rng = np.random.default_rng(0)
  x = (rng.normal(size=(200, 2)) * [3, 1]) @ rng.normal(size=(2, 5)) + 4
  map_ = latents.fit_latents(x, 2)
  z = map_.to_latents(x)
  np.testing.assert_allclose(map_.to_blocks(z), x, atol=1e-4)
  assert np.square(z).mean() == pytest.approx(1, rel=0.02) and z[:, 0].std() > z[:, 1].std()
  with pytest.raises(ValueError, match="width must be 1 to the size of a block, 5, got 6"):
    latents.fit_latents(x, 6)


def test_the_distance_is_that_of_gaussians():
  """For diagonal covariances: the squared differences of means and of standard deviations."""
  x = np.random.default_rng(0).normal(size=(300, 3))
  x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
  assert frechet(x, x) == pytest.approx(0, abs=1e-9)
  other = x * [1, 2, 3] + [0.5, 0, 0]
  assert frechet(x, other) == pytest.approx(0.25 + 1 + 4) == pytest.approx(frechet(other, x))


def test_the_judge_learns_classes_and_sees_wrong_ones():
  rng = np.random.default_rng(0)
  label = np.arange(128, dtype=np.int32) % 2
  pictures = rng.random((128, 8, 8)).astype(np.float32) * 0.3
  pictures[label == 1, :, 2:6] += 0.7
  judge = train_judge(pictures, label, classes=2, epochs=25)
  assert judge.accuracy(pictures, label) > 0.95 and judge.accuracy(pictures, 1 - label) < 0.05
  assert judge.features(pictures).shape == (128, 64)
