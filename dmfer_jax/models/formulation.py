"""Whether layers are traced in the operations of the textbook, or in those that are fastest here.

Several layers are written in many operations, since XLA computes these faster, or their gradient
(`convolution`, `pooling`, `channel_attention`). A program that another compiler or runtime gets
should hold the one operation that it knows, such as a convolution, and has a good kernel for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Within it this thread traces networks in plain operations; the function is the same."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def is_plain() -> bool:
    """Whether layers are to be traced in plain operations."""
    return _PLAIN.get()
