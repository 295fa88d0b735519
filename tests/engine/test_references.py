import pytest

from fulcrum.demo.shipped import WEIGHTS
from fulcrum.domain.errors import InvalidSettings, UnknownModel, UnknownSae
from fulcrum.domain.models import ModelRef
from fulcrum.engine.references import References


@pytest.fixture
def lab(tmp_path):
    root, outside = tmp_path / "lab", tmp_path / "outside"
    (root / "models" / "a").mkdir(parents=True)
    (root / "weights.safetensors").write_bytes(b"w")
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    (root / "way_out").symlink_to(outside)
    (root / "models" / "b").mkdir()
    (root / "models" / "b" / "weights").symlink_to(outside / "secret")
    (root / "models" / "alias").symlink_to(root / "models" / "a")
    (root / "loop").symlink_to(root / "loop")
    return root


@pytest.fixture
def references(lab):
    return References({"lab": lab, "demo": WEIGHTS})


def test_a_model_folder_below_a_named_one_is_found(references, lab):
    found = references.model(ModelRef("folder:lab/models/a", seed=3))
    assert found == ModelRef(f"local-dir:{lab}/models/a", seed=3)
    assert references.sae("folder:demo/sae") == str(WEIGHTS / "sae")


def test_other_weights_of_a_known_architecture_may_lie_in_a_folder(references, lab):
    found = references.model(ModelRef("ViT-B-32", "folder:lab/weights.safetensors"))
    assert found == ModelRef("ViT-B-32", str(lab / "weights.safetensors"))


@pytest.mark.parametrize(
    "sub",
    [
        "../outside",
        "models/../../outside",
        "/etc",
        "way_out",
        "way_out/secret",
        "models/b",
        "loop",
        "not there",
        "models\\a",
        "models/a\x00",
        "x" * 5000,
        "weights.safetensors/x",
    ],
)
def test_no_name_leads_out_of_its_folder(references, sub):
    with pytest.raises(UnknownModel):
        references.model(ModelRef(f"folder:lab/{sub}"))
    with pytest.raises(UnknownSae):
        references.sae(f"folder:lab/{sub}")
    with pytest.raises(UnknownModel):
        references.model(ModelRef("ViT-B-32", f"folder:lab/{sub}"))


def test_a_link_that_stays_inside_is_followed(references, lab):
    assert references.model(ModelRef("folder:lab/models/alias")).model_name == f"local-dir:{lab}/models/a"


def test_paths_of_this_machine_name_nothing(references, lab):
    weights = lab / "weights.safetensors"
    for name in (f"local-dir:{lab}/models/a", str(lab), "/etc", ".", "", "folder:", "folder:other/x"):
        with pytest.raises(UnknownModel, match=r"allowed|folders are"):
            references.model(ModelRef(name))
    with pytest.raises(UnknownModel, match="not a tag"):
        references.model(ModelRef("ViT-B-32", str(weights)))
    for source in (str(lab), "/etc", "sae", "", "local-dir:/etc", "folder:other/x"):
        with pytest.raises(UnknownSae, match=r"allowed|folders are"):
            references.sae(source)


def test_a_file_named_like_a_tag_in_the_working_folder_is_no_tag(references, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pt").write_bytes(b"w")
    with pytest.raises(UnknownModel, match="not a tag"):
        references.model(ModelRef("ViT-B-32", "mine.pt"))


def test_names_and_tags_of_openclip_and_hubs_pass(references):
    for ref in (
        ModelRef("ViT-B-32", "openai"),
        ModelRef("ViT-B/32", "openai"),
        ModelRef("hf-hub:owner/name"),
    ):
        assert references.model(ref) == ref


def test_an_untrained_sae_is_bounded(references):
    assert references.sae("untrained:topk:4096:32") == "untrained:topk:4096:32"
    for size in ("99999999", "9" * 5000):
        with pytest.raises(UnknownSae, match="at most"):
            references.sae(f"untrained:topk:{size}:32")


def test_messages_say_the_folders_name_not_its_path(references, lab):
    text = f"model folder '{lab}/models/a' or local-dir:{lab}/models/a holds no weights"
    assert references.public(text) == (
        "model folder 'folder:lab/models/a' or folder:lab/models/a holds no weights"
    )


def test_a_folder_that_is_none_stops_the_start(tmp_path):
    with pytest.raises(InvalidSettings, match="no folder"):
        References({"lab": tmp_path / "missing"})
    with pytest.raises(InvalidSettings, match="folder name"):
        References({"a/b": tmp_path})
