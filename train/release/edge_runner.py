"""Write the edge runner: one file, `predict.py`, that needs onnxruntime, numpy and Pillow.

It is made of the modules that ETL, training and serving use, one after the other, so that it makes the same pixels
and reads the same card; `train.release.edge_runner_cv2` stands in for OpenCV, and DICOM is refused.
`train.export.export` puts it beside the model, and the MLflow model of every version takes its pixels from it.
"""

import ast
from pathlib import Path

from cluster.settings import PROJECT_ROOT

ROOMS = ("cluster", "data", "train", "serve", "jobs")
LEFT_OUT = ("cv2",)
"""Imports that are left out of the runner: `train.release.edge_runner_cv2` defines the name itself."""
PARTS = (
    "data/imaging/errors.py",
    "data/imaging/lut.py",
    "data/imaging/windowing.py",
    "data/imaging/colour.py",
    "train/release/edge_runner_cv2.py",
    "data/imaging/strokes.py",
    "data/imaging/burned_in_text.py",
    "data/imaging/preprocess.py",
    "data/model_card.py",
    "train/release/edge_runner_main.py",
)
NO_DICOM = """
def looks_like_dicom(blob: bytes) -> bool:
    return blob[128:132] == b"DICM"


def decode_dicom(blob: bytes, waived: Collection[str] = ()) -> np.ndarray:
    raise BadImageError("unsupported", "a DICOM file: this runner reads PNG and JPEG")
"""
"""In place of `data.imaging.dicom`, which needs pydicom and its codecs."""
START = """

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
"""


def runner(root: Path = PROJECT_ROOT) -> str:
    """Return the text of `predict.py`; the same sources give the same text.

    Raises:
        AssertionError: two parts define the same name, so that they cannot share one file.
    """
    texts = [(part, (root / part).read_text()) for part in PARTS]
    _check_names(texts)
    docstring = ast.get_docstring(ast.parse(texts[-1][1]), clean=False)
    head = f'"""{docstring}"""\n\n# Written by train/release/edge_runner.py out of {", ".join(PARTS)}.\n'
    bodies = [f"\n\n# {part}\n{_body(text)}" for part, text in texts]
    return head + "".join(bodies[:-1]) + NO_DICOM + bodies[-1] + START


def _body(text: str) -> str:
    """Strip a module of its docstring and of imports from the project and from what is left out."""
    lines = text.splitlines()
    dropped: set[int] = set()
    for nth, node in enumerate(ast.parse(text).body):
        is_docstring = nth == 0 and isinstance(node, ast.Expr)
        if is_docstring or _is_left_out(node):
            dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    remaining = [line for number, line in enumerate(lines, 1) if number not in dropped]
    return "\n".join(remaining).strip("\n") + "\n"


def _is_left_out(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in ROOMS
    return isinstance(node, ast.Import) and all(alias.name in LEFT_OUT for alias in node.names)


def _check_names(texts: list[tuple[str, str]]) -> None:
    """Check that each top-level name belongs to one part: a later definition would silently replace an earlier one."""
    owner: dict[str, str] = {}
    for part, text in texts:
        for name in _defined(ast.parse(text)):
            assert owner.setdefault(name, part) == part, f"{part} and {owner[name]} both define {name}"


def _defined(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {
                part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)
            }
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names
