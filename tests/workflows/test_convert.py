import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dicom_series import straight, write_slices
from phantoms import phantom
from transmodal import cli
from transmodal.core.errors import ConfigError, DataError, FileError, GeometryError
from transmodal.core.files import sha256
from transmodal.core.volume import Volume
from transmodal.imaging import conversion
from transmodal.imaging.scan import read_scan, write_scan
from transmodal.workflows.convert import convert

TABLES = Path(conversion.__file__).parent / "conversions"
# Of the phantom: air, brain, scalp, skull.
HU = (-1000, 30, 40, 1000)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A phantom head on a left-handed grid."""
    volumes, folder = phantom(0), tmp_path_factory.mktemp("head")
    affine = volumes["ct"].affine @ np.diag([-1.0, 1, 1, 1])
    for name in ("ct", "mr", "brain"):
        volume = volumes[name]
        write_scan(Volume(volume.array, affine, volume.modality), folder / f"{name}.nii.gz")
    return folder


def values_of(path, ct):
    """What a map has where the CT has each of its values, of which there is one."""
    found = read_scan(path, "map").array
    assert found.dtype == np.float32
    return [float(np.unique(found[ct.array == hu]).item()) for hu in HU]


@pytest.mark.parametrize(
    ("to", "unit", "expected"),
    [
        ("density", "g/cm3", [0.001205, 1 + 0.04 * 30 / 37, 1.045, 1.61 + 0.31 / 525]),
        ("electron-density", "relative to water", [0.00108, 1 + 0.035 * 30 / 37, 1.0375, 1.517 + 0.264 / 525]),
        ("mu-map", "1/cm", [0, 9.6e-5 * 1030, 9.6e-5 * 1040, 5.1e-5 * 2000 + 0.0471]),
    ],
)
def test_one_map_has_the_value_of_each_tissue_and_its_unit_beside_it(head, tmp_path, to, unit, expected):
    convert(head / "ct.nii.gz", tmp_path / "map.nii.gz", to)
    ct = read_scan(head / "ct.nii.gz", "ct")
    assert read_scan(tmp_path / "map.nii.gz", "map").grid.matches(ct.grid)
    np.testing.assert_allclose(values_of(tmp_path / "map.nii.gz", ct), expected, rtol=1e-6)
    beside = json.loads((tmp_path / "map.json").read_text())
    assert [(file["file"], file["unit"]) for file in beside["files"]] == [("map.nii.gz", unit)]
    assert beside["record"]["inputs"] == {"ct": sha256(head / "ct.nii.gz")}
    assert beside["record"]["settings"]["to"] == to
    assert beside["record"]["settings"]["table"]["unit"] == unit
    assert beside["record"]["settings"]["table"]["source"]


def test_another_voltage_gives_another_attenuation_of_bone_alone(head, tmp_path):
    convert(head / "ct.nii.gz", tmp_path / "mu.nii.gz", "mu-map", kvp=80)
    values = values_of(tmp_path / "mu.nii.gz", read_scan(head / "ct.nii.gz", "ct"))
    np.testing.assert_allclose(values, [0, 9.6e-5 * 1030, 9.6e-5 * 1040, 3.64e-5 * 2000 + 0.0626], rtol=1e-6)


def test_acoustic_maps_are_three_files_with_water_outside_of_bone(head, tmp_path):
    made = convert(head / "ct.nii.gz", tmp_path / "skull.nii.gz", "acoustic", preset="yaakub2023")
    ct = read_scan(head / "ct.nii.gz", "ct")
    for name, water, bone in (("density", 1000, 1450), ("speed", 1500, 2300), ("attenuation", 0, 4 + 4.7 * np.sqrt(10 / 17))):
        np.testing.assert_allclose(values_of(tmp_path / f"skull_{name}.nii.gz", ct), [water, water, water, bone], rtol=1e-6)
    assert [file.unit for file in made.files] == ["kg/m3", "m/s", "dB/cm"]
    assert made.files[2].quantity == "attenuation at 0.5 MHz"
    assert made.record.settings["threshold_hu"] == 300
    assert not (tmp_path / "skull.nii.gz").exists()


def test_bone_is_above_the_threshold_and_in_the_head(head, tmp_path):
    made = convert(head / "ct.nii.gz", tmp_path / "bone.nii.gz", "bone")
    ct = read_scan(head / "ct.nii.gz", "ct")
    np.testing.assert_array_equal(read_scan(tmp_path / "bone.nii.gz", "mask").array, ct.array == 1000)
    assert made.volumes_ml["bone"] == pytest.approx(np.count_nonzero(ct.array == 1000) * 4.5**3 / 1000)
    with pytest.raises(DataError, match="above 1500 HU"):
        convert(head / "ct.nii.gz", tmp_path / "none.nii.gz", "bone", threshold_hu=1500)


def test_a_head_model_has_names_volumes_and_surfaces(head, tmp_path):
    made = convert(head / "ct.nii.gz", tmp_path / "head.nii.gz", "head-model", brain=head / "brain.nii.gz", surfaces=True)
    labels = read_scan(tmp_path / "head.nii.gz", "labels").array
    beside = json.loads((tmp_path / "head.json").read_text())
    assert beside["labels"]["4"] == "intracranial" and beside["labels"]["5"] == "brain"
    for number, name in beside["labels"].items():
        count = np.count_nonzero(labels == int(number))
        assert name == "outside" or beside["volumes_ml"].get(name, 0) == pytest.approx(count * 4.5**3 / 1000)
    assert made.enclosed_by_bone == 1 and made.cut == []
    for layer in ("scalp", "bone", "cavity", "brain"):
        mesh = trimesh.load_mesh(tmp_path / f"head_{layer}.stl")
        assert mesh.is_watertight and mesh.volume > 0
    assert set(beside["record"]["inputs"]) == {"ct", "brain"}
    convert(head / "ct.nii.gz", tmp_path / "head.nii.gz", "bone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.nii.gz"]


def test_a_users_copy_of_a_table_takes_the_place_of_the_packages(head, tmp_path):
    text = (TABLES / "density.toml").read_text()
    assert text.count("[999, 1.61]") == 1
    (tmp_path / "my.toml").write_text(text.replace("[999, 1.61]", "[1000, 1.7]"))
    made = convert(head / "ct.nii.gz", tmp_path / "density.nii.gz", "density", table=tmp_path / "my.toml")
    assert values_of(tmp_path / "density.nii.gz", read_scan(head / "ct.nii.gz", "ct"))[3] == np.float32(1.7)
    assert [1000, 1.7] in made.record.settings["table"]["points"]
    assert made.record.inputs["table"] == sha256(tmp_path / "my.toml")


def test_a_dicom_folder_is_a_ct_too(tmp_path):
    array = phantom(0)["ct"].array
    folder = write_slices(tmp_path / "dicom", array, straight(array.shape[2], 4.5), PixelSpacing=["4.5", "4.5"])
    convert(folder, tmp_path / "density.nii.gz", "density", series="3")
    found = read_scan(tmp_path / "density.nii.gz", "map").array
    expected = conversion.by_points(array, conversion.read_table(conversion.DensityTable, "density"))
    np.testing.assert_array_equal(np.unique(found, return_counts=True), np.unique(expected, return_counts=True))


def test_the_command_prints_what_it_wrote(head, tmp_path, capsys):
    words = ["convert", str(head / "ct.nii.gz"), str(tmp_path / "head.nii.gz"), "--to", "head-model", "--closing-mm", "4"]
    for flags in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, *flags])
        assert not end.value.code
        printed = capsys.readouterr().out
        if flags:
            assert json.loads(printed) == json.loads((tmp_path / "head.json").read_text())
            assert json.loads(printed)["record"]["settings"]["closing_mm"] == 4
        else:
            assert "head.nii.gz: layers of the head, label" in printed and "soft_tissue" in printed and "100% of what" in printed


def test_refusals(head, tmp_path):
    ct, out = head / "ct.nii.gz", tmp_path / "out.nii.gz"
    with pytest.raises(ConfigError, match="--kvp: is for --to mu-map, not for --to density"):
        convert(ct, out, "density", kvp=120)
    with pytest.raises(ConfigError, match="--threshold-hu: is for --to acoustic, bone, head-model"):
        convert(ct, out, "mu-map", threshold_hu=300)
    with pytest.raises(ConfigError, match="--kvp 125"):
        convert(ct, out, "mu-map", kvp=125)
    with pytest.raises(ConfigError, match="--preset mine"):
        convert(ct, out, "acoustic", preset="mine")
    with pytest.raises(ConfigError, match=r"(?s)density\.toml.*unit = 'g/cm3'"):
        convert(ct, out, "electron-density", table=TABLES / "density.toml")
    with pytest.raises(ConfigError, match="closing_mm = -1"):
        convert(ct, out, "head-model", closing_mm=-1)
    with pytest.raises(ConfigError, match="--series and --force-geometry are for DICOM"):
        convert(ct, out, "density", series="3")
    with pytest.raises(DataError, match=r"mr\.nii\.gz: not a CT in HU"):
        convert(head / "mr.nii.gz", out, "density")
    with pytest.raises(FileError, match="made of, and would be overwritten"):
        convert(ct, ct, "density")
    with pytest.raises(FileError, match=r"out\.png"):
        convert(ct, tmp_path / "out.png", "density")
    write_scan(phantom(0)["brain"], tmp_path / "brain.nii.gz")
    with pytest.raises(GeometryError, match="the mask of the brain"):
        convert(ct, out, "head-model", brain=tmp_path / "brain.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["brain.nii.gz"]


def test_nothing_that_is_read_or_that_others_wrote_is_lost(head, tmp_path):
    for name in ("ct", "brain"):
        shutil.copy(head / f"{name}.nii.gz", tmp_path / f"{name}.nii.gz")
    ct, brain = tmp_path / "ct.nii.gz", tmp_path / "brain.nii.gz"
    density = shutil.copy(ct, tmp_path / "skull_density.nii.gz")
    (tmp_path / "series.json").write_text('{"Manufacturer": "of the scanner"}')
    convert(ct, tmp_path / "maps.nii.gz", "acoustic")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for scan, out, to, options in (
        (ct, brain, "head-model", {"brain": brain}),
        (density, tmp_path / "skull.nii.gz", "acoustic", {}),
        (ct, tmp_path / "series.nii.gz", "bone", {}),
    ):
        with pytest.raises(FileError, match="would be overwritten"):
            convert(scan, out, to, **options)
    shutil.copy(ct, tmp_path / "maps_speed.nii.gz")  # which the next conversion of that name would remove
    before[tmp_path / "maps_speed.nii.gz"] = ct.read_bytes()
    with pytest.raises(FileError, match="would be overwritten"):
        convert(tmp_path / "maps_speed.nii.gz", tmp_path / "maps.nii.gz", "bone")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_documentation_prints_the_tables_as_they_are():
    page = (Path(__file__).resolve().parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert sorted(blocks) == sorted(path.read_text(encoding="utf-8") for path in TABLES.glob("*.toml"))
