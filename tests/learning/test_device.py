import os
import socket

import pytest
import torch
from torch import nn

from i2m_lib.learning.device import (
    Share,
    autocast,
    default_device,
    has_bfloat16,
    parallel,
    process_group,
    share,
    synchronised,
    total,
    wait_for_all,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_shares_are_a_partition(n):
    parts = [list(range(n))[Share(rank, 3).of(n)] for rank in range(3)]
    assert [i for part in parts for i in part] == list(range(n))


def test_one_process_has_everything_and_waits_for_none():
    model, x = nn.Linear(2, 2), torch.ones(3)
    with process_group(CPU):
        wait_for_all()
        assert share() == Share(0, 1)
        assert parallel(model) is model and synchronised(model) is model and total(x) is x


def test_a_group_is_joined_and_left(monkeypatch):
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    joined = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend: joined.update(backend=backend))
    monkeypatch.setattr("torch.distributed.destroy_process_group", joined.clear)
    with process_group(CPU):
        assert joined == {"backend": "gloo"}
    assert joined == {}


def test_each_process_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert default_device() == CPU
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "3")
    assert default_device() == torch.device("cuda", 3)


@pytest.mark.parametrize("capable", [True, False])
def test_products_are_in_bfloat16_where_the_hardware_has_it(monkeypatch, capable):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": capable})
    assert has_bfloat16(CPU) == capable
    for groups in (1, 3):  # depthwise convolutions are slower in it
        with autocast(CPU, torch.nn.Conv2d(3, 3, 3, groups=groups)):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if capable and groups == 1 else torch.float32)
