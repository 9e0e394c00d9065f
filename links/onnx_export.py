"""A link as an ONNX file, for devices that run no Python."""

from __future__ import annotations

from pathlib import Path

from camlink.links.scaling import FittedLink
from camlink.links.vec_to_vec import VecToVec
from camlink.models.scores import rules
from camlink.pipeline.errors import LinkError

OPSET = 17
_ACTIVATION = {"cross_entropy": "Softmax", "binary_cross_entropy": "Sigmoid", "mse": "Identity"}


def export_onnx(link: FittedLink, path: Path) -> None:
    """Write ``link`` with its activation: input "source" (n, source.size), output "target" (n, target.size), float32.

    Counts come as regressed, before rounding; for links to thresholds of counts the output is P(count > k). Raises
    `LinkError` for links from sets of boxes.
    """
    if not isinstance(link, VecToVec):
        raise LinkError(
            f"link {link.name}: only links between vectors can be exported, this one reads {link.source.kind}s"
        )
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    activation = _ACTIVATION.get(rules(link.target).loss)
    if activation is None:
        raise LinkError(f"link {link.name}: no ONNX operator for the task {link.target.task}")
    nodes = [
        helper.make_node("Gemm", ["source", "w1", "b1"], ["first"]),
        helper.make_node("Relu", ["first"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["second"]),
        helper.make_node(activation, ["second"], ["target"]),
    ]
    graph = helper.make_graph(
        nodes,
        "link",
        [helper.make_tensor_value_info("source", TensorProto.FLOAT, ["n", link.source.size])],
        [helper.make_tensor_value_info("target", TensorProto.FLOAT, ["n", link.target.size])],
        [numpy_helper.from_array(value, name) for name, value in link.weights().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="camlink")
    model.ir_version = 8  # of opset 17; newer ones are unknown to runtimes that are otherwise able
    helper.set_model_props(model, {"link": link.name, "task": link.target.task})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
