"""Second derivatives through convolutions and batch normalization, at the price of first ones.

PyTorch composes the backward pass of their backward pass of many small operations (for batch
normalization), or of a convolution whose kernel is as large as the picture. Here they are written
with the kernels of the ordinary passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_aten = torch.ops.aten


class InputsOnly:
    """A switch: whether the present backward pass is for the inputs of layers alone."""

    on = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False


@contextmanager
def twice_differentiable(
    model: nn.Module, parameters: Iterable[nn.Parameter]
) -> Iterator[InputsOnly]:
    """Evaluates convolutions and batch normalizations so that second derivatives are cheap.

    Values and first derivatives stay the same, to the bit. In a backward pass under `switch()`,
    with `create_graph=True`, the gradients of their parameters are left out, and the gradients of
    their inputs can be differentiated once more.

    Args:
        modules: Layers of the very types `nn.Conv2d` and `nn.BatchNorm2d` among them are
            taken.
        switch: Says which backward pass it is.
    """
    switch = InputsOnly()
    inside = {id(p) for p in parameters}
    taken = [m for m in model.modules() if type(m) in _FORWARD and "forward" not in vars(m) and inside >= {id(p) for p in m.parameters(recurse=False)}]
    for module in taken:
        module.forward = _FORWARD[type(module)](module, switch)
    try:
        yield switch
    finally:
        for module in taken:
            del module.forward


def _convolution(layer: nn.Conv2d, switch: InputsOnly) -> Any:
    plain = layer.forward
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return plain
    geometry = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups)

    def forward(inputs: Tensor) -> Tensor:
        if torch.is_autocast_enabled(inputs.device.type) or inputs.dim() != 4:
            return plain(inputs)
        return _Convolution.apply(inputs, layer.weight, layer.bias, geometry, switch)

    return forward


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any, switch: Any
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.bias = None if bias is None else bias.shape
        ctx.geometry, ctx.switch = geometry, switch
        return _aten.convolution(inputs, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        if ctx.switch.on:
            gi = _ConvolutionInputGradient.apply(gradient, inputs, weight, ctx.geometry)
            return gi, None, None, None, None
        needed = [*ctx.needs_input_grad[:2], ctx.bias is not None and ctx.needs_input_grad[2]]
        return *_aten.convolution_backward(
            gradient, inputs, weight, ctx.bias, *ctx.geometry, needed
        ), None, None


class _ConvolutionInputGradient(torch.autograd.Function):
    """Linear in the gradient and in the weight."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, inputs: Tensor, weight: Tensor, geometry: Any) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.geometry = geometry
        needed = [True, False, False]
        return _aten.convolution_backward(gradient, inputs, weight, None, *geometry, needed)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, tangent: Tensor) -> Any:
        gradient, weight = ctx.saved_tensors
        by_gradient = _aten.convolution(tangent, weight, None, *ctx.geometry)
        needed = [False, True, False]
        by_weight = _aten.convolution_backward(
            gradient, tangent, weight, None, *ctx.geometry, needed
        )[1]
        return by_gradient, None, by_weight, None


def _batch_norm(layer: nn.BatchNorm2d, switch: InputsOnly) -> Any:
    plain = layer.forward

    def forward(inputs: Tensor) -> Tensor:
        if not layer.training or layer.weight is None or layer.momentum is None or torch.is_autocast_enabled(inputs.device.type):
            return plain(inputs)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        return _BatchNorm.apply(
            inputs, layer.weight, layer.bias, layer.running_mean, layer.running_var,
            layer.momentum, layer.eps, switch,
        )

    return forward


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, weight, bias, running_mean, running_var, momentum, eps, switch):
        result, mean, inverse = torch.native_batch_norm(
            inputs, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(inputs, weight, mean, inverse)
        ctx.eps, ctx.switch = eps, switch
        return result

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight, mean, inverse = ctx.saved_tensors
        none = (None,) * 5
        if ctx.switch.on:
            gi = _BatchNormInputGradient.apply(gradient, inputs, weight, mean, inverse, ctx.eps)
            return gi, None, None, *none
        return *_aten.native_batch_norm_backward(
            gradient, inputs, weight, None, None, mean, inverse, True, ctx.eps,
            ctx.needs_input_grad[:3],
        ), *none


class _BatchNormInputGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gradient, inputs, weight, mean, inverse, eps):
        result, products, sums = _aten.native_batch_norm_backward(
            gradient, inputs, weight, None, None, mean, inverse, True, eps, [True, True, True]
        )
        ctx.save_for_backward(gradient, inputs, weight, mean, inverse, products, sums)
        ctx.eps = eps
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, tangent):
        gradient, inputs, weight, mean, inverse, products, sums = ctx.saved_tensors
        count = inputs.numel() // inputs.shape[1]
        by_gradient, tangent_products, tangent_sums = _aten.native_batch_norm_backward(
            tangent, inputs, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        # Means over a channel, x standing for the normalized input.
        g, gx, u, ux = (t / count for t in (sums, products, tangent_sums, tangent_products))
        gu = (gradient * tangent).mean((0, 2, 3))
        covariance = gu - g * u - gx * ux
        factor = -weight * inverse**2
        on_inputs = factor * (covariance - 2 * gx * ux) * inverse
        offset = -factor * (gx * u + ux * g) - on_inputs * mean
        shape = (1, -1, 1, 1)
        by_inputs = torch.addcmul(offset.view(shape), tangent, (factor * gx).view(shape))
        by_inputs.addcmul_(gradient, (factor * ux).view(shape))
        by_inputs.addcmul_(inputs, on_inputs.view(shape))
        return by_gradient, by_inputs, inverse * count * covariance, None, None, None


_FORWARD = {nn.Conv2d: _convolution, nn.BatchNorm2d: _batch_norm}
