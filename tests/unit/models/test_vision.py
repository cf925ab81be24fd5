"""The models of published tables: shapes, sizes, and what is said without packages or weights."""

import sys

import pytest
import torch
from torch import nn

from mtl import MultiTaskModel
from mtl.errors import ConfigError
from mtl.models import DeepLabHead, DilatedResNet, MTANHeads, ResNet, SegNet

SIZES = {"segmentation": 13, "depth": 1, "normal": 3}


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_deeplab(timm):
    backbone = DilatedResNet("resnet18", pretrained=False)
    head = DeepLabHead(backbone.out_channels, 13, channels=8, rates=(1, 2, 3))
    features = backbone(torch.rand(2, 3, 40, 64))
    assert features.shape == (2, 512, 5, 8)
    assert head(features).shape == (2, 13, 40, 64)
    # bilinear with aligned corners: corners are values of the small prediction
    head.eval()
    small, large = head.layers(features), head(features)
    torch.testing.assert_close(large[..., 0, 0], small[..., 0, 0])
    torch.testing.assert_close(large[..., -1, -1], small[..., -1, -1])


def test_deeplab_is_that_of_the_tables(timm):
    """ResNet-50 without its classifier: 23,508,032; a head with 13 outputs, by hand."""
    with torch.device("meta"):
        backbone, head = DilatedResNet(pretrained=False), DeepLabHead(2048, 13)
    assert backbone.out_channels == 2048
    assert parameters(backbone) == 23_508_032
    normalised = 2 * 256
    pyramid = 2 * (2048 * 256 + normalised) + 3 * (9 * 2048 * 256 + normalised)
    project = 5 * 256 * 256 + normalised
    end = 9 * 256 * 256 + normalised + 256 * 13 + 13
    assert parameters(head) == pyramid + project + end
    dilations = {m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d)}
    assert dilations == {1, 12, 24, 36}


def test_head_can_be_differentiated_twice(timm):
    head = DeepLabHead(6, 2, channels=4, rates=(1, 2, 3))
    features = torch.rand(2, 6, 4, 4, requires_grad=True)
    (saliency,) = torch.autograd.grad(head(features).square().mean(), features, create_graph=True)
    gradients = torch.autograd.grad(saliency.square().sum(), list(head.parameters())[:1])
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_office_encoder(timm):
    model = ResNet(pretrained=False, dropout=0.0)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 512)
    assert parameters(model) == 11_176_512 + 512 * 512 + 512 + 2 * 512  # ResNet-18 and the layer


@pytest.mark.parametrize("make", [DilatedResNet, ResNet])
def test_weights_that_are_not_there(make, timm, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"not in the local cache.*pretrained=false"):
        make(pretrained=True)
    with pytest.raises(ConfigError, match=r"`pretrained`.*nowhere\.pth"):
        make(pretrained="nowhere.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ConfigError, match="pretrained=FILE"):
        make(pretrained=str(tmp_path / "text.pth"))


def test_unknown_network(timm):
    with pytest.raises(ConfigError, match="resnet5000"):
        ResNet("resnet5000", pretrained=False)


def test_weights_from_a_file(timm, tmp_path):
    stored = timm.create_model("resnet18", pretrained=False)
    torch.save(stored.state_dict(), tmp_path / "resnet18.pth")
    made = ResNet("resnet18", pretrained=str(tmp_path / "resnet18.pth"))
    assert torch.equal(made.network.layer4[1].conv2.weight, stored.layer4[1].conv2.weight)
    dilated = DilatedResNet("resnet18", pretrained=str(tmp_path / "resnet18.pth"))
    assert torch.equal(dilated.network.layer4[1].conv2.weight, stored.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("timm", lambda: DilatedResNet(pretrained=False)),
        ("timm", lambda: ResNet(pretrained=False)),
        ("torchvision.models.segmentation.deeplabv3", lambda: DeepLabHead(8, 1)),
    ],
)
def test_packages_that_are_not_there(package, make, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r'pip install -e "\.\[vision\]".*model=unet'):
        make()


