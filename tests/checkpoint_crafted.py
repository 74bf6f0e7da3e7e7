"""Checkpoint files that were made to do harm, for the fuzzer and for the tests."""

import json
import struct
import zipfile
import zlib

import numpy as np

import nn
from tests.checkpoint_files import (
    TRAINING, archive, entries, npy, pack, parts, records, set_in_directory, small_parts, text_entries)


def crafted(version, bomb=2 ** 26):
    """(name, bytes) of each; `bomb` is how many bytes a deflate bomb promises."""
    yield from crafted_configurations(version)
    yield from crafted_texts(version)
    yield from crafted_arrays(version)
    yield from crafted_archives(version)
    yield from bombs(version, bomb)


def crafted_configurations(version):
    """Configurations of other types, of other sizes than the file holds, and of absurd ones."""
    header, weights = small_parts(version)
    wrong = [0, -1, True, 2.0, "2", None, [], {}, [2], 10 ** 6, 10 ** 9, 10 ** 18, 10 ** 4000,
             float("nan"), float("inf"), 1e308]
    for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
        for value in wrong:
            yield f"{name} = {value!r:.20s}", _with_config(header, weights, {name: value})
    for name, values in {"dropout": [-1, 1, 1.5, "0", True, None, float("nan"), 10 ** 400],
                         "bias": [1, "yes", None, [], True], "norm": ["post", "none", 1, None],
                         "activation": ["tanh", 3, [], {}], "position": ["sinusoidal", "x", 1],
                         "tie_weights": [False, 0, "no"], "more": [1], "": [None]}.items():
        for value in values:
            yield f"{name} = {value!r:.20s}", _with_config(header, weights, {name: value})
    for name in ("vocab_size", "block_size"):
        left = {key: value for key, value in header["config"].items() if key != name}
        yield f"no {name}", pack(header | {"config": left}, weights)
    bare = {name: array for name, array in weights.items() if name != "positions.weight"}
    for size in (10 ** 8, 10 ** 12):
        yield f"a table of {size} positions", _with_config(
            header, bare, {"position": "sinusoidal", "block_size": size})
    numbers = sum(array.size for array in weights.values())
    yield "all numbers in one array", _with_config(
        header, {"tokens.weight": np.zeros((1, numbers + 14 * 10 ** 4), np.float16)},
        {"n_layer": 10 ** 4, "n_embd": 1})
    yield from _crafted_vision(version)


def _with_config(header, weights, changes):
    return pack(header | {"config": header["config"] | changes}, weights)


def _crafted_vision(version):
    config = nn.VisionConfig((4, 4), 2, 3, n_layer=1, n_head=2, n_embd=4)
    header, weights = parts(nn.VisionTransformer(config, rng=0), version=version)
    for name, values in {
            "image_shape": [[-4, -4], [4.0, 4.0], [4], [4, 4, 4], "44", 16, None, [True, 16],
                            [10 ** 9, 10 ** 9], [0, 4], {"4": 4, "5": 4}],
            "std": [0, -1, float("nan"), "1", 10 ** 400, float("inf")],
            "mean": [float("nan"), None, True, 10 ** 400], "patch_size": [3, 10 ** 9, 1.0],
            "classes": [10 ** 9, 0, True], "pool": ["class", "max", None, 1]}.items():
        for value in values:
            yield f"{name} = {value!r:.20s}", _with_config(header, weights, {name: value})
    yield "a tokenizer of images", pack(
        header | {"tokenizer": {"kind": "word", "vocabulary": ["a", "b", "c"]}}, weights)


