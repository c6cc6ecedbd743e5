"""Generated pictures that are not radiographs."""

import cv2
import numpy as np


def photograph(seed: int, side: int) -> np.ndarray:
    """Sky, hills, houses and a sun, uint8 [side, side]: edges and textures as of a photograph."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:side, 0:side] / side
    image = 200 - 80 * down
    ridge = rng.uniform(0.4, 0.6) + sum(
        rng.normal(0, 0.05) * np.sin(2 * np.pi * k * across + rng.uniform(0, 6)) for k in (1, 2, 3)
    )
    fine, coarse = (
        cv2.GaussianBlur(rng.normal(size=(side, side)), (0, 0), width) for width in (1.2, 4.0)
    )
    image = np.where(down > ridge, rng.uniform(60, 120) + 40 * fine + 100 * coarse, image)
    for _ in range(rng.integers(2, 4)):
        x, y = (int(place) for place in rng.integers(0, 3 * side // 4, 2))
        corner = (x + int(side * rng.uniform(0.1, 0.25)), y + int(side * rng.uniform(0.1, 0.3)))
        cv2.rectangle(image, (x, y), corner, float(rng.uniform(20, 230)), -1)
    cv2.circle(image, (side // 5, side // 6), side // 14, 245.0, -1)
    return np.clip(image + rng.normal(0, 3, (side, side)), 0, 255).astype(np.uint8)
