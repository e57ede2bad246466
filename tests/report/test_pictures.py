"""What a report shows of single images."""

import numpy as np
from helpers.evaluating import IMAGES, OPTIONS, run
from helpers.toy import fit, make_splits, mean_image

from sparse_ad.methods.compiled import compile_score
from sparse_ad.report.pictures import Viewer, gather_latents
from sparse_ad.types import Views


def _channel_means(params, maps):
    return maps["pixels"].mean((0, 1))


def test_latents_are_those_of_each_class():
    """The toy's code is the mean of an image, which NumPy computes of its pixels."""
    splits = make_splits()
    method = mean_image()._replace(views=Views(latent=_channel_means))
    params, score = fit(splits), compile_score(method)
    _, _, rows = run(score, params, splits)
    viewer = Viewer(method, params, IMAGES, OPTIONS.batch_size)
    latents = gather_latents(viewer, splits.test, rows)
    for label in (0, 1):
        images = [np.asarray(each.image) for each in splits.test if each.label == label]
        assert 0 < len(images) == len(latents[label])
        means = [np.mean(image / 255) for image in images]
        np.testing.assert_allclose(latents[label].mean(1), means, atol=1e-5)  # float32
    assert gather_latents(viewer._replace(method=mean_image()), splits.test, rows) is None
