"""What methods that take logarithms or ratios of losses have in common."""

from torch import Tensor

from mtl.errors import ConfigError


def check_above(what: str, losses: Tensor, bound: Tensor | float) -> None:
    """Raises `ConfigError` if a loss lies below its bound.

    Args:
        what: What needs the bound, for the message.
        losses: `[k]`.
        bound: One number a loss, or one for all.
    """
    if bool((losses.detach() < bound).any()):
        bounds = bound if isinstance(bound, float) else bound.tolist()
        raise ConfigError(
            f"{what} needs losses of at least {bounds}. Got {losses.tolist()}. Choose losses that "
            "are bounded below and give the bound where there is an option for it, or choose "
            "another method."
        )
