"""Translation of many images with one generator, compiled for frequent sizes."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.data.codec import Picture, decode_for
from imtrans.errors import ArgumentError
from imtrans.inference.translate import check_generator, sample_noises
from imtrans.modes import running_as, unwrap
from imtrans.nn.layers import NearestConv
from imtrans.nn.noise import check_samples
from imtrans.runtime import seeded

COMPILE_AFTER = 500  # images of one size before compile="auto" compiles it: about as many as pay for the compilation
MAX_COMPILED = 4  # sizes that are compiled; each holds a copy of the weights


class Translator:
    """Translates many images with one generator: the values of `imtrans.translate`, faster.

    It works on a copy: later changes of the generator have no effect.

    Each size (with its batch size) runs uncompiled at first, as fast as `imtrans.translate`. A frequent size is
    compiled with frozen weights, at most four; this takes seconds to a minute each, and needs a C++ compiler.

    Args:
        generator: as for `imtrans.translate`.
        mode: as for `imtrans.translate`. With ``"paper"``, dropout draws in another order than there.
        precision: as for `imtrans.translate`.
        compile: ``"auto"`` compiles a size at its 500th image; if that fails, it warns and continues uncompiled. True
            compiles at the first image, False never.

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
        self._network = copy.deepcopy(unwrap(generator))
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self._network.modules():
            if isinstance(module, NearestConv):
                module.freeze()
        # Entered once and never left: compiled code depends on the flags of the modules.
        self._mode_context = ExitStack()
        self._mode_context.enter_context(running_as(self._network, self.mode))
        self._must_compile = compile is True
        self._compile_at = {True: 1.0, False: float("inf"), "auto": COMPILE_AFTER}[compile]
        self._seen: Counter[torch.Size] = Counter()
        self._compiled: dict[torch.Size, Callable[..., Tensor]] = {}

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        *,
        instances: Picture | Sequence[Picture] | None = None,
        samples: int | None = None,
        seed: int | None = None,
    ) -> Any:
        """Translate an image or a batch of images; see `imtrans.translate` for kinds, the arguments and errors.

        Compiled code draws dropout in another order: for the same image of a `seed` in all calls, set `compile` to True
        or False.
        """
        if samples is not None:
            check_samples("Translator", self._network, self.mode, samples)
        decoded = decode_for("Translator", image, self._network, instances)
        source = decoded.tensor.to(self._device, self._dtype, memory_format=torch.channels_last)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with seeded("Translator", seed, self._device), autocast:
            noises = sample_noises(self._network, source, samples)
            fakes = [self._run(source, *(z.to(source) for z in noise)) for noise in noises]
        outputs = [decoded.encode(fake) for fake in fakes]
        return outputs[0] if samples is None else outputs

    def _run(self, source: Tensor, *noise: Tensor) -> Tensor:
        if source.shape in self._compiled:
            return self._compiled[source.shape](source, *noise)
        self._seen[source.shape] += len(source)
        if self._seen[source.shape] < self._compile_at or len(self._compiled) == MAX_COMPILED:
            return self._network(source, *noise)
        return self._compile(source, *noise)

    def _compile(self, source: Tensor, *noise: Tensor) -> Tensor:
        import torch._dynamo.config  # slow to import
        import torch._inductor.config
        from torch._dynamo.exc import TorchDynamoException

        with torch.random.fork_rng():
            # Keeps the folded kernels of this size, which the compiler does not fold itself.
            self._network(source, *noise)
        compiled = torch.compile(self._network, dynamic=False)
        try:
            with (
                # The first call traces the graph; the tracer reads freezing= from the global flag alone.
                torch._inductor.config.patch(freezing=True, fallback_random=True),
                # All compiled instances of a class share this limit, also across translators.
                torch._dynamo.config.patch(recompile_limit=2**16, accumulated_recompile_limit=2**16),
            ):
                fake: Tensor = compiled(source, *noise)
        except TorchDynamoException as error:
            if self._must_compile:
                raise
            self._compile_at = float("inf")
            warnings.warn(
                f"Translator: {type(self._network).__name__} cannot be compiled here and runs uncompiled: "
                f"{str(error).strip().splitlines()[0]}",
                stacklevel=5,
            )
            return self._network(source, *noise)
        self._compiled[source.shape] = compiled
        return fake
