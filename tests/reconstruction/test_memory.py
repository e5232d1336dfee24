import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from i2m_lib.artefacts import StaleError
from i2m_lib.dataset.dataset import load_images
from i2m_lib.reconstruction import memory as module
from i2m_lib.reconstruction.memory import Memory, codes_of
from i2m_lib.reconstruction.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def reconstructor(tiny_run):
    return Reconstructor.load(tiny_run.folder)


def test_a_memory_has_the_codes_of_the_training_views(dataset, reconstructor):
    memory = Memory.of(reconstructor, dataset)
    views = dataset.true_views[dataset.true_views.model_id.isin(dataset.select("train").model_id)]
    assert memory.model_ids.tolist() == views.model_id.tolist()
    answers = reconstructor.predict(load_images(dataset, views["index"].to_numpy()))
    torch.testing.assert_close(memory.codes, codes_of(answers))
    torch.testing.assert_close(memory.codes.norm(dim=1), torch.ones(len(views)))


@pytest.mark.parametrize("block", [65_536, 7])
def test_the_nearest_code_is_found_in_blocks(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = torch.Generator().manual_seed(0)
    codes = normalize(torch.randn(30, 8, generator=rng), dim=1)
    codes = torch.cat([codes, codes[:5]])  # of equal codes the first is found
    memory, query = Memory(codes, np.arange(35).astype(str)), normalize(torch.randn(12, 8, generator=rng), dim=1)
    assert memory.retrieve(query) == (query @ codes.T).argmax(1).numpy().astype(str).tolist()
    assert memory.retrieve(codes[:5]) == ["0", "1", "2", "3", "4"]
    np.testing.assert_allclose(memory.similarity(3 * query), (query @ codes.T).amax(1), rtol=1e-6)
    np.testing.assert_allclose(memory.similarity(codes), 1, atol=1e-6)


def test_a_memory_is_kept_for_its_model_and_dataset_alone(dataset, reconstructor, tmp_path, monkeypatch):
    with pytest.raises(StaleError, match=r"missing.*run 04_evaluation again"):
        Memory.load(tmp_path, reconstructor, dataset)
    first = Memory.kept(tmp_path, reconstructor, dataset)
    other = Memory(first.codes[:1], first.model_ids[:1])
    monkeypatch.setattr(Memory, "of", lambda *_: other)
    again = Memory.kept(tmp_path, reconstructor, dataset)
    assert torch.equal(again.codes, first.codes)
    np.testing.assert_array_equal(again.model_ids, first.model_ids)
    trained_anew = dataclasses.replace(reconstructor, digest="another")
    for model, data in ((trained_anew, dataset), (reconstructor, dataset.without("03001627"))):
        with pytest.raises(StaleError, match=r"is another.*run 04_evaluation again"):
            Memory.load(tmp_path, model, data)
    assert len(Memory.kept(tmp_path, trained_anew, dataset).codes) == 1
