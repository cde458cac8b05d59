"""Many pictures through one generator: its weights prepared once, its forward compiled for the sizes that recur."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.data.codec import Picture, decode_for
from imtrans.errors import ArgumentError
from imtrans.inference.translate import check_generator
from imtrans.modes import running_as

COMPILE_AFTER = 500
"""With ``compile="auto"``: compiling costs about as much time as it saves on so many pictures."""
MAX_COMPILED = 4
"""Sizes that are compiled: each keeps weights of its own, packed for its convolutions."""


class Translator:
    """Translates picture after picture with one generator: `imtrans.translate`, faster, to the same values.

    It works on a copy of the generator, which is left as it is; what happens to it later does not show.

    The first pictures of a size run at once, uncompiled, no slower than with `imtrans.translate`. A size that recurs
    is compiled with the weights frozen into it, which takes from seconds to a minute; from then on its pictures run
    faster. At most four sizes (and batch sizes) are compiled, and the others run on as they did. Compiling needs a C++
    compiler on the machine.

    Args:
        generator: as for `imtrans.translate`.
        mode: as for `imtrans.translate`. With ``"paper"``, dropout draws from PyTorch's global generator, in another
            order than there.
        precision: ``"bf16"`` runs under autocast; ``"fp32"`` or None as the weights are.
        compile: ``"auto"`` compiles a size at its 500th picture, and where that fails goes on uncompiled, with a
            warning; True at the first one; False never.

    Raises:
        ArgumentError: a value that is not allowed.

    >>> from imtrans import UNetGenerator
    >>> translator = Translator(UNetGenerator(base_channels=4, depth=3))
    >>> [translator(torch.zeros(2, 3, height, 40)).shape for height in (32, 50)]
    [torch.Size([2, 3, 32, 40]), torch.Size([2, 3, 50, 40])]
    """

    def __init__(
        self,
        generator: nn.Module,
        *,
        mode: str | None = None,
        precision: str | None = None,
        compile: bool | str = "auto",
    ) -> None:
        if compile not in (True, False, "auto"):
            raise ArgumentError(f"Translator: compile must be True, False or 'auto', got {compile!r}.")
        self.in_channels, self.mode = check_generator("Translator", generator, mode, precision)
        self.precision = precision
        weights = next(generator.parameters())
        self._device, self._dtype = weights.device, weights.dtype
        self._network = copy.deepcopy(generator)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Entered once, and held: compiled code is tied to the flags that it was compiled under.
        self._running = ExitStack()
        self._running.enter_context(running_as(self._network, self.mode))
        self._must_compile = compile is True
        self._compile_at = {True: 1.0, False: float("inf"), "auto": COMPILE_AFTER}[compile]
        self._seen: Counter[torch.Size] = Counter()
        self._compiled: dict[torch.Size, Callable[[Tensor], Tensor]] = {}

    @torch.no_grad()
    def __call__(self, image: Picture) -> Any:
        """Translate a picture, or a batch of them of one size; kinds and errors as for `imtrans.translate`."""
        decoded = decode_for("Translator", image, self._network)
        source = decoded.tensor.to(self._device, self._dtype, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            fake = self._run(source)
        return decoded.encode(fake)

    def _run(self, source: Tensor) -> Tensor:
        if source.shape in self._compiled:
            return self._compiled[source.shape](source)
        self._seen[source.shape] += len(source)
        if self._seen[source.shape] < self._compile_at or len(self._compiled) == MAX_COMPILED:
            return self._network(source)
        return self._compile(source)

    def _compile(self, source: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # imported late: `import imtrans` must stay quick

        try:
            compiled, fake = _compiled(self._network, source)
        except TorchDynamoException as error:
            if self._must_compile:
                raise
            self._compile_at = float("inf")
            warnings.warn(
                f"Translator: {type(self._network).__name__} cannot be compiled here, and runs on uncompiled: "
                f"{str(error).strip().splitlines()[0]}",
                stacklevel=5,
            )
            return self._network(source)
        self._compiled[source.shape] = compiled
        return fake


def _compiled(network: nn.Module, source: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Compile `network` for `source` and its like, and run it."""
    import torch._dynamo.config
    import torch._inductor.config

    compiled = torch.compile(network, dynamic=False)
    with (
        # The graph is made at the first call. Its weights become constants only if the tracer too, which reads the
        # global flag and no option of torch.compile, knows that they are frozen.
        torch._inductor.config.patch(freezing=True, fallback_random=True),
        # The limit is shared by all that was ever compiled of one class, by other translators too.
        torch._dynamo.config.patch(recompile_limit=2**16, accumulated_recompile_limit=2**16),
    ):
        return compiled, compiled(source)
