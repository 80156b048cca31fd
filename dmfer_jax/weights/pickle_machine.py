"""Runs the pickle of a weights file without Python's unpickler, which calls whatever it is told to.

A pickle is a program for a stack machine. The one here knows the operations that make plain
containers and numbers, and can construct nothing but what its caller lists by full name: there is
no way from a name in a file to a function of Python. Memory and time are bounded by the length of
the pickle and by `MAX_OPERATIONS`: the memo is a dict, no length is believed before that many bytes
are there, and containers are linked, never compared or hashed, and copied by constructors alone.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dmfer_jax.errors import UserError

MAX_OPERATIONS = 1_000_000
"""Of one pickle; a tensor takes about 50. Each item of what a constructor is given is one, too."""

_MAX_INTEGER_BYTES = 16  # the magic number of PyTorch's old format has 10


class Global(NamedTuple):
    """A name that the pickle asks for, such as "torch.FloatStorage"; only a name."""

    name: str


class Unused(NamedTuple):
    """Something harmless that weights do not need, such as a device or a NumPy number."""


class Rules(NamedTuple):
    """What a pickle may construct.

    Attributes:
      constructors: full name -> function of the arguments that the pickle gives.
      names: that the pickle may mention, such as types, and that construct nothing.
      persistent: function of what stands for an object kept outside the pickle.
    """

    constructors: Mapping[str, Callable[..., Any]]
    names: frozenset[str] = frozenset()
    persistent: Callable[[Any], Any] | None = None


def run_pickle(data: bytes, position: int, rules: Rules) -> tuple[Any, int]:
    """Returns what a pickle describes, and the position behind it.

    Args:
      data: bytes that hold it.
      position: of its first byte.
      rules: what it may construct.

    Raises:
      UserError: it is damaged, or asks for something else; the message does not name the file.
    """
    machine = _Machine(data, position, rules)
    try:
        return machine.run(), machine.position
    except UserError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise UserError(
            f"its pickle is damaged at byte {machine.position} ({type(error).__name__})"
        ) from error


def shown(value: Any) -> str:
    """A text from a file as an error may show it: quoted and not long; of others, the type."""
    if not isinstance(value, str):
        return f"a {type(value).__name__}"
    return repr(value if len(value) <= 80 else value[:77] + "...")


def checked_key(key: Any) -> Any:
    """Returns a key of a dict; containers are refused, since nested ones take forever to hash."""
    if not isinstance(key, str | int | float | bool | None):
        raise UserError(f"its pickle has {shown(key)} as a key of a dict; expected a text")
    return key


class _Machine:
    """The stack machine, at one place in one pickle."""

    def __init__(self, data: bytes, position: int, rules: Rules):
        self.data, self.position, self.rules = data, position, rules
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.left = MAX_OPERATIONS

    def run(self) -> Any:
        while True:
            self.charge(1)
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise UserError(f"its pickle has {_describe(code)}, which weights have no need of")
            operation(self)

    def charge(self, operations: int) -> None:
        self.left -= operations
        if self.left < 0:
            raise UserError(f"its pickle has more than {MAX_OPERATIONS:,} operations")

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise UserError("its pickle ends in the middle")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 256)
        if end < 0:
            raise UserError("its pickle has a name without an end")
        text = self.take(end - self.position).decode("ascii")
        self.position += 1
        return text

    def items(self) -> list[Any]:
        """What stands above the last mark, which is taken away."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def integer(self, size: int) -> None:
        length = self.number(size)
        if length > _MAX_INTEGER_BYTES:
            raise UserError(f"its pickle has an integer of {length:,} bytes")
        self.push(self.number(length, signed=True))

    def text(self, size: int, codec: str = "utf-8") -> None:
        raw = self.take(self.number(size))
        # Python 2's texts are bytes in no known encoding; names of tensors are ASCII in all.
        self.push(raw.decode(codec, "replace" if codec == "ascii" else "surrogatepass"))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def top(self, kind: type) -> Any:
        """The container on top, which must be one: a file may try to change other things."""
        if type(self.stack[-1]) is not kind:
            raise UserError(f"its pickle fills {shown(self.stack[-1])} as if it were a container")
        return self.stack[-1]

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def wrap(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.push(tuple(items))

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UserError("its pickle asks for a name that is no text")
        full = f"{module}.{name}"
        if full not in self.rules.constructors and full not in self.rules.names:
            raise UserError(
                f"the file asks for {shown(full)[1:-1]}: a weights file has no need of it, and it "
                "is not read. If the file is from someone you trust, load it in PyTorch and save "
                "its state dict alone: torch.save(model.state_dict(), 'weights.pth')"
            )
        self.push(Global(full))

    def find_on_stack(self) -> None:
        name = self.stack.pop()
        self.find(self.stack.pop(), name)

    def construct(self) -> None:
        arguments = self.stack.pop()
        made_of = self.stack.pop()
        if type(made_of) is not Global or type(arguments) is not tuple:
            raise UserError(f"its pickle calls {shown(made_of)}, which is no name of a type")
        constructor = self.rules.constructors.get(made_of.name)
        if constructor is None:
            raise UserError(f"its pickle calls {made_of.name}, which makes nothing here")
        for argument in arguments:  # one from the memo may be given, and copied, very often
            if isinstance(argument, (tuple, list, dict)):
                self.charge(len(argument))
        self.push(constructor(*arguments))

    def build(self) -> None:
        """Attributes of an object. A state dict has some, `_metadata`; none is of use here."""
        self.stack.pop()
        if type(self.stack[-1]) is not Unused:
            self.top(dict)

    def persistent(self) -> None:
        if self.rules.persistent is None:
            raise UserError("its pickle refers to data outside of it, where there is none")
        self.push(self.rules.persistent(self.stack.pop()))


_OPERATIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # the protocol
    b"\x95": lambda m: m.take(8),  # a frame, which only says how much to read at a time
    b"(": _Machine.mark,
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.items(),
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"\x8a": lambda m: m.integer(1),
    b"\x8b": lambda m: m.integer(4),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.text(4),
    b"\x8c": lambda m: m.text(1),
    b"\x8d": lambda m: m.text(8),
    b"T": lambda m: m.text(4, "ascii"),
    b"U": lambda m: m.text(1, "ascii"),
    b"B": lambda m: m.push(m.take(m.number(4))),
    b"C": lambda m: m.push(m.take(m.number(1))),
    b"\x8e": lambda m: m.push(m.take(m.number(8))),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": lambda m: m.push(()),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.items()),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.items()),
    b"t": lambda m: m.push(tuple(m.items())),
    b"\x85": lambda m: m.wrap(1),
    b"\x86": lambda m: m.wrap(2),
    b"\x87": lambda m: m.wrap(3),
    b"q": lambda m: m.put(m.number(1)),
    b"r": lambda m: m.put(m.number(4)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.push(m.memo[m.number(1)]),
    b"j": lambda m: m.push(m.memo[m.number(4)]),
    b"c": lambda m: m.find(m.line(), m.line()),
    b"\x93": _Machine.find_on_stack,
    b"R": _Machine.construct,
    b"\x81": _Machine.construct,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
"""Those of protocols 2 to 5, in which PyTorch writes, without sets and shared buffers."""


def _describe(code: bytes) -> str:
    for known in pickletools.opcodes:
        if known.code.encode("latin-1") == code:
            return f"the operation {known.name}"
    return f"the byte {code[0]:#04x} as an operation"
