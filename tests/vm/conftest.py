"""Makes fixtures of kernel_fixtures known to pytest, and shows the figures that tests noted."""

import pytest
from kernel_fixtures import (
    FIGURES,
    expected,
    figure,
    kernel,
    make_pool,
    mount,
    mounted,
    pool,
)

__all__ = ["expected", "figure", "kernel", "make_pool", "mount", "mounted", "pool"]


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, report: pytest.CollectReport | pytest.TestReport
) -> None:
    """Show what failed at once: the machine may not live to the end of the suite."""
    shown = node.config.pluginmanager.getplugin("terminalreporter")
    if isinstance(shown, pytest.TerminalReporter):
        shown.write_line(f"\n{report.longreprtext}\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("figures, which nobody asserts")
        for name, sentence in FIGURES:
            terminalreporter.line(f"{name}: {sentence}")
