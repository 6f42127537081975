"""What MkDocs does not do by itself: the repository's layout, reference, formulas."""

import ast
import html
import importlib.util
import json
import pathlib
import re

import latex2mathml.converter
from mkdocs.structure.files import File, Files
from pymdownx import slugs

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md"]
LINKED = ["LICENSE", "CITATION.cff", "experiments/*.py", "notebooks/*.ipynb"]
LINKED += ["experiments/records/*/summary.json"]
RECORDS = re.compile(r"\((\.\./experiments/records/[\w-]+)\)")
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*\\[(\[](?P<tex>.*?)\\[)\]]\s*</\1>', re.S
)


def on_config(config):
    """Spell anchors as GitHub does, and put the reference into the navigation."""
    config.mdx_configs["toc"]["slugify"] = slugs.slugify(case="lower")
    names = [{name: f"docs/reference/{name}.md"} for name in modules()]
    config.nav.insert(-1, {"Reference": names})
    return config


def on_files(files, config):
    """Put every file where it is in the repository, and the reference beside them."""
    others = [file for file in files if file.src_dir != config.docs_dir]
    paths = [ROOT / "docs" / file.src_uri for file in files if file not in others]
    paths = [path for path in paths if path.suffix != ".py"]
    paths += [ROOT / name for name in PAGES]
    paths += [path for pattern in LINKED for path in sorted(ROOT.glob(pattern))]
    moved = [
        File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path))
        for path in paths
    ]
    made = [
        File.generated(config, f"docs/reference/{name}.md", content=page(name))
        for name in modules()
    ]
    return Files([*others, *moved, *made])


def on_page_markdown(markdown, **_):
    """Lead from a folder of records, which a site cannot show, to its summary."""
    markdown = RECORDS.sub(r"(\1/summary.json)", markdown)
    markdown = markdown.replace("<!-- records -->", records())
    return markdown.replace("(../experiments/records)", "(evidence.md#records)")


def records():
    """A table of all runs of record, each with its command."""
    lines = ["| record | command | jax |", "|---|---|---|"]
    for path in sorted(ROOT.glob("experiments/records/*/config.json")):
        made, name = json.loads(path.read_text()), path.parent.name
        link = f"[{name}](../experiments/records/{name}/summary.json)"
        command = made["command"].split(" --out ")[0]
        lines.append(f"| {link} | `{command}` | {made['packages']['jax']} |")
    return "\n".join(lines)


def on_page_content(content, **_):
    """Turn formulas into MathML, which browsers draw without a script."""
    return FORMULA.sub(_mathml, content)


def _mathml(found):
    display = "inline" if found["tag"] == "span" else "block"
    return latex2mathml.converter.convert(html.unescape(found["tex"]), display=display)


def modules():
    """The names that users import from the package, and the files behind them."""
    package = importlib.util.spec_from_file_location(
        "protojax_map", ROOT / "protojax/__init__.py"
    )
    module = importlib.util.module_from_spec(package)
    package.loader.exec_module(module)
    return {
        name: ".".join(part for part in ("protojax", folder, name) if part)
        for name, folder in module._MODULES.items()
    }


def page(name):
    """The page of a module: what it says of itself, then each of its names."""
    path = modules()[name]
    lines = [f"# {name}", "", *_shown(path, members="false", show_root_heading="false")]
    for inner in public(path):
        title = inner.removeprefix(f"{path}.").removeprefix("pretrained.")
        heading = f'"{name}.{title.split(".")[-1]}"'
        lines += _shown(inner, heading=heading, heading_level="2")
    return "\n".join(lines)


def _shown(path, **options):
    lines = [f"        {key}: {value}" for key, value in options.items()]
    return [f"::: {path}", "    options:", *lines, ""]


def public(path):
    """The dotted names of a module's public functions and classes."""
    file = ROOT / path.replace(".", "/")
    if path == "protojax.models":
        return [*_networks(file), *public(f"{path}.pretrained")]
    if file.is_dir():
        exported = _assigned(file / "__init__.py", "__all__")
        return [f"{path}.{name}" for name in exported]
    tree = ast.parse(file.with_suffix(".py").read_text())
    kinds = ast.FunctionDef, ast.ClassDef
    names = [node.name for node in tree.body if isinstance(node, kinds)]
    return [f"{path}.{name}" for name in names if not name.startswith("_")]


def _networks(folder):
    found = _assigned(folder / "__init__.py", "_NETWORKS")
    return [f"protojax.models.{module}.{name}" for name, module in found.items()]


def _assigned(file, name):
    """The literal that a module assigns to a name."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise ValueError(f"{file} assigns nothing to {name}")
