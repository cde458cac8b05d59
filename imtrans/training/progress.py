"""Texts of a run in the terminal: the progress bar, and the way to resume after a signal."""

from collections.abc import Mapping

BAR_FORMAT = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining}{postfix}]"


def progress_text(losses: Mapping[str, float], *, epoch: int, epochs: int, images_per_second: float) -> str:
    """Return the text of the progress bar. A narrow terminal cuts its end, so the discriminator's losses come late.

    >>> progress_text({"D_fake": 0.693, "G_l1": 12.34}, epoch=0, epochs=2, images_per_second=3.21)
    'G_l1 12.3, D_fake 0.693, epoch 1/2, 3.2 images/s'
    """
    names = sorted(losses, key=lambda name: name.startswith("D_"))
    shown = [f"{name} {losses[name]:.3g}" for name in names]
    return ", ".join([*shown, f"epoch {epoch + 1}/{epochs}", f"{images_per_second:.1f} images/s"])


def stopped_text(*, step: int, total_steps: int, out: object, command: object = None, processes: int = 1) -> str:
    """Return the text for a run that a signal stopped: the step saved, and how to resume.

    `command` is the command line of the script, or of the command `imtrans`, if it takes ``--resume``.

    >>> print(stopped_text(step=3, total_steps=9, out="runs/mine", command="train.py --size 64"))
    Stopped after step 3 of 9, saved in runs/mine. Resume with fit(resume=True), or with
    python train.py --size 64 --resume
    """
    at = f"Stopped after step {step} of {total_steps}"
    if out is None:
        return f"{at}. Nothing was saved, because out=None."
    text = f"{at}, saved in {out}. Resume with fit(resume=True)"
    if not isinstance(command, str) or not command:
        return f"{text}."
    words = command.split()
    is_script = words[0].endswith(".py")
    python = f"torchrun ... {'' if is_script else '-m '}" if processes > 1 else "python " if is_script else ""
    return f"{text}, or with\n{python}{command}{'' if '--resume' in words else ' --resume'}"
