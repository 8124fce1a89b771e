"""What a fine-tuning is named after."""

from train.llm.trainer import data_version


def test_the_version_of_the_data_follows_from_base_and_pairs_in_any_order() -> None:
    pairs = [("question", "answer"), ("other", "answer")]
    version = data_version("bundles/1", pairs)
    assert len(version) == 16
    assert version == data_version("bundles/1", pairs[::-1])
    assert version != data_version("bundles/2", pairs)
    assert version != data_version("bundles/1", pairs[:1])
