"""What Keras 2 called by other names: TensorFlow functions as layers, names with slashes, its hard_sigmoid.

`x / 255.0` or `tf.nn.relu6(x)` on a tensor of a Keras 2 model became a TFOpLambda: a layer with the function's name and
its arguments as data. Those whose names are known here are loaded; nothing else is looked up.
"""

from __future__ import annotations

from functools import cache, reduce
from typing import Any

OPERATION_LAYERS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
HARD_SIGMOID = {
    "module": "builtins",
    "class_name": "function",
    "config": "keras2_hard_sigmoid",
    "registered_name": "keras2_hard_sigmoid",
}
CONSTANT = "_CONSTANT_VALUE"
GETITEM = "__operators__.getitem"
# Of TensorFlow's functions those that compute a tensor from tensors and numbers, and do nothing else.
_NAMES = {  # by module of TensorFlow
    "__operators__": """
        add
    """,
    "": """
        add cast clip_by_value concat divide exp expand_dims identity multiply negative ones_like pad pow
        realdiv repeat reshape reverse sigmoid slice split sqrt square squeeze stack stop_gradient
        strided_slice subtract tanh tile transpose truediv unstack where zeros_like
    """,
    "compat.v1": """
        concat expand_dims pad shape squeeze transpose
    """,
    "compat.v1.nn": """
        avg_pool
    """,
    "image": """
        grayscale_to_rgb resize rgb_to_grayscale
    """,
    "linalg": """
        l2_normalize matmul
    """,
    "math": """
        abs add ceil cos divide divide_no_nan equal exp floor floordiv greater greater_equal l2_normalize
        less less_equal log logical_and logical_not logical_or maximum minimum mod multiply negative
        not_equal pow reciprocal reduce_max reduce_mean reduce_min reduce_prod reduce_std reduce_sum
        reduce_variance round rsqrt scalar_mul sigmoid sin softplus sqrt square squared_difference subtract
        tanh truediv
    """,
    "nn": """
        avg_pool avg_pool2d bias_add depth_to_space elu gelu l2_normalize leaky_relu log_softmax max_pool
        max_pool2d relu relu6 selu sigmoid silu softmax softplus softsign space_to_depth swish tanh
    """,
}
FUNCTIONS = frozenset(f"{module}.{name}".lstrip(".") for module, names in _NAMES.items() for name in names.split())


class UnknownOperationError(ValueError):
    """A function that is not in the list of those that can be loaded."""


def repair_operation(layer: dict[str, Any]) -> None:
    """Turn a TFOpLambda's config into that of an `Operation`, in place. Raises UnknownOperationError.

    Its tensors become the layer's inputs; where each of them goes, and all other arguments, become settings.
    """
    settings = layer["config"]
    function = GETITEM if layer["class_name"] == "SlicingOpLambda" else settings.get("function")
    nodes = layer.get("inbound_nodes", [])
    if (function not in FUNCTIONS and function != GETITEM) or len(nodes) != 1:
        raise UnknownOperationError(f"{settings.get('name')}, {function or layer['class_name']}")
    tensors: list[list[Any]] = []

    def placed(value: Any) -> Any:
        if _is_reference(value):
            tensors.append([*value[:3], {}])
            return {"tensor": len(tensors) - 1}
        if isinstance(value, list) and len(value) > 2 and value[0] == CONSTANT:
            return {"value": value[2]}
        if isinstance(value, list):
            return {"list": [placed(item) for item in value]}
        if isinstance(value, dict):
            return {"map": {key: placed(item) for key, item in value.items()}}
        return {"value": value}

    (node,) = nodes
    first = node if isinstance(node[0], str) else node[0]
    named = placed({key: value for key, value in first[3].items() if key != "name"})["map"]
    layer["class_name"], layer["registered_name"], layer["module"] = (
        "Operation",
        "keras2>Operation",
        "converters.keras2",
    )
    layer["config"] = {
        "name": settings["name"],
        "function": function,
        "first": placed(node),
        "named": named,
    }
    layer.pop("build_config", None)
    layer["inbound_nodes"] = [tensors]


