import numpy as np
import torch
from PIL import Image

from transmodal.engine.preview import draw, write_png


def test_columns_stand_side_by_side_and_samples_below_one_another(tmp_path):
    first, second = torch.zeros(2, 1, 96, 96), torch.zeros(2, 1, 96, 96)
    first[1] = 1.0
    second[0, 0, 0, 95] = 1.0  # the first index is across, the second upwards: a corner at the top left
    write_png(tmp_path / "preview.png", draw({"MR": first, "sCT": second}))
    picture = np.asarray(Image.open(tmp_path / "preview.png"))
    title, gap = 16, 2
    assert picture.shape == (title + 2 * (96 + gap), 2 * (96 + gap))
    assert (picture[title + 98 : title + 194, :96] == 255).all()
    assert picture[title : title + 96, :96].max() == 0
    assert list(zip(*np.nonzero(picture[title:, 98:]), strict=True)) == [(0, 0)]
    assert picture[:title].max() > 0


def test_small_images_are_enlarged_and_values_beyond_the_range_clipped():
    picture = draw({"x": torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1, 1).expand(3, 1, 32, 32)})
    assert [picture[16 + 98 * k + 50, 50] for k in range(3)] == [0, 128, 255]


def test_no_more_rows_than_can_be_looked_at():
    assert draw({"x": torch.zeros(20, 1, 96, 96)}).shape[0] == 16 + 8 * 98