def crafted_texts(version):
    """Headers that are no JSON, too much of it, or of other types than they should be."""
    header, weights = small_parts(version)
    whole = json.dumps(header)
    for name, text in {
            "no text": "", "not JSON": "{", "not UTF-8": b"\xff\xfe", "a number": "3",
            "null": "null", "a list": "[]", "nested lists": "[" * 10 ** 5,
            "nested dicts": '{"a":' * 10 ** 5,
            "closed nested lists": "[" * 10 ** 5 + "]" * 10 ** 5, "a huge integer": "9" * 10 ** 5,
            "a huge integer inside": whole.replace('"step": 3', '"step": ' + "9" * 5000),
            "trailing text": whole + "x", "a zero byte": whole + "\0",
            "many lists": whole.replace('"more": [1', '"more": [' + "[]," * 300_000 + "1"),
            "many dicts": whole.replace('"more": [1', '"more": [' + '{"":0},' * 200_000 + "1"),
            }.items():
        yield name, pack(header, weights, text)
    for key in header:
        yield f"no {key}", pack({k: v for k, v in header.items() if k != key}, weights)
        for value in (None, 3, True, "x", [], [1], {"a": 1}, ["vocabulary"], 1e400):
            if (key, value) not in [("tokenizer", None), ("info", {"a": 1})]:
                yield f"{key} = {value!r}", pack(header | {key: value}, weights)
    for words in (["a"] * 5, list("abcd"), list("abcdef"), [1, 2, 3, 4, 5], "abcde", None,
                  ["a", "b", "c", "d", None], [["a"], "b", "c", "d", "e"], {"a": 1}, 5):
        yield f"vocabulary {words!r:.20s}", pack(
            header | {"tokenizer": {"kind": "word", "vocabulary": words}}, weights)
    for kind in (None, [], {}, "byte", 3):
        yield f"kind {kind!r}", pack(
            header | {"tokenizer": header["tokenizer"] | {"kind": kind}}, weights)
    for prompt in (3, None, [], True):
        yield f"prompt {prompt!r}", pack(header | {"info": {"prompt": prompt}}, weights)
    if version >= 2:
        yield from _crafted_lists_of_arrays(header, weights)
    if version == 3:
        yield from _crafted_trainings(header, weights)


def _crafted_lists_of_arrays(header, weights):
    listed = json.loads(np.frombuffer(entries(header, weights)[0][1], np.uint8).tobytes()
                        .split(b"\n", 1)[1])["arrays"]
    name = "tokens.weight"
    for value in (None, [], {}, "x", 3, listed | {"more": listed[name]},
                  {k: v for k, v in listed.items() if k != name}):
        yield f"arrays = {value!r:.20s}", pack(header | {"arrays": value}, weights)
    for key, values in {"shape": [[], [2, 5], None, "52", [5.5, 2], [10 ** 9, 10 ** 9]],
                        "dtype": ["<f2", ">f4", "O", None, [], "float32"],
                        "sha256": ["", "0" * 64, None, 3, [], {}]}.items():
        for value in values:
            changed = listed | {name: listed[name] | {key: value}}
            yield f"{key} = {value!r:.20s}", pack(header | {"arrays": changed}, weights)
    yield "an empty record", pack(header | {"arrays": listed | {name: {}}}, weights)
    yield "a record that is a list", pack(header | {"arrays": listed | {name: [1]}}, weights)


def _crafted_trainings(header, weights):
    """A state of a training of other types, or of other arrays than there are beside it."""
    values, true = header["training"]["values"], records(TRAINING)
    for value in (None, 3, [], {}, {"more": true["m"]}, true | {"more": true["m"]}, {"m": true["m"]}):
        yield f"arrays of the training = {value!r:.20s}", pack(
            header | {"training": {"values": values, "arrays": value}}, weights)
    for value in (None, 3, [], "x"):
        yield f"values of the training = {value!r}", pack(
            header | {"training": {"values": value}}, weights)
    for shape in (None, 3, "4", [], [-40], [0], [True], [40.0], [4, 10], [10 ** 30], [10 ** 9] * 9,
                  [2 ** 62], {}):
        changed = true | {"m": true["m"] | {"shape": shape}}
        yield f"a training's shape {shape!r:.20s}", pack(
            header | {"training": {"values": values, "arrays": changed}}, weights)
    yield "no model, but weights", pack(header | {"model": None, "config": None}, weights)
    yield "no model and no weights", pack(
        header | {"model": None, "config": None, "tokenizer": None, "arrays": {}}, {})


