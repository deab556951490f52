"""Train a binary network in a loop of your own, pack it, and run it: digits, 20 s on one core.

python examples/own_loop.py [FOLDER]   writes FOLDER/digits.bnn
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import frostbit as fb

EPOCHS, BATCH = 20, 50


def digits() -> tuple[Tensor, Tensor]:
    """1,797 pictures, float32 [N, 1, 8, 8] of pixels 0..255, and their labels int64 [N]."""
    source = load_digits()
    pixels = np.round(source.images * 255 / 16).astype(np.float32)
    return torch.from_numpy(pixels)[:, None], torch.from_numpy(source.target)


def network() -> nn.Module:
    """An ordinary network; what is between its first and its last layer becomes binary."""
    layers: list[nn.Module] = [nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, 10))


def train(net: nn.Module, loader: DataLoader) -> None:
    """The loop. What StoMPP adds to it are three lines."""
    steps = EPOCHS * len(loader)
    freezer = fb.StoMPP(net, steps, warmup=0.25, settle=0.1, ramp="linear", overlap=2)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    net.train()
    for _ in range(EPOCHS):
        for images, labels in loader:
            freezer.advance()
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            with freezer.holding():
                optimizer.step()
            schedule.step()


def main(folder: Path) -> None:
    """Train, pack, save, and compare the accuracy of the module with the engine's."""
    torch.manual_seed(0)
    images, labels = digits()
    test_images, test_labels = images[:360], labels[:360]
    data = TensorDataset(images[360:], labels[360:])
    net = fb.binarize(network(), images[:1], mean=[0.3053], std=[0.3762])
    train(net, DataLoader(data, BATCH, shuffle=True, drop_last=True))

    plain = DataLoader(data, 500)
    program = fb.pack(net, calibration=plain, classes=[str(digit) for digit in range(10)])
    fb.save(program, folder / "digits.bnn")

    update_bn(plain, net)  # as pack does
    with torch.no_grad():
        module = net.eval()(test_images).argmax(dim=1)
    pictures = test_images.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    engine = fb.load(folder / "digits.bnn").run(pictures).argmax(axis=1)
    for name, answers in (("module", module.numpy()), ("engine", engine)):
        right = int((answers == test_labels.numpy()).sum())
        print(f"{name}: {right} of {len(answers)} right, {100 * right / len(answers):.2f} %")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
