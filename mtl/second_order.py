"""Second derivatives of convolutions, batch normalization and ReLU for the price of first ones.

PyTorch differentiates the backward pass of a convolution by one whose kernel is as large as the
picture, that of batch normalization by some fifty small operations, and gives ReLU's mask a
gradient of zeros. Here all use the kernels of the ordinary passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_aten = torch.ops.aten
Forward = Callable[[Tensor], Tensor]


class Pointwise(NamedTuple):
    """An evaluated 1x1 convolution with fewer outputs than inputs: `output = weight @ inputs`."""

    inputs: Tensor
    weight: Tensor  # [K, C]
    output: Tensor

    @property
    def changed(self) -> bool:
        """Whether the output was changed in place, and is another function of the inputs."""
        return self.output._version > 0


class InputGradients:
    """Says whether the present backward pass is for the inputs of layers, not for parameters.

    Attributes:
        pointwise: 1x1 convolutions that were evaluated; to be cleared, as their graphs refer to it.
    """

    alone = False

    def __init__(self) -> None:
        self.pointwise: list[Pointwise] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within, it is."""
        self.alone = True
        try:
            yield
        finally:
            self.alone = False


@contextmanager
def twice_differentiable(
    model: nn.Module, parameters: Iterable[Tensor]
) -> Iterator[InputGradients]:
    """Evaluates layers so that gradients of their inputs are cheap to differentiate.

    Values and first derivatives are those of the layers themselves. In a backward pass within the
    yielded switch, parameters get no gradient, and what the inputs get can be differentiated once
    more; without it, and with `create_graph=True`, PyTorch's own formulas hold.

    Args:
        model: Its layers of the very types `nn.Conv2d`, `nn.BatchNorm2d` and `nn.ReLU` take part;
            others, and under autocast the first two, stay as they are.
        parameters: Only layers that own some of these and none else, and ReLUs beside them.
    """
    switch = InputGradients()
    chosen = {id(p) for p in parameters}
    layers = list(dict.fromkeys(_layers(model, chosen)))
    for layer in layers:
        layer.forward = _FORWARDS[type(layer)](layer, switch)
    try:
        yield switch
    finally:
        for layer in layers:
            del layer.forward
        switch.pointwise[:] = [call for call in switch.pointwise if not call.changed]


def _layers(model: nn.Module, chosen: set[int]) -> Iterator[nn.Module]:
    """Layers that own some of the chosen parameters and none else, and activations beside them."""
    for module in model.modules():
        known = [
            layer
            for layer in module.children()
            if type(layer) in _FORWARDS and "forward" not in vars(layer)
        ]
        own = [{id(p) for p in layer.parameters()} for layer in known]
        if any(ids and ids <= chosen for ids in own):
            yield from (layer for layer, ids in zip(known, own, strict=True) if ids <= chosen)


