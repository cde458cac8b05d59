import re

import pytest
from tqdm import tqdm

from imtrans.training.progress import BAR_FORMAT, progress_text, stopped_text


@pytest.mark.parametrize("total", [400, 80_000])
def test_a_bar_of_80_columns_shows_the_losses_of_the_generator(total):
    losses = {"D_fake": 0.693147, "D_real": 0.693147, "G_gan": 12.3456, "G_l1": 0.0123456}
    text = progress_text(losses, epoch=150, epochs=200, images_per_second=12.34)
    assert text == "G_gan 12.3, G_l1 0.0123, D_fake 0.693, D_real 0.693, epoch 151/200, 12.3 images/s"
    bar = tqdm.format_meter(total - 1, total, 10_000.0, ncols=80, bar_format=BAR_FORMAT, postfix=text)
    assert len(bar) <= 80
    assert re.search(r"G_gan 12.3, G_l1 0.0123, D_fake 0.693", bar)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({"out": None}, ". Nothing was saved, because out=None."),
        ({"out": "a"}, ", saved in a. Resume with fit(resume=True)."),
        (
            {"out": "a", "command": "b.py --resume --size 8"},
            ", saved in a. Resume with fit(resume=True), or with\npython b.py --resume --size 8",
        ),
        (
            {"out": "a", "command": "b.py", "processes": 2},
            ", saved in a. Resume with fit(resume=True), or with\ntorchrun ... b.py --resume",
        ),
        (
            {"out": "a", "command": "imtrans train b", "processes": 2},
            ", saved in a. Resume with fit(resume=True), or with\ntorchrun ... -m imtrans train b --resume",
        ),
        ({"out": "a", "command": "b"}, ", saved in a. Resume with fit(resume=True), or with\nb --resume"),
    ],
)
def test_a_run_that_is_stopped_says_how_to_resume(settings, end):
    assert stopped_text(step=3, total_steps=9, **settings) == f"Stopped after step 3 of 9{end}"
