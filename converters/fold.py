"""Batch norms folded into their neighbours: a Keras graph to an equal one without them.

With a batch norm's a = gamma / sqrt(variance + epsilon) and b = beta - a * mean, one of each per channel:

* convolution -> batch norm: the kernel's outputs are scaled by a, the bias becomes a * bias + b.
* batch norm -> ReLU on a residual stream (full pre-activation, He et al., arXiv:1603.05027), where a > 0:
  relu(a * x + b) = a * relu(x + c), c = b / a. The convolutions that read the ReLU take a into their input channels
  (zero padding stays zero). The stream is carried as x + c: the bias of a convolution into each addition makes up for
  the difference between the shifts of its inputs and of its output; whatever else reads the stream takes c out again.
  A block becomes conv, conv, conv, ADD, RELU.

Prior art: Samsung/ONE's luci passes FusePreActivationBatchNorm and MakeBatchNormGammaPositive (issue 4773). Here no
weight is nudged to make a layer fit: what cannot be folded exactly stays, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from converters.graph import Channels, Graph, StaysError

# How far a fold may shift a stream, in standard deviations of the channel. Far shifts cost the stream float32 digits.
MAX_SHIFT = 1e3


@dataclass(frozen=True)
class Fold:
    """A model equal in inference to the one given, which stays as it was, and what became of each batch norm.

    model: not compiled; the given model itself where nothing could be folded.
    folded: names; kept: (name, reason). Those in a nested model are written outer/inner.
    """

    model: keras.Model
    folded: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]


def fold(model: keras.Model) -> Fold:
    """Fold every batch norm for which that is exact. Weights are computed in float64 and stored in the model's dtype.

    Inputs, outputs and layer names stay; a Sequential comes back functional. Layers that are not Keras's own, or that
    cannot be made anew from their config (Lambda), are shared with the given model.
    """
    sequential = isinstance(model, keras.Sequential) and model.built
    if not sequential and not (isinstance(model, keras.Function) and _is_keras_own(model)):
        return Fold(model, (), tuple(_inside(model, "", "the model is not functional, or not built")))
    ends = (model.inputs[0], model.outputs[0]) if sequential else (model.input, model.output)
    plan = _Plan(Graph(keras.Model(*ends, name=model.name)))
    return Fold(_rebuild(plan) if plan.folded else model, plan.folded, plan.kept)


def _is_keras_own(op: Any) -> bool:
    return type(op).__module__.partition(".")[0] == "keras"


def _inside(layer: Any, prefix: str, reason: str) -> Iterator[tuple[str, str]]:
    for inner in layer._flatten_layers(include_self=False, recursive=True):
        if isinstance(inner, layers.BatchNormalization):
            yield prefix + inner.name, reason


def _float64(variable: Any) -> NDArray[np.float64]:
    values: NDArray[Any] = variable.numpy()
    return values.astype(np.float64)


class _Linear:
    """The float64 kernel, [..., I, O] or depthwise [..., C, M], and bias, [O] or [C * M], of a layer, to be changed."""

    def __init__(self, layer: Any) -> None:
        self.kernel = _float64(layer.kernel)
        self._depthwise = isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
        self._groups = getattr(layer, "groups", 1)
        outputs = self.kernel.shape[-2] * self.kernel.shape[-1] if self._depthwise else self.kernel.shape[-1]
        self.bias = _float64(layer.bias) if layer.use_bias else np.zeros(outputs)

    def _along_inputs(self, values: Channels) -> Channels:
        """One value per input channel, laid out to multiply the kernel."""
        if self._depthwise:
            return values[:, None]
        per_group = values.reshape(self._groups, -1).T  # [I, groups]
        return np.repeat(per_group, self.kernel.shape[-1] // self._groups, axis=1)

    def scale_inputs(self, a: Channels) -> None:
        self.kernel *= self._along_inputs(a)

    def take_shift(self, c: Channels) -> None:
        """Give for x + c what was given for x."""
        self.bias -= (self.kernel * self._along_inputs(c)).reshape(-1, self.bias.size).sum(0)

    def transform_outputs(self, a: Channels | float, b: Channels) -> None:
        self.kernel = (self.kernel.reshape(-1, self.bias.size) * a).reshape(self.kernel.shape)
        self.bias = self.bias * a + b


def _statistics(bn: Any) -> tuple[Channels, Channels, Channels, Channels]:
    """A batch norm's gamma, beta, mean and standard deviation, each [C]."""
    mean, variance = _float64(bn.moving_mean), _float64(bn.moving_variance)
    gamma = _float64(bn.gamma) if bn.scale else np.ones_like(mean)
    beta = _float64(bn.beta) if bn.center else np.zeros_like(mean)
    return gamma, beta, mean, np.sqrt(variance + bn.epsilon)