def _convolution(layer: nn.Conv2d, switch: InputGradients) -> Forward:
    plain = layer.forward
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return plain
    pointwise = layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0)
    narrowing = layer.groups == 1 and layer.out_channels < layer.in_channels
    geometry = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)

    def forward(inputs: Tensor) -> Tensor:
        if inputs.dim() != 4 or torch.is_autocast_enabled(inputs.device.type):
            return plain(inputs)
        output = _Convolution.apply(inputs, layer.weight, layer.bias, geometry, switch)
        if pointwise and narrowing:
            switch.pointwise.append(Pointwise(inputs, layer.weight.flatten(1), output))
        return output

    return forward


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: tuple[Any, ...],
        switch: InputGradients,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.bias_shape = None if bias is None else bias.shape
        ctx.geometry, ctx.switch = geometry, switch
        return _aten.convolution(inputs, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        if ctx.switch.alone:
            result = _ConvolutionInputs.apply(gradients[0], inputs, weight, ctx.geometry)
            return result, None, None, None, None
        wanted = [*ctx.needs_input_grad[:2], ctx.bias_shape is not None and ctx.needs_input_grad[2]]
        results = _aten.convolution_backward(
            gradients[0], inputs, weight, ctx.bias_shape, *ctx.geometry, wanted
        )
        return *results, None, None


class _ConvolutionInputs(torch.autograd.Function):
    """The gradient of a convolution's inputs: linear in the output's gradient and in the weight."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, inputs: Tensor, weight: Tensor, geometry: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.geometry = geometry
        wanted = (True, False, False)
        return _aten.convolution_backward(gradient, inputs, weight, None, *geometry, wanted)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *tangents: Tensor) -> Any:
        gradient, weight = ctx.saved_tensors
        by_gradient = _aten.convolution(tangents[0], weight, None, *ctx.geometry)
        by_weight = None
        if ctx.needs_input_grad[2]:
            wanted = (False, True, False)
            by_weight = _aten.convolution_backward(
                gradient, tangents[0], weight, None, *ctx.geometry, wanted
            )[1]
        return by_gradient, None, by_weight, None


def _batch_norm(layer: nn.BatchNorm2d, switch: InputGradients) -> Forward:
    plain = layer.forward

    def forward(inputs: Tensor) -> Tensor:
        ordinary = layer.training and layer.affine and layer.momentum is not None
        if not ordinary or inputs.dim() != 4 or torch.is_autocast_enabled(inputs.device.type):
            return plain(inputs)
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        running = (layer.running_mean, layer.running_var, layer.momentum)
        return _BatchNorm.apply(inputs, layer.weight, layer.bias, running, layer.eps, switch)

    return forward


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor | None, Tensor | None, float],
        eps: float,
        switch: InputGradients,
    ) -> Tensor:
        mean, variance, momentum = running
        result, *moments = torch.native_batch_norm(
            inputs, weight, bias, mean, variance, True, momentum, eps
        )
        ctx.save_for_backward(inputs, weight, *moments)
        ctx.eps, ctx.switch = eps, switch
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs, weight, mean, inverse = ctx.saved_tensors
        if ctx.switch.alone:
            result = _BatchNormInputs.apply(gradients[0], inputs, weight, mean, inverse, ctx.eps)
            return result, None, None, None, None, None
        wanted = ctx.needs_input_grad[:3]
        moments = (None, None, mean, inverse, True, ctx.eps)
        results = _aten.native_batch_norm_backward(gradients[0], inputs, weight, *moments, wanted)
        return *results, None, None, None


class _BatchNormInputs(torch.autograd.Function):
    """The gradient of batch normalization's inputs, `w r (g - mean(g) - x mean(g x))`.

    g: the output's gradient; x: normalized inputs; w: weight; r: 1 / standard deviation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        inputs: Tensor,
        weight: Tensor,
        mean: Tensor,
        inverse: Tensor,
        eps: float,
    ) -> Tensor:
        moments = (None, None, mean, inverse, True, eps)
        wanted = (True, True, True)
        result, by_weight, by_bias = _aten.native_batch_norm_backward(
            gradient, inputs, weight, *moments, wanted
        )
        ctx.save_for_backward(gradient, inputs, weight, mean, inverse, by_weight, by_bias)
        ctx.eps = eps
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *tangents: Tensor) -> Any:
        # It is symmetric: the tangent u takes the place of g. By x, with L = <u, result>:
        # dL/dx = -w r^2 ((u - mean(u)) mean(g x) + (g - mean(g)) mean(u x)
        #                 + x (mean(u g) - mean(u) mean(g) - 3 mean(u x) mean(g x)))
        (tangent,) = tangents
        gradient, inputs, weight, mean, inverse, *sums = ctx.saved_tensors
        moments = (None, None, mean, inverse, True, ctx.eps)
        by_gradient, *tangent_sums = _aten.native_batch_norm_backward(
            tangent, inputs, weight, *moments, (True, True, True)
        )
        count = inputs.numel() // inputs.shape[1]
        products = _channel_products(gradient, tangent, weight, mean)
        totals = (*sums, *tangent_sums, products)
        gx, g, ux, u, ug = (total / count for total in totals)
        common = ug - u * g - ux * gx
        factor = -weight * inverse**2
        on_inputs = factor * inverse * (common - 2 * ux * gx)
        offset = -factor * (u * gx + g * ux) - on_inputs * mean
        on_tangent, on_gradient = factor * gx, factor * ux
        offset, on_tangent, on_gradient, on_inputs = (
            t[:, None, None] for t in (offset, on_tangent, on_gradient, on_inputs)
        )
        by_inputs = torch.addcmul(offset, tangent, on_tangent)
        by_inputs.addcmul_(gradient, on_gradient).addcmul_(inputs, on_inputs)
        return by_gradient, by_inputs, inverse * count * common, None, None, None


def _channel_products(first: Tensor, second: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    """Inner products of each channel of two `[B, C, H, W]`, in one pass over memory.

    They are what the weight of a batch normalization with mean 0 and deviation 1 gets.
    """
    moments = (None, None, torch.zeros_like(mean), torch.ones_like(mean), True, 0.0)
    wanted = (False, True, False)
    return _aten.native_batch_norm_backward(first, second, weight, *moments, wanted)[1]


def _relu(layer: nn.ReLU, switch: InputGradients) -> Forward:  # noqa: ARG001 - as the others
    return lambda inputs: _ReLU.apply(inputs, layer.inplace)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(inputs)
        result = torch.relu_(inputs) if inplace else torch.relu(inputs)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (result,) = ctx.saved_tensors
        # Not detached, it would get a gradient of zeros.
        return _aten.threshold_backward(gradients[0], result.detach(), 0), None


_FORWARDS: dict[type[nn.Module], Callable[[Any, InputGradients], Forward]] = {
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu,
}
