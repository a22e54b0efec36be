"""Where kernels compute: NumPy, or another array library, on a GPU or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from array_api_compat import array_namespace
from array_api_compat import device as device_of

from lyot.compute import memory, threads
from lyot.errors import LyotError

if TYPE_CHECKING:
    import numpy as np

SHARE = 0.25
"""Share of the free memory of a device that what is worked on at once may take."""

BLOCK_COPIES = 6
"""So many copies of a block of pixels in float64 there may be at once."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Device:
    """Where kernels compute: on NumPy arrays, or on those that `put` makes and `get` takes back.

    `free` says how many bytes of its memory are not in use.
    """

    def __init__(
        self,
        put: Callable[[np.ndarray], Any] | None = None,
        get: Callable[[Any], np.ndarray] | None = None,
        free: Callable[[], int] = memory.of_computer,
    ) -> None:
        self._put, self._get, self._free = put, get, free

    @property
    def is_numpy(self) -> bool:
        """Whether kernels run on NumPy arrays."""
        return self._put is None

    def put(self, value: Any, /) -> Any:
        """Move arrays to the device, within tuples and lists too; other values are passed on."""
        import numpy as np

        if self._put is None:
            return value
        if isinstance(value, np.ndarray):
            return self._put(value)
        return _each(self.put, value)

    def get(self, value: Any, /) -> Any:
        """Move what a kernel returned back to NumPy."""
        import numpy as np

        if self._get is None or isinstance(value, np.ndarray):
            return value
        if hasattr(value, "__dlpack__") and hasattr(value, "shape"):
            return self._get(value)
        return _each(self.get, value)

    def run(self, kernel: Callable[..., Any], /, *data: Any, **options: Any) -> Any:
        """Call a kernel of `lyot.algorithms` with NumPy arrays and return NumPy arrays."""
        if self._put is None:
            return kernel(*data, **options)
        moved = {name: self.put(value) for name, value in options.items()}
        return self.get(kernel(*(self.put(value) for value in data), **moved))

    def map_groups(
        self,
        function: Callable[[Sequence[int]], Result],
        items: Sequence[int],
        /,
        *,
        at_once: int,
        item_bytes: int,
    ) -> list[Result]:
        """Apply a function to groups of independent items, in order.

        On NumPy they are of `at_once` items; a device is quick with as many as its memory holds, of
        `item_bytes` each.
        """
        n = at_once if self._put is None else self._fitting(item_bytes)
        return self.map(function, [items[k : k + n] for k in range(0, len(items), n)])

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], /, *, item_bytes: int = 0
    ) -> list[Result]:
        """Apply a function to independent items, in order; to many at once on NumPy alone."""
        if self._put is None:
            return threads.map_ordered(function, items, item_bytes=item_bytes)
        return [function(item) for item in items]

    def pixel_blocks(self, n_pix: int, n_rows: int, /) -> list[slice]:
        """Divide pixels of some frames into blocks for `map`."""
        if self._put is None:
            return threads.pixel_blocks(n_pix, n_rows)
        size = self._fitting(8 * BLOCK_COPIES * n_rows)
        return [slice(i, min(i + size, n_pix)) for i in range(0, n_pix, size)]

    def columns(self, array: Any, at: Any, /) -> Any:
        """Return the columns of a matrix on the device, at a slice or at places in NumPy."""
        if self._put is None:
            return memory.columns(array, at)
        if isinstance(at, slice):
            return array[:, at]
        return array_namespace(array).take(array, self.put(at), axis=1)

    def _fitting(self, item_bytes: int) -> int:
        """Return how many items may be worked on at once; one at least."""
        return max(int(SHARE * self._free()) // item_bytes, 1)


def rows(array: Any, pick: Any, /) -> Any:
    """Return some rows of an array of any library; a range of them is not copied."""
    if isinstance(pick, range) and pick.step == 1:
        return array[pick.start : pick.stop, ...]
    xp = array_namespace(array)
    return xp.take(array, xp.asarray(pick, device=device_of(array)), axis=0)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to the items of a tuple, named or not, or of a list."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(function(item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(function(item) for item in value)
    return value


NUMPY = Device()
DEVICES = ("cpu", "cuda", "torch")


@cache
def device(name: str = "cpu", /) -> Device:
    """Return a device: ``cpu`` (NumPy), ``cuda`` (PyTorch, else CuPy), ``torch`` (on the CPU)."""
    if name not in DEVICES:
        raise LyotError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}.")
    if name == "cpu":
        return NUMPY
    for library in (_torch, _cupy):
        with suppress(ImportError):
            if found := library(name):
                return found
    raise LyotError(
        f"device is {name!r}, and neither PyTorch nor CuPy with such a device is installed; "
        "install one, or use device = cpu."
    )


def _torch(name: str) -> Device | None:
    import numpy as np
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        return None

    def _put(array: np.ndarray) -> Any:
        native = _native(array)
        if not native.flags.writeable:
            native = native.copy()
        return torch.from_numpy(np.ascontiguousarray(native)).to("cpu" if name == "torch" else name)

    def _free() -> int:
        held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0] + held)

    def _get(tensor: Any) -> np.ndarray:
        # Into memory that the system keeps in place, and PyTorch for the next array: several times
        # as quick.
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return np.asarray(host.copy_(tensor).numpy())

    return Device(_put, _get, _free) if name == "cuda" else Device(_put, _get)


def _cupy(name: str) -> Device | None:
    import cupy

    if name != "cuda" or not cupy.cuda.runtime.getDeviceCount():
        return None

    def _free() -> int:
        pool = cupy.get_default_memory_pool()
        return int(cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes())

    return Device(lambda array: cupy.asarray(_native(array)), cupy.asnumpy, _free)


def _native(array: np.ndarray) -> np.ndarray:
    """Return an array in the byte order of this computer, as files are not."""
    import numpy as np

    return np.asarray(array, dtype=array.dtype.newbyteorder("="))
