"""A folder that holds everything a model needs to answer, and proves that it is unchanged.

A state is a nested dict of JSON values, numpy arrays and LightGBM boosters. On disk it is
`manifest.json` (the JSON values, the format version and a SHA-256 of every other file),
`arrays.npz` (read without pickle) and one LightGBM text file per booster. No class of ours is
pickled, so a bundle opens in a later version of the code. Floats come back to the bit.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

__all__ = ["FORMAT", "BundleError", "load", "save"]

FORMAT = 2
_MANIFEST = "manifest.json"
_ARRAYS = "arrays.npz"
# bool, signed, unsigned, float, datetime, timedelta, fixed-width text: all safe without pickle.
_KINDS = "biufMmU"


class BundleError(ValueError):
    """A state that cannot be saved, or a folder that is not what its manifest says.

    Attributes
    ----------
    file : str
        The file, or the place in the state, that the error is about.
    expected, seen : str
        What it should be, and what it is.
    """

    def __init__(self, file: str, expected: str, seen: str) -> None:
        self.file, self.expected, self.seen = file, expected, seen
        super().__init__(f"{file}: expected {expected}; seen {seen}")


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a bundle; the folder appears complete or not at all.

    Tuples come back as lists and numpy scalars as Python numbers; everything else as it was.

    Parameters
    ----------
    folder : Path
        Must not exist, or be empty: a bundle is never changed once written.
    state : mapping
        Nested dicts and lists of JSON values, numpy arrays (numbers, booleans, times,
        fixed-width text) and `lightgbm.Booster`. Keys are text not starting with "$".

    Raises
    ------
    BundleError
        If the folder holds something, or the state a value that does not belong in a bundle.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(str(folder), "a new or empty folder", "one that holds files already")
    parts = _Parts()
    plain = parts.take(state, "state")
    files = parts.files()
    manifest = {
        "format": FORMAT,
        "files": {name: _sha256(content) for name, content in sorted(files.items())},
        "state_sha256": _state_sha256(plain),
        "state": plain,
    }
    files[_MANIFEST] = (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode()
    _write_folder(folder, files)


def load(folder: Path) -> dict[str, Any]:
    """Read a bundle back, after checking every file against the manifest.

    Raises
    ------
    BundleError
        If a file is missing, altered or of another format version.
    """
    manifest = _read_manifest(folder)
    contents: dict[str, bytes] = {}
    for name, expected in manifest["files"].items():
        if Path(name).name != name:
            raise BundleError(_MANIFEST, "plain file names", repr(name))
        path = folder / name
        if not path.is_file():
            raise BundleError(name, f"a file with sha256 {expected}", "no such file")
        contents[name] = path.read_bytes()
        seen = _sha256(contents[name])
        if seen != expected:
            raise BundleError(name, f"sha256 {expected}", f"sha256 {seen}")
    arrays = {}
    if _ARRAYS in contents:
        with np.load(io.BytesIO(contents[_ARRAYS]), allow_pickle=False) as npz:
            arrays = {key: npz[key] for key in npz.files}
    state = _restore(manifest["state"], arrays, contents)
    assert isinstance(state, dict)
    return state


@dataclass
class _Parts:
    """What is taken out of a state because JSON cannot hold it."""

    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    boosters: dict[str, str] = field(default_factory=dict)

    def take(self, value: Any, at: str) -> Any:
        """The JSON form of a value; arrays and boosters leave a reference behind."""
        match value:
            case np.generic() if value.dtype.kind in "biuf":
                return self.take(value.item(), at)
            case None | bool() | int() | str():
                return value
            case float():
                return value if math.isfinite(value) else {"$float": str(value)}
            case Mapping():
                return {self._key(k, at): self.take(v, f"{at}.{k}") for k, v in value.items()}
            case list() | tuple():
                return [self.take(v, f"{at}[{i}]") for i, v in enumerate(value)]
            case np.ndarray():
                if value.dtype.kind not in _KINDS:
                    raise BundleError(
                        at,
                        "an array of numbers, booleans, times or fixed-width text "
                        "(object arrays: .astype(str))",
                        f"dtype {value.dtype}",
                    )
                name = f"a{len(self.arrays)}"
                self.arrays[name] = value
                return {"$array": name}
            case lgb.Booster():
                name = f"booster{len(self.boosters)}.txt"
                # -1: all trees, whatever early stopping may have marked as the best iteration.
                self.boosters[name] = value.model_to_string(num_iteration=-1)
                return {"$booster": name}
        raise BundleError(
            at, "a JSON value, a numpy array or a lightgbm.Booster", f"a {type(value).__name__}"
        )

    def files(self) -> dict[str, bytes]:
        """Contents by file name, without the manifest."""
        files = {name: text.encode() for name, text in self.boosters.items()}
        if self.arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **self.arrays)
            files[_ARRAYS] = buffer.getvalue()
        return files

    @staticmethod
    def _key(key: Any, at: str) -> str:
        if not isinstance(key, str) or key.startswith("$"):
            raise BundleError(at, 'keys that are text and do not start with "$"', repr(key))
        return key


def _restore(value: Any, arrays: Mapping[str, Any], contents: Mapping[str, bytes]) -> Any:
    if isinstance(value, list):
        return [_restore(v, arrays, contents) for v in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$array": str(name)}:
            return arrays[name]
        case {"$booster": str(name)}:
            return lgb.Booster(model_str=contents[name].decode())
        case {"$float": str(text)}:
            return float(text)
    return {k: _restore(v, arrays, contents) for k, v in value.items()}


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    if not path.is_file():
        raise BundleError(str(path), "the manifest of a bundle", "no such file")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(_MANIFEST, "JSON", f"unreadable text ({error})") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise BundleError(_MANIFEST, f"format {FORMAT}", f"format {version!r}")
    for key in ("files", "state", "state_sha256"):
        if key not in manifest:
            raise BundleError(_MANIFEST, f"the key {key!r}", f"keys {sorted(manifest)}")
    expected, seen = manifest["state_sha256"], _state_sha256(manifest["state"])
    if seen != expected:
        raise BundleError(f"{_MANIFEST} (state)", f"sha256 {expected}", f"sha256 {seen}")
    return dict(manifest)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _state_sha256(plain: Any) -> str:
    return _sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write beside the folder, then rename: a reader never sees half a bundle."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".{folder.name}.{secrets.token_hex(6)}"
    draft.mkdir()
    try:
        for name, content in files.items():
            with (draft / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        draft.replace(folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
