"""A plain PyTorch loop as people write it: torchvision transforms, a DataLoader, Adam.

python -m experiments.clock.plain_loop labels.csv EPOCHS SEED SIZE
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fracnet.models.backbones import efficientnet_lite0


class Radiographs(Dataset):
    """Images of one split of labels.csv (path, label, split)."""

    def __init__(self, table: pd.DataFrame, split: str, transform: transforms.Compose) -> None:
        self.classes = sorted(table["label"].unique())
        self.rows = table[table["split"] == split].reset_index(drop=True)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows.iloc[index]
        image = Image.open(row["path"]).convert("RGB")
        return self.transform(image), self.classes.index(row["label"])


def split_transforms(size: int) -> tuple[transforms.Compose, transforms.Compose]:
    """Of training and of validation images."""
    normalize = transforms.Normalize([0.5] * 3, [0.5] * 3)  # as the weights expect
    training = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomRotation(15),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.ToTensor(),
            normalize,
        ]
    )
    plain = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor(), normalize])
    return training, plain


def main(labels: Path, epochs: int, seed: int, size: int) -> None:
    """Train, and print the validation accuracy of each epoch."""
    torch.manual_seed(seed)
    table = pd.read_csv(labels)
    training, plain = split_transforms(size)
    train = Radiographs(table, "train", training)
    loader = DataLoader(train, batch_size=32, shuffle=True, num_workers=2)
    val_loader = DataLoader(Radiographs(table, "val", plain), batch_size=32, num_workers=2)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = efficientnet_lite0(len(train.classes)).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        model.train()
        for images, targets in loader:
            images, targets = images.to(device), targets.to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), targets)
            loss.backward()
            optimizer.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, targets in val_loader:
                images, targets = images.to(device), targets.to(device)
                correct += (model(images).argmax(1) == targets).sum().item()
        accuracy = correct / len(val_loader.dataset)  # type: ignore[arg-type]
        print(f"epoch {epoch + 1}/{epochs}  accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    path, *numbers = sys.argv[1:]
    main(Path(path), *map(int, numbers))
