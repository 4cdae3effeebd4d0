"""What must not stand in the package: decoders that run what they read."""

import ast
from pathlib import Path

import pytest

import hookbench

FOLDER = Path(hookbench.__file__).parent
SOURCES = sorted([*FOLDER.rglob("*.py"), *(FOLDER.parent / "loadtests").rglob("*.py")])
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {("yaml", "load"), ("yaml", "unsafe_load"), ("os", "system"), ("os", "popen")}
ATTRIBUTES |= {("pd", "read_pickle"), ("pandas", "read_pickle"), ("np", "load")}
KEYWORDS = {"allow_pickle", "shell"}


def forbidden(text):
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [item.name for item in node.names if item.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            call = node.func
            if isinstance(call, ast.Name) and call.id in CALLS:
                found.append(call.id)
            if (
                isinstance(call, ast.Attribute)
                and isinstance(call.value, ast.Name)
                and (call.value.id, call.attr) in ATTRIBUTES
            ):
                found.append(f"{call.value.id}.{call.attr}")
            found += [
                item.arg
                for item in node.keywords
                if item.arg in KEYWORDS
                and not (isinstance(item.value, ast.Constant) and item.value.value is False)
            ]
    return found


def test_nothing_that_is_read_is_run():
    assert len(SOURCES) > 300
    found = {str(path): forbidden(path.read_text()) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from marshal import loads",
        "import joblib.memory",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "np.load(path)",
        "load(path, allow_pickle=True)",
        "run(text, shell=True)",
    ],
)
def test_each_of_them_is_seen(text):
    assert forbidden(text)


def test_what_is_harmless_is_not():
    assert forbidden("client.eval(script)\nload(path, allow_pickle=False)\nyaml.safe_load(a)") == []
