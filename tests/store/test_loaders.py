"""Folders of classifiers and amortised networks that are wrong."""

import json

import pytest

from smcdiff import InputError, load_classifier, load_conditional


@pytest.mark.parametrize(
    ("kind", "load"), [("classifier", load_classifier), ("conditional", load_conditional)]
)
def test_damaged_configuration(tmp_path, kind, load):
    (tmp_path / "config.json").write_text(json.dumps({"kind": kind, "network": {}}))
    with pytest.raises(InputError, match=r"config\.json: missing or wrong entry"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        load(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"of kind 'prior', not '{kind}'"):
        load("models/mnist")
