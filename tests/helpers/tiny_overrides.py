"""Overrides of a training that takes seconds: TinyNet on small images, on the CPU."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
USER_CONF = TESTS / "user_conf"


def tiny_overrides(
    *more: str,
    model: str = "tiny",
    size: int = 32,
    batch: int = 16,
    workers: int = 0,
    epochs: int | str = 1,
    explain: bool = False,
) -> list[str]:
    """Overrides of `fracnet.train`; `more` holds the dataset and anything else.

    model: a choice of tests/user_conf. size: pixels. batch: images. workers: of the loaders.
    epochs: as text for a sweep's several. explain: compute heatmaps at the end, which
    takes as long as all the rest.
    """
    return [
        "--config-dir",
        str(USER_CONF),
        f"model={model}",
        f"image_size={size}",
        f"data.batch_size={batch}",
        f"data.num_workers={workers}",
        f"trainer.max_epochs={epochs}",
        "trainer.accelerator=cpu",
        *([] if explain else ["explain=none"]),
        *more,
    ]
