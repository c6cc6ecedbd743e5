"""The claims of the two published works: what was reported, and the sweep that examines each."""

from dataclasses import dataclass

CLASSIFIER, NETWORK = "six-class report", "parallel-filter CNN report"
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Claim:
    """One key of the config, its values, and what a work says of them.

    text: the claim, or the comparison that the work makes. source: the work. arms: name ->
    override; the first is the one that the others are compared with. common: overrides of all
    arms. small: of size=small alone, after `SMALL`. data: the real dataset; `phantom` stands in
    where its folder is absent. published: difference from the first arm that the work reports, None
    where it gives none that is known to us; n: test images it rests on, None if not stated.
    metrics: those compared; "rarest" is the sensitivity for the class with the fewest train images.
    remark: what the comparison does not show.
    """

    name: str
    text: str
    source: str
    arms: dict[str, str]
    common: tuple[str, ...]
    small: tuple[str, ...] = ()
    data: str = "upper_limb"
    phantom: str = "upper_limb_phantom"
    published: float | None = None
    n: int | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    remark: str = ""


FIXED = ("imbalance=none", "loss=cross_entropy", "callbacks.ema=null")
"""So that the recipes stay what the works describe, whatever fracnet's defaults become."""
RESNET = ("experiment=cis583_resnet18", *FIXED)
RESIZE, CLAHE = "{name: resize, mode: squash}", "{name: clahe, clip_limit: 2.0, tiles: 8}"
PACKAGED = ("model=efficientnet_lite0",)
"""ImageNet weights from a package: at size=small no model hub is needed."""
RANDOM = ("model.pretrained=false",)

COMMON = ("logger=none", "explain=none", "evaluation.figures=false", "trainer.progress_bar=false")
SMALL = (
    "image_size=48",
    "data.batch_size=32",
    "data.num_workers=0",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
    "callbacks.early_stopping=null",
)
SMALL_PHANTOMS = ("data.counts={train: 180, val: 72, test: 120}",)


def _filtered(step: str) -> str:
    return f"preprocess.steps=[{', '.join(filter(None, (step, RESIZE, CLAHE)))}]"


CLAIMS = (
    Claim(
        "transfer",
        "ResNet-18 with ImageNet weights reaches 89 %, a custom CNN 49 %",
        CLASSIFIER,
        {"custom CNN": "experiment=cis583_cnn", "ResNet-18": "experiment=cis583_resnet18"},
        FIXED,
        RANDOM,
        published=0.40,
        n=83,
        remark="In the public code behind the report the custom CNN was never trained.",
    ),
    Claim(
        "clahe",
        "CLAHE raises accuracy by 6 %",
        CLASSIFIER,
        {"without": "preprocess=none", "CLAHE": "preprocess=clahe"},
        RESNET,
        PACKAGED,
        published=0.06,
        n=83,
        remark="The published runs carried weights over from one to the other.",
    ),
    Claim(
        "denoising",
        "Denoising filters before CLAHE",
        CLASSIFIER,
        {
            "none": _filtered(""),
            "median": _filtered("{name: median, size: 3}"),
            "Gaussian": _filtered("{name: gaussian, size: 3}"),
            "bilateral": _filtered("{name: bilateral}"),
        },
        RESNET,
        PACKAGED,
    ),
    Claim(
        "augmentation",
        "Augmentation on against off",
        CLASSIFIER,
        {"none": "augment=none", "published": "augment=published"},
        RESNET,
        PACKAGED,
    ),
    Claim(
        "imbalance",
        "Methods against class imbalance, with the sensitivity for the rarest class",
        CLASSIFIER,
        {
            name.replace("_", " "): f"imbalance={name}"
            for name in (
                "none",
                "class_weights",
                "oversample",
                "undersample",
                "augment_minority",
            )
        },
        ("experiment=cis583_resnet18", *FIXED[1:]),
        PACKAGED,
        metrics=("rarest", "accuracy"),
    ),
    Claim(
        "batch_size",
        "Batches of 256 against 32 at a learning rate of 0.001 (the text gives both)",
        NETWORK,
        {"32": "data.batch_size=32", "256": "data.batch_size=256"},
        ("experiment=mura_cnn_paper", *FIXED),
        data="mura_150",
    ),
    Claim(
        "architectures",
        "VGG16, ResNet-50, DenseNet-121 and EfficientNet against ResNet-18",
        CLASSIFIER,
        {
            "ResNet-18": "model=resnet18",
            "VGG16": "model=vgg16",
            "ResNet-50": "model=resnet50",
            "DenseNet-121": "model=densenet121",
            "EfficientNet-B0": "model=efficientnet_b0",
        },
        RESNET,
        (*RANDOM, "trainer.max_epochs=2"),
    ),
)
EPOCHS = Claim(
    "epochs",
    "Test accuracy rises with 10 to 50 epochs, to 99.8 %; the best epoch by test is reported",
    NETWORK,
    {"trained once": "trainer.max_epochs=50"},
    ("experiment=mura_cnn_paper", *FIXED),
    data="mura_150",
    remark="The published set (9193 + 8907 images) is not public; MURA stands in for it.",
)
LEAK = Claim(
    "leak",
    "99.8 % test accuracy on fracture images of several regions",
    NETWORK,
    {"deduplicated": "data.split=deduplicated", "as supplied": "data.split=official"},
    ("experiment=mura_cnn_paper", *FIXED),
    data="folder",
    phantom="",
    remark="Of the public set that fits best, 485 of 500 readable test images are copies of train "
    "images.",
)
ALL = {claim.name: claim for claim in (*CLAIMS, EPOCHS, LEAK)}
