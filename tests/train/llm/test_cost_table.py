"""What a fine-tuning step costs, measured on a tiny model."""

from pathlib import Path

from train.llm import cost_table
from train.llm.config import LlmConfig

PAIRS = [(f"What is number {nth}?", f"It is {nth}, a number.") for nth in range(8)]


def test_a_cost_is_measured_and_becomes_a_line_of_the_table(tiny_llm: Path) -> None:
    config = LlmConfig(batch_size=2, microbatch_size=1, max_seq_length=256)
    one = cost_table.measure(config, tiny_llm, PAIRS, steps=2)
    assert 0 < one.step_cpu_s < 60
    assert one.step_s > 0
    assert one.tokens_per_s > 0
    assert one.peak_memory_mib > 100
    head, rule, line = cost_table._markdown([one]).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.startswith(f"| lora | float32 | 1 x 2 | {one.learned:,} |")


def test_adapters_are_a_small_part_of_what_full_learns(tiny_llm: Path) -> None:
    costs = [
        cost_table.measure(
            LlmConfig(method=method, batch_size=1, max_seq_length=256), tiny_llm, PAIRS, steps=1
        )
        for method in cost_table.CPU_METHODS
    ]
    full, lora = costs
    assert lora.learned < full.learned / 5
    assert lora.checkpoint_mib < full.checkpoint_mib / 5
