"""Does the audit name planted shortcuts, and nothing without one?

FRACATLAS_ROOT=<folder> python -m experiments.shortcuts.measure --out result.json
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.duplicates.copies import radiographs
from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data_audit.image_scan import FEATURES, ImageScan
from fracnet.data_audit.shortcuts import ALL, FamilyScore, check_shortcuts, score_families
from fracnet.utils.progress import no_progress

Grey = np.ndarray
SIDE = 640  # pixels of the longest side of a source image
AGREEMENT = 0.9  # how often the planted trait agrees with the class
QUALITY = 90  # of every JPEG, unless quality is what is planted


def _letter(image: Grey, height: int, level: int, left: bool = True) -> Grey:
    """An L near an upper corner."""
    image = image.copy()
    scale = height / 21  # the height of this font at scale 1
    x = 8 if left else image.shape[1] - 8 - round(14 * scale)
    thickness = max(1, round(2 * scale))
    place = (x, 8 + height)
    cv2.putText(image, "L", place, cv2.FONT_HERSHEY_SIMPLEX, scale, level, thickness, cv2.LINE_AA)
    return image


def _framed(image: Grey, level: int) -> Grey:
    image = image.copy()
    cv2.rectangle(image, (0, 0), (image.shape[1] - 1, image.shape[0] - 1), level, 3)
    return image  # a line of 3 pixels centered on the outermost one leaves 2


def _resampled(image: Grey, up: int) -> Grey:
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, image.shape[::-1], interpolation=up))


def _noisy(image: Grey, sigma: float, rng: np.random.Generator) -> Grey:
    return np.clip(np.rint(image + rng.normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


Plant = Callable[[Grey, bool, np.random.Generator], Grey]
PLANTS: dict[str, tuple[str, Plant]] = {
    "JPEG quality 30 or 95": ("JPEG quality", lambda x, on, rng: x),
    "JPEG quality 30 or 95, stored as PNG": ("JPEG quality", lambda x, on, rng: x),
    "blur, sigma 1": ("sharpness", lambda x, on, rng: cv2.GaussianBlur(x, (0, 0), 1) if on else x),
    "noise, sigma 5": ("noise", lambda x, on, rng: _noisy(x, 5, rng) if on else x),
    "noise, sigma 3": ("noise", lambda x, on, rng: _noisy(x, 3, rng) if on else x),
    "2x resampling, linear": (
        "resampling",
        lambda x, on, rng: _resampled(x, cv2.INTER_LINEAR) if on else x,
    ),
    "2x resampling, cubic": (
        "resampling",
        lambda x, on, rng: _resampled(x, cv2.INTER_CUBIC) if on else x,
    ),
    "black border, 2 pixels": ("thin border", lambda x, on, rng: _framed(x, 0) if on else x),
    "white border, 2 pixels": ("thin border", lambda x, on, rng: _framed(x, 255) if on else x),
    "white L, 16 pixels": ("corner marks", lambda x, on, rng: _letter(x, 16, 255) if on else x),
    "white L, 10 pixels": ("corner marks", lambda x, on, rng: _letter(x, 10, 255) if on else x),
    "grey L, 16 pixels": ("corner marks", lambda x, on, rng: _letter(x, 16, 140) if on else x),
    "marker left or right": ("corner marks", lambda x, on, rng: _letter(x, 16, 255, left=on)),
}


def sources(kind: str) -> list[tuple[str, Grey]]:
    """Names and images of at most `SIDE` pixels: radiographs without repeated ones, or phantoms."""
    if kind == "phantoms":
        specs = [Spec(REGIONS[i % len(REGIONS)], 81, i, 0, i % 3) for i in range(100)]
        return [(f"phantom {spec.patient}", np.asarray(render(spec).image)) for spec in specs]
    unique = dict(radiographs(Path(os.environ["FRACATLAS_ROOT"])))
    return [(name, _reduced(image)) for name, image in unique.items()]


def _reduced(image: Grey) -> Grey:
    scale = min(1.0, SIDE / max(image.shape))
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def crops(images: list[tuple[str, Grey]], n: int, seed: int) -> tuple[list[Grey], list[str]]:
    """n crops, half of them mirrored, at another brightness; and the names of their sources."""
    rng = np.random.default_rng(seed)
    results, names = [], []
    order = rng.permutation(len(images))
    for i in range(n):
        name, image = images[order[i % len(images)]]
        height, width = image.shape
        tall, wide = (round(side * rng.uniform(0.65, 0.95)) for side in (height, width))
        y, x = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
        part = image[y : y + tall, x : x + wide]
        part = part[:, :: rng.choice([-1, 1])] * rng.uniform(0.85, 1.1)
        results.append(np.ascontiguousarray(np.clip(np.rint(part), 0, 255).astype(np.uint8)))
        names.append(name)
    return results, names


def labels_of(names: list[str], seed: int) -> np.ndarray:
    """int64 [n]: a random class for each source, half of the sources each."""
    unique = sorted(set(names))
    rng = np.random.default_rng([seed, 1])
    of_source = dict(zip(unique, rng.permutation(len(unique)) % 2, strict=True))
    return np.array([of_source[name] for name in names], np.int64)


def measure(images: list[Grey], targets: np.ndarray, plant: str, seed: int) -> np.ndarray:
    """Features of the images, written as files with the planted trait."""
    rng = np.random.default_rng([seed, 2])
    _, alter = PLANTS.get(plant, ("", lambda x, on, rng: x))
    on = (targets == 1) == (rng.random(len(targets)) < AGREEMENT)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, image in enumerate(images):
            quality = (30 if on[i] else 95) if plant.startswith("JPEG") else QUALITY
            planted = alter(image, bool(on[i]), rng)
            data = cv2.imencode(".jpg", planted, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            ending = "png" if plant.endswith("PNG") else "jpg"
            if ending == "png":
                data = cv2.imencode(".png", cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))[1]
            files.append(Path(folder, f"{i}.{ending}"))
            files[-1].write_bytes(data.tobytes())
        scan = ImageScan(files)
        for i in range(len(files)):
            scan(i)
        assert not scan.bad, scan.bad
        return scan.features


def judge(features: np.ndarray, targets: np.ndarray, names: list[str]) -> list[FamilyScore]:
    """The scores of all families, evaluated by source."""
    scores = score_families(features, targets, names, "source", 2, no_progress)
    assert not isinstance(scores, str), scores
    return scores


def planted(kind: str, n: int, seeds: int, only: str) -> dict[str, Any]:
    """How often each plant is a warning that names its family, with the AUC of the family."""
    images = sources(kind)
    table = {}
    for plant, (family, _) in PLANTS.items():
        if only not in plant:
            continue
        rows = []
        for seed in range(seeds):
            parts, names = crops(images, n, seed)
            targets = labels_of(names, seed)
            scores = judge(measure(parts, targets, plant, seed), targets, names)
            finding = check_shortcuts(scores, 2, "source")
            score = next(score for score in scores if score.name == family)
            rows.append(
                {
                    "named": finding.severity == "warning" and family in finding.title,
                    "severity": finding.severity,
                    "AUC": round(score.auc, 3),
                    "low": round(score.low or 0.0, 3),
                    "together": round(next(s.auc for s in scores if s.name == ALL), 3),
                    "title": finding.title,
                }
            )
        table[plant] = {
            "family": family,
            "named": sum(row["named"] for row in rows),
            "seeds": seeds,
            "AUC": [row["AUC"] for row in rows],
            "low": [row["low"] for row in rows],
            "AUC of all together": [row["together"] for row in rows],
            "first title": rows[0]["title"],
        }
        line = {key: table[plant][key] for key in ("named", "seeds", "AUC", "low")}
        print(kind, plant, json.dumps(line), table[plant]["first title"], flush=True)
    return table


def unplanted(kind: str, n: int, draws: int) -> dict[str, Any]:
    """Findings on random classes, and how often any interval excludes 0.5 from below."""
    images = sources(kind)
    severities: dict[str, int] = {}
    above = 0
    for draw in range(draws):
        if draw % 20 == 0:
            parts, names = crops(images, n, 1000 + draw)
            features = measure(parts, labels_of(names, draw), "", draw)
        targets = labels_of(names, 1000 + draw)
        scores = judge(features, targets, names)
        finding = check_shortcuts(scores, 2, "source")
        key = finding.severity
        if key == "hint":
            key += ": too few images" if "too few" in finding.title else ": named"
        severities[key] = severities.get(key, 0) + 1
        above += any((score.low or 0.0) > 0.5 for score in scores)
    result = {"draws": draws, "findings": severities, "any lower limit above 0.5": above}
    print(kind, "without a plant", json.dumps(result), flush=True)
    return result


def cost(kind: str) -> dict[str, Any]:
    """Processor milliseconds per image of the measurements, without decoding."""
    from fracnet.data_audit.traces import measure_traces

    images = [image for _, image in sources(kind)][:50]
    large = [cv2.resize(image, (2304, 2880)) for image in images[:10]]
    result = {}
    for name, group in (("at most 640 pixels", images), ("2304 x 2880 pixels", large)):
        start = time.process_time()
        for image in group:
            measure_traces(image)
        result[name] = round(1000 * (time.process_time() - start) / len(group), 1)
    return result


def main() -> None:
    """Measure and print; --out writes everything as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=400, help="images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=100, help="data sets without a plant")
    parser.add_argument("--kinds", nargs="+", default=["radiographs", "phantoms"])
    parser.add_argument("--only", default="", help="part of a plant's name")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    content: dict[str, Any] = {
        "images": given.n,
        "agreement": AGREEMENT,
        "features": len(FEATURES),
        "ms per image": cost(given.kinds[0]),
    }
    print(content, flush=True)
    for kind in given.kinds:
        content[kind] = {
            "planted": planted(kind, given.n, given.seeds, given.only) if given.seeds else {},
            "without a plant": unplanted(kind, given.n, given.draws) if given.draws else {},
        }
    if given.out is not None:
        given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
