"""A link as an ONNX file, for devices that run no Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.links.scaling import FittedLink
from camlink.links.set_to_vec import SetToVec
from camlink.links.sets import COLUMNS, PLAIN_FEATURES, plain_size
from camlink.models.scores import rules
from camlink.pipeline.errors import LinkError

OPSET = 17
_ACTIVATION = {"cross_entropy": "Softmax", "binary_cross_entropy": "Sigmoid", "mse": "Identity"}


def export_onnx(link: FittedLink, path: Path) -> None:
    """Write ``link`` with its activation: input "source" (n, source.size), output "target" (n, target.size), float32.

    Counts come as regressed, before rounding; for links to thresholds of counts the output is P(count > k). Raises
    `LinkError` for tasks without an activation in ONNX.
    """
    import onnx
    from onnx import TensorProto, helper

    activation = _ACTIVATION.get(rules(link.target).loss)
    if activation is None:
        raise LinkError(f"link {link.name}: no ONNX operator for the task {link.target.task}")
    graph = _Graph()
    weights = {name: graph.constant(value, name) for name, value in link.weights().items()}
    read = _described(graph, link, weights) if isinstance(link, SetToVec) else "source"
    hidden = graph.add("Relu", graph.add("Gemm", read, weights["w1"], weights["b1"]))
    graph.add(activation, graph.add("Gemm", hidden, weights["w2"], weights["b2"]), name="target")
    made = helper.make_graph(
        graph.nodes,
        "link",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, ["n", link.source.size])],
        [helper.make_tensor_value_info("target", TensorProto.FLOAT, ["n", link.target.size])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="camlink")
    model.ir_version = 8  # of opset 17; newer ones are unknown to runtimes that are otherwise able
    helper.set_model_props(model, {"link": link.name, "task": link.target.task})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


@dataclass
class _Graph:
    """Nodes and constants as they are added; every value has a name."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output and return its name."""
        from onnx import helper

        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[Any], name: str = "") -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def part(self, value: str, axis: int, first: int, end: int) -> str:
        """Return ``value`` from ``first`` up to ``end`` along ``axis``."""
        bounds = (self.constant(np.array([number], np.int64)) for number in (first, end, axis))
        return self.add("Slice", value, *bounds)


def _described(graph: _Graph, link: SetToVec, weights: dict[str, str]) -> str:
    """Add what `SetToVec.predict` reads: the plain numbers beside the pooled boxes, (n, plain + 3 * units)."""
    plain, size, steps = plain_size(link.source), link.source.size, link.source.max_steps
    shape = graph.constant(np.array([-1, steps, COLUMNS], np.int64))
    places = graph.add("Reshape", graph.part("source", 1, plain, size), shape)  # (n, steps, 6)
    x1, y1, x2, y2, score, number = (graph.part(places, 2, i, i + 1) for i in range(COLUMNS))  # (n, steps, 1) each
    zero, one = (graph.constant(np.array([value], np.float32)) for value in (0.0, 1.0))
    width, height = graph.add("Sub", x2, x1), graph.add("Sub", y2, y1)
    side = graph.add("Sqrt", graph.add("Max", graph.add("Mul", width, height), zero))
    classes = graph.constant(np.arange(1, link.we.shape[0] - PLAIN_FEATURES + 1, dtype=np.float32))
    one_hot = graph.add("Cast", graph.add("Equal", number, classes), to=1)  # 1: float32; (n, steps, classes)
    features = graph.add("Concat", score, width, height, side, one_hot, axis=2)
    units = graph.add("Relu", graph.add("Add", graph.add("MatMul", features, weights["we"]), weights["be"]))
    present = graph.add("Cast", graph.add("Greater", number, zero), to=1)
    units = graph.add("Mul", units, present)
    boxes = graph.constant(np.array([1], np.int64))  # the axis that is pooled
    total = graph.add("ReduceSum", units, boxes, keepdims=0)
    count = graph.add("Max", graph.add("ReduceSum", present, boxes, keepdims=0), one)
    pools = [total, graph.add("Div", total, count), graph.add("ReduceMax", units, axes=[1], keepdims=0)]
    return graph.add("Concat", graph.part("source", 1, 0, plain), *pools, axis=1)
