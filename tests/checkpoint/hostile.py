"""Crafted pickles that attack a loader, and the containers to put them in."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np

PROTO2 = b"\x80\x02"
MARKER = "PWNED"  # a file that the payloads would make
COMMAND = f"S'touch {MARKER}'\n".encode()


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(module: str, name: str, args: bytes = b"(" + COMMAND + b"t") -> bytes:
    return glob(module, name) + args + b"R"


def tensor(shape: bytes, stride: bytes, offset: bytes = b"K\x00", numel: bytes = b"K\x04") -> bytes:
    """A float tensor over storage "0"."""
    storage = b"(" + text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu")
    return (
        glob("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + (storage + numel + b"tQ")
        + offset
        + shape
        + stride
        + b"\x89"
        + glob("collections", "OrderedDict")
        + b")RtR"
    )


def float_parameter(key: str, shape: tuple[int, ...]) -> bytes:
    """A float parameter that fills storage ``key``, by the functions of PyTorch 0.4 to 1.1."""
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    storage = b"(" + text("storage") + glob("torch", "FloatStorage") + text(key) + text("cuda:0")
    storage += b"J" + struct.pack("<i", int(np.prod(shape))) + b"NtQ"
    geometry = b"".join(
        b"(" + b"".join(b"J" + struct.pack("<i", n) for n in numbers) + b"t"
        for numbers in (shape, strides)
    )
    args = b"(" + storage + b"K\x00" + geometry + b"t"
    tensor = glob("torch._utils", "_rebuild_tensor") + args + b"R"
    return glob("torch.nn.parameter", "Parameter") + b"(" + tensor + b"\x88tR"


def repeated_sets() -> bytes:
    """One list of 20,000 numbers, turned into a set again and again."""
    numbers = b"".join(b"J" + struct.pack("<i", n) for n in range(20_000))
    return (
        b"](" + numbers + b"eq\x000" + b"](" + call("builtins", "set", b"h\x00\x85") * 500 + b"e."
    )


def doubled(opening: bytes) -> bytes:
    """Containers of two references to the one before, 200 deep: 2**200 leaves if walked."""
    return opening + b"q\x00" + b"0h\x00h\x00\x86q\x00" * 200 + b"."


DEEP_LIST = b"]q\x00" + b"]q\x01h\x00aq\x00" * 100_000 + b"."
DEEP_TUPLE = b")" + b"\x85" * 200_000

# name: (pickle, what the message must name)
CALLS: dict[str, tuple[bytes, str]] = {
    "os.system": (call("posix", "system") + b".", "posix.system"),
    "nt.system": (call("nt", "system") + b".", "nt.system"),
    "eval": (call("builtins", "eval") + b".", "builtins.eval"),
    "python 2 eval": (call("__builtin__", "eval") + b".", "builtins.eval"),
    "exec by STACK_GLOBAL": (
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.",
        "builtins.exec",
    ),
    "Popen": (call("subprocess", "Popen") + b".", "subprocess.Popen"),
    "getattr": (
        call("builtins", "getattr", glob("os", "path") + text("join") + b"\x86") + b".",
        "builtins.getattr",
    ),
    "import": (call("builtins", "__import__") + b".", "builtins.__import__"),
    "import_module": (call("importlib", "import_module") + b".", "importlib.import_module"),
    "partial": (
        call("functools", "partial", glob("posix", "system") + b"\x85") + b".",
        "functools.partial",
    ),
    "attrgetter": (call("operator", "attrgetter") + b".", "operator.attrgetter"),
    "torch.load inside": (
        call("torch.storage", "_load_from_bytes") + b".",
        "torch.storage._load_from_bytes",
    ),
    "hub": (call("torch.hub", "load") + b".", "torch.hub.load"),
    "runpy": (call("runpy", "_run_code") + b".", "runpy._run_code"),
    "dotted name": (
        b"\x80\x04" + text("builtins") + text("eval.__call__") + b"\x93)R.",
        "builtins.eval.__call__",
    ),
    "escaped name": (
        b"\x80\x04" + text("posix\n\x1b[2J") + text("system") + b"\x93)R.",
        "posix\\n\\x1b[2J.system",
    ),
    "in an argument": (
        glob("collections", "OrderedDict") + b"(" + call("posix", "system") + b"tR.",
        "posix.system",
    ),
    "in the optimizer": (
        b"}" + text("optimizer") + call("posix", "system") + b"s.",
        "posix.system",
    ),
    "unknown class called": (call("glow", "WaveGlow", b")") + b".", "glow.WaveGlow"),
    "called twice": (
        glob("collections", "OrderedDict") + b")R)R.",
        "a dict",
    ),
    "INST": (b"(" + COMMAND + b"iposix\nsystem\n.", "posix.system"),
    "OBJ": (b"(" + glob("posix", "system") + COMMAND + b"o.", "posix.system"),
    "reconstructor of another base": (
        call(
            "copyreg",
            "_reconstructor",
            glob("subprocess", "Popen") + glob("builtins", "tuple") + b")\x87",
        )
        + b".",
        "subprocess.Popen",
    ),
    "typed rebuild": (
        call(
            "torch._tensor",
            "_rebuild_from_type_v2",
            b"(" + glob("posix", "system") + glob("torch", "Tensor") + b")Nt",
        )
        + b".",
        "posix.system",
    ),
    "state of a class": (glob("posix", "system") + b"}b.", "state of a Global"),
    "extension code 1": (PROTO2 + b"\x82\x01)R.", "extension code"),
    "extension code 2": (PROTO2 + b"\x83\x01\x00)R.", "extension code"),
    "extension code 4": (PROTO2 + b"\x84\x01\x00\x00\x00)R.", "extension code"),
}

# Malformed or greedy; the message must contain the second item.
ABUSES: dict[str, tuple[bytes, str]] = {
    "STACK_GLOBAL of numbers": (b"\x80\x04K\x01K\x02\x93.", "no string"),
    "persistent id as a line": (b"P0\n.", "not allowed"),
    "persistent id as a string": (text("0") + b"Q.", "no torch storage"),
    "persistent id of a function": (
        b"(" + text("storage") + glob("posix", "system") + text("0") + text("cpu") + b"K\x04tQ.",
        "storage",
    ),
    "persistent id of another kind": (b"(" + text("eval") + text("1") + b"tQ.", "torch storage"),
    "sets from one list": (repeated_sets(), "fill the memory"),
    "huge text": (b"\x8d" + struct.pack("<Q", 2**62), "ends early"),
    "huge bytes": (b"\x8e" + struct.pack("<Q", 2**40), "ends early"),
    "huge integer": (b"\x8b\xff\xff\xff\x7f", "integer of 2147483647 bytes"),
    "integer of negative size": (b"\x8b\xff\xff\xff\xff.", "integer of"),
    "long decimal": (b"L" + b"9" * 60_000 + b"L\n.", "too long"),
    "endless line": (b"L" + b"9" * 200_000, "no end"),
    "frame beyond the file": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "frame"),
    "open containers": (b"(" * 200_000, "stand open"),
    "opcodes without end": (b"N0" * 1_100_000 + b".", "opcodes"),
    "unknown protocol": (b"\x80\x63N.", "protocol 99"),
    "out-of-band buffer": (b"\x80\x05\x97.", "not allowed"),
    "empty memo": (b"h\x05.", "memo 5"),
    "empty stack": (b"R.", "damaged"),
    "no stop": (b"N", "ends early"),
    "nested tuple as a key": (b"}" + doubled(b")")[:-1] + b"Ns.", "plain value"),
    "list as a key": (b"}]Ns.", "plain value"),
    "items on a number": (b"K\x01NNs.", "no dict"),
    "append to a number": (b"K\x01Na.", "no list"),
    "dtype of objects": (
        call("numpy", "dtype", text("O8") + b"\x89\x88\x87") + b".",
        "not a plain number",
    ),
    "another codec": (
        call("_codecs", "encode", text("x") + text("rot13") + b"\x86") + b".",
        "latin-1",
    ),
    "numpy array larger than its bytes": (
        call(
            "numpy.core.multiarray",
            "_reconstruct",
            glob("numpy", "ndarray") + b"K\x00\x85C\x01b\x87",
        )
        + b"(K\x01J\xff\xff\xff\x7f\x85"
        + call("numpy", "dtype", text("f8") + b"\x89\x88\x87")
        + b"\x89C\x04abcdtb.",
        "claims another shape",
    ),
}

# Harmless as inert data: nothing runs, and there is no WaveGlow in it.
INERT: dict[str, bytes] = {
    "Popen by NEWOBJ": glob("subprocess", "Popen") + b"(" + COMMAND + b"t\x81.",
    "Popen by NEWOBJ_EX": b"\x80\x04" + glob("subprocess", "Popen") + b"(" + COMMAND + b"t}\x92.",
    "Popen by reconstructor": call(
        "copy_reg",
        "_reconstructor",
        glob("subprocess", "Popen") + glob("builtins", "object") + b"N\x87",
    )
    + b".",
    "setstate in the state": glob("a", "B")
    + b")\x81}"
    + text("__setstate__")
    + glob("builtins", "eval")
    + b"sb"
    + text("__class__")
    + b"0.",
    "reduce in the state": glob("a", "B")
    + b")\x81}"
    + text("__reduce__")
    + glob("posix", "system")
    + b"sb.",
    "a function as a value": b"}" + text("model") + glob("posix", "system") + b"s.",
    "exponential list": doubled(b"]"),
    "exponential tuple": doubled(b")"),
    "deep list": DEEP_LIST,
    "deep tuple": DEEP_TUPLE + b".",
    "list in itself": b"]q\x00h\x00a.",
    "module in itself": glob("a", "B")
    + b")\x81q\x00}"
    + text("_modules")
    + b"}"
    + text("x")
    + b"h\x00ssb.",
    "array without numbers": call(
        "numpy.core.multiarray",
        "_reconstruct",
        glob("numpy", "ndarray") + b"K\x00\x85C\x01b\x87",
    )
    + b".",
    "records as keys": b"}" + glob("a", "B") + b")\x81q\x00h\x00s.",
}


def as_zip(pickled: bytes, storages: dict[str, bytes] | None = None, prefix: str = "m/") -> bytes:
    """A torch archive around ``pickled``."""
    return archive(
        {f"{prefix}data.pkl": pickled, f"{prefix}byteorder": b"little", f"{prefix}version": b"3\n"}
        | {f"{prefix}data/{key}": raw for key, raw in (storages or {}).items()}
    )


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, raw in entries.items():
            file.writestr(name, raw)
    return out.getvalue()


def as_stream(pickled: bytes, storages: dict[str, bytes] | None = None, item: int = 4) -> bytes:
    """PyTorch's format before 1.6 around ``pickled``."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    storages = storages or {}
    tail = [pickle.dumps(list(storages), 2)]
    tail += [struct.pack("<q", len(raw) // item) + raw for raw in storages.values()]
    return b"".join([*head, pickled, *tail])
