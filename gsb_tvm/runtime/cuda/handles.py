"""What NVIDIA's driver gave, as long as somebody has it."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Owned:
    """A handle of the driver's; ``end`` is called with it when nobody has it any more."""

    def __init__(self, handle: Any, end: Callable[[Any], None]) -> None:
        self.handle = handle
        weakref.finalize(self, end, handle).atexit = False


@dataclass(frozen=True, eq=False)
class Function:
    """A function, and the code that it is of."""

    handle: Any
    code: Owned


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph as it was made, as it is executed, and its nodes."""

    graph: Owned
    executable: Owned
    handles: list[Any]
