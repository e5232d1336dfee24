import json

import numpy as np
import pandas as pd
import pytest

from i2m_lib.files import save_json, save_npz, save_parquet, whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with whole(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_round_trips(tmp_path):
    array, table = np.arange(6.0).reshape(2, 3), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    save_npz(tmp_path / "a.npz", V=array)
    save_parquet(tmp_path / "a.parquet", table)
    save_json(tmp_path / "a.json", {"a": [1, None]})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["V"], array)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), table)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


def test_objects_are_not_pickled(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle=False"):
        save_npz(tmp_path / "a.npz", V=np.array([{}]))
    assert not list(tmp_path.iterdir())
