"""What MkDocs does not do by itself: the repository's layout, reference, formulas."""

import ast
import functools
import html
import importlib.util
import json
import pathlib
import re

import executed
import latex2mathml.converter
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url
from pymdownx import slugs

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md"]
LINKED = ["LICENSE", "CITATION.cff", "experiments/*.py"]
LINKED += ["experiments/records/*/summary.json"]
RECORDS = re.compile(r"\((\.\./experiments/records/[\w-]+)\)")
NOTEBOOK = re.compile(r"\(([\w./]*notebooks/\w+)\.ipynb\)")
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\s*\\[(\[](?P<tex>.*?)\\[)\]]\s*</\1>', re.S
)

NAME = re.compile(
    r"<(a|pre|h\d)\b.*?</\1>|<code>(?P<name>\w+(?:\.\w+)?)(?P<called>\([^<]*\))?</code>",
    re.S,
)


def on_config(config):
    """Spell anchors as GitHub does, and put the reference into the navigation."""
    config.mdx_configs["toc"]["slugify"] = slugs.slugify(case="lower")
    names = [{name: f"docs/reference/{name}.md"} for name in modules()]
    config.nav.insert(-1, {"Reference": names})
    return config


def on_files(files, config):
    """Put every file where it is in the repository, and what is made beside them."""
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
    for path in sorted(executed.NOTEBOOKS.glob("*.ipynb")):
        text, pictures = executed.page(path)
        contents = {f"{path.stem}.md": text, **pictures}
        made += [
            File.generated(config, f"notebooks/{name}", content=content)
            for name, content in contents.items()
        ]
    return Files([*others, *moved, *made])


def on_page_markdown(markdown, **_):
    """Lead from a folder of records to its summary, from a notebook to its page.

    What is folded away is Markdown, too, as it is on GitHub.
    """
    markdown = NOTEBOOK.sub(r"(\1.md)", markdown)
    markdown = RECORDS.sub(r"(\1/summary.json)", markdown)
    markdown = markdown.replace("<!-- records -->", records())
    markdown = markdown.replace("<details>", '<details markdown="1">')
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


def on_page_content(content, page, **_):
    """Turn formulas into MathML, and lead from names to where they are explained."""
    content = FORMULA.sub(_mathml, content)
    return NAME.sub(lambda found: _link(found, page), content)


def _mathml(found):
    display = "inline" if found["tag"] == "span" else "block"
    return latex2mathml.converter.convert(html.unescape(found["tex"]), display=display)


def _link(found, page):
    """A name in code as a link to the reference; modules from the README alone."""
    target = _targets().get(found["name"])
    if not target or "." not in found["name"] and page.url:
        return found[0]
    return f'<a href="{get_relative_url(target, page.url or ".")}">{found[0]}</a>'


@functools.cache
def _targets():
    """Where in the site each module and each public name is explained."""
    found = {}
    for module in modules():
        page = f"docs/reference/{module}/"
        found[module] = page
        found |= {title: f"{page}#{path}" for title, path in named(module)}
    return found


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
    for title, inner in named(name):
        lines += _shown(inner, heading=f'"{title}"', heading_level="2")
    return "\n".join(lines)


def _shown(path, **options):
    lines = [f"        {key}: {value}" for key, value in options.items()]
    return [f"::: {path}", "    options:", *lines, ""]


def named(name):
    """The public names of a module, as users write them, and their dotted paths."""
    path = modules()[name]
    if name == "models":
        return [*_networks(path), *_around_networks(path)]
    file = ROOT / path.replace(".", "/")
    if file.is_dir():
        exported = _assigned(file / "__init__.py", "__all__")
    else:
        exported = _defined(file.with_suffix(".py"))
    return [(f"{name}.{inner}", f"{path}.{inner}") for inner in exported]


def _networks(path):
    found = _assigned(ROOT / "protojax/models/__init__.py", "_NETWORKS")
    return [(f"models.{name}", f"{path}.{file}.{name}") for name, file in found.items()]


def _around_networks(path):
    """The functions of the modules of `models` that users import."""
    for module in ("pretrained", "protopnet", "xnn"):
        for name in _defined(ROOT / f"protojax/models/{module}.py", ast.FunctionDef):
            yield f"{module}.{name}", f"{path}.{module}.{name}"
    yield "pretrained.read", f"{path}.weightfiles.read"


def _defined(file, kinds=(ast.FunctionDef, ast.ClassDef)):
    """Functions, classes and constants that have a docstring, as they stand there."""
    body = ast.parse(file.read_text()).body
    names = []
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, kinds):
            names.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
            names.append(ast.unparse(node.targets[0]))
    return [name for name in names if not name.startswith("_")]


def _assigned(file, name):
    """The literal that a module assigns to a name."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise ValueError(f"{file} assigns nothing to {name}")
