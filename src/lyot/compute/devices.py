"""Where kernels compute: NumPy, or another array library, on a GPU or not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from lyot.errors import LyotError

if TYPE_CHECKING:
    import numpy as np


class Device:
    """Where kernels compute: on NumPy arrays, or on those that `put` makes and `get` takes back."""

    def __init__(
        self,
        put: Callable[[np.ndarray], Any] | None = None,
        get: Callable[[Any], np.ndarray] | None = None,
    ) -> None:
        self._put, self._get = put, get

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
        if self._get is None:
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


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to the items of a tuple, named or not, or of a list."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(function(item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(function(item) for item in value)
    return value


DEVICES = ("cpu", "cuda", "torch")


@cache
def device(name: str = "cpu", /) -> Device:
    """Return a device: ``cpu`` (NumPy), ``cuda`` (PyTorch, else CuPy), ``torch`` (on the CPU)."""
    if name not in DEVICES:
        raise LyotError(f"device is {name!r}; it must be one of {', '.join(DEVICES)}.")
    if name == "cpu":
        return Device()
    with suppress(ImportError):
        import torch

        if name == "torch" or torch.cuda.is_available():
            where = "cpu" if name == "torch" else "cuda"

            def _put(array: np.ndarray) -> Any:
                import numpy as np

                native = np.asarray(array, dtype=array.dtype.newbyteorder("="))
                if not native.flags.writeable:
                    native = native.copy()
                return torch.from_numpy(np.ascontiguousarray(native)).to(where)

            return Device(_put, lambda tensor: tensor.cpu().numpy())
    if name == "cuda":
        with suppress(ImportError):
            import cupy

            if cupy.cuda.runtime.getDeviceCount() > 0:
                return Device(cupy.asarray, cupy.asnumpy)
    raise LyotError(
        f"device is {name!r}, and neither PyTorch nor CuPy with such a device is installed; "
        "install one, or use device = cpu."
    )