@pytest.mark.parametrize("make", [lambda: DilatedResNet("resnet18", pretrained=False), SegNet])
def test_sizes_that_do_not_fit(make, timm):
    with pytest.raises(ConfigError, match=r"multiples of (8|32), got \[36, 64\].*resize"):
        make()(torch.rand(1, 3, 36, 64))


# -------------------------------------------------------------------------------- SegNet, MTAN


def mtan(width=4, names=tuple(SIZES)):
    backbone, make = SegNet(width=width), MTANHeads(width=width)
    return MultiTaskModel(backbone, {n: make(backbone.out_channels, SIZES[n]) for n in names})


def test_mtan_shapes():
    predictions = mtan()(torch.rand(2, 3, 32, 64)).predictions
    assert {n: tuple(p.shape) for n, p in predictions.items()} == {
        n: (2, size, 32, 64) for n, size in SIZES.items()
    }


def test_mtan_size():
    """Parameters at width 64, from a count by hand of MTAN's layers."""

    def conv(before, after, side=3):
        return before * after * side * side + after

    def block(before, after):
        return conv(before, after) + 2 * after

    def mask(before, after):
        return conv(before, after, 1) + conv(after, after, 1) + 4 * after

    w = [64, 128, 256, 512, 512]
    down = [block(3, 64), *(block(w[i], w[i + 1]) for i in range(4))]
    up = [block(64, 64), *(block(w[i + 1], w[i]) for i in range(4))]
    repeated = [block(64, 64), block(128, 128), *(2 * block(c, c) for c in w[2:])]
    back = [2 * block(64, 64), *(2 * block(c, c) for c in w[1:4])]
    common = [*(block(w[i], w[i + 1]) for i in range(4)), block(512, 512), *up]
    attention = [mask(64, 64), *(mask(2 * c, c) for c in w[1:]), mask(128, 64)]
    attention += [mask(w[i + 1] + w[i], w[i]) for i in range(4)]
    with torch.device("meta"):
        model = mtan(64)
    assert parameters(model.backbone) == sum(down + up + repeated + back)
    heads = 3 * conv(64, 64) + sum(conv(64, size, 1) for size in SIZES.values())
    assert parameters(model.heads) == sum(common) + 3 * sum(attention) + heads


def test_common_convolutions_are_shared_parameters():
    model = mtan()
    groups = model.parameter_groups()
    assert len(groups.tied) == len(list(model.heads["depth"].down_common.parameters())) * 2
    assert not {id(p) for p in groups.tied} & {
        id(p) for own in groups.specific.values() for p in own
    }
    model(torch.rand(1, 3, 32, 32)).predictions["depth"].mean().backward()
    assert all(p.grad is not None for p in groups.tied)
    assert all(p.grad is None for p in groups.specific["normal"])


def test_what_heads_see_does_not_depend_on_each_other():
    """A gradient at the representation, taken on through the backbone, is that of the loss."""
    model = mtan(names=("depth",)).double()
    out = model(torch.rand(2, 3, 32, 32, dtype=torch.float64))
    loss, tensors = out.predictions["depth"].square().mean(), out.representation["depth"]
    shared = list(model.backbone.parameters())
    direct = torch.autograd.grad(loss, shared, retain_graph=True)
    cut = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    pairs = [(t, g) for t, g in zip(tensors, cut, strict=True) if g is not None]
    assert len(pairs) == 20
    through = torch.autograd.grad([t for t, _ in pairs], shared, [g for _, g in pairs])
    for a, b in zip(direct, through, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_mask_selects():
    """With masks near 0 nothing of the backbone reaches the prediction."""
    model = mtan(names=("depth",)).eval()
    for mask in (*model.heads["depth"].down_masks, *model.heads["depth"].up_masks):
        nn.init.constant_(mask[-2].bias, -100.0)
    first, second = (model(x).predictions["depth"] for x in torch.rand(2, 1, 3, 32, 32))
    torch.testing.assert_close(first, second)


def test_widths_of_backbone_and_heads():
    with pytest.raises(ConfigError, match=r"`model.head.width`.*8, got 4"):
        MTANHeads(width=4)(8, 1)