def repair_arguments(layer: dict[str, Any]) -> None:
    """Write a layer's calls whose named arguments are tensors as Keras 3 does, in place: it takes others as data."""

    def tensor(reference: list[Any]) -> dict[str, Any]:
        config = {"shape": [None], "dtype": "float32", "keras_history": reference[:3]}
        return {"class_name": "__keras_tensor__", "config": config}

    def revived(value: Any) -> Any:
        if _is_reference(value):
            return tensor(value)
        if isinstance(value, list):
            return [revived(item) for item in value]
        return {key: revived(item) for key, item in value.items()} if isinstance(value, dict) else value

    nodes = layer["inbound_nodes"]
    for place, node in enumerate(nodes):
        if isinstance(node, list) and node and all(_is_reference(call) and len(call) == 4 for call in node):
            named = revived(node[0][3])
            if named != node[0][3]:
                inputs = [tensor(call) for call in node]
                nodes[place] = {"args": inputs if len(inputs) == 1 else [inputs], "kwargs": named}


def _is_reference(value: Any) -> bool:
    """Whether a value of a config names a tensor: layer, call, output."""
    if not isinstance(value, list) or len(value) not in (3, 4) or not isinstance(value[0], str):
        return False
    return value[0] != CONSTANT and all(type(index) is int for index in value[1:3])


def repair_nodes_of_models(settings: dict[str, Any]) -> None:
    """Count the calls of models within a model from 0, as Keras 3 does, in place: Keras 2 counted their Input, too."""
    models = {
        layer["config"]["name"]
        for layer in settings["layers"]
        if layer["class_name"] in ("Functional", "Sequential", "Model") and isinstance(layer["config"], dict)
    }

    def recounted(value: Any) -> None:
        if _is_reference(value) and value[0] in models:
            value[1] = max(0, value[1] - 1)
        for inner in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
            recounted(inner)

    for layer in settings["layers"]:
        recounted(layer.get("inbound_nodes", []))


def repair_names(config: dict[str, Any]) -> None:
    """Write layers' names without slashes, which Keras 3 forbids, wherever they stand, in place."""

    def replaced(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            for name, inner in value.items():
                value[name] = replaced(inner, name)
        elif isinstance(value, list):
            if _is_reference(value):
                value[0] = value[0].replace("/", "_")
            value[:] = [replaced(inner) for inner in value]
        elif key == "name" and isinstance(value, str):
            return value.replace("/", "_")
        return value

    replaced(config)


@cache
def objects() -> dict[str, Any]:
    """Keras objects by the names that repaired configs use."""
    import keras
    import tensorflow as tf

    def keras2_hard_sigmoid(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    keras.saving.register_keras_serializable("keras2")(keras2_hard_sigmoid)

    @keras.saving.register_keras_serializable("keras2")
    class Operation(keras.layers.Layer):
        """A TensorFlow function of FUNCTIONS as a layer."""

        def __init__(self, function: str, first: Any, named: dict[str, Any], **settings: Any) -> None:
            super().__init__(**settings)
            self.function, self.first, self.named = function, first, named

        def call(self, inputs: Any) -> Any:
            tensors = inputs if isinstance(inputs, list | tuple) else [inputs]
            first = _filled(self.first, tensors)
            named = {key: _filled(value, tensors) for key, value in self.named.items()}
            if self.function == GETITEM:
                return first[_slices(named["slice_spec"])]
            if self.function == "__operators__.add":
                return first + named["y"]
            return reduce(getattr, self.function.split("."), tf)(first, **named)

        def get_config(self) -> dict[str, Any]:
            return super().get_config() | {"function": self.function, "first": self.first, "named": self.named}

    return {"Operation": Operation, "keras2>Operation": Operation, "keras2_hard_sigmoid": keras2_hard_sigmoid}


def _filled(template: dict[str, Any], tensors: Any) -> Any:
    """The argument that a template stands for."""
    ((kind, content),) = template.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "list":
        return [_filled(item, tensors) for item in content]
    return {key: _filled(item, tensors) for key, item in content.items()} if kind == "map" else content


def _slices(spec: Any) -> Any:
    def part(item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        return (
            Ellipsis if item.get("class_name") == "__ellipsis__" else slice(item["start"], item["stop"], item["step"])
        )

    return tuple(part(item) for item in spec) if isinstance(spec, list) else part(spec)
