"""The documents are finished: no marks for figures to come, no dead link, code that runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/*/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_is_finished(document):
    text = document.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in target or (document.parent / target).exists(), target


def test_proposal_of_your_own():
    text = (ROOT / "docs" / "your-own-proposal.md").read_text()
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)), names)
    # Of 64 independent estimates; a larger standard error could hide a wrong weight.
    assert abs(names["ratios"].mean() - 1.0) < 3 * names["error"] < 0.03
