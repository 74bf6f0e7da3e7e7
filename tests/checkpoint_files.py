"""Checkpoints for the tests, put together byte by byte: all formats, and what was never written.

Nothing here uses the code that it tests: the formats are written out once more.
"""

import hashlib
import io
import json
import struct
import zipfile
from dataclasses import asdict

import numpy as np

import nn

FORMATS = ("tape checkpoint 1", "tape checkpoint 2", "tape checkpoint 3")
# The state of a training in the third format.
TRAINING = {"m": np.arange(40, dtype=np.float32), "t": np.array([3, 4, 5]),
            "batch.0": np.array([[1, 2, 3], [4, 0, 1]])}
VALUES = {"job": "text", "position": {"step": 3, "loss": 0.5}, "streams": {"dropout": 2 ** 100}}
# The table of positions is longer than the 4,096 bytes that zipfile reads at a time.
CONFIG = nn.GPTConfig(vocab_size=5, block_size=600, n_layer=1, n_head=1, n_embd=2, bias=False,
                      dropout=0.25)
INFO = {"job": "test", "step": 3, "loss": 0.1, "prompt": "aé", "stop": None,
        "more": [1, {"x": []}]}


def small_parts(version):
    """Header and weights of a small GPT with a tokenizer."""
    tokenizer = nn.WordTokenizer(["a", "aé", "\u4e2d", "\U0001f600", "\n"])
    return parts(nn.GPT(CONFIG, rng=0), tokenizer, INFO, version)


def parts(model, tokenizer=None, info=None, version=2):
    """The header of a checkpoint as a dict, without digests, and its weights."""
    header = {"format": FORMATS[version - 1], "model": type(model).__name__,
              "config": asdict(model.config), "info": info or {},
              "tokenizer": tokenizer.to_dict() if tokenizer else None}
    if version == 3:
        header["training"] = {"values": VALUES}
    return header, model.state_dict()


def npy(array, descr=None, shape=None, fortran=False, version=1, header=None):
    """The bytes of an .npy file, whose header may say something else than is true."""
    array = np.asarray(array)
    if header is None:
        header = "{'descr': %r, 'fortran_order': %r, 'shape': %r, }" % (
            array.dtype.str if descr is None else descr, fortran,
            array.shape if shape is None else shape)
    text = header.encode() if isinstance(header, str) else header
    length_type = "<H" if version == 1 else "<L"
    text += b" " * (-(9 + struct.calcsize(length_type) + len(text)) % 64) + b"\n"
    return (b"\x93NUMPY" + bytes([version, 0]) + struct.pack(length_type, len(text)) + text
            + array.tobytes("F" if fortran else "C"))


def digest(array):
    """The digest of an array: of its dtype, its shape and its numbers in C order."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str} {list(array.shape)}\n".encode()
                          + array.tobytes()).hexdigest()


def text_entries(text):
    """The entries of a header: its text, and the digest of that text."""
    data = text.encode() if isinstance(text, str) else text
    found = hashlib.sha256(data).digest()
    return [("checkpoint.json.npy", npy(np.frombuffer(data, np.uint8))),
            ("checkpoint.sha256.npy", npy(np.frombuffer(found, np.uint8)))]


def entries(header, weights, text=None):
    """(name, bytes) of each entry; a weight is an array, or bytes to be taken as they are."""
    old, training = header.get("format") == FORMATS[0], header.get("training")
    if not old and "arrays" not in header:
        header = header | {"arrays": records(weights)}
    if isinstance(training, dict) and "arrays" not in training:
        header = header | {"training": training | {"arrays": records(TRAINING)}}
    found = text_entries(json.dumps(header) if text is None else text)
    return (found[:1] if old else found) + [
        (f"weight:{name}.npy", array if isinstance(array, bytes) else npy(array))
        for name, array in weights.items()] + [
        (f"training:{name}.npy", npy(array)) for name, array in TRAINING.items()
        if "training" in header]


def records(arrays):
    """What a header says of arrays; not of those that are given as bytes."""
    return {name: {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": digest(array)}
            for name, array in arrays.items() if isinstance(array, np.ndarray)}


def archive(listed, compression=zipfile.ZIP_STORED):
    """A zip file of (name, bytes); `compression` is one for all, or a dict by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, data in listed:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression.get(name, zipfile.ZIP_STORED) \
                if isinstance(compression, dict) else compression
            out.writestr(info, data)
    return file.getvalue()


def pack(header, weights, text=None):
    """The bytes of a checkpoint of these parts, of the format that the header names."""
    return archive(entries(header, weights, text))


def regions(data):
    """The parts of a checkpoint file: lists of (start, end), by the kind of part."""
    found = {"zip local headers": [], "array headers": [], "JSON header": [], "numbers": []}
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        start_of_directory = opened.start_dir
        for info in opened.infolist():
            name, extra = struct.unpack("<HH", data[info.header_offset + 26:][:4])
            start = info.header_offset + 30 + name + extra
            middle = start + 10 + struct.unpack("<H", data[start + 8:start + 10])[0]
            content = "JSON header" if info.filename.startswith("checkpoint.") else "numbers"
            found["zip local headers"].append((info.header_offset, start))
            found["array headers"].append((start, middle))
            found[content].append((middle, start + info.file_size))
    found["zip directory"] = [(start_of_directory, len(data) - 22)]
    found["zip end record"] = [(len(data) - 22, len(data))]
    return found


def set_in_directory(data, name, **fields):
    """Overwrite fields of an entry's line in the directory: method, crc, packed, size, offset."""
    places = {"method": (10, "<H"), "crc": (16, "<L"), "packed": (20, "<L"), "size": (24, "<L"),
              "offset": (42, "<L")}
    changed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        line = data.index(name.encode(), opened.start_dir) - 46
    for field, value in fields.items():
        place, kind = places[field]
        struct.pack_into(kind, changed, line + place, value)
    return bytes(changed)


def same(one, other):
    """Whether two loaded checkpoints agree to the last bit."""
    kinds = [(type(found.model), type(found.tokenizer)) for found in (one, other)]
    texts = [json.dumps([asdict(found.model.config), found.info, found.tokenizer
                         and found.tokenizer.to_dict()]) for found in (one, other)]
    numbers = [[(name, array.dtype.str, array.shape, array.tobytes())
                for name, array in found.model.state_dict().items()] for found in (one, other)]
    return (kinds[0] == kinds[1] and texts[0] == texts[1] and numbers[0] == numbers[1]
            and _training(one) == _training(other))


def _training(found):
    return found.training and (found.training.values, {
        name: (array.dtype.str, array.shape, array.tobytes())
        for name, array in found.training.arrays.items()})
