"""Small pictures and their encodings."""

import io

import numpy as np
from PIL import Image, ImageFilter

WIDTH, HEIGHT = 70, 50


def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Smooth noise, grey, without constant areas."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def color() -> Image.Image:
    return Image.merge("RGB", [picture(seed) for seed in range(3)])


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
