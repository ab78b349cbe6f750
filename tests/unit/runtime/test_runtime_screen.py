"""RUN-7 and RUN-8: a model that reaches outside itself is refused before ONNX Runtime sees it."""

import onnx
import pytest

from cocoon.core.errors import LimitExceeded, ModelRefused
from cocoon.core.limits import TENSORS
from cocoon.runtime.screen import screen
from tests import models

NO_GRAPH = onnx.ModelProto(ir_version=10).SerializeToString()
PLACES = ["initializer", "attribute", "sparse_attribute", "sparse_initializer", "subgraph", "function"]


@pytest.mark.parametrize("user", models.five_models(), ids=lambda user: user.name)
def test_honest_models_pass(user):
    assert screen(user.model) == frozenset()


@pytest.mark.parametrize(
    "make", [models.endless_model, models.memory_bomb, models.kernel_bomb, models.local_function_model]
)
def test_loops_bombs_and_own_functions_pass_because_the_process_contains_them(make):
    screen(make())


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("location", ["weights.bin", "../../etc/hostname", "*/_ORT_MEM_ADDR_/*"])
def test_external_data_is_refused_wherever_it_hides(where, location):
    with pytest.raises(ModelRefused, match="lies in another file"):
        screen(models.external_data_model(location, where))


def test_external_data_is_refused_even_if_its_location_flag_is_missing():
    model = onnx.load_from_string(models.external_data_model("weights.bin"))
    model.graph.initializer[0].ClearField("data_location")
    with pytest.raises(ModelRefused, match="lies in another file"):
        screen(model.SerializeToString())


def test_an_attribute_with_a_false_type_is_walked_all_the_same():
    model = onnx.load_from_string(models.external_data_model("weights.bin", "attribute"))
    model.graph.node[0].attribute[0].type = onnx.AttributeProto.FLOAT
    with pytest.raises(ModelRefused, match="lies in another file"):
        screen(model.SerializeToString())


def test_training_graphs_are_walked():
    model = onnx.load_from_string(models.adder_model())
    outside = onnx.load_from_string(models.external_data_model("weights.bin"))
    model.training_info.add().algorithm.CopyFrom(outside.graph)
    with pytest.raises(ModelRefused, match="lies in another file"):
        screen(model.SerializeToString())


@pytest.mark.parametrize("domain", ["com.example.custom", "com.microsoft.nchwc", "org.pytorch.aten"])
def test_operators_of_other_domains_are_refused_by_name(domain):
    with pytest.raises(ModelRefused, match=f"operator {domain}:Frobnicate"):
        screen(models.custom_domain_model(domain))


def test_a_custom_operator_inside_a_function_is_refused():
    model = onnx.load_from_string(models.local_function_model())
    model.functions[0].node[0].domain = "com.example.custom"
    with pytest.raises(ModelRefused, match="com.example.custom:Add"):
        screen(model.SerializeToString())


def test_compiled_contexts_are_refused():
    with pytest.raises(ModelRefused, match="EPContext"):
        screen(models.context_node_model())


def test_a_function_that_calls_itself_is_refused():
    with pytest.raises(ModelRefused, match="calls itself"):
        screen(models.recursive_function_model())


def test_functions_that_double_at_each_level_are_counted_not_inlined():
    screen(models.exploding_function_model(levels=5))
    with pytest.raises(LimitExceeded, match=str(2**30)):
        screen(models.exploding_function_model(levels=30))


def test_functions_nest_only_so_deep():
    with pytest.raises(LimitExceeded, match="nest deeper"):
        screen(models.exploding_function_model(levels=64))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", models.not_onnx(), models.truncated_model(), NO_GRAPH],
    ids=["empty", "nul", "text", "truncated", "no graph"],
)
def test_what_is_no_whole_model_is_refused(data):
    with pytest.raises(ModelRefused, match="these [0-9]+ bytes"):
        screen(data)


def test_the_second_file_format_of_onnx_runtime_is_refused():
    with pytest.raises(ModelRefused) as caught:
        screen(b"\x20\0\0\0ORTM" + bytes(64))
    assert "own format" in caught.value.text


def test_too_many_outputs_are_refused():
    model = onnx.load_from_string(models.adder_model())
    for index in range(TENSORS):
        model.graph.output.add().CopyFrom(model.graph.output[0])
        model.graph.output[-1].name = f"y{index}"
    with pytest.raises(LimitExceeded):
        screen(model.SerializeToString())


@pytest.mark.parametrize("end", ["input", "output"])
def test_names_with_control_characters_are_refused(end):
    model = onnx.load_from_string(models.adder_model())
    getattr(model.graph, end)[0].name = "x\x1b[2J"
    with pytest.raises(ModelRefused, match="control characters"):
        screen(model.SerializeToString())


def test_open_ranks_are_found():
    model = onnx.load_from_string(models.adder_model())
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert screen(model.SerializeToString()) == {"x"}
