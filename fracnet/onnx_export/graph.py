"""Write ONNX graphs as Python calls: `g.Add(x, y)` appends a node and returns its output's name.

An argument is the name of a value, or a number or array of NumPy that becomes a constant.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 20, 10
Value = str | np.ndarray | np.generic
"""The name of a value in the graph, or a constant."""


class Graph:
    """Nodes in the order of their calls; `with_body` graphs see the values of the outer ones."""

    def __init__(self, outer: "Graph | None" = None, prefix: str = "pre") -> None:
        self.nodes: list[onnx.NodeProto] = []
        # Constants of all nested graphs lie in the outermost one.
        self.constants: dict[tuple[Any, ...], onnx.TensorProto] = outer.constants if outer else {}
        self._count: list[int] = outer._count if outer else [0]
        self._prefix: str = outer._prefix if outer else prefix

    def __getattr__(self, name: str) -> Callable[..., str]:
        if not name[0].isupper():
            raise AttributeError(name)
        return partial(self._node, name)

    def _node(self, op: str, *inputs: Value, n: int = 1, **attributes: Any) -> Any:
        """Append a node with `n` outputs; returns their names, a single one as a string."""
        outputs = [self.name(op) for _ in range(n)]
        names = [self.constant(value) for value in inputs]
        self.nodes.append(helper.make_node(op, names, outputs, outputs[0], **attributes))
        return outputs[0] if n == 1 else outputs

    def name(self, kind: str) -> str:
        """A name that no other value has."""
        self._count[0] += 1
        return f"{self._prefix}_{kind}_{self._count[0]}"

    def constant(self, value: Value) -> str:
        """The name of a value; a number or array is stored once."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, self.name("const"))
        return self.constants[key].name

    def cast(self, value: Value, dtype: Any) -> str:
        """The value as another NumPy type."""
        return self.Cast(value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def flat(self, value: Value) -> str:
        """The value in one dimension."""
        return self.Reshape(value, np.array([-1]))

    def histogram(self, values: Value, bins: int) -> str:
        """int32 [bins], how often each whole number occurs in `values`, int64."""
        places = self.flat(values)
        ones = self.Expand(np.int32(1), self.Shape(places))
        empty = np.zeros(bins, np.int32)
        return self.ScatterElements(empty, places, ones, axis=0, reduction="add")

    def when(
        self,
        condition: Value,
        then: Callable[["Graph"], Value],
        otherwise: Callable[["Graph"], Value],
    ) -> str:
        """One of two values, of which only the chosen one is computed."""
        then_branch, else_branch = self._body(then), self._body(otherwise)
        return self.If(condition, then_branch=then_branch, else_branch=else_branch)

    def repeat(self, times: Value, start: Value, step: Callable[["Graph", str, str], Value]) -> str:
        """`start` after `times` (int64) steps, each from the index and the value before."""
        inner = Graph(self)
        index, go_on, before = (inner.name(kind) for kind in ("index", "go_on", "before"))
        after = inner.constant(step(inner, index, before))
        still = inner.Identity(go_on)
        inputs = [
            helper.make_tensor_value_info(index, onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info(go_on, onnx.TensorProto.BOOL, []),
            onnx.ValueInfoProto(name=before),
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in (still, after)]
        body = helper.make_graph(inner.nodes, inner.name("loop"), inputs, outputs)
        return self.Loop(times, np.array(True), start, body=body)

    def _body(self, build: Callable[["Graph"], Value]) -> onnx.GraphProto:
        inner = Graph(self)
        result = inner.Identity(build(inner))
        return helper.make_graph(
            inner.nodes, inner.name("branch"), [], [onnx.ValueInfoProto(name=result)]
        )

    def model(
        self,
        inputs: Sequence[tuple[str, Any, Sequence[Any]]],
        outputs: Sequence[tuple[str, Any, Sequence[Any]]],
    ) -> onnx.ModelProto:
        """The whole as a model; inputs and outputs have a name, a NumPy type and a shape."""

        def described(values: Sequence[tuple[str, Any, Sequence[Any]]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape)
                )
                for name, dtype, shape in values
            ]

        stored = list(self.constants.values())
        graph = helper.make_graph(
            self.nodes, "fracnet", described(inputs), described(outputs), stored
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
