"""Half precision: the loss scaled so that float16's gradients neither vanish nor overflow, and who computes it well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sparkrec.errors import ConfigError
from sparkrec.training.checkpoint import Part

# Small for a first scale, because the loss is a sum over the batch and no mean.
_FIRST, _LARGEST = 2.0**7, 2.0**24
#: Good steps after which the scale is doubled; bad ones in a row that are borne.
_GROWS_AFTER, _BORNE = 2000, 20

# What a processor says of itself if it multiplies in the type, and the compute capability from which a GPU does.
_FLAGS = {"bfloat16": ("avx512_bf16", "amx_bf16", "bf16"), "float16": ("avx512_fp16", "amx_fp16", "asimdhp")}
_CAPABILITY = {"bfloat16": (8, 0), "float16": (7, 0)}


class LossScale:
    """Dynamic loss scaling (Micikevicius et al., "Mixed precision training", 2018).

    Gradients are those of loss · ``scale``. A step whose exchanged gradient is not finite is left out on all ranks and
    the scale halved; after 2,000 good ones it is doubled. Only float16 needs it: elsewhere the scale is 1 for ever.
    """

    def __init__(self, precision: str) -> None:
        self.on = precision == "float16"
        # scale, good steps since it changed, bad ones in a row, bad ones in all; captured by the traced step.
        self._state = tf.Variable(self._first)

    @property
    def _first(self) -> np.ndarray:
        return np.asarray([_FIRST, 0, 0, 0], np.float32)

    @property
    def scale(self) -> float:
        return float(self._state[0]) if self.on else 1.0

    @property
    def skipped(self) -> int:
        """Steps that were left out."""
        return int(self._state[3]) if self.on else 0

    def factor(self) -> tf.Tensor | None:
        """For the tape, as ``output_gradients``."""
        return self._state[0] if self.on else None

    def probe(self, gradients: list[tf.Tensor]) -> tf.Tensor:
        """NaN if an element is not finite, else 0: a sum over ranks tells it to all."""
        zeros = [tf.reduce_sum(0 * gradient) for gradient in gradients] if self.on else []
        return tf.add_n([tf.zeros([]), *zeros])

    def skips(self, exchanged: Any) -> bool:
        """Whether to leave the step out; ``exchanged`` : the gradient and the probe, the same on all ranks.

        Raises
        ------
        ConfigError
            It was so for 20 steps in a row.
        """
        if not self.on:
            return False
        scale, good, bad, skipped = self._state.numpy().tolist()
        if bool(tf.reduce_all(tf.math.is_finite(exchanged))):
            grows = good + 1 >= _GROWS_AFTER
            self._state.assign([min(2 * scale, _LARGEST), 0, 0, skipped] if grows else [scale, good + 1, 0, skipped])
            return False
        if bad + 1 >= _BORNE:
            raise ConfigError(
                f"The two-tower gradient was not finite in {_BORNE} steps in a row, with the loss scaled down to "
                f"{scale:g}. The training has diverged, or it needs more range than float16 has: lower "
                "two_tower.learning_rate, or set two_tower.precision: bfloat16 or float32."
            )
        self._state.assign([scale / 2, 0, bad + 1, skipped + 1])
        return True

    def state(self) -> Iterator[Part]:
        """For checkpoints and the comparison of ranks."""
        if self.on:
            yield Part("loss_scale", 4, (4,), (self._state.numpy(),))

    def restore(self, read: Callable[[str, np.ndarray | None], np.ndarray]) -> None:
        if self.on:
            self._state.assign(read("loss_scale", None))

    def reset(self) -> None:
        self._state.assign(self._first)


def doubt(precision: str) -> str:
    """What is to be said of this process's device: nothing if it computes well in the type, or nobody knows."""
    if precision == "float32":
        return ""
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return doubt_of_gpu(precision, details.get("compute_capability"))
    try:
        known = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return doubt_of_cpu(precision, known)


def doubt_of_gpu(precision: str, capability: tuple[int, int] | None) -> str:
    """``capability`` : as NVIDIA counts, None where nobody knows."""
    if capability is None or capability >= _CAPABILITY[precision]:
        return ""
    return _slow(precision, f"this GPU, of compute capability {capability[0]}.{capability[1]},")


def doubt_of_cpu(precision: str, cpuinfo: str) -> str:
    """``cpuinfo`` : what Linux tells about the processors."""
    if set(_FLAGS[precision]) & set(cpuinfo.split()):
        return ""
    return _slow(precision, "this processor")


def _slow(precision: str, device: str) -> str:
    return f"two_tower.precision is {precision}, and {device} does not multiply in it: float32 is likely to be faster"
