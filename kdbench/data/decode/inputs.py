"""What an input of a data set is: pictures, clips, vectors, sounds, each with its shape and normalisation.

Needs no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=80)]


def _pixels(given: Any) -> Any:
    """A size as it is kept: a square's side, or (height, width)."""
    sides = given if isinstance(given, list | tuple) else [given, given]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
    if len(sides) != 2 or not whole:
        raise ValueError("a number of pixels, or [height, width], each at least 1, is expected")
    return sides[0] if sides[0] == sides[1] else tuple(sides)


Size = Annotated[int | tuple[int, int], BeforeValidator(_pixels)]
"""Pixels of a side of a square, or (height, width)."""


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """A size as (height, width)."""
    return (size, size) if isinstance(size, int) else size


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    made_by: ClassVar[tuple[str, ...]] = ()
    """Settings that decide its values, where what identifies a row is the file or the samples it is made from."""

    def made(self) -> dict[str, Any]:
        """Those of ``made_by`` that are not as they are by default."""
        return self.model_dump(mode="json", include={*self.made_by}, exclude_defaults=True)


def _one_a_channel(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Refuses a normalisation that is neither of all channels alike nor of each."""
    if {len(mean), len(std)} - {1, channels}:
        raise ValueError(f"mean and std have {len(mean)} and {len(std)} numbers for {channels} channels; give one each")


class ImageInput(_Input):
    """Pictures of one size, decoded once to (N, channels, height, width) uint8.

    ``channels``: 1 for grey, 3 for RGB, which is what is taken where nothing is said. ``convert`` allows pictures of
    another mode, which are brought to this one; otherwise they are an error. ``white`` is the value of white in grey
    pictures of more than 8 bits, 65535 where it is not given. ``fit: scale`` brings whole pictures of any size and
    shape to ``size``, bilinear; ``fit: pad`` keeps their shape, scaled to lie within ``size``, the rest of the mean
    colour. Otherwise another size is an error.
    """

    kind: Literal["image"]
    column: Column
    size: Size
    fit: Literal["exact", "scale", "pad"] = "exact"
    channels: Literal[1, 3] = 3
    convert: bool = False
    white: float | None = Field(default=None, gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def made(self) -> dict[str, Any]:
        return {} if self.fit == "exact" else {"fit": self.fit, "size": list(height_width(self.size))}

    @model_validator(mode="after")
    def _normalised(self) -> ImageInput:
        _one_a_channel(self.channels, self.mean, self.std)
        return self


class PictureInput(_Input):
    """Pictures of any size, kept compressed and decoded when drawn: (N, channels, height, width) uint8.

    ``resize`` is what the short side is brought to before the centre is cut out; where ``size`` is no square, pictures
    are scaled to cover one of its shape whose short side is ``resize``. All are brought to ``channels``, 1 for grey or
    3 for RGB. ``white`` as of an image. Without ``resize`` whole pictures are seen, as pictures with targets in
    them must be: ``fit: scale`` and ``fit: pad`` as of an image, ``fit: exact`` refuses another size.
    """

    made_by = ("white", "channels", "fit")
    kind: Literal["picture"]
    column: Column
    size: Size
    fit: Literal["cut", "exact", "scale", "pad"] = "cut"
    resize: int | None = Field(default=None, ge=1)
    channels: Literal[1, 3] = 3
    white: float | None = Field(default=None, gt=0)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _normalised(self) -> PictureInput:
        _one_a_channel(self.channels, self.mean, self.std)
        if (self.resize is None) != (self.fit != "cut"):
            raise ValueError(
                "give one of resize, what the short side is brought to, and fit: scale or pad, for whole pictures"
            )
        return self


class ClipInput(_Input):
    """Videos, as files or as lists of pictures, kept as compressed pictures: (N, 3, frames, size, size) uint8.

    ``keep`` is the shorter side of the pictures that a video file is decoded to, if its own is longer. ``loop`` repeats
    videos shorter than ``frames``, which are an error otherwise. ``frame`` names an input that shows one picture of the
    clip, a random one in training and the middle one in tests.
    """

    made_by = ("keep",)
    kind: Literal["clip"]
    column: Column
    frames: int = Field(ge=1)
    size: Size
    resize: int = Field(ge=1)
    keep: int = Field(default=256, ge=1)
    loop: bool = False
    frame: Slug | None = None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class VectorInput(_Input):
    """Stored features, (N, size) float32. With ``optional``, rows may have null there: they lack this input."""

    kind: Literal["vector"]
    column: Column
    size: int = Field(ge=1)
    optional: bool = False
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class SoundInput(_Input):
    """Waveforms, turned once into log-mel bands: (N, bands, frames) float32, see :mod:`kdbench.data.decode.sound`.

    ``column`` holds int16 samples, ``rate_column`` their rate, which must be ``rate`` hertz.
    """

    made_by = ("samples", "window", "hop", "bands")
    kind: Literal["sound"]
    column: Column
    rate_column: Column
    rate: int = Field(ge=1)
    samples: int = Field(ge=1)
    window: int = Field(ge=2)
    hop: int = Field(ge=1)
    bands: int = Field(ge=1)
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


Input = Annotated[ImageInput | PictureInput | ClipInput | VectorInput | SoundInput, Field(discriminator="kind")]
