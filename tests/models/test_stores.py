"""Models found by name in Ollama's and LM Studio's own folders."""

import json

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.models.stores import MODEL_LAYER, find


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def ollama(home, place: str, content: bytes = b"GGUF weights", layers: list | None = None):
    root = home / ".ollama" / "models"
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "blobs" / "sha256-abc").write_bytes(content)
    manifest = root / "manifests" / place
    manifest.parent.mkdir(parents=True, exist_ok=True)
    own = [{"mediaType": MODEL_LAYER, "digest": "sha256:abc"}, {"mediaType": "application/vnd.ollama.image.license", "digest": "x"}]
    manifest.write_text(json.dumps({"layers": own if layers is None else layers}))


@pytest.mark.parametrize(
    "name, place",
    [
        ("qwen2.5:1.5b", "registry.ollama.ai/library/qwen2.5/1.5b"),
        ("qwen2.5", "registry.ollama.ai/library/qwen2.5/latest"),
        ("ana/mine:v2", "registry.ollama.ai/ana/mine/v2"),
        ("hf.co/owner/repo:Q8_0", "hf.co/owner/repo/Q8_0"),
    ],
)
def test_ollama_names(home, name, place):
    ollama(home, place)
    path = find(f"ollama:{name}")
    assert path.suffix == ".gguf" and path.read_bytes() == b"GGUF weights" and path.is_symlink()
    assert find(f"ollama:{name}") == path


def test_ollama_folder_of_the_environment(home, monkeypatch):
    ollama(home, "registry.ollama.ai/library/m/latest")
    (home / ".ollama").rename(home / "elsewhere")
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "elsewhere" / "models"))
    assert find("ollama:m").read_bytes() == b"GGUF weights"


def test_ollama_says_what_is_there(home):
    with pytest.raises(UserError, match="no Ollama models in .*ollama pull m"):
        find("ollama:m")
    ollama(home, "registry.ollama.ai/library/qwen2.5/1.5b")
    with pytest.raises(UserError, match=r"ollama:qwen3: not in .*; there are qwen2.5:1.5b\. `ollama pull"):
        find("ollama:qwen3")
    with pytest.raises(UserError, match="not in"):
        find("ollama:../../blobs:sha256-abc")
    (home / ".ollama/models/blobs/sha256-abc").unlink()
    with pytest.raises(UserError, match="weights .* are missing"):
        find("ollama:qwen2.5:1.5b")


@pytest.mark.parametrize("layers, reply", [([], "no weights"), ("nonsense", "not an Ollama manifest")])
def test_odd_manifests(home, layers, reply):
    ollama(home, "registry.ollama.ai/library/m/latest", layers=layers)
    with pytest.raises(UserError, match=reply):
        find("ollama:m")


def test_lmstudio(home):
    with pytest.raises(UserError, match="no LM Studio models"):
        find("lmstudio:x/y")
    folder = home / ".lmstudio" / "models" / "lmstudio-community" / "Qwen2.5-GGUF"
    folder.mkdir(parents=True)
    (folder / "Qwen2.5-Q8_0.gguf").write_bytes(b"1")
    (folder / "mmproj-f16.gguf").write_bytes(b"2")
    assert find("lmstudio:lmstudio-community/qwen2.5-gguf") == find("lmstudio:Qwen2.5-GGUF") == folder / "Qwen2.5-Q8_0.gguf"
    (folder / "Qwen2.5-Q4_K_M.gguf").write_bytes(b"3")
    with pytest.raises(UserError, match="2 GGUF models; name one of lmstudio:lmstudio-community/Qwen2.5-GGUF/Qwen2.5-Q4_K_M.gguf"):
        find("lmstudio:Qwen2.5-GGUF")
    assert find("lmstudio:lmstudio-community/Qwen2.5-GGUF/Qwen2.5-Q4_K_M.gguf").read_bytes() == b"3"
    mlx = home / ".lmstudio" / "models" / "mlx-community" / "Qwen2.5-4bit"
    mlx.mkdir(parents=True)
    (mlx / "config.json").write_text("{}")
    assert find("lmstudio:Qwen2.5-4bit") == mlx
    with pytest.raises(UserError, match="is not there; .* has lmstudio-community/Qwen2.5-GGUF, mlx-community/Qwen2.5-4bit"):
        find("lmstudio:nothing")


def test_lmstudio_home_pointer(home):
    folder = home / "big-disk" / "models" / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "b.gguf").write_bytes(b"1")
    (home / ".lmstudio-home-pointer").write_text(str(home / "big-disk"))
    assert find("lmstudio:a/b") == folder / "b.gguf"


def test_no_name():
    with pytest.raises(UserError, match="write ollama:NAME"):
        find("ollama:")
