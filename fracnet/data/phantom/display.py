"""From paths in the body to grey levels: attenuation, scatter, quanta, film curve, window."""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantom.body import Build
from fracnet.data.phantom.curves import monotone
from fracnet.data.phantom.space import Array, Box, Camera

# Linear attenuation a mm at about 45 keV, the middle of an extremity beam (NIST XCOM, rounded):
# soft tissue 0.024; cortical bone 0.10 and trabecular bone 0.045, here as the excess over the
# tissue that they displace; fatty marrow a little less than soft tissue.
SOFT, CORTEX, SPONGY, MARROW = 0.024, 0.076, 0.022, -0.002
PSF = 0.7  # pixels, detector and focal spot together
RADIUS = 3  # pixels, where the point spread ends
# How far grey levels follow a random target rather than the image: 0 lets the histogram tell the
# body part, 1 washes contrast out.
TONE = 0.45


@dataclass(frozen=True)
class Exposure:
    """A device and a shot: coefficients a mm at the patient's size, and what the air adds.

    scatter: share of the primary beam that returns as a veil; grain: noise of an unattenuated
    pixel relative to its signal; flatten: how far slow changes of density are compressed;
    levels: grey levels of the window's three inner knots; texture, quanta: fixed fields [H, W] of
    mean 0.
    """

    soft: float
    cortex: float
    spongy: float
    scatter: float
    grain: float
    flatten: float
    levels: tuple[float, ...]
    texture: Array
    quanta: Array

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        noise: np.random.Generator,
        camera: Camera,
        build: Build,
    ) -> "Exposure":
        """A shot of that patient; `noise` fills the fixed fields."""
        shape = (camera.height, camera.width)
        beam = float(rng.uniform(0.85, 1.15)) * build.size
        # Bytes are drawn ten times as fast as normal deviates; blurring sums them towards those.
        grains = noise.integers(0, 256, (3, *shape), dtype=np.uint8).astype(np.float32)
        fine = cv2.GaussianBlur(grains[0], (0, 0), 0.16 * camera.scale + 0.35)
        texture = fine - cv2.GaussianBlur(fine, (0, 0), 0.7 * camera.scale + 0.6)
        texture /= texture.std() + 1e-6
        quanta = cv2.GaussianBlur(grains[1] + grains[2] - 255, (0, 0), 0.55) / np.float32(57)
        levels = np.sort(rng.uniform(0.0, [0.6, 0.8, 1.0]))
        return cls(
            soft=SOFT * beam,
            cortex=CORTEX * beam * build.density,
            spongy=SPONGY * beam * build.density,
            scatter=float(rng.uniform(0.05, 0.5)),
            grain=float(np.exp(rng.uniform(np.log(0.004), np.log(0.022)))),
            flatten=float(rng.uniform(0.25, 0.65)),
            levels=tuple(float(x) for x in levels),
            texture=texture,
            quanta=quanta,
        )

    def mineral(self, planes: Array, here: tuple[slice, slice]) -> Array:
        """Excess attenuation of a bone's planes (outer, inner, spongy) at that place."""
        grain = np.clip(1 + 0.13 * self.texture[here], 0.2, 2.0)
        outer, inner, spongy = planes[..., 0], planes[..., 1], planes[..., 2]
        shell = self.cortex * np.maximum(outer - inner, 0)
        return np.asarray(shell + self.spongy * spongy * grain + MARROW * inner, np.float32)


class Film:
    """Turns attenuation into the displayed image.

    Everything that reaches far (scatter, range compression, window) is measured once, on the
    intact patient, so that a fracture changes the image only where it lies.
    """

    def __init__(self, exposure: Exposure, intact: Array, overlay: tuple[Array, Array]) -> None:
        self.exposure = exposure
        self.gain, self.offset = overlay
        size = intact.shape[::-1]
        small = cv2.resize(np.exp(-intact), None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
        veil = exposure.scatter * cv2.GaussianBlur(small, (0, 0), 0.05 * max(small.shape))
        small = -np.log(small + veil)
        base = exposure.flatten * cv2.GaussianBlur(small, (0, 0), 0.07 * max(small.shape))
        self.low, self.high, self.table = window(small - base, exposure.levels)
        self.veil = cv2.resize(veil, size, interpolation=cv2.INTER_LINEAR)
        self.base = cv2.resize(base, size, interpolation=cv2.INTER_LINEAR)
        self.image = self.grey(intact, (0, 0, size[0], size[1]))

    def grey(self, attenuation: Array, box: Box) -> Array:
        """Grey levels uint8 of one box of an attenuation map [H, W]."""
        x0, y0, x1, y1 = box
        here = np.s_[y0:y1, x0:x1]
        a, b = max(0, x0 - RADIUS), max(0, y0 - RADIUS)
        primary = np.exp(-attenuation[b : y1 + RADIUS, a : x1 + RADIUS])
        primary = cv2.GaussianBlur(primary, (2 * RADIUS + 1, 2 * RADIUS + 1), PSF)
        signal = primary[y0 - b : y1 - b, x0 - a : x1 - a] + self.veil[here]
        signal += self.exposure.grain * np.sqrt(signal) * self.exposure.quanta[here]
        density = -np.log(np.maximum(signal, 1e-4)) - self.base[here]
        last = len(self.table) - 1
        place = np.clip((density - self.low) * (last / (self.high - self.low)), 0, last)
        grey = self.table[place.astype(np.int32)] * self.gain[here] + self.offset[here]
        return np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def window(density: Array, levels: tuple[float, ...]) -> tuple[float, float, Array]:
    """Lowest and highest density and a rising table [4096] of grey levels between them.

    The table brings quantiles of the image towards random levels, as automatic processing on the
    device does, by TONE of the way.
    """
    quantiles = np.quantile(density, [0.005, 0.15, 0.5, 0.85, 0.998])
    low, high = float(quantiles[0]) - 0.05, float(max(quantiles[-1], quantiles[0] + 0.3)) + 0.1
    x = (quantiles[1:-1] - low) / (high - low)
    y = (1 - TONE) * x + TONE * np.asarray(levels)
    x = np.concatenate([[0.0], np.maximum.accumulate(x + 0.01 * np.arange(3)), [1.05]])
    y = np.concatenate([[0.0], y, [1.0]])
    grid = np.linspace(0, 1, 4096)
    smooth = monotone(x, np.maximum.accumulate(y)[:, None], grid)[:, 0]
    return low, high, smooth.astype(np.float32)
