"""The tiny models of the export tests serve the tests of the format, too."""

from tests.export.conftest import needs_llamacpp, tiny, tiny_llama  # noqa: F401
