"""Log-mel bands of a waveform."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-6
"""Added to the power before the logarithm, so that silence is finite."""


def _mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0))


@functools.lru_cache(maxsize=8)
def mel_bands(rate: int, window: int, bands: int) -> NDArray[np.float64]:
    """(bands, window // 2 + 1) triangles, evenly spaced and half overlapping on the mel scale (O'Shaughnessy 1987)."""
    frequencies = np.linspace(0, rate / 2, window // 2 + 1)
    edges = 700.0 * (10 ** (np.linspace(0, float(_mel(rate / 2)), bands + 2) / 2595.0) - 1.0)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.clip(np.minimum(rising, falling), 0.0, None)


def log_mel(
    wave: NDArray[np.int16], *, rate: int, samples: int, window: int, hop: int, bands: int
) -> NDArray[np.float32]:
    """Natural logarithm of the power in each band over time.

    Args:
        wave: (L,) samples; cut to ``samples``, or padded with silence behind.
        rate: samples a second.
        window, hop: length and distance of the Hann windows, in samples.

    Returns:
        (bands, 1 + (samples - window) // hop).
    """
    whole = np.zeros(samples)
    whole[: min(samples, len(wave))] = wave[:samples] / 32768.0
    frames = np.lib.stride_tricks.sliding_window_view(whole, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1], axis=1)) ** 2
    return np.log(mel_bands(rate, window, bands) @ power.T + FLOOR).astype(np.float32)
