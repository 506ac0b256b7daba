"""CUDA C++ to machine code and back: NVIDIA's run-time compiler, which comes with PyTorch.

No compiler is needed at the user's side: PyTorch's wheels for NVIDIA GPUs bring NVRTC and
``cuda.bindings``. What is compiled is kept on disk (:class:`fastglow.cache.DiskCache`).
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from typing import Any

from cuda.bindings import driver, nvrtc

from fastglow.cache import DiskCache
from fastglow.errors import EngineError


def checked(result: tuple[Any, ...]) -> Any:
    """The value of a call of cuda.bindings.

    Raises:
        EngineError: The call failed.
    """
    if int(result[0]):
        raise EngineError(f"the CUDA driver answered {result[0].name}")
    return result[1] if len(result) == 2 else None


def available() -> bool:
    """Whether NVRTC's library is installed beside its bindings."""
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError:  # the bindings load it at the first call
        return False
    return True


def compile_cubin(source: str, architecture: str) -> bytes:
    """Machine code of one source, from the disk if it was compiled before.

    Args:
        source: CUDA C++ that includes nothing.
        architecture: "sm_90a", say.

    Raises:
        EngineError: It does not compile.
    """
    version = ".".join(map(str, nvrtc.nvrtcVersion()[1:]))
    key = hashlib.sha256(f"{version}\0{architecture}\0{source}".encode()).hexdigest()[:24]
    cache = DiskCache(f"cuda-{key}.cubin")
    code = cache.load()
    if code is None:
        code = _compile(source, architecture)[0]
        cache.save(code)
    return code


def _compile(source: str, architecture: str) -> tuple[bytes, str]:
    """Machine code and the compiler's report."""
    program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"fastglow.cu", 0, [], []))
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "-default-device"]
    options.append("--ptxas-options=-v")
    flags = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
    log = bytearray(checked(nvrtc.nvrtcGetProgramLogSize(program)))
    nvrtc.nvrtcGetProgramLog(program, log)
    report = log.decode(errors="replace").rstrip("\0 \n")
    if int(status):
        raise EngineError(f"NVRTC does not compile the kernel: {report}")
    code = bytearray(checked(nvrtc.nvrtcGetCUBINSize(program)))
    nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(code), report


class Kernel:
    """One kernel in blocks of clusters, each block alone on its multiprocessor.

    Attributes:
        clusters: How many run at once on this device.
    """

    def __init__(
        self,
        cubin: bytes,
        name: str,
        *,
        threads: int,
        cluster: int,
        shared: int,
        together: bool = False,
    ) -> None:
        """Load it into the current context.

        Args:
            cubin: Machine code.
            name: Of the kernel in it.
            threads: Of a block.
            cluster: Blocks of a cluster.
            shared: Bytes of dynamic shared memory.
            together: All blocks of a launch run at once, so that they may wait for one another.

        Raises:
            EngineError: The device does not take it.
        """
        self._module = checked(driver.cuModuleLoadData(cubin))
        self._function = checked(driver.cuModuleGetFunction(self._module, name.encode()))
        limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        checked(driver.cuFuncSetAttribute(self._function, limit, shared))
        self._config = driver.CUlaunchConfig()
        self._config.blockDimX, self._config.gridDimX = threads, cluster
        self._config.blockDimY = self._config.blockDimZ = 1
        self._config.gridDimY = self._config.gridDimZ = 1
        self._config.sharedMemBytes = shared
        attributes = self._attributes(cluster, together)
        self._config.attrs, self._config.numAttrs = attributes, len(attributes)
        self.cluster = cluster
        self._lock = threading.Lock()
        count = driver.cuOccupancyMaxActiveClusters(self._function, self._config)
        self.clusters = int(checked(count))

    @staticmethod
    def _attributes(cluster: int, together: bool) -> list[Any]:
        """Clusters, a start that overlaps the end of the kernel before, all blocks at once."""
        kinds = driver.CUlaunchAttributeID
        shape, early, whole = (driver.CUlaunchAttribute() for _ in range(3))
        shape.id = kinds.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        shape.value.clusterDim.x = cluster
        shape.value.clusterDim.y = shape.value.clusterDim.z = 1
        early.id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        early.value.programmaticStreamSerializationAllowed = 1
        whole.id = kinds.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
        whole.value.cooperative = 1
        return [shape, early, whole] if together else [shape, early]

    def launch(self, clusters: int, argument: Any, stream: int) -> None:
        """Run ``clusters`` clusters with one structure (a ctypes buffer) as the argument.

        From any thread: engines of one shape share this kernel, and the driver's call, which lets
        other threads run, reads the grid and the stream from the one configuration.
        """
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
        with self._lock:
            self._config.gridDimX = self.cluster * clusters
            self._config.hStream = driver.CUstream(stream)
            checked(
                driver.cuLaunchKernelEx(self._config, self._function, ctypes.addressof(pointers), 0)
            )
