"""What rewrites .tflite files reads, looks up and writes them in one way."""

from __future__ import annotations

from pathlib import Path

from ai_edge_litert import schema_py_generated as schema
from tiny_tflite import write_tflite

from edgeopt.converters.inspect_tflite import inspect_tflite
from edgeopt.converters.tflite_file import builtin_code, opcode_index, operator_code, read_model, write_model


def test_a_known_operator_is_found_and_a_new_one_added_once(tmp_path: Path) -> None:
    model = read_model(write_tflite(tmp_path / "net.tflite"))
    count = len(model.operatorCodes)
    found = opcode_index(model, schema.BuiltinOperator.SOFTMAX, version=9)
    assert found < count
    assert model.operatorCodes[found].version != 9
    added = opcode_index(model, schema.BuiltinOperator.QUANTIZE, version=2)
    assert (added, model.operatorCodes[added].version) == (count, 2)
    assert opcode_index(model, schema.BuiltinOperator.QUANTIZE, version=2) == added
    assert len(model.operatorCodes) == count + 1


def test_operators_are_known_from_either_field(tmp_path: Path) -> None:
    """Converters before schema version 3a wrote only the old one."""
    model = read_model(write_tflite(tmp_path / "net.tflite"))
    expected = [operator_code(model, each) for each in model.subgraphs[0].operators]
    for code in model.operatorCodes:
        code.builtinCode = 0
    assert [operator_code(model, each) for each in model.subgraphs[0].operators] == expected


def test_operators_beyond_the_old_field_survive_writing(tmp_path: Path) -> None:
    path = write_tflite(tmp_path / "net.tflite")
    before = inspect_tflite(path)
    model = read_model(path)
    index = opcode_index(model, schema.BuiltinOperator.ATAN2, version=1)
    write_model(model, path)
    assert schema.BuiltinOperator.ATAN2 > 127
    assert builtin_code(read_model(path).operatorCodes[index]) == schema.BuiltinOperator.ATAN2
    assert inspect_tflite(path).ops == before.ops
