"""What a compiled program says of itself: memory, arithmetic, bytes moved, and collectives.

The collectives are read from the text of the optimised program. From these and a chip's datasheet
follow estimates of the time a step takes at least; that by bytes moved is one only as far as XLA's
count of them is (see `Program`).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dmfer_jax.chips import Topology

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
"""Operations by which chips exchange data."""


class Traffic(NamedTuple):
    """How many collectives of one kind, and the bytes that each chip has of their results."""

    number: int
    bytes: int


class Program(NamedTuple):
    """What one chip holds and does in one call of a compiled program.

    Attributes:
      arguments: bytes.
      outputs: bytes.
      aliased: bytes of outputs that take the place of donated arguments.
      temporaries: bytes.
      code: bytes of the program itself.
      flops: operations, as XLA counts them.
      bytes_moved: what all operations read and write. XLA counts what stays in the chip's fast
        memory between two operations, too; so it is more than what passes through HBM.
      collectives: kind -> traffic, only kinds there are. One within a loop counts once.
      longest_chain: collectives of which each needs the result of the one before, at most. Other
        combining cannot bring their number below it, while the fusions stay as they are.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    flops: float
    bytes_moved: float
    collectives: dict[str, Traffic]
    longest_chain: int

    @property
    def memory(self) -> int:
        """Bytes that must fit into the chip's memory."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


class Bounds(NamedTuple):
    """Seconds that a call takes at least, each as if all else took no time."""

    arithmetic: float
    bandwidth: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The largest of them."""
        return max(self)


def read_program(compiled: Any) -> Program:
    """Returns what a compiled program says of itself.

    Args:
      compiled: of `jax.jit(...).lower(...).compile()`.
    """
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    return Program(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=cost["flops"],
        bytes_moved=cost["bytes accessed"],
        collectives=read_collectives(text),
        longest_chain=longest_chain(text),
    )


def bounds(program: Program, topology: Topology) -> Bounds:
    """Returns what the datasheet allows.

    A chip that takes part in an all-reduce of B bytes among n chips sends at least 2 B (n-1)/n
    bytes, and half of that in other collectives, of which B is the larger side (Patarasuk and
    Yuan, 2009). The time that a message takes however small it is stands on no datasheet.
    """
    sent = sum(
        (2 if kind == "all-reduce" else 1) * traffic.bytes * (topology.chips - 1) / topology.chips
        for kind, traffic in program.collectives.items()
    )
    chip = topology.chip
    return Bounds(
        arithmetic=program.flops / chip.flops,
        bandwidth=program.bytes_moved / chip.memory_rate,
        interconnect=sent / chip.interconnect_rate,
    )


def read_collectives(text: str) -> dict[str, Traffic]:
    """Returns the collectives of a program, by kind.

    An asynchronous one is two instructions, "-start" and "-done", and counts once.

    Args:
      text: the program in XLA's notation.
    """
    found: dict[str, Traffic] = {}
    for instruction in _instructions(text):
        if kind := _collective_kind(instruction.opcode):
            number, size = found.get(kind, (0, 0))
            found[kind] = Traffic(number + 1, size + _result_bytes(instruction))
    return found


def longest_chain(text: str) -> int:
    """Returns how many collectives follow from each other, at most, in a program's text.

    Where one all-reduce carries several arrays, each result follows from its own array alone: what
    was combined for convenience is no dependence. Of what a collective hidden in a called
    computation (a loop, an asynchronous call) carries, nothing is known: it counts as one.
    """
    calling = {
        name
        for name, body in re.findall(r"^%?([\w.-]+) [^\n]*\{\n(.*?)^\}", text, re.M | re.S)
        if any(_collective_kind(instruction.opcode) for instruction in _instructions(body))
    }
    depths: dict[str, list[int]] = {}  # by name; of each element of a combined collective
    longest = 0
    for instruction in _instructions(text[text.find("ENTRY ") :]):
        operands = [depths[name] for name in instruction.operands if name in depths]
        index = re.search(r", index=(\d+)", instruction.rest)
        if instruction.opcode == "get-tuple-element" and index and len(operands[0]) > 1:
            depth = [operands[0][int(index[1])]]
        elif instruction.opcode in ("all-reduce", "all-reduce-start"):
            depth = [1 + max(operand) for operand in operands]
        else:
            called = re.findall(r"(?:calls|body|to_apply)=%?([\w.-]+)", instruction.rest)
            adds = bool(_collective_kind(instruction.opcode)) or (
                not instruction.opcode.endswith(("-done", "-update")) and bool(calling & {*called})
            )
            depth = [adds + max((max(operand) for operand in operands), default=0)]
            if instruction.opcode == "all-reduce-done":
                depth = operands[0]
        depths[instruction.name] = depth
        longest = max(longest, *depth)
    return longest


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: list[str]
    rest: str  # operands and attributes, as they stand


def _instructions(text: str) -> Iterator[_Instruction]:
    """The instructions of a text; shapes come first, then the opcode, then the operands."""
    pattern = r"^ *(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$"
    for name, shape, opcode, rest in re.findall(pattern, text, re.MULTILINE):
        operands, _, _ = rest.partition("), ")
        yield _Instruction(name, shape, opcode, re.findall(r"%([\w.-]+)", operands), rest)


def _collective_kind(opcode: str) -> str | None:
    """The kind; None of another instruction, and of "-done", which only waits."""
    kind = opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def _result_bytes(instruction: _Instruction) -> int:
    """The bytes of a collective's result; a start gives its operand, its result and handles."""
    shape = instruction.shape
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        shape = _tuple_elements(shape)[1]
    sizes = re.findall(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]", shape)
    return sum(_array_bytes(letters, bits, dimensions) for letters, bits, dimensions in sizes)


def _array_bytes(letters: str, bits: str, dimensions: str) -> int:
    """The bytes of an array of a type such as "bf" "16", and dimensions such as "8,128"."""
    width = int(bits) if bits else {"pred": 8}.get(letters, 0)
    for dimension in dimensions.split(",") if dimensions else ():
        width *= int(dimension)
    return -(-width // 8)


def _tuple_elements(shape: str) -> list[str]:
    """The elements of "(a, (b, c))": "a" and "(b, c)"."""
    elements, depth, start = [], 0, 1
    for position, character in enumerate(shape):
        depth += (character in "([{") - (character in ")]}")
        if (character == "," and depth == 1) or depth == 0:
            elements.append(shape[start:position])
            start = position + 1
    return elements
