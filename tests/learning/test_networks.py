import pytest
import torch

from i2m_lib.learning.networks import Encoder, Image2Mesh, last_map, trunk
from i2m_lib.learning.settings import Settings

SETTINGS = Settings(1, 2, 1e-3, backbone="mobilenet_v3_small", node="features", n_axes=5, n_code=16)


@pytest.mark.parametrize(("backbone", "node"), [("resnet18", "layer4"), ("mobilenet_v3_small", "features")])
def test_a_backbone_is_cut_at_its_last_map(backbone, node):
    image = torch.rand(1, 3, 64, 64)
    torch.manual_seed(0)
    named = trunk(backbone, node).eval()
    torch.manual_seed(0)
    found = trunk(backbone).eval()
    torch.testing.assert_close(found(image)["map"], named(image)["map"])


def test_weights_that_cannot_be_had_are_named(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(ValueError, match=r"resnet18 could not be fetched \(no route to host\): place resnet18.*pth in"):
        trunk("resnet18", weights="DEFAULT")
    with pytest.raises(ValueError, match="has no weights 'V9': give one of IMAGENET1K_V1"):
        trunk("resnet18", weights="V9")
    with pytest.raises(ValueError, match="Unknown model resnet9"):
        trunk("resnet9")


def test_the_last_map_is_the_one_before_pooling():
    layers = [torch.nn.Conv2d(3, 4, 3, 16), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    assert last_map(torch.nn.Sequential(*layers)) == "1"


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
