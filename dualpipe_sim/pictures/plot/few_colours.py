"""Pictures of few colours: charts have little else, and their files are a third as large for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from dualpipe_sim.base.arrays import IntArray

_MOST, _AREAS, _UNKNOWN = 256, 200, -1
_SAMPLED = 4  # of so many lines one is looked at for what is frequent
_AT_ONCE = 4096  # colours whose nearest are looked for


class FewColours:
    """The colours that most of some pictures is in, and which of them is nearest to any other.

    A colour is a number, blue · 65536 + green · 256 + red. Those of areas come first, however small these are, and then
    the most frequent of what lies between: edges of letters and lines.

    Attributes:
        share: of the pixels are in these colours.

    """

    def __init__(self, pixels: Any) -> None:  # noqa: ANN401 - red, green, blue, alpha from 0 to 255, (…, lines, columns, 4)
        numbers = _numbers(pixels)
        flat = (numbers[..., 1:, 1:] == numbers[..., :-1, 1:]) & (numbers[..., 1:, 1:] == numbers[..., 1:, :-1])
        in_areas, _ = _frequent(numbers[..., 1:, 1:][flat])
        frequent, count = _frequent(numbers[..., ::_SAMPLED, :])
        among = np.append(in_areas[:_AREAS], frequent[~np.isin(frequent, in_areas[:_AREAS])])
        self._palette = among[:_MOST]
        self.share = float(count[np.isin(frequent, self._palette)].sum() / count.sum())
        self._nearest = np.full(1 << 24, _UNKNOWN, dtype=np.int16)
        self._nearest[self._palette] = np.arange(len(self._palette))

    def picture(self, pixels: Any) -> Image.Image:  # noqa: ANN401 - (lines, columns, 4)
        """Return a picture in these colours."""
        numbers = _numbers(pixels)
        unknown = np.unique(numbers[self._nearest[numbers] == _UNKNOWN])
        for begin in range(0, len(unknown), _AT_ONCE):
            some = unknown[begin : begin + _AT_ONCE]
            apart = np.abs(_channels(some)[:, None] - _channels(self._palette)[None]).sum(axis=2)
            self._nearest[some] = apart.argmin(axis=1)
        image = Image.fromarray(self._nearest[numbers].astype(np.uint8))
        image.putpalette(_channels(self._palette).astype(np.uint8).ravel().tolist())
        return image


def _frequent(numbers: IntArray) -> tuple[IntArray, IntArray]:
    """Return the colours there are, the most frequent first, and how often each is there."""
    found, count = np.unique(numbers, return_counts=True)
    order = np.argsort(-count, kind="stable")
    return found[order], count[order]


def _numbers(pixels: Any) -> IntArray:  # noqa: ANN401
    words = np.ascontiguousarray(pixels).view("<u4")[..., 0]
    numbers: IntArray = words & 0xFFFFFF
    return numbers


def _channels(numbers: IntArray) -> Any:  # noqa: ANN401 - red, green, blue, (colours, 3)
    return np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], axis=-1).astype(np.int16)
