"""Log-mel bands: shapes, the scale, and that a tone lights its band."""

from __future__ import annotations

import numpy as np
import pytest

from kdbench.data.decode.sound import FLOOR, log_mel, mel_bands

FORM = {"rate": 8000, "samples": 2048, "window": 256, "hop": 128, "bands": 32}


def test_neighbouring_bands_share_every_frequency_between_their_middles() -> None:
    bands = mel_bands(8000, 4096, 32)
    frequencies = np.linspace(0, 4000, 2049)
    middles = frequencies[bands.argmax(1)]
    inside = (frequencies > middles[0] + 5) & (frequencies < middles[-1] - 5)
    np.testing.assert_allclose(bands.sum(0)[inside], 1.0, atol=1e-9)
    assert (np.diff(middles) > 0).all()
    mel = 1127 * np.log1p(middles / 700)  # the same scale with a natural logarithm
    np.testing.assert_allclose(np.diff(mel), np.diff(mel).mean(), rtol=0.06)


@pytest.mark.parametrize("hertz", [300, 1000, 2500])
def test_a_tone_lights_its_band(hertz: int) -> None:
    wave = (8000 * np.sin(2 * np.pi * hertz * np.arange(2048) / 8000)).astype(np.int16)
    bands = log_mel(wave, **FORM)
    assert bands.shape == (32, 15)
    weights = mel_bands(8000, 256, 32)
    nearest = weights[:, round(hertz / 8000 * 256)].argmax()
    assert (bands.argmax(0) == nearest).all()


def test_short_waves_are_padded_and_long_ones_cut() -> None:
    wave = np.random.default_rng(0).integers(-3000, 3000, 5000).astype(np.int16)
    assert np.array_equal(log_mel(wave, **FORM), log_mel(wave[:2048], **FORM))
    short = log_mel(wave[:300], **FORM)
    assert np.allclose(short[:, 5:], np.log(FLOOR))
    assert short[:, 0].min() > np.log(FLOOR)


def test_power_grows_with_the_square_of_the_amplitude() -> None:
    wave = np.random.default_rng(0).integers(-3000, 3000, 2048).astype(np.int16)
    louder = log_mel(np.asarray(wave * 4, np.int16), **FORM) - log_mel(wave, **FORM)
    np.testing.assert_allclose(louder, np.log(16), atol=2e-3)
