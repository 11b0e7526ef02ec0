"""The one part that is compiled: the scan of the similarity join. Everything else is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

NATIVE = "sparkrec/retrieval/native"

setup(
    ext_modules=[
        Extension(
            "sparkrec.retrieval._scan",  # loaded by ctypes; it asks the CPU which of its instructions to use
            [f"{NATIVE}/scan.cpp"],
            depends=sorted(glob(f"{NATIVE}/*.inc")),
            extra_compile_args=["-std=c++17", "-O3", "-Wno-psabi", "-Wno-maybe-uninitialized"],
            language="c++",
        )
    ]
)
