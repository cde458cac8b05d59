"""What the levels of a U-Net may be."""

from collections.abc import Sequence

from imtrans.checks import at_least, in_range, one_of
from imtrans.errors import ArgumentError
from imtrans.nn.skips import SKIPS, Skip

MAX_DEPTH = 16  # of an image of 65536 pixels, one would be left


def level_widths(
    owner: str, base_channels: int, depth: int, width_cap: int, channels: Sequence[int] | None
) -> tuple[int, ...]:
    """The channels of each level: `channels`, or `base_channels` doubled level by level up to `width_cap` times.

    Raises:
        ArgumentError: a value that is not allowed, or `channels` that contradict another argument.
    """
    at_least(owner, "base_channels", base_channels, 1)
    at_least(owner, "depth", depth, 1, MAX_DEPTH)
    at_least(owner, "width_cap", width_cap, 1)
    if channels is None:
        return tuple(base_channels * min(2**level, width_cap) for level in range(depth))
    if not isinstance(channels, (list, tuple)) or not 1 <= len(channels) <= MAX_DEPTH:
        raise ArgumentError(f"{owner}: channels must be a sequence of widths, one a level, got {channels!r}.")
    for width in channels:
        at_least(owner, "each of channels", width, 1)
    # 8 and 64 are the defaults: whoever gives `channels` has not chosen them.
    if depth not in (8, len(channels)) or base_channels not in (64, channels[0]):
        raise ArgumentError(
            f"{owner}: channels={tuple(channels)} gives depth {len(channels)} and the outermost width "
            f"{channels[0]}, but depth={depth} and base_channels={base_channels} were given too. "
            "Give either channels or the other two."
        )
    return tuple(channels)


def check_deconv(owner: str, deconv_size: int, upsample: str) -> None:
    """Raise unless `deconv_size` is a kernel that doubles an image, and of an `upsample` that has one.

    Raises:
        ArgumentError: it is not.
    """
    at_least(owner, "deconv_size", deconv_size, 2, 16)
    if deconv_size != 4 and upsample != "deconv":
        raise ArgumentError(
            f"{owner}: deconv_size={deconv_size} is of upsample='deconv', and upsample={upsample!r} has a kernel of "
            "its own. Leave deconv_size out."
        )


def level_skips(owner: str, skips: str | Skip | Sequence[str | Skip], depth: int) -> list[Skip]:
    """The ``depth - 1`` skips from the outermost level inward, from one for all or one for each.

    Raises:
        ArgumentError: an unknown name, neither name nor callable, or another number of them.
    """
    if isinstance(skips, str):
        one_of(owner, "skips", skips, SKIPS)
    elif not callable(skips) and not isinstance(skips, (list, tuple)):
        raise ArgumentError(
            f"{owner}: skips must be a name, a callable, or a sequence of them, one a skip, got {skips!r}."
        )
    each = list(skips) if isinstance(skips, (list, tuple)) else [skips] * (depth - 1)
    if len(each) != depth - 1:
        raise ArgumentError(
            f"{owner}: skips has {len(each)} entries, a U-Net of depth {depth} has {depth - 1} skips, "
            "counted from the outermost level inward. Give one name for all, or one entry for each."
        )
    return [s if callable(s) else SKIPS[one_of(owner, "skips", s, SKIPS)] for s in each]


def level_dropouts(owner: str, dropout: Sequence[float]) -> list[float]:
    """The probabilities of `dropout`.

    Raises:
        ArgumentError: no sequence, or no probability in it.
    """
    if not isinstance(dropout, (list, tuple)):
        raise ArgumentError(
            f"{owner}: dropout must be a sequence of probabilities, one a decoder level from the innermost "
            f"outward, got {dropout!r}. For example (0.5, 0.5, 0.5), or () for none."
        )
    return [in_range(owner, "each of dropout", p, 0.0, 1.0) for p in dropout]


def attention_levels(owner: str, attention: Sequence[int], depth: int) -> list[int]:
    """The levels of `attention`, each once, in order.

    Raises:
        ArgumentError: no sequence, or no level of a network of that `depth` in it.
    """
    if not isinstance(attention, (list, tuple)):
        raise ArgumentError(f"{owner}: attention must be a sequence of encoder levels, got {attention!r}.")
    levels = sorted({at_least(owner, "each of attention", level, 0) for level in attention})
    if levels and levels[-1] >= depth:
        raise ArgumentError(
            f"{owner}: attention names level {levels[-1]}, the innermost of depth {depth} is {depth - 1}."
        )
    return levels
