"""From a camera's picture to a network's input, the way the network saw pictures when it was trained.

`letterbox` repeats ultralytics' own (``ultralytics.data.augment.LetterBox``, ``auto=True``) step by step, since a
detector counts differently when its input is scaled by another rule. Every function takes ``(H, W, 3)`` uint8 BGR.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame, Pixels

GREY = 114  # ultralytics' padding level
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # torchvision.transforms reference preprocessing, RGB
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A scaled and padded picture, with what is needed to bring boxes back: see `to_unit`."""

    pixels: Pixels
    scaled: tuple[int, int]  # (height, width) of the picture inside the padding
    offset: tuple[int, int]  # (top, left) padding

    def to_unit(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map ``(n, 4)`` corner boxes from input pixels to shares of the original picture, clipped to 0..1."""
        (height, width), (top, left) = self.scaled, self.offset
        shifted = xyxy - np.array([left, top, left, top], np.float32)
        return np.clip(shifted / np.array([width, height, width, height], np.float32), 0.0, 1.0)


def letterbox(pixels: Pixels, size: int | tuple[int, int], stride: int = 32, filled: bool = False) -> Letterbox:
    """Scale into ``size``, of a square or (height, width), and pad to the next multiple of ``stride``, or to all of it.

    The padding up to a stride, not a square, is what makes a 16:9 frame 40 % cheaper than a square one.
    """
    import cv2

    height, width = pixels.shape[:2]
    most_h, most_w = (size, size) if isinstance(size, int) else size
    ratio = min(most_h / height, most_w / width)
    scaled_w, scaled_h = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_w, pad_h = most_w - scaled_w, most_h - scaled_h
    if not filled:
        pad_w, pad_h = pad_w % stride, pad_h % stride
    # The 0.1 decides, as in ultralytics, which side takes the odd pixel.
    top, bottom = round(pad_h / 2 - 0.1), round(pad_h / 2 + 0.1)
    left, right = round(pad_w / 2 - 0.1), round(pad_w / 2 + 0.1)
    if (width, height) != (scaled_w, scaled_h):
        pixels = np.asarray(cv2.resize(pixels, (scaled_w, scaled_h), interpolation=cv2.INTER_LINEAR), np.uint8)
    padded = cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    return Letterbox(np.asarray(padded, np.uint8), (scaled_h, scaled_w), (top, left))


def to_planes(pixels: Pixels) -> NDArray[np.float32]:
    """Return ``(1, 3, H, W)`` float32 RGB in 0..1."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[::-1][None], dtype=np.float32)
    planes /= 255.0
    return planes


def centre_crop(pixels: Pixels, size: int, resize_to: int | None = None) -> Pixels:
    """Scale the shorter side to ``resize_to`` (default ``size``) and cut the middle ``(size, size)`` out of it."""
    import cv2

    height, width = pixels.shape[:2]
    ratio = (resize_to or size) / min(height, width)
    scaled_w, scaled_h = max(round(width * ratio), size), max(round(height * ratio), size)
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(pixels, (scaled_w, scaled_h), interpolation=method), np.uint8)
    top, left = (scaled_h - size) // 2, (scaled_w - size) // 2
    return scaled[top : top + size, left : left + size]


def stretch_rgb(pixels: Pixels, height: int, width: int) -> Pixels:
    """Scale to exactly ``(height, width)``, RGB, ignoring the aspect ratio: nothing of the scene is cut off."""
    import cv2

    return np.asarray(cv2.cvtColor(cv2.resize(pixels, (width, height)), cv2.COLOR_BGR2RGB), np.uint8)


def imagenet_planes(pixels: Pixels, size: int, resize_to: int | None = None) -> NDArray[np.float32]:
    """Return ``(1, 3, size, size)`` float32, normalised by the ImageNet mean and deviation (torchvision's recipe)."""
    planes = to_planes(centre_crop(pixels, size, resize_to))
    mean = np.array(IMAGENET_MEAN, np.float32).reshape(1, 3, 1, 1)
    std = np.array(IMAGENET_STD, np.float32).reshape(1, 3, 1, 1)
    return (planes - mean) / std


def picture_of(frame: Frame, model: str) -> Pixels:
    """Return the frame's pixels, or raise `ModelError` when there are none to look at (a recorded trace)."""
    try:
        pixels = frame.pixels
    except ValueError as error:
        where = f'model "{model}": frame {frame.index} of camera "{frame.camera_id}"'
        raise ModelError(f"{where} cannot be looked at: {error}") from error
    shape = pixels.shape
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ModelError(
            f'model "{model}": frame {frame.index} of camera "{frame.camera_id}" has no picture, shape {shape}, '
            "wanted (H, W, 3); frames of a recorded trace can only be given to recorded models"
        )
    return pixels
