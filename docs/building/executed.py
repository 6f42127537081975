"""Run the notebooks and store what they print and draw; show them as pages.

python docs/building/executed.py                          all of them, in place
python docs/building/executed.py notebooks/03_xnn.ipynb   these
"""

import base64
import json
import pathlib
import sys

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"


def run(path):
    """Run a notebook from top to bottom; it is given back with its outputs."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(
        notebook, timeout=300, record_timing=False, resources=where
    ).execute()
    return notebook


def store(path):
    """Run a notebook, and keep its outputs in it but for progress bars."""
    import nbformat

    notebook = run(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    nbformat.write(notebook, path)


def page(path):
    """A stored notebook as Markdown, and its pictures by the names that it links."""
    lines, pictures = [], {}
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}-{len(pictures)}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                lines += [f"![What the lines above draw]({name})", ""]
            elif text := output.get("text") or data.get("text/plain"):
                lines += ["```text", "".join(text).rstrip(), "```", ""]
    return "\n".join(lines), pictures


if __name__ == "__main__":
    chosen = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    for notebook in chosen or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(notebook.name, flush=True)
        store(notebook)