def _is_finite(bn: Any) -> bool:
    *_, deviation = statistics = _statistics(bn)
    return bool(np.isfinite(statistics).all() and deviation.all())


@dataclass(frozen=True)
class _Shifted:
    """A batch norm to be folded into the stream it reads: that stream's shift c, and who takes which scale."""

    root: int
    c: Channels
    scaled: tuple[tuple[Any, Channels], ...]


class _Plan:
    """Which batch norms fold, and the new weights."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.linear: dict[Any, _Linear] = {}
        self.means: dict[Any, Channels] = {}  # of kept batch norms that read a shifted stream
        operations = graph.model.operations
        nested = [op for op in operations if isinstance(op, keras.Model) and op not in graph.with_arguments]
        self.nested = {op: fold(op) for op in nested}
        norms = [op for op in operations if isinstance(op, layers.BatchNormalization)]
        self.bypassed = {bn for bn in norms if self._fold_pair(bn)}
        norms = [bn for bn in norms if bn not in self.bypassed]
        reasons: dict[Any, str] = {}
        while True:
            shifted = self._shifted([bn for bn in norms if bn not in reasons], reasons)
            shifts, conflict = self._balance(shifted)
            if not conflict:
                break
            reasons.update(conflict)
        self._apply(shifted, shifts)
        self.bypassed.update(shifted)
        self.folded, self.kept = self._report(reasons)

    def _weights(self, layer: Any) -> _Linear:
        if layer not in self.linear:
            self.linear[layer] = _Linear(layer)
        return self.linear[layer]

    def _fold_pair(self, bn: Any) -> bool:
        graph = self.graph
        if not graph.is_batch_norm(bn):
            return False
        (before,) = graph.inputs(bn)
        if graph.readers[before] != [bn] or not graph.feeds_freely(before) or not _is_finite(bn):
            return False
        gamma, beta, mean, deviation = _statistics(bn)
        a = gamma / deviation
        self._weights(graph.maker[before]).transform_outputs(a, beta - a * mean)
        graph.bypass(bn)
        return True

    def _shifted(self, norms: list[Any], reasons: dict[Any, str]) -> dict[Any, _Shifted]:
        """Those that could be folded into a stream, each seen on its own; the reasons of the others are added."""
        shifted: dict[Any, _Shifted] = {}
        first: dict[int, Any] = {}
        for bn in norms:
            try:
                shift = self._pre_activation(bn)
                other = first.setdefault(shift.root, bn)
                if other is not bn and not np.array_equal(shifted[other].c, shift.c):
                    raise StaysError(f"its input is shifted for {other.name} already")
                shifted[bn] = shift
            except StaysError as error:
                reasons[bn] = str(error)
        return shifted

    def _pre_activation(self, bn: Any) -> _Shifted:
        graph = self.graph
        if type(bn) is not layers.BatchNormalization:
            raise StaysError(f"a {type(bn).__name__} may compute otherwise than Keras's own")
        if not graph.is_batch_norm(bn):
            misfit = graph.misfit(bn) or ("called with a mask" if len(graph.inputs(bn)) > 1 else "")
            raise StaysError(misfit or f"normalizes axis {bn.axis}, not the last")
        root = graph.root(*graph.inputs(bn))
        if not graph.feeds_freely(root) and not graph.is_add(graph.maker[root]):
            raise StaysError(f"its input comes from {graph.describe(graph.maker[root])}")
        for reader in graph.stream(root):
            if not graph.takes_shift(reader):
                raise StaysError(f"its input is also read by {graph.describe(reader)}")
        for relu in graph.readers[graph.output(bn)]:
            if not graph.is_relu(relu):
                raise StaysError(f"read by something else than a plain ReLU: {graph.describe(relu)}")
        if not _is_finite(bn):
            raise StaysError("its weights are not finite")
        gamma, beta, mean, deviation = _statistics(bn)
        for problem, channels in (("zero or negative", gamma <= 0), ("tiny", gamma * MAX_SHIFT < np.abs(beta))):
            if channels.any():
                raise StaysError(f"its scale is {problem} in {channels.sum()} of {channels.size} channels")
        relus = graph.readers[graph.output(bn)]
        scaled = [reader for relu in relus for reader in graph.scaled(graph.output(relu), gamma / deviation)]
        return _Shifted(root, beta / gamma * deviation - mean, tuple(scaled))

    def _balance(self, shifted: dict[Any, _Shifted]) -> tuple[dict[int, Channels], dict[Any, str]]:
        """The shift of each stream, and of the convolutions that make up the difference at an addition.

        Or, where an addition has no such convolution, which batch norms must stay for that.
        """
        graph = self.graph
        shifts = {shift.root: shift.c for shift in shifted.values()}
        for add in filter(graph.is_add, graph.model.operations):
            roots, output = [graph.root(tensor) for tensor in graph.inputs(add)], graph.output(add)
            missing: Any = shifts.get(output, 0.0) - sum(shifts.get(root, 0.0) for root in roots)
            if not np.any(missing):
                continue
            for root in roots:
                if root not in shifts and graph.feeds_freely(root) and list(graph.stream(root)) == [add]:
                    shifts[root] = missing
                    break
            else:
                reason = f"no convolution of its own feeds {graph.describe(add)} to set the shift"
                after = {bn: reason for bn, shift in shifted.items() if shift.root == output}
                return {}, after or {bn: reason for bn, shift in shifted.items() if shift.root in roots}
        return shifts, {}

    def _apply(self, shifted: dict[Any, _Shifted], shifts: dict[int, Channels]) -> None:
        graph = self.graph
        for shift in shifted.values():
            for layer, a in shift.scaled:
                self._weights(layer).scale_inputs(a)
        for root, c in shifts.items():
            if not graph.is_add(graph.maker[root]):
                self._weights(graph.maker[root]).transform_outputs(1.0, c)
            for reader in graph.stream(root):
                if graph.is_linear(reader):
                    self._weights(reader).take_shift(c)
                elif graph.is_batch_norm(reader) and reader not in shifted:
                    self.means[reader] = _statistics(reader)[2] + c

    def _report(self, reasons: dict[Any, str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        folded, kept = [], []
        for op in self.graph.model.operations:
            if op in self.bypassed:
                folded.append(op.name)
            elif op in reasons:
                kept.append((op.name, reasons[op]))
            elif op in self.nested:
                folded += [f"{op.name}/{name}" for name in self.nested[op].folded]
                kept += [(f"{op.name}/{name}", reason) for name, reason in self.nested[op].kept]
            elif isinstance(op, layers.Layer):
                kept += _inside(op, f"{op.name}/", f"inside {op.name} ({type(op).__name__})")
        return tuple(folded), tuple(kept)


_TRAINING_ONLY = ("initializer", "regularizer", "constraint")


def _config(op: Any) -> dict[str, Any]:
    with catch_warnings():
        simplefilter("ignore")  # that a lambda is unsafe to load: it is not stored
        return dict(op.get_config())


def _rebuild(plan: _Plan) -> keras.Model:
    model, made = plan.graph.model, dict[Any, Any]()
    outputs = {id(tensor) for tensor in model.outputs}
    is_output: dict[Any, bool] = {}  # of what stands for a folded batch norm: only an output's name is still needed

    def renew(op: Any) -> Any:
        """A layer to be given other weights. What is the user's own in its config need not be serializable."""
        settings = {key: value for key, value in _config(op).items() if not key.endswith(_TRAINING_ONLY)}
        if op not in plan.linear:
            return type(op).from_config(settings)
        use_bias = op.use_bias or bool(plan.linear[op].bias.any())
        new = type(op).from_config(settings | {"use_bias": use_bias, "activation": None})
        new.activation = op.activation
        return new

    def clone(op: Any) -> Any:
        if op in plan.bypassed:
            new = layers.Identity(name=op.name, dtype=op.dtype_policy)
            is_output[new] = plan.graph.output(op) in outputs
            return new
        if op in plan.nested:
            return plan.nested[op].model
        made[op] = renew(op) if op in plan.linear or op in plan.means else op
        if made[op] is op and _is_keras_own(op) and not hasattr(op, "adapt"):  # what was adapted is not in the config
            with suppress(ValueError, TypeError, NotImplementedError):  # a Lambda, a wrapper of the user's layer
                made[op] = type(op).from_config(_config(op))
        return made[op]

    def call(op: Any, *args: Any, **kwargs: Any) -> Any:
        if op not in is_output:
            return op(*args, **kwargs)
        x = keras.tree.flatten((args, kwargs))[0]
        return op(x) if is_output[op] else x

    def input_like(tensor: Any) -> Any:
        return layers.InputLayer.from_config(tensor._keras_history.operation.get_config()).output

    inputs = keras.tree.map_structure(input_like, model.input)
    rebuilt = keras.models.clone_model(model, inputs, clone_function=clone, call_function=call)
    for old, new in made.items():
        if old in plan.linear:
            new.kernel.assign(plan.linear[old].kernel)
            if new.use_bias:
                new.bias.assign(plan.linear[old].bias)
        elif new is not old and isinstance(old, layers.Layer):
            new.set_weights(old.get_weights())
        if old in plan.means:
            new.moving_mean.assign(plan.means[old])
    return rebuilt
