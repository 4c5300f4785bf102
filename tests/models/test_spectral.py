"""Bounds on norms: above the exact ones of dense matrices, near to them, and exact for orthogonal kernels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segradius.models.spectral import convolution_norm, least_norm, matrix_norm, separable_norm


def kernel(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(function, *shape: int) -> float:
    """The exact norm of a linear map of a tensor of this shape."""
    x = torch.zeros(1, *shape, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(function, x, vectorize=True)
    return float(torch.linalg.matrix_norm(matrix.reshape(-1, x.numel()) if matrix.numel() else matrix, 2))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3),
    st.integers(1, 2), st.integers(0, 99),
)  # fmt: skip
def test_no_convolution_with_zeros_around_beats_its_bound(out, inputs, groups, side, stride, padding, dilation, seed):
    k = kernel(groups * out, inputs, side, side, seed=seed)
    whole = k
    if stride > 1:
        whole = k.new_zeros(*k.shape[:2], dilation * (side - 1) + 1, dilation * (side - 1) + 1)
        whole[..., ::dilation, ::dilation] = k
    bound = convolution_norm(whole, (stride, stride), groups)

    def forward(x):
        return functional.conv2d(x, k, None, stride, padding + 1, dilation, groups)

    exact = dense(forward, groups * inputs, 7, 8)
    assert exact <= bound
    assert least_norm(forward, (1, groups * inputs, 7, 8)) <= exact * (1 + 1e-9)


@pytest.mark.parametrize(("shape", "stride"), [((3, 4, 3, 3), 1), ((6, 2, 5, 3), 2), ((4, 3, 2, 2), 1)])
def test_within_one_per_cent_of_the_largest_of_all_frequencies(shape, stride):
    k = kernel(*shape)
    transfer = torch.fft.fft2(k, (128, 128)).movedim((0, 1), (-2, -1))
    if stride == 2:  # what is thinned out mixes four frequencies, each a half
        halves = [(i, j) for i in (slice(64), slice(64, 128)) for j in (slice(64), slice(64, 128))]
        transfer = torch.cat([transfer[half] for half in halves], -1) / 2
    largest = float(torch.linalg.matrix_norm(transfer, 2).max())
    assert largest <= convolution_norm(k, (stride, stride)) <= 1.01 * largest


def test_orthogonal_kernels_have_norm_one():
    turned = torch.linalg.qr(kernel(6, 6)).Q
    shifted = torch.zeros(6, 6, 3, 3, dtype=torch.float64)  # projections on the shifted and on the unshifted part
    shifted[..., 0, 1], shifted[..., 2, 2] = turned[:, :3] @ turned[:, :3].T, turned[:, 3:] @ turned[:, 3:].T
    assert convolution_norm(shifted) == pytest.approx(1, abs=1e-5)
    assert convolution_norm(turned[:, :2].reshape(6, 2, 1, 1)) == pytest.approx(1, abs=1e-8)
    assert convolution_norm(torch.linalg.qr(kernel(8, 8)).Q.view(8, 2, 2, 2), (2, 2)) == pytest.approx(1, abs=1e-5)
    assert 1.0 <= convolution_norm(shifted + 1e-4 * kernel(6, 6, 3, 3)) < 1.005  # and what is not quite is counted


def test_closed_forms():
    mean = torch.full((1, 1, 3, 3), 1 / 9)
    assert convolution_norm(mean) == pytest.approx(1, rel=1e-6)
    assert convolution_norm(torch.zeros(2, 2, 3, 3)) == 0
    assert convolution_norm(1e-200 * mean.double()) == pytest.approx(1e-200, rel=1e-6)
    assert convolution_norm(torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)) == pytest.approx(2, rel=1e-6)
    assert matrix_norm(torch.diag(torch.tensor([1.0, -3.0]))) == pytest.approx(3, rel=1e-8)


@pytest.mark.parametrize("size", [(13, 5), (4, 9)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resizing_has_its_exact_norm(mode, size):
    def resized(x):
        return functional.interpolate(x, size=size, mode=mode)

    assert separable_norm(resized, (7, 9)) == pytest.approx(dense(resized, 1, 7, 9), rel=1e-6)


@pytest.mark.parametrize("counted", [True, False])
def test_pooling_has_its_exact_norm(counted):
    def pooled(x):
        return functional.avg_pool2d(x, 3, 2, 1, count_include_pad=counted)

    assert separable_norm(pooled, (7, 9)) == pytest.approx(dense(pooled, 1, 7, 9), rel=1e-6)
    assert separable_norm(lambda x: functional.adaptive_avg_pool2d(x, (2, 3)), (4, 6)) == pytest.approx(
        math.sqrt(1 / 4), rel=1e-8
    )
