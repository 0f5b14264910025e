"""The compiled part of the package (astroml_plugin/pixels/native.c); all else of it is in pyproject.toml.

Without a C compiler it is left out, and torch prepares stamps. It is no module of Python's: one file fits all of them.
"""

import hashlib
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "astroml_plugin/pixels/native.c"
digest = hashlib.sha256((Path(__file__).parent / SOURCE).read_bytes()).hexdigest()[:16]
setup(
    ext_modules=[
        Extension(
            "astroml_plugin.pixels._native",
            [SOURCE],
            define_macros=[("ASTROML_SOURCE", f'"{digest}"')],
            extra_compile_args=["-O3", "-fno-math-errno", "-fno-trapping-math"],
            libraries=["m"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
