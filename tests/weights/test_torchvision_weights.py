"""ResNet-18 written by PyTorch, in every layout met, computes here what it computes there."""
# pyright: reportMissingImports=false

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from dmfer_jax.models.dmfer import Dmfer  # noqa: E402
from dmfer_jax.models.resnet import ResNet  # noqa: E402
from dmfer_jax.weights.matching import match  # noqa: E402
from dmfer_jax.weights.pytorch import from_state_dict, to_state_dict  # noqa: E402
from dmfer_jax.weights.reading import read_weights  # noqa: E402


class BasicBlock(nn.Module):
    """As in torchvision, by name and function."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inputs != planes:
            layer = nn.Conv2d(inputs, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(layer, nn.BatchNorm2d(planes))

    def forward(self, x: Any) -> Any:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """As in torchvision, by name and function."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, planes in enumerate((64, 128, 256, 512), start=1):
            first = BasicBlock(inputs, planes, 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, BasicBlock(planes, planes, 1)))
            inputs = planes
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


IMAGES = np.random.default_rng(0).normal(0, 1, (2, 64, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> Any:
    """A network whose every number is random, as after some training."""
    torch.manual_seed(0)
    model = ResNet18().eval()
    norms: list[Any] = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in norms:
        for values in (module.weight, module.running_var):
            nn.init.uniform_(values, 0.5, 1.5)
        for values in (module.bias, module.running_mean):
            nn.init.normal_(values, 0, 0.2)
        module.num_batches_tracked.fill_(7)
    return model


@pytest.fixture(scope="module")
def shapes() -> dict[str, tuple[int, ...]]:
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(Dmfer(8).init, jax.random.key(0), image)
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), variables)
    return {name: array.shape for name, array in to_state_dict(empty).items()}


@pytest.fixture(scope="module")
def features() -> Any:
    """The backbone's mean features `[n, 512]`, compiled once."""
    model: Any = ResNet()
    return jax.jit(lambda variables: model.apply(variables, IMAGES, False)[-1].mean((1, 2)))


LAYOUTS = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"epoch": 12, "arch": "resnet18", "state_dict": state},
    "model_state_dict": lambda state: {"model_state_dict": state, "best_acc": np.float64(0.5)},
    "model": lambda state: {"model": state, "args": None},
}


@pytest.mark.parametrize(
    ("layout", "legacy", "prefix", "with_fc"),
    [
        ("bare", False, "", True),
        ("bare", True, "module.", False),
        ("state_dict", False, "module.", True),
        ("state_dict", True, "module.backbone.", True),
        ("model_state_dict", False, "backbone.", False),
        ("model_state_dict", True, "", True),
        ("model", False, "module.backbone.", False),
        ("model", True, "backbone.", True),
    ],
)
def test_logits_equal_those_of_pytorch(
    tmp_path: Path, network, shapes, features, layout, legacy, prefix, with_fc
):
    state = {
        prefix + name: tensor
        for name, tensor in network.state_dict().items()
        if with_fc or not name.startswith("fc.")
    }
    path = tmp_path / "resnet18.pth.tar"
    torch.save(LAYOUTS[layout](state), path, _use_new_zipfile_serialization=not legacy)
    tensors = read_weights(path)
    assert len(tensors) == len(state)
    found = match(tensors, shapes, "resnet18", "symmetric")
    assert found.unused == ((f"{prefix}fc.weight", f"{prefix}fc.bias") if with_fc else ())
    variables = {name: tree["backbone"] for name, tree in from_state_dict(found.taken).items()}
    fc = network.state_dict()
    logits = features(variables) @ jnp.asarray(fc["fc.weight"].numpy().T) + fc["fc.bias"].numpy()
    with torch.inference_mode():
        expected = network(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).numpy()
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(np.asarray(logits), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_pytorch_writes_is_read_number_by_number(tmp_path: Path, legacy):
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "base": base,
        "transposed": base.t(),
        "corner": base[1:, 2:],
        "half": torch.ones(3).half(),
        "brain": torch.arange(3).bfloat16(),
        "double": torch.rand(2, 2, dtype=torch.float64),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.rand(3)),
        "nothing": torch.zeros(0, 3),
    }
    optimizer = torch.optim.SGD([content["parameter"]], 0.1, momentum=0.9)
    whole = {"state_dict": content, "optimizer": optimizer.state_dict(), "device": base.device}
    torch.save(whole, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    found = read_weights(tmp_path / "x.pth")
    assert found.keys() == content.keys()
    for name, tensor in content.items():
        assert found[name].shape == tuple(tensor.shape), name
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix("torch."), name
        numbers = found[name].astype(np.float64)
        np.testing.assert_array_equal(numbers, tensor.detach().double().numpy())
