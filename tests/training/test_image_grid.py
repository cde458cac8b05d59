import numpy as np
import pytest
import torch
from PIL import Image

from imtrans import one_hot
from imtrans.data.images import to_image
from imtrans.training.report.image_grid import image_grid, image_grid_header, image_grid_png


def pixels(image):
    return np.asarray(image).tolist()


def test_sample_rows_puts_columns_side_by_side_and_samples_below_one_another():
    colours = torch.tensor([-1.0, -0.6, -0.2, 0.2, 0.6, 0.99])
    left, right = (c.reshape(3, 1, 1, 1).expand(3, 3, 5, 7) for c in (colours[:3], colours[3:]))
    sheet = np.asarray(image_grid({"source": left, "fake": right}, gap=2))
    assert sheet.shape == (3 * 5 + 2 * 2, 2 * 7 + 2, 3)
    for row in range(3):
        for column, batch in enumerate((left, right)):
            cell = sheet[row * 7 : row * 7 + 5, column * 9 : column * 9 + 7]
            assert pixels(cell) == pixels(to_image(batch[row]))
    assert (sheet[5:7] == 255).all()
    assert (sheet[:, 7:9] == 255).all()


def test_saved_rows_know_their_columns(tmp_path):
    columns = {name: torch.zeros(2, 3, 8, 6) for name in ("source", "fake", "cycled_source")}
    path = tmp_path / "rows.png"
    path.write_bytes(image_grid_png(columns))
    assert image_grid_header(path) == (26, 20, "source, output, cycled source")
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(image_grid(columns)))


@pytest.mark.parametrize("content", [b"", b"\x89PNG torn", b"tEXtcolumns\0", b"1234tEXtcolumns\0a" * 9])
def test_a_header_of_anything_is_read(tmp_path, content):
    (tmp_path / "1.png").write_bytes(content)
    width, height, names = image_grid_header(tmp_path / "1.png")
    assert min(width, height) >= 0
    assert isinstance(names, str)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_sample_rows_shows_the_first_channel_of_what_is_no_colour_picture(channels):
    batch = torch.rand(1, channels, 4, 4) * 2 - 1
    shown = image_grid({"source": batch, "target": torch.ones(1, 3, 4, 4)}, gap=1)
    assert shown.size == (9, 4)
    assert pixels(shown.crop((0, 0, 4, 4))) == pixels(to_image(batch[0, :1]))


def test_sample_rows_shows_a_label_map_of_many_channels_in_a_colour_for_each_class():
    ids = torch.tensor([[[0, 1, 2], [3, 4, 5]]])
    hot = one_hot(ids, 6, instances=torch.tensor([[[1, 1, 2], [1, 1, 2]]]))
    shown = pixels(image_grid({"source": hot, "fake": torch.ones(1, 3, 2, 3)}, gap=1).crop((0, 0, 3, 2)))
    assert len({tuple(colour) for row in shown for colour in row}) == 6
    without_edges = torch.cat([hot[:, :6], torch.zeros(1, 1, 2, 3)], dim=1)
    assert pixels(image_grid({"source": without_edges}, gap=1)) == shown