def crafted_arrays(version):
    """Entries whose own header lies; their checksums agree with them."""
    header, weights = small_parts(version)
    if version >= 2:        # digests of the true arrays
        text = entries(header, weights)[0][1]
        header = json.loads(text.split(b"\n", 1)[1])
    name = "tokens.weight"
    true = weights[name]
    lies = {f"dtype {descr}": npy(true, descr=descr) for descr in
            ("<f2", "<f8", ">f4" if version >= 2 else "<i4", "|O", "|V4", "<c8", "<U1", "|b1",
             "<M8[s]", "|T16", "f", "", "<f16", "<f99999", [("a", "<f4")], ("<f4", (2,)), "O", 3,
             None)}
    lies |= {f"shape {shape!r:.30}": npy(true, shape=shape) for shape in
             ((), (10,), (2, 5), (5, 2, 1), (-5, -2), (10 ** 9, 10 ** 9), (10 ** 30,), (0,), (5,),
              (True, 10), [5, 2], (5.0, 2.0), "52", (1,) * 70, (2 ** 63, 2 ** 63), None)}
    lies |= {f"header {text!r:.25}": npy(true, header=text) for text in (
        "", "{", "{}", "[]", "1", "(" * 5000, "[" * 90, "9" * 6000, "{'descr': '<f4'}", "\xe9\xff",
        b"\xff\xfe\x00", "__import__('os').system('true')", "{'descr': '<f4', 'fortran_order': 1, "
        "'shape': (5, 2)}", "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), 'x': 0}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2)" + " " * 20000 + "}", "'\\d'",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (5 if 1else 2, 2)}", "-" * 3000 + "1")}
    whole = npy(true)
    lies |= {"pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.", "nothing": b"", "text": b"hello" * 9,
             "only magic": whole[:8], "cut header": whole[:30], "cut numbers": whole[:-1],
             "trailing bytes": whole + b"\0\0\0\0", "object array": npy(np.zeros(3), descr="|O"),
             "version 9": whole[:6] + b"\x09" + whole[7:],
             "version 0": whole[:6] + b"\0" + whole[7:],
             "header length 65535": whole[:8] + b"\xff\xff" + whole[10:],
             "header length 2^32-1": whole[:6] + b"\2\0\xff\xff\xff\xff" + whole[10:],
             "NaN": npy(np.where(true == true[0, 0], np.nan, true).astype(np.float32)),
             "infinity": npy(np.full_like(true, np.inf)),
             "too large for float32": npy(np.full(true.shape, 1e300))}
    for lie, data in lies.items():
        yield f"{name}: {lie}", pack(header, weights | {name: data})
    for lie in ("object array", "nothing", "trailing bytes", "dtype <f2", "header length 2^32-1"):
        listed = entries(header, weights)
        yield f"header: {lie}", archive([(listed[0][0], lies[lie])] + listed[1:])


def crafted_archives(version):
    """Zip files with entries too many, too few, twice, or other than their directory says."""
    header, weights = small_parts(version)
    listed = entries(header, weights)
    whole = archive(listed)
    name, data = listed[-1]
    yield "an empty file", b""
    yield "an empty archive", archive([])
    yield "no header", archive(listed[1:])
    yield "no weights", archive([pair for pair in listed if not pair[0].startswith("weight:")])
    yield "an entry less", archive(listed[:-1])
    for more in ("more.npy", "weight:more.npy", "weight:tokens.weight", "readme.txt", "",
                 "a/b.npy", "../../x.npy", "weight:\u4e2d.npy", "weight:" + "x" * 60000 + ".npy"):
        yield f"an entry {more!r:.40s} more", archive(listed + [(more, data)])
    for number in (0, 1, len(listed) - 1):
        extra = (listed[number][0], npy(np.ones((2, 2), np.float32)))
        for order in ([extra] + listed, listed + [extra], listed + [listed[number]]):
            yield f"entry {number} twice", _with_duplicates(order)
    for swapped in ("blocks.0.attention.query.weight", "blocks.0.attention.key.weight"):
        if version >= 2:
            other = weights["blocks.0.attention.value.weight"]
            yield f"{swapped} is another", archive([
                (n, npy(other) if n == f"weight:{swapped}.npy" else d) for n, d in listed])
    for fields in ({"size": 2 ** 32 - 2, "packed": 2 ** 32 - 2}, {"size": 2 ** 31}, {"size": 0},
                   {"size": 0, "packed": 0}, {"offset": 2 ** 31}, {"offset": 0}, {"crc": 0},
                   {"method": 8}, {"method": 12}, {"method": 14}, {"method": 99}):
        yield f"directory {fields}", set_in_directory(whole, name, **fields)
    yield "trailing bytes", whole + b"\0" * 7
    yield "100,000 empty entries", _directory_only(100_000)
    yield "one entry listed 1,000 times", _listed_often(whole, 1000)
    if version >= 2:
        yield "no digest of the header", archive(listed[:1] + listed[2:])
        for wrong in (b"", b"\0" * 32, b"x" * 64):
            yield f"digest {wrong!r:.9}", archive(
                listed[:1] + [(listed[1][0], npy(np.frombuffer(wrong, np.uint8)))] + listed[2:])
        yield "digest of another text", archive(listed[:1] + text_entries("{}")[1:] + listed[2:])


def _with_duplicates(listed):
    data = archive([(f"{i:03}" + name[3:], content) for i, (name, content) in enumerate(listed)])
    for i, (name, _) in enumerate(listed):
        data = data.replace(f"{i:03}{name[3:]}".encode(), name.encode())
    return data


def _directory_only(count):
    lines = b"PK\1\2" + b"\x14\0" * 2 + b"\0" * 38
    return lines * count + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xffff, count & 0xffff,
                                       len(lines) * count, 0, 0)


