"""The LightningModule: what it logs, what its checkpoint holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import ADAM, TINY
from lightning.pytorch import Trainer
from sklearn.metrics import recall_score, roc_auc_score
from torch.utils.data import DataLoader

from fracnet.models.classifier import Classifier
from fracnet.models.heads import find_heads
from fracnet.utils import shared
from fracnet.utils.errors import UserError

CLASSES = ["elbow", "fingers", "wrist"]


def plain_trainer(folder: Path, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        **settings,
    )


def batches(targets: list[int], size: int) -> DataLoader[Any]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (len(targets), 1, 16, 16), dtype=np.uint8))
    rows = torch.arange(len(targets))
    whole = {"image": images, "target": torch.tensor(targets), "row": rows}
    parts = [
        {key: value[start : start + size] for key, value in whole.items()}
        for start in range(0, len(targets), size)
    ]
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 4, 11])
def test_validation_metrics_do_not_depend_on_the_batch_size(tmp_path: Path, size: int) -> None:
    torch.manual_seed(0)
    model = Classifier(TINY, CLASSES, ADAM)
    targets = [0, 1, 2, 0, 0, 1, 2, 2, 2, 2, 1]
    parts = batches(targets, size)
    trainer = plain_trainer(tmp_path)
    trainer.validate(model, parts, verbose=False)
    with torch.no_grad():
        logits = torch.cat([model(part["image"]) for part in parts]).double()
    probability, predicted = logits.softmax(1).numpy(), logits.argmax(1).numpy()
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val/loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.tensor(targets))), rel=1e-6
    )
    assert logged["val/accuracy"] == pytest.approx(np.mean(predicted == np.array(targets)))
    assert logged["val/macro_sensitivity"] == pytest.approx(
        recall_score(targets, predicted, average="macro")
    )
    assert logged["val/macro_auc"] == pytest.approx(
        roc_auc_score(targets, probability, multi_class="ovr", average="macro")
    )
    specificity = [np.mean(predicted[np.array(targets) != c] != c) for c in range(len(CLASSES))]
    assert logged["val/macro_specificity"] == pytest.approx(np.mean(specificity))


def test_an_absent_class_is_left_out_and_not_scored_zero(tmp_path: Path) -> None:
    model = Classifier(TINY, CLASSES, ADAM)
    targets = [0, 1, 0, 1, 1, 0]
    parts = batches(targets, 3)
    trainer = plain_trainer(tmp_path)
    trainer.validate(model, parts, verbose=False)
    with torch.no_grad():
        probability = torch.cat([model(p["image"]) for p in parts]).double().softmax(1).numpy()
    expected = np.mean([roc_auc_score(np.array(targets) == c, probability[:, c]) for c in (0, 1)])
    assert float(trainer.callback_metrics["val/macro_auc"]) == pytest.approx(expected)


def test_checkpoint_holds_plain_values_and_gives_the_same_logits(tmp_path: Path) -> None:
    model = Classifier(TINY | {"width": 3}, CLASSES, ADAM, {"_target_": "x", "T_max": 3})
    trainer = plain_trainer(tmp_path)
    trainer.strategy.connect(model)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path, weights_only=True)
    loaded = Classifier.load_from_checkpoint(path, weights_only=True)
    image = next(iter(batches([0], 1)))["image"]
    assert torch.equal(loaded.eval()(image), model.eval()(image))
    assert loaded.classes == CLASSES


def test_loading_a_checkpoint_downloads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[Any] = []

    def backbone(num_classes: int, pretrained: bool, weights: str | None) -> torch.nn.Module:
        requested.append((pretrained, weights))
        return torch.nn.Conv2d(3, num_classes, 1)

    monkeypatch.setattr("helpers.models.make", backbone, raising=False)
    node = {"_target_": "helpers.models.make", "normalize": "half"}
    model = Classifier(node | {"pretrained": True, "weights": "here.pth"}, CLASSES, ADAM)
    Classifier(**model.hparams)
    assert requested == [(True, "here.pth"), (False, None)]


def test_divergence_is_named(tmp_path: Path) -> None:
    model = Classifier(TINY, CLASSES, ADAM)
    with torch.no_grad():
        model.backbone.head.bias.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"diverged with optim.lr=0.01"):
        plain_trainer(tmp_path).validate(model, batches([0, 1, 2], 3), verbose=False)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "helpers.models.TinyNet", "widht": 3}, r"model.widht=3 .*'width'"),
        ({"_target_": "helpers.models.TinyNett"}, r"no 'TinyNett'.*'TinyNet'"),
        ({"_target_": "no_such_package.Net"}, r"no module 'no_such_package'"),
        ({"_target_": "Net"}, r"not a dotted path"),
    ],
)
def test_an_invalid_user_class_is_named(node: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Classifier(node | {"normalize": "half"}, CLASSES, ADAM)


def test_jobs_with_fitted_heads_share_the_frozen_layers_and_no_head() -> None:
    shared.begin()
    try:
        torch.manual_seed(0)
        state = torch.get_rng_state()
        models = {}
        for name in ("knn", "logistic", "knn again", "linear"):
            torch.set_rng_state(state)
            node = {**TINY, "freeze": "backbone", "head": name.split()[0]}
            models[name] = Classifier(node, CLASSES, ADAM)
            (head,) = find_heads(models[name].backbone, "head")
            with torch.no_grad():
                for tensor in (*head.parameters(), *head.buffers()):
                    tensor.fill_(7)  # what is fitted, of which the next job must see nothing
    finally:
        shared.end()
    torch.set_rng_state(state)
    whole = Classifier(TINY, CLASSES, ADAM).backbone
    inside = {id(weight) for weight in find_heads(whole, "head")[0].parameters()}
    body = {key: w for key, w in whole.named_parameters() if id(w) not in inside}
    assert body
    weights = {name: dict(model.backbone.named_parameters()) for name, model in models.items()}
    for key, weight in body.items():
        assert torch.equal(weights["knn again"][key], weight), key
        assert weights["knn again"][key] is weights["logistic"][key] is weights["knn"][key], key
        assert weights["linear"][key] is not weights["knn"][key], key
    heads = [find_heads(model.backbone, "head")[0] for model in models.values()]
    tensors = [id(t) for head in heads for t in (*head.parameters(), *head.buffers())]
    assert len(set(tensors)) == len(tensors)
