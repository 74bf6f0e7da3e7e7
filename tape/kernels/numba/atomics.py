"""What threads need to share numbers and tasks in compiled code: Numba has no words for it."""

from __future__ import annotations

import ctypes
import os
import platform
import time

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD, _BYTES = ir.IntType(64), ir.IntType(8).as_pointer()
_CODE = ir.FunctionType(_WORD, [_BYTES, _WORD, _WORD])

# In a second `clock` grows by so many. What it asks writes to an address.
if os.name == "nt":
    _READ = ctypes.windll.kernel32.QueryPerformanceCounter            # type: ignore
    _frequency = ctypes.c_int64()
    ctypes.windll.kernel32.QueryPerformanceFrequency(ctypes.byref(_frequency))       # type: ignore
    SECOND = _frequency.value
else:
    _READ, SECOND = ctypes.CDLL(None).clock_gettime, 10 ** 9
binding.add_symbol("tape_clock", ctypes.cast(_READ, ctypes.c_void_p).value)


def _place(context, builder, signature, arguments):
    """The address of element i of an array of int64."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@intrinsic
def load(typing_context, array, i):
    """array[i], and all that was written before another thread stored it."""
    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)
    return types.int64(array, types.int64), generate


@intrinsic
def store(typing_context, array, i, value):
    """array[i] = value, seen by other threads after all that was written before."""
    def generate(context, builder, signature, arguments):
        builder.store_atomic(
            arguments[2], _place(context, builder, signature, arguments), "release", 8)
        return context.get_dummy_value()
    return types.void(array, types.int64, types.int64), generate


@intrinsic
def add(typing_context, array, i, value):
    """array[i] += value; what it was before."""
    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw(
            "add", _place(context, builder, signature, arguments), arguments[2], "seq_cst")
    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def swap(typing_context, array, i, old, new):
    """array[i] = new where it is still old; whether it was."""
    def generate(context, builder, signature, arguments):
        found = builder.cmpxchg(_place(context, builder, signature, arguments), arguments[2],
                                arguments[3], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)
    return types.boolean(array, types.int64, types.int64, types.int64), generate


def task(function):
    """Of a compiled function, a function (arguments) -> (code, where).

    `run` with these runs function(*arguments, number, parts), in any thread. The arguments are kept on
    the stack of the caller, who must wait until all parts have run. Of what the function raises `run`
    tells no more than that it did.
    """
    @intrinsic
    def task_of(typing_context, arguments):
        kinds = *arguments.types, types.int64, types.int64
        called = types.Dispatcher(function).get_call_type(typing_context, kinds, {})

        def generate(context, builder, signature, values):
            where = cgutils.alloca_once_value(builder, values[0])
            code = ir.Function(builder.module, _CODE, builder.module.get_unique_name("task"))
            code.linkage = "internal"
            inside = ir.IRBuilder(code.append_basic_block())
            given = inside.load(inside.bitcast(code.args[0], where.type))
            items = [inside.extract_value(given, i) for i in range(len(arguments.types))]
            compiled = function.get_compile_result(called)
            context.add_linking_libs([compiled.library])
            status, _ = context.call_internal_no_propagate(
                inside, compiled.fndesc, called, [*items, *code.args[1:]])
            inside.ret(inside.zext(status.is_error, _WORD))
            return context.make_tuple(builder, signature.return_type, [
                builder.ptrtoint(code, _WORD), builder.ptrtoint(where, _WORD)])
        return types.UniTuple(types.int64, 2)(arguments), generate
    return task_of


@intrinsic
def run(typing_context, code, where, number, parts):
    """Run a part of a task; 1 if it raised an exception, else 0."""
    def generate(context, builder, signature, values):
        return builder.call(builder.inttoptr(values[0], _CODE.as_pointer()),
                            [builder.inttoptr(values[1], _BYTES), *values[2:]])
    return types.int64(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing_context):
    """Do nothing for some cycles; where the processor has an instruction for it, by that."""
    def generate(context, builder, signature, arguments):
        if platform.machine() in ("x86_64", "AMD64"):
            builder.call(cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()
    return types.void(), generate


def _clock(kind):
    """Code that reads one of the clocks of POSIX, or the only one of Windows."""
    def generate(context, builder, signature, arguments):
        words = cgutils.alloca_once(builder, ir.ArrayType(_WORD, 2))
        first, second = (builder.gep(words, [_WORD(0), _WORD(i)]) for i in (0, 1))
        where = builder.bitcast(words, _BYTES)
        number = ir.IntType(32)
        if os.name == "nt":
            builder.call(cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(number, [_BYTES]), "tape_clock"), [where])
            return builder.load(first)
        builder.call(cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(number, [number, _BYTES]), "tape_clock"),
            [number(kind), where])
        return builder.add(builder.mul(builder.load(first), _WORD(SECOND)), builder.load(second))
    return generate


@intrinsic
def clock(typing_context):
    """A time that never goes back; see `SECOND`."""
    return types.int64(), _clock(getattr(time, "CLOCK_MONOTONIC", 0))


@intrinsic
def busy(typing_context):
    """How long this thread has had a processor; where the system does not tell, as `clock`."""
    return types.int64(), _clock(getattr(time, "CLOCK_THREAD_CPUTIME_ID", 0))
