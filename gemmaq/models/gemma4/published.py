"""Google's memory figures for Gemma 4.

Sources: the load table of ai.google.dev's Gemma documentation, as it stood in November 2026; the figures of Google's
announcement of the QAT checkpoints, 5 June 2026. The table changed in between, so both go by their dates.
"""

from __future__ import annotations

from gemmaq.models.published import PublishedMemory, Table

MEMORY = PublishedMemory(
    publisher="Google",
    tables=(
        Table(
            title="documentation: memory to load, GB",
            date="read November 2026",
            columns=("bf16", "sfp8", "q4_0", "mobile", "mobile text-only"),
            rows={
                "gemma-4-E2B": (11.4, 5.7, 2.9, 1.1, 0.84),
                "gemma-4-E4B": (17.9, 8.9, 4.5, 2.5, 2.2),
                "gemma-4-12B": (26.7, 13.4, 6.7, None, None),
                "gemma-4-26B-A4B": (57.7, 28.8, 14.4, None, None),
                "gemma-4-31B": (69.9, 34.9, 17.5, None, None),
            },
        ),
        Table(
            title="figures for Gemma 4, GB",
            date="at the QAT announcement, 5 June 2026",
            columns=("bf16", "q4_0"),
            rows={
                "gemma-4-E2B": (9.6, 3.2),
                "gemma-4-E4B": (15, 5),
                "gemma-4-12B": ("about 24", "about 7"),
                "gemma-4-26B-A4B": (48, "about 15"),
                "gemma-4-31B": ("about 58", "17-18"),
            },
        ),
    ),
    report=None,
    remarks=(
        "In the table of November, Q4_0 is a quarter of BF16, which is 12 to 14 % above two bytes a parameter.",
        "Google's own Q4_0 files are larger: E2B 3.35, E4B 5.15, 12B 6.98, 26B-A4B 14.44, 31B 17.65 GB. Their "
        "embeddings are Q6_K.",
    ),
)
