"""Makes tests/fixtures/keras again: the networks of TensorFlow's pix2pix tutorial in Keras 3, narrow, with outputs.

    pip install keras                       # into an environment of its own, which has torch and safetensors
    python tests/parity/keras_fixtures.py

A file of the fixtures holds the weights under the names of the Keras layers, in half precision, which holds them
exactly, and the outputs; of the generator's, every seventh pixel. The inputs are drawn from a seed, see `images`.
"""

import json
import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

if __name__ == "__main__":  # pytest imports this file too, and the tests do without Keras
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras
    from keras import layers

FOLDER = Path(__file__).parents[1] / "fixtures" / "keras"
WIDTH, SIZE, EVERY = 2, 256, 7


def images(channels):
    """The input of a fixture, ``(2, channels, 256, 256)``; test_keras.py draws the same."""
    return np.random.RandomState(channels).uniform(-1, 1, (2, channels, SIZE, SIZE)).astype(np.float32)


def down(x, name, width, norm=True):
    x = layers.Conv2D(width, 4, strides=2, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x) if norm else x
    return layers.LeakyReLU(name=f"{name}_act")(x)


def up(x, name, width, dropout):
    x = layers.Conv2DTranspose(width, 4, strides=2, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return layers.ReLU()(layers.Dropout(dropout)(x))


def unet(width, dropout=0.0):
    source = x = layers.Input((SIZE, SIZE, 3))
    skips = []
    for level in range(8):
        x = down(x, f"down{level}", width * min(2**level, 8), norm=level > 0)
        skips.append(x)
    for level in reversed(range(7)):
        x = up(x, f"up{level}", width * min(2**level, 8), dropout if level > 3 else 0.0)
        x = layers.Concatenate()([x, skips[level]])
    return keras.Model(source, layers.Conv2DTranspose(3, 4, 2, padding="same", activation="tanh", name="head_conv")(x))


def patchgan(width):
    pair = x = layers.Input((SIZE, SIZE, 6))
    for level in range(3):
        x = down(x, f"down{level}", width * 2**level, norm=level > 0)
    x = layers.Conv2D(8 * width, 4, use_bias=False, name="down3_conv")(layers.ZeroPadding2D()(x))
    x = layers.LeakyReLU()(layers.BatchNormalization(name="down3_norm")(x))
    return keras.Model(pair, layers.Conv2D(1, 4, name="head_conv")(layers.ZeroPadding2D()(x)))


def draw(model):
    """Give each variable of `model` random values that half precision holds, and return them by name."""
    rng, drawn = np.random.RandomState(0), {}
    for layer in model.layers:
        for variable in layer.variables:
            if variable.name == "kernel":
                value = rng.normal(0, (1.5 / np.prod(variable.shape[:3])) ** 0.5, variable.shape)
            elif variable.name in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, variable.shape)
            elif variable.name in ("beta", "bias", "moving_mean"):
                value = rng.normal(0, 0.3, variable.shape)
            else:
                continue  # the seed of a dropout
            drawn[f"{layer.name}.{variable.name}"] = value.astype(np.float16)
            variable.assign(drawn[f"{layer.name}.{variable.name}"].astype(np.float32))
    return drawn


def outputs(model, inputs):
    """Outputs of the first image alone and of both, with running statistics and with the ones of the batch."""
    found = {}
    for batch in (1, 2):
        for mode, training in (("eval", False), ("batch_stats", True)):
            kept = model.get_weights()
            output = model(inputs[:batch].transpose(0, 2, 3, 1), training=training)
            model.set_weights(kept)  # training moves the running statistics
            found[f"output_{mode}_{batch}"] = keras.ops.convert_to_numpy(output).transpose(0, 3, 1, 2)
    return found


def make(name, model, full_size, channels, every):
    tensors = draw(model)
    tensors |= {key: value[..., ::every, ::every].copy() for key, value in outputs(model, images(channels)).items()}
    save_file(tensors, FOLDER / f"{name}.safetensors")
    trained = sum(int(np.prod(variable.shape)) for variable in full_size.trainable_variables)
    fixed = sum(int(np.prod(v.shape)) for v in full_size.non_trainable_variables if "seed" not in v.path)
    return {"base_channels": WIDTH, "every": every, "trained": trained, "parameters": trained + fixed}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = {
        "unet": make("unet", unet(WIDTH), unet(64, dropout=0.5), 3, EVERY),
        "patchgan": make("patchgan", patchgan(WIDTH), patchgan(64), 6, 1),
    }
    index = {"keras": keras.__version__, **made}
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n")
