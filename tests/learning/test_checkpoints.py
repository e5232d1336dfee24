import torch
from safetensors.torch import load_file
from torch import nn

from i2m_lib.learning.checkpoints import read_halves, read_state, write_halves, write_state, write_tensors


def network(seed):
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(2, 3, 4, 4) * torch.arange(2).view(2, 1, 1, 1)).square().sum().backward()
    optimizer.step()


def test_tensors_come_back_whatever_their_strides(tmp_path):
    x = torch.arange(6.0).view(2, 3).T
    write_tensors(tmp_path / "x.safetensors", {"x": x})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["x"], x)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_halves_are_rounded_and_counters_are_not(tmp_path):
    model = network(0)
    model[1].num_batches_tracked.fill_(4097)  # no half precision number
    write_halves(tmp_path / "model.safetensors", model)
    loaded = read_halves(tmp_path / "model.safetensors", network(1))
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        expected = model.state_dict()[name]
        assert torch.equal(value, expected.half().float() if value.is_floating_point() else expected)
    assert int(loaded[1].num_batches_tracked) == 4097


def test_the_next_step_after_reading_a_state_is_the_same(tmp_path):
    ends = []
    for resumed in (False, True):
        model = network(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        step(model, optimizer)
        if resumed:
            write_state(tmp_path / "state.safetensors", model, optimizer)
            model = network(1)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
            read_state(tmp_path / "state.safetensors", model, optimizer)
        step(model, optimizer)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
