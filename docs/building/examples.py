"""Show docstrings as they are meant: sessions as code, formulas as formulas."""

import re

import griffe

SESSION = re.compile(r"^>>> .*(?:\n(?=\S).*)*", re.M)
FORMULA = re.compile(r"^\.\. math:: (.*(?:\n(?=\S|  ).*)*)", re.M)
TERM = re.compile(r":math:`([^`]*)`")
RETURNED = re.compile(r"^((?:Returns|Yields):\n +)(?=.*:)", re.M)


class Examples(griffe.Extension):
    """Puts into Markdown what the docstring of every object has in other forms."""

    def on_object(self, *, obj, **_):
        """Do so in the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = in_markdown(obj.docstring.value)


def in_markdown(text):
    """Fence sessions, which Markdown would take for quotes, and dollar formulas.

    What is returned begins with a colon where it has one, before which a type would be
    looked for: types are in the signature.
    """
    text = RETURNED.sub(r"\1: ", text)
    text = SESSION.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
    text = FORMULA.sub(lambda found: f"$$\n{found[1]}\n$$", text)
    return TERM.sub(lambda found: f"${found[1]}$", text)
