"""The papers that methods come from, as BibTeX."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Paper(NamedTuple):
    """What a reference needs.

    Attributes:
      authors: family name first, joined by `and`.
      title: as printed.
      year: of publication.
      where: journal or conference; empty for what is on arXiv alone.
      arxiv: its number there, empty if it is not.
    """

    authors: str
    title: str
    year: int
    where: str
    arxiv: str


PAPERS = {
    "bach2015": Paper(
        "Bach, Sebastian and Binder, Alexander and Montavon, Grégoire and Klauschen, "
        "Frederick and Müller, Klaus-Robert and Samek, Wojciech",
        "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise "
        "Relevance Propagation",
        *(2015, "PLOS ONE", ""),
    ),
    "carlini2019": Paper(
        "Carlini, Nicholas and Athalye, Anish and Papernot, Nicolas and Brendel, "
        "Wieland and Rauber, Jonas and Tsipras, Dimitris and Goodfellow, Ian and "
        "Madry, Aleksander and Kurakin, Alexey",
        "On Evaluating Adversarial Robustness",
        *(2019, "", "1902.06705"),
    ),
    "chen2019": Paper(
        "Chen, Chaofan and Li, Oscar and Tao, Daniel and Barnett, Alina and Su, "
        "Jonathan and Rudin, Cynthia",
        "This Looks Like That: Deep Learning for Interpretable Image Recognition",
        *(2019, "Advances in Neural Information Processing Systems", "1806.10574"),
    ),
    "dhamdhere2019": Paper(
        "Dhamdhere, Kedar and Sundararajan, Mukund and Yan, Qiqi",
        "How Important Is a Neuron?",
        *(2019, "International Conference on Learning Representations", "1805.12233"),
    ),
    "ghorbani2019": Paper(
        "Ghorbani, Amirata and Abid, Abubakar and Zou, James",
        "Interpretation of Neural Networks Is Fragile",
        *(2019, "AAAI Conference on Artificial Intelligence", "1710.10547"),
    ),
    "hoffmann2021": Paper(
        "Hoffmann, Adrian and Fanconi, Claudio and Rade, Rahul and Kohler, Jonas",
        "This Looks Like That... Does it? Shortcomings of Latent Space Prototype "
        "Interpretability in Deep Networks",
        *(2021, "", "2105.02968"),
    ),
    "koh2017": Paper(
        "Koh, Pang Wei and Liang, Percy",
        "Understanding Black-box Predictions via Influence Functions",
        *(2017, "International Conference on Machine Learning", "1703.04730"),
    ),
    "montavon2017": Paper(
        "Montavon, Grégoire and Lapuschkin, Sebastian and Binder, Alexander and Samek, "
        "Wojciech and Müller, Klaus-Robert",
        "Explaining Nonlinear Classification Decisions with Deep Taylor Decomposition",
        *(2017, "Pattern Recognition", "1512.02479"),
    ),
    "qi2020": Paper(
        "Qi, Zhongang and Khorram, Saeed and Li, Fuxin",
        "Visualizing Deep Networks by Optimizing with Integrated Gradients",
        *(2020, "AAAI Conference on Artificial Intelligence", "1905.00954"),
    ),
    "qi2021": Paper(
        "Qi, Zhongang and Khorram, Saeed and Li, Fuxin",
        "Embedding Deep Networks into Visual Explanations",
        *(2021, "Artificial Intelligence", "1709.05360"),
    ),
    "schneider2023": Paper(
        "Schneider, Johannes and Vlachos, Michalis",
        "Explaining Classifiers by Constructing Familiar Concepts",
        *(2023, "Machine Learning", "2203.04109"),
    ),
    "selvaraju2017": Paper(
        "Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and "
        "Vedantam, Ramakrishna and Parikh, Devi and Batra, Dhruv",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based "
        "Localization",
        *(2017, "IEEE International Conference on Computer Vision", "1610.02391"),
    ),
    "shrikumar2016": Paper(
        "Shrikumar, Avanti and Greenside, Peyton and Shcherbina, Anna and Kundaje, "
        "Anshul",
        "Not Just a Black Box: Learning Important Features Through Propagating "
        "Activation Differences",
        *(2016, "", "1605.01713"),
    ),
    "shrikumar2017": Paper(
        "Shrikumar, Avanti and Greenside, Peyton and Kundaje, Anshul",
        "Learning Important Features Through Propagating Activation Differences",
        *(2017, "International Conference on Machine Learning", "1704.02685"),
    ),
    "simonyan2014": Paper(
        "Simonyan, Karen and Vedaldi, Andrea and Zisserman, Andrew",
        "Deep Inside Convolutional Networks: Visualising Image Classification Models "
        "and Saliency Maps",
        *(2014, "International Conference on Learning Representations, Workshop"),
        "1312.6034",
    ),
    "smilkov2017": Paper(
        "Smilkov, Daniel and Thorat, Nikhil and Kim, Been and Viégas, Fernanda and "
        "Wattenberg, Martin",
        "SmoothGrad: Removing Noise by Adding Noise",
        *(2017, "", "1706.03825"),
    ),
    "springenberg2015": Paper(
        "Springenberg, Jost Tobias and Dosovitskiy, Alexey and Brox, Thomas and "
        "Riedmiller, Martin",
        "Striving for Simplicity: The All Convolutional Net",
        *(2015, "International Conference on Learning Representations, Workshop"),
        "1412.6806",
    ),
    "sundararajan2017": Paper(
        "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
        "Axiomatic Attribution for Deep Networks",
        *(2017, "International Conference on Machine Learning", "1703.01365"),
    ),
    "tagade2023": Paper(
        "Tagade, Arush and Rumbelow, Jessica",
        "Prototype Generation: Robust Feature Visualisation for Data Independent "
        "Interpretability",
        *(2023, "", "2309.17144"),
    ),
    "zhou2016": Paper(
        "Zhou, Bolei and Khosla, Aditya and Lapedriza, Agata and Oliva, Aude and "
        "Torralba, Antonio",
        "Learning Deep Features for Discriminative Localization",
        *(2016, "IEEE Conference on Computer Vision and Pattern Recognition"),
        "1512.04150",
    ),
    "zhang2018": Paper(
        "Zhang, Jianming and Bargal, Sarah Adel and Lin, Zhe and Brandt, Jonathan and "
        "Shen, Xiaohui and Sclaroff, Stan",
        "Top-Down Neural Attention by Excitation Backprop",
        *(2018, "International Journal of Computer Vision", "1608.00507"),
    ),
}
"""By key."""

METHODS = {
    "gradient": "simonyan2014",
    "input_x_gradient": "shrikumar2016",
    "integrated_gradients": "sundararajan2017",
    "integrated_gradients_of_probability": "sundararajan2017",
    "smooth_gradient": "smilkov2017",
    "smooth_gradient_one_draw": "smilkov2017",
    "deep_lift": "shrikumar2017",
    "deep_lift_winner_take_all": "shrikumar2017",
    "lrp": "bach2015",
    "deep_taylor": "montavon2017",
    "guided_gradient": "springenberg2015",
    "grad_cam": "selvaraju2017",
    "class_activation": "zhou2016",
    "guided_grad_cam": "selvaraju2017",
    "conductance": "dhamdhere2019",
    "igos": "qi2020",
    "excitation": "zhang2018",
    "top_k": "ghorbani2019",
    "mass_center": "ghorbani2019",
    "mass_center_truncated": "ghorbani2019",
    "targeted": "ghorbani2019",
    "fragility": "ghorbani2019",
    "hessian": "ghorbani2019",
    "influence": "koh2017 ghorbani2019",
    "strength": "carlini2019",
    "protopnet": "chen2019",
    "prototype_attacks": "chen2019 hoffmann2021",
    "jpeg": "chen2019 hoffmann2021",
    "xnn": "qi2021",
    "cladec": "schneider2023",
    "generation": "tagade2023",
    "prototype_generation": "tagade2023",
}
"""The papers of attributions, attacks and experiments, by the names they have here."""


def bibliography(provenance: Mapping[str, Any]) -> str:
    """BibTeX of the methods that made results.

    They are found by their names in the command and the configuration.

    Args:
      provenance: from `report.provenance`.

    Returns:
      The entries, in order of their keys; empty if none is known.

    >>> made = {"command": ["python -m experiments.fragility"],
    ...         "config": [{"attributions": ["gradient"]}]}
    >>> [line for line in bibliography(made).splitlines() if line.startswith("@")]
    ['@inproceedings{ghorbani2019,', '@inproceedings{simonyan2014,']
    """
    words = {word for text in _texts(provenance) for word in re.findall(r"\w+", text)}
    found = {key for word in words & set(METHODS) for key in METHODS[word].split()}
    return "\n".join(_entry(key, PAPERS[key]) for key in sorted(found))


def _texts(provenance: Mapping[str, Any]) -> Iterable[str]:
    return map(str, (*provenance.get("command", ()), *provenance.get("config", ())))


_JOURNALS = re.compile(
    "Journal|PLOS|Pattern|Machine Learning$|Artificial Intelligence$"
)


def _entry(key: str, paper: Paper) -> str:
    journal = _JOURNALS.search(paper.where) and "Conference" not in paper.where
    kind = "misc" if not paper.where else "article" if journal else "inproceedings"
    fields = {
        "author": paper.authors,
        "title": f"{{{paper.title}}}",
        "year": str(paper.year),
    }
    if paper.where:
        fields["journal" if journal else "booktitle"] = paper.where
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archiveprefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])
