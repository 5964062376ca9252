"""Changes to ONNX models that options of the export ask for. Needs the package onnx."""

import numpy as np
import onnx

from nets.io.exported import DETECTIONS
from nets.yolo.box_coder import map_sizes
from utils.core.schema import Config

# The dense array of kept scores gives every image its own best ones.
SUPPRESSION = """
suppression (float[N, A, 4] boxes, float[N, A, C] scores) => (float[N, K, 6] detections)
<int64[1] nms_per_class = {{{count}}}, float[1] nms_iou = {{{iou}}},
 float[1] nms_score = {{{score}}}, int64[1] nms_count = {{{count}}},
 int64[1] nms_sites = {{{sites}}}, int64[2] nms_row = {{0, -1}}, int64[3] nms_column = {{0, -1, 1}}>
{{
  nms_by_class = Transpose<perm = [0, 2, 1]>(scores)
  nms_kept = NonMaxSuppression(boxes, nms_by_class, nms_per_class, nms_iou, nms_score)
  nms_values = GatherND(nms_by_class, nms_kept)
  nms_shape = Shape(nms_by_class)
  nms_zeros = ConstantOfShape(nms_shape)
  nms_dense = ScatterND(nms_zeros, nms_kept, nms_values)
  nms_flat = Reshape(nms_dense, nms_row)
  nms_top, nms_index = TopK<axis = 1>(nms_flat, nms_count)
  nms_class = Div(nms_index, nms_sites)
  nms_start = Mul(nms_class, nms_sites)
  nms_site = Sub(nms_index, nms_start)
  nms_place = Reshape(nms_site, nms_column)
  nms_boxes = GatherND<batch_dims = 1>(boxes, nms_place)
  nms_scores = Reshape(nms_top, nms_column)
  nms_number = Cast<to = 1>(nms_class)
  nms_labels = Reshape(nms_number, nms_column)
  detections = Concat<axis = 2>(nms_boxes, nms_scores, nms_labels)
}}"""


def halve_weights(model: onnx.ModelProto) -> None:
    """Store the weights of convolutions as float16; a Cast, which runtimes fold, restores them.

    Args:
        model: modified in place.
    """
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            continue
        values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        half = f"{tensor.name}_half"
        casts.append(
            onnx.helper.make_node("Cast", [half], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, half))
    _replace_nodes(model, [*casts, *model.graph.node])


def append_nms(model: onnx.ModelProto, config: Config, num_classes: int) -> None:
    """Replace the outputs of a model by `detections`; see `write_onnx`.

    Args:
        model: with outputs `boxes` and `scores`, modified in place.
        config: `predict` has the limits.
        num_classes: number of classes.
    """
    limits = config.predict
    maps = map_sizes(config.input_size, config.model.heads)
    sites = sum(3 * height * width for height, width in maps)
    count = min(limits.max_detections, sites * num_classes)
    text = SUPPRESSION.format(count=count, iou=limits.nms_iou, score=limits.score, sites=sites)
    graph = onnx.parser.parse_graph(text)
    model.graph.node.extend(graph.node)
    model.graph.initializer.extend(graph.initializer)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, count, 6]
    output = onnx.helper.make_tensor_value_info(DETECTIONS, onnx.TensorProto.FLOAT, shape)
    del model.graph.output[:]
    model.graph.output.append(output)


def _replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)
