"""Names of the folders of a sweep's runs."""

from mtl.config import folder_name


def test_one_folder_of_a_length_that_file_systems_take():
    assert folder_name("3_balancer/combine=ew,seed=0") == "3_balancer.combine=ew,seed=0"
    assert folder_name("ä" * 150) == "ä" * 100  # 2 bytes each
    assert folder_name("aä" * 150, most=4) == "aäa"
