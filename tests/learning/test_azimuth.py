import math

import pytest
import torch

from i2m_lib.learning.azimuth import N_BINS, centres, divergence, mirrored, mode, soft_bins


def test_labels_are_bells_around_their_azimuth():
    azimuth = torch.tensor([0.0, 1.0, -2.5])
    labels = soft_bins(azimuth)
    torch.testing.assert_close(labels.sum(1), torch.ones(3))
    mean = torch.atan2(labels @ centres().sin(), labels @ centres().cos())
    torch.testing.assert_close(mean, azimuth, atol=1e-3, rtol=0)
    torch.testing.assert_close(soft_bins(azimuth + 2 * math.pi), labels, atol=1e-5, rtol=0)


def test_the_divergence_is_0_of_the_labels_and_1_of_an_even_answer():
    azimuth = torch.linspace(-3, 3, 7)
    assert float(divergence(soft_bins(azimuth).log(), azimuth)) == pytest.approx(0, abs=1e-6)
    assert float(divergence(torch.zeros(7, N_BINS), azimuth)) == pytest.approx(1, abs=1e-6)


def test_mirroring_turns_azimuths_round():
    azimuth = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(mirrored(soft_bins(azimuth)), soft_bins(-azimuth), atol=1e-6, rtol=0)


@pytest.mark.parametrize("azimuth", [0.0, 0.1, 3.1, 5.0, 6.2])
def test_the_mode_is_sharper_than_a_bin(azimuth):
    angle = float(mode(soft_bins(torch.tensor([azimuth])).log()))
    assert math.remainder(angle - azimuth, 2 * math.pi) == pytest.approx(0, abs=math.radians(2))


def test_of_two_likely_azimuths_the_likelier_is_the_mode():
    both = 0.7 * soft_bins(torch.tensor([0.4])) + 0.3 * soft_bins(torch.tensor([0.4 + math.pi]))
    assert float(mode(both.log())) == pytest.approx(0.4, abs=math.radians(2))