def _listed_often(whole, count):
    """An archive whose directory names the bytes of its largest entry over and over."""
    end = whole[-22:]
    size, start = struct.unpack("<LL", end[12:20])
    directory = whole[start:start + size]
    more = b"".join(directory.replace(b"weight:tokens", b"weight:%06d" % i) for i in range(count))
    end = end[:12] + struct.pack("<LLH", size + len(more), start, 0)
    return whole[:start] + directory + more + end


def bombs(version, size):
    """Zip files with compressed entries; inflated, some would have `size` bytes."""
    header, weights = small_parts(version)
    listed = entries(header, weights)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"compressed by method {method}", archive(listed, method)
    name = "weight:tokens.weight.npy"
    start = npy(np.zeros(0, np.float32), shape=(size // 8, 2))
    for place, begin in ((name, start), (listed[0][0], npy(np.zeros(0, np.uint8), shape=(size,)))):
        bomb = _deflated_zeros(begin, size)
        rest = [pair for pair in listed if pair[0] != place]
        data = _with_deflated(rest, place, begin, bomb, size)
        yield f"a bomb in {place}", data
        yield f"a bomb in {place} that says it is small", set_in_directory(data, place, size=1000)
        yield f"a bomb in {place} that says it is stored", set_in_directory(data, place, method=0)
    bomb = _deflated_zeros(start, size)
    fitting = header | {"config": header["config"] | {"vocab_size": size // 8}, "tokenizer": None}
    others = {key: array for key, array in weights.items() if key != "tokens.weight"}
    yield "a bomb of a fitting configuration", _with_deflated(
        entries(fitting, others), name, start, bomb, size)


def _deflated_zeros(begin, size):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = bytes(2 ** 20)
    return b"".join([packer.compress(begin)] + [packer.compress(chunk) for _ in range(size >> 20)]
                    + [packer.flush()])


def _with_deflated(listed, name, begin, bomb, size):
    """An archive with one entry more, of bytes that are deflated already."""
    crc = zlib.crc32(begin)
    for _ in range(size >> 20):
        crc = zlib.crc32(bytes(2 ** 20), crc)
    data = archive(listed + [(name, bomb)])
    return set_in_directory(data, name, method=8, crc=crc, size=len(begin) + size)
