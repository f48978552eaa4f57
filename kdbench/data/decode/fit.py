"""How whole pictures of any shape become ones of one size: scaled to it, or scaled to lie within it and padded."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from kdbench.data.decode.inputs import ImageInput, PictureInput, height_width


@dataclass(frozen=True)
class Fit:
    """Of pictures that are seen whole.

    Attributes:
        size: height and width of the result.
        fill: colour of what lies right of and below a picture that keeps its shape, one value a channel; None where
            pictures are scaled to the whole of the result.
    """

    size: tuple[int, int]
    fill: tuple[int, ...] | None = None

    @classmethod
    def of(cls, given: ImageInput | PictureInput) -> Fit:
        """As an input says; padding is of its mean colour, 0 once it is normalised."""
        mean = given.mean if len(given.mean) == given.channels else given.mean * given.channels
        fill = tuple(round(255 * share) for share in mean) if given.fit == "pad" else None
        return cls(height_width(given.size), fill)

    def content(self, came: tuple[int, int]) -> tuple[int, int]:
        """Height and width that a picture of (height, width) has within the result."""
        if self.fill is None:
            return self.size
        scale = min(side / own for side, own in zip(self.size, came, strict=True))
        height, width = (min(side, max(1, round(own * scale))) for side, own in zip(self.size, came, strict=True))
        return height, width

    def picture(self, picture: Image.Image) -> Image.Image:
        """A picture brought to the result's size, bilinear."""
        height, width = self.content((picture.height, picture.width))
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        if (height, width) == self.size or self.fill is None:
            return picture
        whole = Image.new(picture.mode, self.size[::-1], self.fill if len(self.fill) > 1 else self.fill[0])
        whole.paste(picture, (0, 0))
        return whole
